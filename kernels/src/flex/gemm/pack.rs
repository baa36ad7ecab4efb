//! Operands of a product, and how a panel of them is packed (and decoded) for a micro-kernel.
//!
//! An operand is read in runs, along the depth or across it, whichever is contiguous in memory. Runs
//! are rounded and paired where they are contiguous, then laid down as the panel's rows.

use half::bf16;

use super::shuffle;
use crate::frozen::FrozenMatrix;
use crate::precision::Precision;

/// Which way an operand's runs lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runs {
    /// A run is one row, along the depth.
    AlongDepth,
    /// A run is one depth, across the rows.
    AcrossRows,
}

/// One side of a product: element `(row, depth)`.
pub(crate) trait Operand: Sync {
    /// Which way its runs lie.
    fn runs(&self) -> Runs;

    /// The run of line `line` (a row, or a depth) from `start` on. It may be borrowed from memory or
    /// be decoded into `scratch`, which has its length.
    fn run<'s>(&'s self, line: usize, start: usize, scratch: &'s mut [f32]) -> &'s [f32];
}

/// An `f32` matrix in memory whose lines are `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    stride: usize,
    runs: Runs,
}

impl<'a> View<'a> {
    /// Row-major matrix with `cols` columns.
    pub(crate) fn rows(data: &'a [f32], cols: usize) -> Self {
        Self { data, stride: cols, runs: Runs::AlongDepth }
    }

    /// The transpose of a row-major matrix with `cols` columns.
    pub(crate) fn transposed(data: &'a [f32], cols: usize) -> Self {
        Self { data, stride: cols, runs: Runs::AcrossRows }
    }
}

impl Operand for View<'_> {
    fn runs(&self) -> Runs {
        self.runs
    }

    #[inline(always)]
    fn run<'s>(&'s self, line: usize, start: usize, scratch: &'s mut [f32]) -> &'s [f32] {
        let start = line * self.stride + start;
        &self.data[start..start + scratch.len()]
    }
}

/// A frozen weight `[out, in]` as an operand whose rows are output features: `y = x·Wᵀ`.
pub(crate) struct ByOutput<'a>(pub(crate) &'a FrozenMatrix);

impl Operand for ByOutput<'_> {
    fn runs(&self) -> Runs {
        Runs::AlongDepth
    }

    fn run<'s>(&'s self, line: usize, start: usize, scratch: &'s mut [f32]) -> &'s [f32] {
        self.0.decode(line, start, scratch);
        scratch
    }
}

/// A frozen weight `[out, in]` as an operand whose rows are input features: `dx = dy·W`.
pub(crate) struct ByInput<'a>(pub(crate) &'a FrozenMatrix);

impl Operand for ByInput<'_> {
    fn runs(&self) -> Runs {
        Runs::AcrossRows
    }

    fn run<'s>(&'s self, line: usize, start: usize, scratch: &'s mut [f32]) -> &'s [f32] {
        self.0.decode(line, start, scratch);
        scratch
    }
}

/// Buffers that a thread packs through.
#[derive(Default)]
pub(super) struct Buffers {
    run: Vec<f32>,
    lines: Vec<f32>,
}

/// The part of an operand that a panel holds.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) row0: usize,
    pub(super) rows: usize,
    pub(super) depth0: usize,
    pub(super) depth: usize,
}

/// Packs a block into `panel`, `[steps][width]`: `steps` is the depth, or half of it (rounded up) for a
/// kernel of bf16 pairs. Columns beyond the block's rows hold anything. Returns the steps.
///
/// With [`Precision::Bf16`] and a kernel of f32 the values are rounded to bf16, so that the product has
/// the same operands on every processor.
pub(super) fn pack(
    operand: &impl Operand,
    block: Block,
    panel: &mut [f32],
    width: usize,
    pairs: bool,
    precision: Precision,
    buffers: &mut Buffers,
) -> usize {
    let steps = if pairs { block.depth.div_ceil(2) } else { block.depth };
    match operand.runs() {
        Runs::AlongDepth => along_depth(operand, block, panel, width, pairs, steps, buffers),
        Runs::AcrossRows => across_rows(operand, block, panel, width, pairs, steps, buffers),
    }
    if precision == Precision::Bf16 && !pairs {
        for value in &mut panel[..steps * width] {
            *value = bf16::from_f32(*value).to_f32();
        }
    }
    steps
}

/// Rows are gathered as lines of `steps` words, then transposed into the panel.
fn along_depth(
    operand: &impl Operand,
    block: Block,
    panel: &mut [f32],
    width: usize,
    pairs: bool,
    steps: usize,
    buffers: &mut Buffers,
) {
    let Buffers { run, lines } = buffers;
    run.resize(block.depth, 0.0);
    lines.resize(block.rows * steps, 0.0);
    for (i, line) in lines.chunks_exact_mut(steps).enumerate() {
        let values = operand.run(block.row0 + i, block.depth0, run);
        if pairs {
            shuffle::pair_run(values, line);
        } else {
            line.copy_from_slice(values);
        }
    }
    shuffle::transpose(lines, block.rows, steps, panel, width);
}

/// Depths are the panel's rows already; two of them make a row of pairs.
fn across_rows(
    operand: &impl Operand,
    block: Block,
    panel: &mut [f32],
    width: usize,
    pairs: bool,
    steps: usize,
    buffers: &mut Buffers,
) {
    let Buffers { run, lines } = buffers;
    let rows = block.rows;
    run.resize(rows, 0.0);
    lines.resize(rows.max(1), 0.0);
    for (step, out) in panel.chunks_exact_mut(width).take(steps).enumerate() {
        if pairs {
            let depth = block.depth0 + 2 * step;
            let low = operand.run(depth, block.row0, run);
            let lines = &mut lines[..rows];
            if 2 * step + 1 < block.depth {
                shuffle::pair_lines(low, operand.run(depth + 1, block.row0, lines), out);
            } else {
                lines.fill(0.0);
                shuffle::pair_lines(low, lines, out);
            }
        } else {
            let values = operand.run(block.depth0 + step, block.row0, run);
            for (out, &value) in out.iter_mut().zip(values) {
                *out = value;
            }
        }
    }
}
