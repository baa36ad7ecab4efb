//! The order of all trainable tensors, and the sums in which their gradients leave the blocks by name.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::tensor::TensorData;
use burn::tensor::ops::FloatTensor;
use graft_adapters::Trainable;
use graft_kernels::adamw::{GradientSums, Trained};
use graft_kernels::{Kernels, Ops};
use graft_model::{Llama, Seat};

use crate::sink::Sink;

/// One tensor in the buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// Its name in the model.
    pub name: String,
    /// Where in the model it stands.
    pub seat: Seat,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Where its values are in a gradient.
    pub range: Range<usize>,
    /// Its learning rate, in those of the step.
    pub rate: f64,
}

impl Slot {
    /// Whether weight decay applies: to matrices, not to the scales of norms.
    pub fn decays(&self) -> bool {
        self.shape.len() > 1
    }
}

/// The trainable tensors in their order, which gradients, moments and checkpoints share. Their values
/// are in the model alone.
#[derive(Clone, Debug)]
pub struct Parameters {
    slots: Vec<Slot>,
    index: BTreeMap<String, usize>,
}

impl Parameters {
    /// Collects what is trained in `model`.
    pub fn of<B, P>(model: &mut Llama<B, P>) -> Self
    where
        B: Kernels + Ops<Inner = B>,
        P: Trainable<B>,
    {
        let mut slots: Vec<Slot> = Vec::new();
        model.visit(&mut |param| {
            if P::trains(param.seat()) {
                let start = slots.last().map_or(0, |slot| slot.range.end);
                slots.push(Slot {
                    name: param.name().to_owned(),
                    seat: param.seat(),
                    shape: param.shape(),
                    range: start..start + param.len(),
                    rate: param.rate(),
                });
            }
        });
        let index = slots.iter().enumerate().map(|(i, slot)| (slot.name.clone(), i)).collect();
        Self { slots, index }
    }

    /// Hands all tensors to `change`, in their order, and puts what it gives in their places. They are
    /// moved there and back: nobody else holds them meanwhile.
    pub fn update<B, P>(
        &self,
        model: &mut Llama<B, P>,
        change: impl FnOnce(Vec<FloatTensor<B>>) -> Vec<FloatTensor<B>>,
    ) where
        B: Kernels + Ops<Inner = B>,
        P: Trainable<B>,
    {
        let nothing = TensorData::new(Vec::<f32>::new(), [0]);
        let nothing = B::float_from_data(nothing, &model.device);
        let mut tensors = Vec::with_capacity(self.slots.len());
        model.visit(&mut |param| {
            if let Some(slot) = self.slot(param.name()) {
                debug_assert_eq!(slot, &self.slots[tensors.len()], "the model's order");
                tensors.push(param.replace(nothing.clone()));
            }
        });
        let mut tensors = change(tensors).into_iter();
        model.visit(&mut |param| {
            if let Some(slot) = self.slot(param.name()) {
                param.replace(tensors.next().expect("as many as were taken"));
                debug_assert_eq!(param.shape(), slot.shape, "{}", slot.name);
            }
        });
    }

    /// Sets every tensor to what `values` gives for it, one at a time.
    ///
    /// # Errors
    /// The first of `values`; the tensors after it keep their values.
    pub fn fill<B, P, E>(
        &self,
        model: &mut Llama<B, P>,
        mut values: impl FnMut(&Slot) -> Result<Vec<f32>, E>,
    ) -> Result<(), E>
    where
        B: Kernels + Ops<Inner = B>,
        P: Trainable<B>,
    {
        let mut done = Ok(());
        model.visit(&mut |param| {
            if let Some(slot) = self.slot(param.name()).filter(|_| done.is_ok()) {
                done = values(slot).map(|values| param.put(values, &slot.shape));
            }
        });
        done
    }

    /// The tensors as they are now, in their order. They share their values with the model, so that it
    /// should not change while they are held: it would copy them.
    pub fn tensors<B, P>(&self, model: &mut Llama<B, P>) -> Vec<FloatTensor<B>>
    where
        B: Kernels + Ops<Inner = B>,
        P: Trainable<B>,
    {
        let mut tensors = Vec::with_capacity(self.slots.len());
        model.visit(&mut |param| {
            if self.slot(param.name()).is_some() {
                tensors.push(param.tensor().clone());
            }
        });
        tensors
    }

    /// The tensors in order.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The tensors in order, as an optimizer knows them: where their values are, and whether they decay.
    pub fn trained(&self) -> Vec<Trained> {
        let trained = |slot: &Slot| Trained {
            range: slot.range.clone(),
            decays: slot.decays(),
            rate: slot.rate,
        };
        self.slots.iter().map(trained).collect()
    }

    /// The tensor of this name, if it is trained.
    pub fn slot(&self, name: &str) -> Option<&Slot> {
        self.position(name).map(|i| &self.slots[i])
    }

    /// Where in the order the tensor of this name is, if it is trained.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// Number of trained values.
    pub fn len(&self) -> usize {
        self.slots.last().map_or(0, |slot| slot.range.end)
    }

    /// Whether nothing is trained.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The gradient of all trainable tensors, in the order of [`Parameters`]: the sum over all examples.
#[derive(Debug)]
pub struct Gradient<'a, B: Kernels> {
    parameters: &'a Parameters,
    sums: B::GradientSums,
}

impl<'a, B: Kernels> Gradient<'a, B> {
    /// Zeros.
    pub fn new(parameters: &'a Parameters, device: &B::Device) -> Self {
        let sums = B::GradientSums::zeros(&parameters.trained(), device);
        Self { parameters, sums }
    }

    fn position(&self, name: &str) -> usize {
        self.parameters.position(name).expect("only trainable tensors are leaves")
    }

    /// The sums so far.
    pub fn sums_mut(&mut self) -> &mut B::GradientSums {
        &mut self.sums
    }

    /// The sums.
    pub fn into_sums(self) -> B::GradientSums {
        self.sums
    }
}

impl<B: Kernels> Sink<B> for Gradient<'_, B> {
    fn wants(&self, name: &str) -> bool {
        self.parameters.slot(name).is_some()
    }

    fn add(&mut self, _example: usize, name: &str, gradient: FloatTensor<B>) {
        self.sums.add(self.position(name), gradient);
    }

    fn add_rows(&mut self, _example: usize, name: &str, ids: &[u32], gradient: FloatTensor<B>) {
        self.sums.add_rows(self.position(name), ids, gradient);
    }
}

/// What a gradient of this norm is multiplied with so that it is no longer than `max_norm`:
/// `torch.nn.utils.clip_grad_norm_`.
pub fn clip_factor(norm: f64, max_norm: Option<f64>) -> f32 {
    max_norm.map_or(1.0, |max_norm| (max_norm / (norm + 1e-6)).min(1.0) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_shortens_what_is_long_and_leaves_the_rest_alone() {
        assert!((clip_factor(5.0, Some(1.0)) - 0.2).abs() < 1e-6);
        assert_eq!(clip_factor(0.5, Some(1.0)).to_bits(), 1.0_f32.to_bits());
        assert_eq!(clip_factor(5.0, None).to_bits(), 1.0_f32.to_bits());
    }
}
