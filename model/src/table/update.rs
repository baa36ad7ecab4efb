//! A low-rank update of a table, `W + scale · V·M`: the same whether rows of it are read or products are formed.

use std::ops::Range;

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};
use graft_kernels::{Kernels, Precision, Rounding};

use super::{TableGradient, selected};
use crate::param::Param;

/// `scale · V·M` beside a `[vocab, d_model]` matrix. Its products are small and in f32.
#[derive(Clone, Debug)]
pub struct TableUpdate<B: Kernels> {
    /// `V`, `[vocab, rank]`.
    wide: Param<B>,
    /// `M`, `[rank, d_model]`.
    narrow: Param<B>,
    scale: f32,
}

impl<B: Kernels> TableUpdate<B> {
    /// Of these matrices: `wide` `[vocab, rank]`, `narrow` `[rank, d_model]`.
    pub fn new(wide: Param<B>, narrow: Param<B>, scale: f32) -> Self {
        Self { wide, narrow, scale }
    }

    pub(super) fn params(&self) -> [&Param<B>; 2] {
        [&self.wide, &self.narrow]
    }

    pub(super) fn params_mut(&mut self) -> [&mut Param<B>; 2] {
        [&mut self.wide, &mut self.narrow]
    }

    fn scaled(&self, product: FloatTensor<B>) -> FloatTensor<B> {
        let product = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(product));
        (product * self.scale).into_primitive().tensor()
    }

    /// What it adds to rows `ids`: `[ids, d_model]`.
    pub(super) fn rows(&self, ids: &[u32]) -> FloatTensor<B> {
        let wide = selected::<B>(self.wide.tensor(), 0, ids);
        self.scaled(B::dense_linear_dx(&wide, self.narrow.tensor(), Precision::F32))
    }

    pub(super) fn rows_gradients(
        &self,
        ids: &[u32],
        dy: &FloatTensor<B>,
    ) -> Vec<TableGradient<'_, B>> {
        let wide = selected::<B>(self.wide.tensor(), 0, ids);
        let d_wide = B::dense_linear(dy, self.narrow.tensor(), Precision::F32, Rounding::Exact);
        let d_narrow = B::dense_linear_dw(&wide, dy, Precision::F32);
        self.gradients(ids.to_vec(), d_wide, d_narrow)
    }

    fn gradients(
        &self,
        rows: Vec<u32>,
        d_wide: FloatTensor<B>,
        d_narrow: FloatTensor<B>,
    ) -> Vec<TableGradient<'_, B>> {
        let of = |param, rows, values| TableGradient {
            name: Param::name(param),
            rows,
            values: self.scaled(values),
        };
        vec![of(&self.wide, Some(rows), d_wide), of(&self.narrow, None, d_narrow)]
    }

    /// `x·Mᵀ`: `[rows, rank]`.
    fn low(&self, x: &FloatTensor<B>) -> FloatTensor<B> {
        B::dense_linear(x, self.narrow.tensor(), Precision::F32, Rounding::Exact)
    }

    /// What it adds to logits of `x`: `[rows, vocab]`.
    pub(super) fn logits(&self, x: &FloatTensor<B>) -> FloatTensor<B> {
        // The narrow factor is the smaller one to scale.
        let low = self.scaled(self.low(x));
        B::dense_linear(&low, self.wide.tensor(), Precision::F32, Rounding::Exact)
    }

    /// `dy·V`: `[rows, rank]`.
    fn d_low(&self, dy: &FloatTensor<B>) -> FloatTensor<B> {
        B::dense_linear_dx(dy, self.wide.tensor(), Precision::F32)
    }

    pub(super) fn logits_dx(&self, dy: &FloatTensor<B>) -> FloatTensor<B> {
        let d_low = self.scaled(self.d_low(dy));
        B::dense_linear_dx(&d_low, self.narrow.tensor(), Precision::F32)
    }

    pub(super) fn logits_gradients(
        &self,
        first: usize,
        dy: &FloatTensor<B>,
        x: &FloatTensor<B>,
    ) -> Vec<TableGradient<'_, B>> {
        let rows = (first..first + self.wide.shape()[0]).map(|row| row as u32).collect();
        let d_wide = B::dense_linear_dw(dy, &self.low(x), Precision::F32);
        let d_narrow = B::dense_linear_dw(&self.d_low(dy), x, Precision::F32);
        self.gradients(rows, d_wide, d_narrow)
    }

    /// That of some rows of the table.
    pub(super) fn band(&self, rows: Range<usize>) -> Self {
        let whole = TensorPrimitive::Float(self.wide.tensor().clone());
        let whole = Tensor::<B, 2>::from_primitive(whole);
        let part = whole.narrow(0, rows.start, rows.len()).into_primitive().tensor();
        let mut band = self.clone();
        band.wide.replace(part);
        band
    }
}
