//! Rotary positions and the gated activation: one pass over memory each.

use rayon::prelude::*;

use super::simd::{exp, vectorize};
use crate::layout::{Direction, Rotation};

/// Values a task takes: large enough to be worth a task, small enough to share.
const CHUNK: usize = 1 << 14;

/// Rotates pairs `(i, i + half)` of every head, Su et al. 2021 in the half-split layout of Hugging
/// Face checkpoints. `x` is `[tokens, width]`.
pub(super) fn rope(x: &[f32], width: usize, rotation: &Rotation, direction: Direction) -> Vec<f32> {
    let half = rotation.half;
    assert_eq!(width % (2 * half), 0, "width {width} is not whole heads of {}", 2 * half);
    assert_eq!(x.len() / width * half, rotation.cos.len(), "one angle a token and pair");
    let sign = match direction {
        Direction::Forward => 1.0,
        Direction::Backward => -1.0,
    };
    let mut y = vec![0.0; x.len()];
    y.par_chunks_exact_mut(width)
        .zip(x.par_chunks_exact(width))
        .zip(rotation.cos.par_chunks_exact(half).zip(rotation.sin.par_chunks_exact(half)))
        .with_min_len(16)
        .for_each(|((y, x), (cos, sin))| {
            vectorize(
                #[inline(always)]
                || {
                    for (y, x) in y.chunks_exact_mut(2 * half).zip(x.chunks_exact(2 * half)) {
                        let (y_low, y_high) = y.split_at_mut(half);
                        let (x_low, x_high) = x.split_at(half);
                        let inputs = x_low.iter().zip(x_high).zip(cos.iter().zip(sin));
                        let outputs = y_low.iter_mut().zip(y_high);
                        for ((y_low, y_high), ((&low, &high), (&cos, &sin))) in outputs.zip(inputs)
                        {
                            let sin = sign * sin;
                            *y_low = low * cos - high * sin;
                            *y_high = high * cos + low * sin;
                        }
                    }
                },
            );
        });
    y
}

/// `silu(gate) · up` with `silu(g) = g / (1 + e^−g)`.
pub(super) fn swiglu(gate: &[f32], up: &[f32]) -> Vec<f32> {
    assert_eq!(gate.len(), up.len(), "gate and up of one size");
    let mut y = vec![0.0; gate.len()];
    y.par_chunks_mut(CHUNK).zip(gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK))).for_each(
        |(y, (gate, up))| {
            vectorize(
                #[inline(always)]
                || {
                    for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
                        *y = gate / (1.0 + exp(-gate)) * up;
                    }
                },
            );
        },
    );
    y
}

/// Gradients of gate and up: `dg = dy·up·σ(g)·(1 + g·(1 − σ(g)))`, `du = dy·g·σ(g)`.
pub(super) fn swiglu_backward(gate: &[f32], up: &[f32], dy: &[f32]) -> [Vec<f32>; 2] {
    let mut d_gate = vec![0.0; gate.len()];
    let mut d_up = vec![0.0; gate.len()];
    let outputs = d_gate.par_chunks_mut(CHUNK).zip(d_up.par_chunks_mut(CHUNK));
    let inputs = gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK)).zip(dy.par_chunks(CHUNK));
    outputs.zip(inputs).for_each(|((d_gate, d_up), ((gate, up), dy))| {
        vectorize(
            #[inline(always)]
            || {
                let inputs = gate.iter().zip(up).zip(dy);
                for ((d_gate, d_up), ((&gate, &up), &dy)) in
                    d_gate.iter_mut().zip(d_up.iter_mut()).zip(inputs)
                {
                    let sigmoid = 1.0 / (1.0 + exp(-gate));
                    let silu = gate * sigmoid;
                    *d_gate = dy * up * (sigmoid + silu * (1.0 - sigmoid));
                    *d_up = dy * silu;
                }
            },
        );
    });
    [d_gate, d_up]
}
