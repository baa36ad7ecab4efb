//! Heads of queries and keys as sides of a product, where they lie.

use super::super::gemm::{Operand, Runs};
use super::super::matrix::Matrix;
use crate::layout::{AttentionShape, Span};

/// One key head's columns of a `[tokens, width]` matrix, from row `row` on.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) data: Matrix<'a>,
    pub(super) width: usize,
    pub(super) row: usize,
    pub(super) column: usize,
}

impl Operand for Head<'_> {
    fn runs(&self) -> Runs {
        Runs::AlongDepth
    }

    fn run<'s>(&'s self, line: usize, start: usize, scratch: &'s mut [f32]) -> &'s [f32] {
        self.data.run(self.start(line) + start, scratch)
    }

    fn halves(&self, line: usize, start: usize, len: usize) -> Option<&[u16]> {
        self.data.halves(self.start(line) + start, len)
    }
}

impl<'a> Head<'a> {
    /// The keys, or values, of a span and key head.
    pub(super) fn of_keys(
        data: Matrix<'a>,
        shape: &AttentionShape,
        span: &Span,
        kv_head: usize,
    ) -> Self {
        let width = shape.kv_heads * shape.head_dim;
        Self { data, width, row: span.keys.start, column: kv_head * shape.head_dim }
    }

    /// Where a row begins.
    fn start(&self, line: usize) -> usize {
        (self.row + line) * self.width + self.column
    }
}

/// The query heads of a key head, one below the other: `rows` rows of each, `dim` wide.
#[derive(Clone, Copy)]
pub(super) struct Stacked<'a> {
    pub(super) first: Head<'a>,
    pub(super) rows: usize,
    pub(super) dim: usize,
}

impl Stacked<'_> {
    /// Where a stacked row begins.
    pub(super) fn start(&self, line: usize) -> usize {
        let Head { width, row, column, .. } = self.first;
        (row + line % self.rows) * width + column + line / self.rows * self.dim
    }
}

impl Operand for Stacked<'_> {
    fn runs(&self) -> Runs {
        Runs::AlongDepth
    }

    fn run<'s>(&'s self, line: usize, start: usize, scratch: &'s mut [f32]) -> &'s [f32] {
        self.first.data.run(self.start(line) + start, scratch)
    }

    fn halves(&self, line: usize, start: usize, len: usize) -> Option<&[u16]> {
        self.first.data.halves(self.start(line) + start, len)
    }
}

/// The transpose of an operand whose runs lie along the depth.
pub(super) struct Across<T>(pub(super) T);

impl<T: Operand> Operand for Across<T> {
    fn runs(&self) -> Runs {
        Runs::AcrossRows
    }

    fn run<'s>(&'s self, line: usize, start: usize, scratch: &'s mut [f32]) -> &'s [f32] {
        self.0.run(line, start, scratch)
    }

    fn halves(&self, line: usize, start: usize, len: usize) -> Option<&[u16]> {
        self.0.halves(line, start, len)
    }
}
