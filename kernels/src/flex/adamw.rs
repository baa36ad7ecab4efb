//! AdamW on the CPU: one pass over the tensors, cut into pieces of fixed length, so that no bit depends on
//! the number of threads.

use std::borrow::Cow;

use burn::tensor::ops::FloatTensorOps;
use burn::tensor::{Bytes, DType, Shape, Tensor, TensorMetadata, TensorPrimitive};
use burn_flex::{Flex, FlexDevice, FlexTensor, Layout};
use rayon::prelude::*;

use super::sums::HostSums;
use crate::adamw::blockwise::{BLOCK, Blocks, SIGNED, UNSIGNED};
use crate::adamw::{AdamWState, Moments, Rule, StateFormat, Trained, check_sizes};

/// Values that one task steps: whole blocks.
const PIECE: usize = 64 * BLOCK;

/// The moments of every tensor.
#[derive(Clone, Debug)]
pub struct HostAdamW {
    format: StateFormat,
    tensors: Vec<Trained>,
    moments: Vec<Moments>,
}

impl AdamWState for HostAdamW {
    type Device = FlexDevice;

    type Tensor = FlexTensor;

    type Sums = HostSums;

    fn new(format: StateFormat, tensors: Vec<Trained>, _device: &FlexDevice) -> Self {
        let moments = tensors.iter().map(|tensor| Moments::zeros(format, tensor.range.len()));
        Self { format, moments: moments.collect(), tensors }
    }

    fn moments(&self, index: usize) -> Cow<'_, Moments> {
        Cow::Borrowed(&self.moments[index])
    }

    fn set_moments(&mut self, index: usize, moments: Moments) {
        moments.check(self.format, self.tensors[index].range.len());
        self.moments[index] = moments;
    }

    fn step(
        &mut self,
        values: Vec<FlexTensor>,
        gradient: &HostSums,
        rule: &Rule,
    ) -> Vec<FlexTensor> {
        check_sizes(&self.tensors, values.iter().map(|tensor| tensor.shape().num_elements()));
        let shapes: Vec<Shape> = values.iter().map(FlexTensor::shape).collect();
        let mut values: Vec<Vec<f32>> = values.into_iter().map(owned).collect();
        let gradient = gradient.as_slice();
        let mut pieces = Vec::new();
        for ((tensor, values), moments) in
            self.tensors.iter().zip(&mut values).zip(&mut self.moments)
        {
            let gradient = gradient[tensor.range.clone()].chunks(PIECE);
            let [shrink, step] = rule.shrink_and_step(tensor);
            let parts = values.chunks_mut(PIECE).zip(gradient).zip(cut(moments));
            pieces.extend(parts.map(|((values, gradient), states)| Piece {
                values,
                gradient,
                shrink,
                step,
                states,
            }));
        }
        pieces.into_par_iter().for_each(|piece| piece.step(rule));
        let tensors = values.into_iter().zip(shapes);
        tensors.map(|(values, shape)| tensor(values, shape)).collect()
    }
}

fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}

/// The values of a tensor: moved where nobody else holds it.
fn owned(tensor: FlexTensor) -> Vec<f32> {
    let len = tensor.shape().num_elements();
    let flat = Flex::float_reshape(tensor, Shape::new([len]));
    let flat = Tensor::<Flex, 1>::from_primitive(TensorPrimitive::Float(flat));
    flat.into_data().into_vec().expect("trained tensors are f32")
}

/// A part of a tensor with all that its step needs.
struct Piece<'a> {
    values: &'a mut [f32],
    gradient: &'a [f32],
    shrink: f32,
    step: f32,
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

impl Rule {
    #[inline]
    fn remember_square(&self, second: f32, gradient: f32) -> f32 {
        second * self.beta2 + self.keep2 * gradient * gradient
    }

    #[inline]
    fn stepped(&self, value: f32, [shrink, step]: [f32; 2], first: f32, second: f32) -> f32 {
        let denominator = second.sqrt() / self.correction2 + self.eps;
        value * shrink - step * (first / denominator)
    }
}

