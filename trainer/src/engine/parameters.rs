//! All trainable tensors in one flat buffer, in the model's order.

use std::collections::BTreeMap;
use std::ops::Range;

use graft_adapters::Trainable;
use graft_kernels::{Kernels, Ops};
use graft_model::Llama;

/// One tensor in the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name in the model.
    pub name: String,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Where its values are.
    pub range: Range<usize>,
}

impl Slot {
    /// Whether weight decay applies: to matrices, not to the scales of norms.
    pub fn decays(&self) -> bool {
        self.shape.len() > 1
    }
}

/// The trainable tensors: the flat buffer is what the optimizer changes and checkpoints keep.
#[derive(Clone, Debug)]
pub struct Parameters {
    slots: Vec<Slot>,
    index: BTreeMap<String, usize>,
    values: Vec<f32>,
}

impl Parameters {
    /// Collects what is trained in `model`.
    pub fn of<B, P>(model: &mut Llama<B, P>) -> Self
    where
        B: Kernels + Ops<Inner = B>,
        P: Trainable<B>,
    {
        let mut slots = Vec::new();
        let mut values: Vec<f32> = Vec::new();
        model.visit(&mut |param| {
            if P::trains(param.name()) {
                let start = values.len();
                values.extend(param.values());
                slots.push(Slot {
                    name: param.name().to_owned(),
                    shape: param.shape(),
                    range: start..values.len(),
                });
            }
        });
        let index = slots.iter().enumerate().map(|(i, slot)| (slot.name.clone(), i)).collect();
        Self { slots, index, values }
    }

    /// Writes the buffer back into `model`.
    pub fn store<B, P>(&self, model: &mut Llama<B, P>)
    where
        B: Kernels + Ops<Inner = B>,
        P: Trainable<B>,
    {
        let device = model.device.clone();
        model.visit(&mut |param| {
            if let Some(slot) = self.slot(param.name()) {
                param.set(&self.values[slot.range.clone()], &device);
            }
        });
    }

    /// The tensors in order.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The tensor of this name, if it is trained.
    pub fn slot(&self, name: &str) -> Option<&Slot> {
        self.index.get(name).map(|&i| &self.slots[i])
    }

    /// All values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values, to be changed.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Number of trained values.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing is trained.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// The gradient of all trainable tensors, in the layout of [`Parameters`].
#[derive(Clone, Debug)]
pub struct Gradient<'a> {
    parameters: &'a Parameters,
    values: Vec<f32>,
}

impl<'a> Gradient<'a> {
    /// Zeros.
    pub fn new(parameters: &'a Parameters) -> Self {
        Self { parameters, values: vec![0.0; parameters.len()] }
    }

    /// Adds what a block gives for the tensor `name`.
    pub fn add(&mut self, name: &str, gradient: &[f32]) {
        let slot = self.parameters.slot(name).expect("only trainable tensors are leaves");
        for (sum, value) in self.values[slot.range.clone()].iter_mut().zip(gradient) {
            *sum += value;
        }
    }

    /// Whether the tensor `name` is trained.
    pub fn wants(&self, name: &str) -> bool {
        self.parameters.slot(name).is_some()
    }

    /// The sums.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }
}

/// The Euclidean norm, summed in f64 so that its bits do not depend on a split.
pub fn norm(gradient: &[f32]) -> f64 {
    gradient.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
}

/// Scales the gradient down to `max_norm` as `torch.nn.utils.clip_grad_norm_` does; returns the norm
/// before.
pub fn clip(gradient: &mut [f32], max_norm: Option<f64>) -> f64 {
    let norm = norm(gradient);
    if let Some(max_norm) = max_norm {
        let factor = (max_norm / (norm + 1e-6)).min(1.0) as f32;
        if factor < 1.0 {
            for value in gradient.iter_mut() {
                *value *= factor;
            }
        }
    }
    norm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_keeps_the_direction_and_reports_the_norm_before() {
        let mut gradient = vec![3.0, -4.0];
        assert!((clip(&mut gradient, Some(1.0)) - 5.0).abs() < 1e-12);
        assert!((norm(&gradient) - 1.0).abs() < 1e-6);
        assert!((gradient[0] / gradient[1] + 0.75).abs() < 1e-6);
    }

    #[test]
    fn a_short_gradient_is_left_alone() {
        let mut gradient = vec![0.3, -0.4];
        clip(&mut gradient, Some(1.0));
        assert_eq!(gradient, [0.3, -0.4]);
        clip(&mut gradient, None);
        assert_eq!(gradient, [0.3, -0.4]);
    }
}
