//! The two tables of a model, embedding and output head: rows of a matrix, or products with it.

use std::ops::Range;

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Int, Tensor, TensorData, TensorPrimitive};
use graft_kernels::{FrozenMatrix, Kernels, Precision, Rounding};

use crate::param::Param;
use crate::seat::Seat;

/// Values of a band of a table: 32 MiB of bf16.
pub const BAND: usize = 1 << 24;

/// The bands of rows that a `[vocab, d_model]` table is read in.
pub fn bands([vocab, d_model]: [usize; 2]) -> Vec<Range<usize>> {
    let rows = (BAND / d_model).max(1);
    (0..vocab).step_by(rows).map(|first| first..vocab.min(first + rows)).collect()
}

/// A `[vocab, d_model]` matrix, frozen or trained.
#[derive(Clone, Debug)]
pub enum Table<B: Kernels> {
    /// Read only.
    Frozen(B::Frozen),
    /// Dense and trainable.
    Dense(Param<B>),
}

impl<B: Kernels> Table<B> {
    /// A frozen table.
    pub fn frozen(matrix: FrozenMatrix, device: &B::Device) -> Self {
        Self::Frozen(B::freeze(matrix, device))
    }

    /// A trainable table at `seat` with the values of `matrix`.
    pub fn dense(seat: Seat, matrix: &FrozenMatrix, device: &B::Device) -> Self {
        let name = seat.checkpoint_name();
        Self::Dense(Param::new(name, seat, matrix.to_f32(), &matrix.shape(), device))
    }

    /// Rows `ids`: `[ids, d_model]`.
    pub fn rows(&self, ids: &[u32], device: &B::Device) -> FloatTensor<B> {
        match self {
            Self::Frozen(weight) => B::frozen_rows(weight, ids, device),
            Self::Dense(param) => {
                let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
                let ids = Tensor::<B, 1, Int>::from_data(TensorData::from(ids.as_slice()), device);
                let table =
                    Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(param.tensor().clone()));
                table.select(0, ids).into_primitive().tensor()
            }
        }
    }

    /// `x·Wᵀ`: `[rows, d_model]` → `[rows, vocab]`.
    pub fn logits(&self, x: &FloatTensor<B>, precision: Precision) -> FloatTensor<B> {
        match self {
            Self::Frozen(weight) => B::frozen_linear(x, weight, precision, Rounding::Exact),
            Self::Dense(param) => B::dense_linear(x, param.tensor(), precision, Rounding::Exact),
        }
    }

    /// `x·Wᵀ` for the next token of a few sequences: `[sequences, d_model]` → `[sequences, vocab]`. The sums may
    /// run in another order than those of [`Table::logits`].
    pub fn next_logits(&self, x: &FloatTensor<B>, precision: Precision) -> FloatTensor<B> {
        match self {
            Self::Frozen(weight) => B::frozen_linear_decode(x, weight, precision),
            Self::Dense(_) => self.logits(x, precision),
        }
    }

    /// The table in bands of rows: what a product with one of them packs and touches stays small. Each with
    /// its first row.
    pub fn bands(&self) -> Vec<(usize, Self)> {
        let Self::Frozen(weight) = self else { return vec![(0, self.clone())] };
        let cut = bands(B::frozen_shape(weight))
            .into_iter()
            .map(|band| Some((band.start, Self::Frozen(B::frozen_band(weight, band)?))));
        cut.collect::<Option<_>>().unwrap_or_else(|| vec![(0, self.clone())])
    }

    /// Number of rows.
    pub fn vocab(&self) -> usize {
        match self {
            Self::Frozen(weight) => B::frozen_shape(weight)[0],
            Self::Dense(param) => param.shape()[0],
        }
    }

    /// `dy·W`: the gradient of [`Table::logits`] with respect to `x`.
    pub fn logits_dx(&self, dy: &FloatTensor<B>, precision: Precision) -> FloatTensor<B> {
        match self {
            Self::Frozen(weight) => B::frozen_linear_dx(dy, weight, precision),
            Self::Dense(param) => B::dense_linear_dx(dy, param.tensor(), precision),
        }
    }

    /// The dense tensor, if it is trained.
    pub fn param_mut(&mut self) -> Option<&mut Param<B>> {
        match self {
            Self::Frozen(_) => None,
            Self::Dense(param) => Some(param),
        }
    }

    /// The dense tensor, if it is trained.
    pub fn param(&self) -> Option<&Param<B>> {
        match self {
            Self::Frozen(_) => None,
            Self::Dense(param) => Some(param),
        }
    }
}