impl Piece<'_> {
    fn step(self, rule: &Rule) {
        let Self { values, gradient, shrink, step, states } = self;
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
                    *value = rule.stepped(*value, [shrink, step], *first, *second);
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
                        *value = rule.stepped(*value, [shrink, step], *first, *second);
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
    use crate::adamw::{AdamWConfig, GradientSums};

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
    fn tensors() -> Vec<Trained> {
        let ends = [41 * 2_503, 41 * 2_503 + 5 * 1_001, 41 * 2_503 + 5 * 1_001 + 4_095];
        let starts = [0, ends[0], ends[1]];
        let ranges = starts.into_iter().zip(ends).map(|(start, end)| start..end);
        ranges
            .zip([true, true, false])
            .map(|(range, decays)| Trained { range, decays, rate: 1.0 })
            .collect()
    }

    fn start() -> Vec<Vec<f32>> {
        tensors().iter().map(|tensor| wave(9, tensor.range.len())).collect()
    }

    /// The values and moments after these steps.
    fn after(
        mut state: HostAdamW,
        values: Vec<Vec<f32>>,
        steps: std::ops::Range<usize>,
    ) -> (Vec<Vec<f32>>, Vec<Moments>) {
        let flat = |values: Vec<f32>| Shape::new([values.len()]);
        let made = |values: Vec<f32>| tensor(values.clone(), flat(values));
        let mut values: Vec<FlexTensor> = values.into_iter().map(made).collect();
        for step in steps {
            let mut sums = HostSums::zeros(&tensors(), &FlexDevice);
            for (index, tensor) in tensors().iter().enumerate() {
                let wave = wave(step, sums.as_slice().len());
                sums.add(index, made(wave[tensor.range.clone()].to_vec()));
            }
            let rule = Rule::new(CONFIG, step as u64 + 1, 0.7, 1e-2);
            values = state.step(values, &sums, &rule);
        }
        (values.into_iter().map(owned).collect(), state.moments)
    }

    #[test]
    fn neither_threads_nor_a_restored_state_change_a_bit() {
        for format in [StateFormat::F32, StateFormat::Blockwise8] {
            let fresh = || HostAdamW::new(format, tensors(), &FlexDevice);
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| after(fresh(), start(), 0..4))
            };
            let one = run(1);
            assert!(one.0.iter().flatten().all(|value| value.is_finite()));
            for threads in [2, 3, 5] {
                assert!(run(threads) == one, "{format:?}, {threads} threads");
            }
            let (values, moments) = after(fresh(), start(), 0..2);
            let mut restored = fresh();
            for (index, moments) in moments.into_iter().enumerate() {
                restored.set_moments(index, moments);
            }
            assert!(after(restored, values, 2..4) == one, "{format:?}, restored");
        }
    }

    #[test]
    fn eight_bits_go_where_32_go_and_weigh_a_quarter() {
        let run = |format| after(HostAdamW::new(format, tensors(), &FlexDevice), start(), 0..10).0;
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
        let bytes = |format: StateFormat| -> u64 {
            tensors().iter().map(|tensor| format.bytes(tensor.range.len())).sum()
        };
        let (exact, short) = (bytes(StateFormat::F32), bytes(StateFormat::Blockwise8));
        assert!(short * 3 < exact, "{short} of {exact} bytes");
    }

    #[test]
    #[should_panic(expected = "values of trained tensor 1")]
    fn tensors_of_another_optimizer_are_refused() {
        let sums = HostSums::zeros(&tensors(), &FlexDevice);
        let mut values = start();
        values[1].push(0.0);
        let values = values.into_iter().map(|values| tensor(values.clone(), [values.len()].into()));
        let rule = Rule::new(CONFIG, 1, 1.0, 1e-2);
        HostAdamW::new(CONFIG.states, tensors(), &FlexDevice).step(values.collect(), &sums, &rule);
    }
}
