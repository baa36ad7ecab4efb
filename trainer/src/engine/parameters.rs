//! The order of all trainable tensors, and the flat buffer in which their gradients are summed.
//!
//! Sums run over pieces of fixed length, so that no bit depends on the number of threads.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::tensor::ops::FloatTensor;
use graft_adapters::Trainable;
use graft_kernels::{Kernels, Ops};
use graft_model::Llama;
use memmap2::MmapMut;
use rayon::prelude::*;

/// Values that one task sums.
const PIECE: usize = 1 << 16;

/// One tensor in the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name in the model.
    pub name: String,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Where its values are in a gradient.
    pub range: Range<usize>,
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
            if P::trains(param.name()) {
                let start = slots.last().map_or(0, |slot| slot.range.end);
                slots.push(Slot {
                    name: param.name().to_owned(),
                    shape: param.shape(),
                    range: start..start + param.len(),
                });
            }
        });
        let index = slots.iter().enumerate().map(|(i, slot)| (slot.name.clone(), i)).collect();
        Self { slots, index }
    }

    /// Hands the values of all tensors to `change`, in their order, and puts them back. On a CPU they
    /// are moved, not copied.
    pub fn update<B, P>(&self, model: &mut Llama<B, P>, change: impl FnOnce(&mut [Vec<f32>]))
    where
        B: Kernels + Ops<Inner = B>,
        P: Trainable<B>,
    {
        let mut values = Vec::with_capacity(self.slots.len());
        model.visit(&mut |param| {
            if let Some(slot) = self.slot(param.name()) {
                debug_assert_eq!(slot, &self.slots[values.len()], "the model's order");
                values.push(param.take());
            }
        });
        change(&mut values);
        let mut values = self.slots.iter().zip(values);
        model.visit(&mut |param| {
            if self.slot(param.name()).is_some() {
                let (slot, values) = values.next().expect("as many as were taken");
                param.put(values, &slot.shape);
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

/// The gradient of all trainable tensors, in the layout of [`Parameters`].
#[derive(Debug)]
pub struct Gradient<'a> {
    parameters: &'a Parameters,
    /// Zero pages of the system: they take memory from when a block first adds to them, which is when the
    /// backward pass has given that of the blocks above back.
    values: MmapMut,
}

impl<'a> Gradient<'a> {
    /// Zeros.
    pub fn new(parameters: &'a Parameters) -> Self {
        let bytes = parameters.len() * size_of::<f32>();
        let values = MmapMut::map_anon(bytes.max(1)).expect("the system maps memory");
        Self { parameters, values }
    }

    /// Adds what a block gives for the tensor `name`.
    pub fn add(&mut self, name: &str, gradient: &[f32]) {
        let slot = self.parameters.slot(name).expect("only trainable tensors are leaves");
        let range = slot.range.start * size_of::<f32>()..slot.range.end * size_of::<f32>();
        let sums: &mut [f32] = bytemuck::cast_slice_mut(&mut self.values[range]);
        let sums = sums.par_chunks_mut(PIECE);
        sums.zip(gradient.par_chunks(PIECE)).for_each(|(sums, gradient)| {
            for (sum, value) in sums.iter_mut().zip(gradient) {
                *sum += value;
            }
        });
    }

    /// Whether the tensor `name` is trained.
    pub fn wants(&self, name: &str) -> bool {
        self.parameters.slot(name).is_some()
    }

    /// The sums.
    pub fn into_values(self) -> Vec<f32> {
        let bytes = self.parameters.len() * size_of::<f32>();
        bytemuck::cast_slice(&self.values[..bytes]).to_vec()
    }
}

/// The Euclidean norm, summed in f64.
pub fn norm(gradient: &[f32]) -> f64 {
    const LANES: usize = 8;
    let sum = |piece: &[f32]| {
        let mut sums = [0.0; LANES];
        let (rows, rest) = piece.as_chunks::<LANES>();
        for row in rows {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += f64::from(value) * f64::from(value);
            }
        }
        let rest = rest.iter().map(|&value| f64::from(value) * f64::from(value));
        sums.into_iter().chain(rest).sum::<f64>()
    };
    let sums: Vec<f64> = gradient.par_chunks(PIECE).map(sum).collect();
    sums.into_iter().sum::<f64>().sqrt()
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
        assert!((norm(&[3.0, -4.0]) - 5.0).abs() < 1e-12);
        assert!((clip_factor(5.0, Some(1.0)) - 0.2).abs() < 1e-6);
        assert_eq!(clip_factor(0.5, Some(1.0)).to_bits(), 1.0_f32.to_bits());
        assert_eq!(clip_factor(5.0, None).to_bits(), 1.0_f32.to_bits());
    }

    #[test]
    fn the_norm_has_the_same_bits_on_any_number_of_threads() {
        let gradient: Vec<f32> = (0..1_000_003).map(|i| ((i * 37) % 1_009) as f32 * 1e-3).collect();
        let serial: f64 = gradient.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| norm(&gradient))
        };
        let one = on(1);
        assert!((one / serial.sqrt() - 1.0).abs() < 1e-12);
        for threads in [2, 3, 5] {
            assert_eq!(on(threads).to_bits(), one.to_bits(), "{threads} threads");
        }
    }
}
