//! AdamW, Loshchilov and Hutter 2019, with PyTorch's numerics: decay before the step, bias correction
//! in f64, `eps` outside the square root.
//!
//! Follows `_single_tensor_adamw` of PyTorch (`torch/optim/adam.py`), and with moments in 8 bits
//! `AdamW8bit` of bitsandbytes. One pass over all tensors clips, decays, remembers and steps; it is cut
//! into pieces of fixed length, so that no bit depends on the number of threads.

pub mod blockwise;
mod moments;

use rayon::prelude::*;

use crate::engine::parameters::Slot;
use blockwise::{BLOCK, Blocks, SIGNED, UNSIGNED};
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

/// The optimizer's state over the tensors of [`crate::engine::Parameters`], in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    config: AdamWConfig,
    step: u64,
    moments: Vec<Moments>,
}

/// Values that one task steps: whole blocks.
const PIECE: usize = 64 * BLOCK;

impl AdamW {
    /// A fresh state for the tensors of `slots`.
    pub fn new(config: AdamWConfig, slots: &[Slot]) -> Self {
        let moments = slots.iter().map(|slot| Moments::zeros(config.states, slot.range.len()));
        Self { config, step: 0, moments: moments.collect() }
    }

    /// A state as saved: steps done, and the moments of each tensor.
    pub fn restore(config: AdamWConfig, step: u64, moments: Vec<Moments>) -> Self {
        Self { config, step, moments }
    }

    /// Hyperparameters.
    pub fn config(&self) -> AdamWConfig {
        self.config
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The moments of each tensor.
    pub fn moments(&self) -> &[Moments] {
        &self.moments
    }

    /// One step of `values`, one tensor a slot, along `clip · gradient`.
    ///
    /// # Panics
    /// If tensors and slots do not belong together.
    pub fn step(
        &mut self,
        slots: &[Slot],
        values: &mut [Vec<f32>],
        gradient: &[f32],
        clip: f32,
        learning_rate: f64,
    ) {
        assert_eq!(
            [slots.len(); 2],
            [values.len(), self.moments.len()],
            "tensors of one optimizer"
        );
        self.step += 1;
        let rule = Rule::new(self.config, self.step, clip, learning_rate);
        let mut pieces = Vec::new();
        for ((slot, values), moments) in slots.iter().zip(values).zip(&mut self.moments) {
            let gradient = &gradient[slot.range.clone()];
            assert_eq!(values.len(), gradient.len(), "values of {}", slot.name);
            let decay = if slot.decays() { self.config.weight_decay } else { 0.0 };
            let shrink = (1.0 - learning_rate * decay) as f32;
            let states = cut(moments);
            let parts = values.chunks_mut(PIECE).zip(gradient.chunks(PIECE)).zip(states);
            pieces.extend(parts.map(|((values, gradient), states)| Piece {
                values,
                gradient,
                shrink,
                states,
            }));
        }
        pieces.into_par_iter().for_each(|piece| piece.step(&rule));
    }
}

/// A part of a tensor with all that its step needs.
struct Piece<'a> {
    values: &'a mut [f32],
    gradient: &'a [f32],
    shrink: f32,
    states: States<'a>,
}

enum States<'a> {
    F32([&'a mut [f32]; 2]),
    Blockwise8([(&'a mut [u8], &'a mut [f32]); 2]),
}

/// The moments of a tensor, piece by piece.
fn cut<'a>(moments: &'a mut Moments) -> Box<dyn Iterator<Item = States<'a>> + 'a> {
    match moments {
        Moments::F32([first, second]) => {
            let pieces = first.chunks_mut(PIECE).zip(second.chunks_mut(PIECE));
            Box::new(pieces.map(|(first, second)| States::F32([first, second])))
        }
        Moments::Blockwise8([first, second]) => {
            let parts = |Blocks { codes, absmax }: &'a mut Blocks| {
                codes.chunks_mut(PIECE).zip(absmax.chunks_mut(PIECE / BLOCK))
            };
            let pieces = parts(first).zip(parts(second));
            Box::new(pieces.map(|(first, second)| States::Blockwise8([first, second])))
        }
    }
}

/// What a step does to each value.
struct Rule {
    clip: f32,
    beta1: f32,
    beta2: f32,
    keep1: f32,
    keep2: f32,
    correction2: f32,
    eps: f32,
    step_size: f32,
}

impl Rule {
    fn new(config: AdamWConfig, step: u64, clip: f32, learning_rate: f64) -> Self {
        let AdamWConfig { beta1, beta2, eps, weight_decay: _, states: _ } = config;
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
            step_size: (learning_rate / correction1) as f32,
        }
    }

    #[inline]
    fn remember_square(&self, second: f32, gradient: f32) -> f32 {
        second * self.beta2 + self.keep2 * gradient * gradient
    }

    #[inline]
    fn stepped(&self, value: f32, shrink: f32, first: f32, second: f32) -> f32 {
        let denominator = second.sqrt() / self.correction2 + self.eps;
        value * shrink - self.step_size * (first / denominator)
    }
}

