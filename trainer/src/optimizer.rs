//! AdamW, Loshchilov and Hutter 2019, with PyTorch's numerics: decay before the step, bias correction
//! in f64, `eps` outside the square root.
//!
//! Follows `_single_tensor_adamw` of PyTorch (`torch/optim/adam.py`), over one flat buffer in one pass.

use rayon::prelude::*;

use crate::engine::Parameters;

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
}

/// The optimizer's state over the buffer of [`Parameters`].
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    config: AdamWConfig,
    step: u64,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl AdamW {
    /// A fresh state for `len` values.
    pub fn new(config: AdamWConfig, len: usize) -> Self {
        Self { config, step: 0, first: vec![0.0; len], second: vec![0.0; len] }
    }

    /// A state as saved: steps done, first and second moments.
    pub fn restore(config: AdamWConfig, step: u64, first: Vec<f32>, second: Vec<f32>) -> Self {
        assert_eq!(first.len(), second.len(), "moments of one buffer");
        Self { config, step, first, second }
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// First and second moments.
    pub fn moments(&self) -> [&[f32]; 2] {
        [&self.first, &self.second]
    }

    /// One step along `gradient`.
    pub fn step(&mut self, parameters: &mut Parameters, gradient: &[f32], learning_rate: f64) {
        self.step += 1;
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let exponent = i32::try_from(self.step).unwrap_or(i32::MAX);
        let correction1 = 1.0 - beta1.powi(exponent);
        let correction2 = (1.0 - beta2.powi(exponent)).sqrt() as f32;
        let step_size = (learning_rate / correction1) as f32;
        let (keep1, keep2) = ((1.0 - beta1) as f32, (1.0 - beta2) as f32);
        let (beta2, eps) = (beta2 as f32, eps as f32);
        let slots = parameters.slots().to_vec();
        for slot in slots {
            let range = slot.range.clone();
            let decay = if slot.decays() { weight_decay } else { 0.0 };
            let shrink = (1.0 - learning_rate * decay) as f32;
            parameters.values_mut()[range.clone()]
                .par_iter_mut()
                .zip(&gradient[range.clone()])
                .zip(self.first[range.clone()].par_iter_mut())
                .zip(self.second[range].par_iter_mut())
                .with_min_len(1 << 14)
                .for_each(|(((value, &gradient), first), second)| {
                    *value *= shrink;
                    *first += keep1 * (gradient - *first);
                    *second = *second * beta2 + keep2 * gradient * gradient;
                    let denominator = second.sqrt() / correction2 + eps;
                    *value -= step_size * (*first / denominator);
                });
        }
    }
}
