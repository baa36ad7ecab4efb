//! AdamW, Loshchilov and Hutter 2019, with PyTorch's numerics: decay before the step, bias correction
//! in f64, `eps` outside the square root.
//!
//! Follows `_single_tensor_adamw` of PyTorch (`torch/optim/adam.py`), and with moments in 8 bits
//! `AdamW8bit` of bitsandbytes. One pass over each tensor clips, decays, remembers and steps, where the
//! backend has it: [`GradientSums`] and [`AdamWState`] never leave the device that computes, but for the
//! checkpoints that moments go to and come from.

pub mod blockwise;
mod moments;

use std::borrow::Cow;
use std::ops::Range;

pub use moments::{Moments, StateFormat};

/// Hyperparameters; PyTorch's defaults are 0.9, 0.999, 1e-8 and 0.01.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Decay of matrices, times the learning rate.
    pub weight_decay: f64,
    /// How the moments are kept.
    pub states: StateFormat,
}

/// A tensor that is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// Where its values are among those of all; one tensor begins where the last one ended.
    pub range: Range<usize>,
    /// Whether its weights decay.
    pub decays: bool,
    /// Its learning rate, in those of the step: 1 is the step's own.
    pub rate: f64,
}

/// Sums of the gradients of all trained tensors.
pub trait GradientSums: Sized {
    /// Where they are.
    type Device;

    /// A gradient there.
    type Tensor;

    /// Zeros for tensors that are in order.
    fn zeros(tensors: &[Trained], device: &Self::Device) -> Self;

    /// Adds a gradient of tensor `index`.
    ///
    /// # Panics
    /// If it has not as many values.
    fn add(&mut self, index: usize, gradient: Self::Tensor);

    /// Adds the rows of `gradient`, `[ids, width]`, to rows `ids` of tensor `index`, which is a table of
    /// that width; those of one id are summed first, in their order.
    ///
    /// # Panics
    /// If the table has no such rows.
    fn add_rows(&mut self, index: usize, ids: &[u32], gradient: Self::Tensor);

    /// Adds so many times what another gradient of the same tensors has.
    ///
    /// # Panics
    /// If it is one of others.
    fn add_scaled(&mut self, other: &Self, factor: f32);

    /// Hands all sums to `change`, some at a time and in their order, each time with the place of the first
    /// one among all: for noise, and for what is summed over several processes.
    fn change(&mut self, change: &mut dyn FnMut(usize, &mut [f32]));

    /// The Euclidean norm.
    fn norm(&self) -> f64;

    /// A copy of all sums.
    fn values(&self) -> Vec<f32>;
}

/// What AdamW remembers of all trained tensors.
pub trait AdamWState: Sized {
    /// Where it is.
    type Device;

    /// A trained tensor there.
    type Tensor;

    /// Sums of gradients there.
    type Sums;

    /// Nothing remembered yet, of tensors that are in order.
    fn new(format: StateFormat, tensors: Vec<Trained>, device: &Self::Device) -> Self;

    /// The moments of tensor `index`.
    fn moments(&self, index: usize) -> Cow<'_, Moments>;

    /// Replaces the moments of tensor `index`.
    ///
    /// # Panics
    /// If that tensor's have another form.
    fn set_moments(&mut self, index: usize, moments: Moments);

    /// One step of all tensors along their gradients. A tensor that nobody else holds keeps its memory.
    ///
    /// # Panics
    /// If there are not as many tensors, of such sizes.
    fn step(
        &mut self,
        values: Vec<Self::Tensor>,
        gradient: &Self::Sums,
        rule: &Rule,
    ) -> Vec<Self::Tensor>;
}

/// What a step does to each value.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub(crate) clip: f32,
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) keep1: f32,
    pub(crate) keep2: f32,
    pub(crate) correction2: f32,
    pub(crate) eps: f32,
    correction1: f64,
    learning_rate: f64,
    weight_decay: f64,
}

impl Rule {
    /// The rule of step `step`, counted from 1, along `clip · gradient`.
    pub fn new(config: AdamWConfig, step: u64, clip: f32, learning_rate: f64) -> Self {
        let AdamWConfig { beta1, beta2, eps, weight_decay, states: _ } = config;
        let exponent = i32::try_from(step).unwrap_or(i32::MAX);
        let correction1 = 1.0 - beta1.powi(exponent);
        Self {
            clip,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            keep1: (1.0 - beta1) as f32,
            keep2: (1.0 - beta2) as f32,
            correction2: (1.0 - beta2.powi(exponent)).sqrt() as f32,
            eps: eps as f32,
            correction1,
            learning_rate,
            weight_decay,
        }
    }

    /// What the values of a tensor are multiplied with first, and how far one step along the whole quotient of
    /// its moments goes.
    pub(crate) fn shrink_and_step(&self, Trained { decays, rate, .. }: &Trained) -> [f32; 2] {
        let rate = self.learning_rate * rate;
        let shrink = if *decays { (1.0 - rate * self.weight_decay) as f32 } else { 1.0 };
        [shrink, (rate / self.correction1) as f32]
    }
}

/// Asserts that there is one tensor for each of `tensors`, as large as it.
pub(crate) fn check_sizes(tensors: &[Trained], lengths: impl ExactSizeIterator<Item = usize>) {
    assert_eq!(lengths.len(), tensors.len(), "tensors of one optimizer");
    for (index, (tensor, len)) in tensors.iter().zip(lengths).enumerate() {
        assert_eq!(len, tensor.range.len(), "values of trained tensor {index}");
    }
}
