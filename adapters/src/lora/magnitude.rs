//! The length of each row of an adapted weight, trained apart from its direction: DoRA, Liu et al. 2024,
//! `W' = m ⊙ (W + ΔW) / ‖W + ΔW‖` with `ΔW = scale · B·A`, in the layout of PEFT: `m` `[out]`.
//!
//! As section 4.3 there has it, and PEFT, the length is a constant of the gradient. It is found without making the sum:
//! `‖w + Δw‖² = ‖w‖² + 2·scale·b·(A·wᵀ) + scale²·b·(A·Aᵀ)·bᵀ`, so that a step takes one product with as many rows as the
//! rank has, and only the step that changes the update takes it again.
//!
//! Dropout is that of the update: what it drops is left out of `ΔW` alone. PEFT drops it from the part of the base that
//! the magnitudes add too, which takes a second product with the base.

use std::sync::OnceLock;

use burn::tensor::ops::FloatTensor;
use burn::tensor::{TensorData, TensorMetadata};
use graft_kernels::{FrozenMatrix, Kernels, Precision, Rounding};
use graft_model::Param;
use rayon::prelude::*;

use super::add_update_row;

/// Below this a row has no direction: nothing is divided by less.
const LEAST: f32 = 1e-12;

/// The magnitudes of one projection.
#[derive(Clone, Debug)]
pub(super) struct Magnitude<B: Kernels> {
    /// `m` `[out]`.
    pub(super) param: Param<B>,
    /// The length of every row of the base, `[out]`.
    base: FloatTensor<B>,
    /// The length of every row of base and update, `[out]`, for as long as the update stays as it is.
    lengths: OnceLock<FloatTensor<B>>,
}

impl<B: Kernels> Magnitude<B> {
    /// Magnitudes beside a base with rows of these lengths.
    pub(super) fn new(param: Param<B>, lengths: &[f32], device: &B::Device) -> Self {
        let base = TensorData::new(lengths.to_vec(), [lengths.len()]);
        let base = B::float_from_data(base, device);
        Self { param, base, lengths: OnceLock::new() }
    }

    /// The update may be another from here on.
    pub(super) fn forget(&mut self) {
        self.lengths.take();
    }

    /// `‖W + scale · B·A‖` of every row, `[out]`.
    pub(super) fn lengths(
        &self,
        weight: &B::Frozen,
        a: &FloatTensor<B>,
        b: &FloatTensor<B>,
        scale: f32,
    ) -> FloatTensor<B> {
        let find = || {
            let (precision, exact) = (Precision::F32, Rounding::Exact);
            // `W·Aᵀ` [out, rank], and `B·(A·Aᵀ)` [out, rank]: a symmetric right side.
            let across = B::float_transpose(B::frozen_linear(a, weight, precision, exact));
            let within =
                B::dense_linear(b, &B::dense_linear(a, a, precision, exact), precision, exact);
            let twice = B::float_mul_scalar(across, (2.0 * scale).into());
            let within = B::float_mul_scalar(within, (scale * scale).into());
            let terms = B::float_mul(b.clone(), B::float_add(twice, within));
            let change = B::float_reshape(B::float_sum_dim(terms, 1), self.base.shape());
            // In squares of the base's length: without an update that one comes back to the bit.
            let [base, again] = [(); 2].map(|()| self.base.clone());
            let share = B::float_div(B::float_div(change, self.base.clone()), again);
            let share = B::float_clamp_min(B::float_add_scalar(share, 1.0.into()), 0.0.into());
            B::float_clamp_min(B::float_mul(B::float_sqrt(share), base), LEAST.into())
        };
        self.lengths.get_or_init(find).clone()
    }
}

/// The Euclidean length of a row, at least the least that can be divided by.
pub(crate) fn row_norm(row: &[f32]) -> f32 {
    let sum: f64 = row.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    (sum.sqrt() as f32).max(LEAST)
}

/// The length of every row of a weight with an update, `a` `[rank, in]` and `b` `[out, rank]`; of the weight alone where
/// the rank is 0.
pub(super) fn row_norms(weight: &FrozenMatrix, a: &[f32], b: &[f32], scale: f32) -> Vec<f32> {
    let [out, inner] = weight.shape();
    let rank = b.len() / out.max(1);
    let length = |row: &mut Vec<f32>, index: usize| {
        weight.decode(index, 0, row);
        let factors: Vec<f32> = b[index * rank..][..rank].iter().map(|b| scale * b).collect();
        add_update_row(&factors, a, row);
        row_norm(row)
    };
    (0..out).into_par_iter().map_init(|| vec![0.0; inner], length).collect()
}