impl Piece<'_> {
    fn step(self, rule: &Rule) {
        let Self { values, gradient, shrink, states } = self;
        match states {
            States::F32([first, second]) => {
                let moments = first.iter_mut().zip(second);
                for ((value, &gradient), (first, second)) in
                    values.iter_mut().zip(gradient).zip(moments)
                {
                    let gradient = gradient * rule.clip;
                    // PyTorch's `lerp_`.
                    *first += rule.keep1 * (gradient - *first);
                    *second = rule.remember_square(*second, gradient);
                    *value = rule.stepped(*value, shrink, *first, *second);
                }
            }
            States::Blockwise8([first, second]) => {
                let (mut mean, mut square) = ([0.0; BLOCK], [0.0; BLOCK]);
                let first = first.0.chunks_mut(BLOCK).zip(first.1);
                let second = second.0.chunks_mut(BLOCK).zip(second.1);
                let blocks = values.chunks_mut(BLOCK).zip(gradient.chunks(BLOCK));
                for ((values, gradient), (first, second)) in blocks.zip(first.zip(second)) {
                    let (mean, square) = (&mut mean[..values.len()], &mut square[..values.len()]);
                    SIGNED.decode(first.0, *first.1, mean);
                    UNSIGNED.decode(second.0, *second.1, square);
                    let moments = mean.iter_mut().zip(square.iter_mut());
                    for ((value, &gradient), (first, second)) in
                        values.iter_mut().zip(gradient).zip(moments)
                    {
                        let gradient = gradient * rule.clip;
                        *first = *first * rule.beta1 + rule.keep1 * gradient;
                        *second = rule.remember_square(*second, gradient);
                        *value = rule.stepped(*value, shrink, *first, *second);
                    }
                    *first.1 = SIGNED.encode(mean, first.0);
                    *second.1 = UNSIGNED.encode(square, second.0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: AdamWConfig = AdamWConfig {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.1,
        states: StateFormat::Blockwise8,
    };

    fn wave(seed: usize, len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7_919 + seed * 104_729) % 20_011) as f32 * 1e-4 - 1.0).collect()
    }

    /// Of many pieces with a short last block, of less than a piece, and too small for 8 bits.
    fn slots() -> Vec<Slot> {
        let mut start = 0;
        let slots = [vec![41, 2_503], vec![5, 1_001], vec![4_095]].map(|shape| {
            let len = shape.iter().product::<usize>();
            start += len;
            Slot { name: format!("{shape:?}"), shape, range: start - len..start }
        });
        slots.to_vec()
    }

    /// The bits of all values and the state after these steps.
    fn after(
        mut optimizer: AdamW,
        mut values: Vec<Vec<f32>>,
        steps: std::ops::Range<usize>,
    ) -> (Vec<Vec<f32>>, AdamW) {
        let slots = slots();
        for step in steps {
            let gradient = wave(step, slots.last().expect("three").range.end);
            optimizer.step(&slots, &mut values, &gradient, 0.7, 1e-2);
        }
        (values, optimizer)
    }

    fn start() -> Vec<Vec<f32>> {
        slots().iter().map(|slot| wave(9, slot.range.len())).collect()
    }

    #[test]
    fn neither_threads_nor_a_restored_state_change_a_bit() {
        for states in [StateFormat::F32, StateFormat::Blockwise8] {
            let fresh = || AdamW::new(AdamWConfig { states, ..CONFIG }, &slots());
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| after(fresh(), start(), 0..4))
            };
            let one = run(1);
            assert!(one.0.iter().flatten().all(|value| value.is_finite()));
            for threads in [2, 3, 5] {
                assert_eq!(run(threads), one, "{states:?}, {threads} threads");
            }
            let (values, optimizer) = after(fresh(), start(), 0..2);
            let AdamW { config, step, moments } = optimizer;
            assert_eq!(after(AdamW::restore(config, step, moments), values, 2..4), one);
        }
    }

    #[test]
    fn eight_bits_go_where_32_go_and_weigh_a_quarter() {
        let run = |states| {
            after(AdamW::new(AdamWConfig { states, ..CONFIG }, &slots()), start(), 0..10).0
        };
        let (exact, short) = (run(StateFormat::F32), run(StateFormat::Blockwise8));
        let length = |a: &[f32], b: &[f32]| {
            let parts = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
            parts.sum::<f64>().sqrt()
        };
        for (place, start) in start().iter().enumerate() {
            let off = length(&exact[place], &short[place]) / length(&exact[place], start);
            // A code is some 2 % from its neighbour; small tensors have no codes.
            assert!(off < [0.05, 0.05, 1e-5][place], "tensor {place} is {off} off");
        }
        let bytes = |states: StateFormat| slots().iter().map(|s| states.bytes(s.range.len())).sum();
        let [exact, short]: [u64; 2] = [bytes(StateFormat::F32), bytes(StateFormat::Blockwise8)];
        assert!(short * 3 < exact, "{short} of {exact} bytes");
    }
}
