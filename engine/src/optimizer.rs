//! AdamW over the tensors of [`Parameters`]: which step it is, and with which hyperparameters. The rule and
//! the moments are [`graft_kernels::adamw`]'s, on the device that computes.

use std::borrow::Cow;

use burn::tensor::ops::FloatTensor;
use graft_kernels::Kernels;
pub use graft_kernels::adamw::{AdamWConfig, Moments, StateFormat, blockwise};
use graft_kernels::adamw::{AdamWState, Rule};

use crate::Parameters;

/// The optimizer's state over the tensors of [`Parameters`], in their order.
#[derive(Debug)]
pub struct AdamW<B: Kernels> {
    config: AdamWConfig,
    steps: u64,
    state: B::AdamWState,
}

impl<B: Kernels> AdamW<B> {
    /// A fresh state.
    pub fn new(config: AdamWConfig, parameters: &Parameters, device: &B::Device) -> Self {
        let state = B::AdamWState::new(config.states, parameters.trained(), device);
        Self { config, steps: 0, state }
    }

    /// Goes on as after `steps` steps with the moments that each tensor had, one at a time.
    ///
    /// # Errors
    /// The first of `moments`; the state is then of no use.
    pub fn restore<E>(
        &mut self,
        steps: u64,
        moments: impl IntoIterator<Item = Result<Moments, E>>,
    ) -> Result<(), E> {
        for (index, moments) in moments.into_iter().enumerate() {
            self.state.set_moments(index, moments?);
        }
        self.steps = steps;
        Ok(())
    }

    /// Hyperparameters.
    pub fn config(&self) -> AdamWConfig {
        self.config
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The moments of tensor `index`.
    pub fn moments(&self, index: usize) -> Cow<'_, Moments> {
        self.state.moments(index)
    }

    /// One step of all tensors along `clip · gradient`.
    ///
    /// # Panics
    /// If these are not the tensors that it remembers.
    pub fn step(
        &mut self,
        values: Vec<FloatTensor<B>>,
        gradient: &B::GradientSums,
        clip: f32,
        learning_rate: f64,
    ) -> Vec<FloatTensor<B>> {
        self.steps += 1;
        let rule = Rule::new(self.config, self.steps, clip, learning_rate);
        self.state.step(values, gradient, &rule)
    }
}
