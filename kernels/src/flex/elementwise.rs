//! Rotary positions, the gated activation, sums and roundings: one pass over memory each.
#![expect(unsafe_code, reason = "results are written whole, see `fresh`")]

use half::bf16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::fresh::{unwritten, written};
use super::gemm::shuffle;
use super::matrix::Value;
use super::simd::{exp, vectorize};
use crate::layout::{Direction, Rotation};

/// Values a task takes: large enough to be worth a task, small enough to share.
const CHUNK: usize = 1 << 14;

/// `a += b`.
pub(super) fn add_to(a: &mut [f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "sides of a sum");
    a.par_chunks_mut(CHUNK).zip(b.par_chunks(CHUNK)).for_each(|(a, b)| {
        vectorize(
            #[inline(always)]
            || {
                for (a, &b) in a.iter_mut().zip(b) {
                    *a += b;
                }
            },
        );
    });
}

/// `a + b`.
pub(super) fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut sum = a.to_vec();
    add_to(&mut sum, b);
    sum
}

/// Rounded to bf16.
pub(super) fn rounded(values: &[f32]) -> Vec<bf16> {
    let mut halves = vec![bf16::ZERO; values.len()];
    halves
        .par_chunks_mut(CHUNK)
        .zip(values.par_chunks(CHUNK))
        .for_each(|(halves, values)| shuffle::round_run(values, halves.reinterpret_cast_mut()));
    halves
}

/// Rotates pairs `(i, i + half)` of every head, Su et al. 2021 in the half-split layout of Hugging
/// Face checkpoints. `x` is `[tokens, width]`.
pub(super) fn rope<T: Value, U: Value>(
    x: &[T],
    width: usize,
    rotation: &Rotation,
    direction: Direction,
) -> Vec<U> {
    let half = rotation.half;
    assert_eq!(width % (2 * half), 0, "width {width} is not whole heads of {}", 2 * half);
    assert_eq!(x.len() / width * half, rotation.cos.len(), "one angle a token and pair");
    let sign = match direction {
        Direction::Forward => 1.0,
        Direction::Backward => -1.0,
    };
    let mut y = unwritten(x.len());
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
                            let (low, high) = (low.get(), high.get());
                            y_low.write(U::of(low * cos - high * sin));
                            y_high.write(U::of(high * cos + low * sin));
                        }
                    }
                },
            );
        });
    // SAFETY: both halves of every head of every row; there is an angle for each, asserted above.
    unsafe { written(y) }
}

/// Every column of `[rows, cols]` times its factor.
pub(super) fn scale_columns<T: Value>(x: &[T], factors: &[f32]) -> Vec<T> {
    let cols = factors.len();
    assert!(x.len().is_multiple_of(cols.max(1)), "whole rows of {cols}");
    let mut y = unwritten(x.len());
    y.par_chunks_exact_mut(cols.max(1))
        .zip(x.par_chunks_exact(cols.max(1)))
        .with_min_len(16)
        .for_each(|(y, x)| {
            vectorize(
                #[inline(always)]
                || {
                    for ((y, &x), &factor) in y.iter_mut().zip(x).zip(factors) {
                        y.write(T::of(x.get() * factor));
                    }
                },
            );
        });
    // SAFETY: every row is whole, asserted above, and as wide as the factors.
    unsafe { written(y) }
}

/// Rows whose products one task adds up.
const ROWS: usize = 64;

/// `Σ over rows of x · y` of every column: rows of a task in their order, then the tasks'.
pub(super) fn column_products<T: Value, U: Value>(x: &[T], y: &[U], cols: usize) -> Vec<f32> {
    assert!(x.len() == y.len() && x.len().is_multiple_of(cols.max(1)), "whole rows of {cols}");
    let piece = ROWS * cols.max(1);
    let parts: Vec<Vec<f32>> = x
        .par_chunks(piece)
        .zip(y.par_chunks(piece))
        .map(|(x, y)| {
            let mut sums = vec![0.0; cols];
            vectorize(
                #[inline(always)]
                || {
                    for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact(cols)) {
                        for ((sum, &x), &y) in sums.iter_mut().zip(x).zip(y) {
                            *sum += x.get() * y.get();
                        }
                    }
                },
            );
            sums
        })
        .collect();
    let mut total = vec![0.0; cols];
    for part in parts {
        for (total, part) in total.iter_mut().zip(part) {
            *total += part;
        }
    }
    total
}

/// `silu(gate) · up` with `silu(g) = g / (1 + e^−g)`.
pub(super) fn swiglu<T: Value>(gate: &[T], up: &[T]) -> Vec<T> {
    assert_eq!(gate.len(), up.len(), "gate and up of one size");
    let mut y = unwritten(gate.len());
    y.par_chunks_mut(CHUNK).zip(gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK))).for_each(
        |(y, (gate, up))| {
            vectorize(
                #[inline(always)]
                || {
                    for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
                        let (gate, up) = (gate.get(), up.get());
                        y.write(T::of(gate / (1.0 + exp(-gate)) * up));
                    }
                },
            );
        },
    );
    // SAFETY: gate and up are as long as y, asserted above.
    unsafe { written(y) }
}

/// Gradients of gate and up: `dg = dy·up·σ(g)·(1 + g·(1 − σ(g)))`, `du = dy·g·σ(g)`.
pub(super) fn swiglu_backward<T: Value>(gate: &[T], up: &[T], dy: &[f32]) -> [Vec<T>; 2] {
    assert!(gate.len() == up.len() && gate.len() == dy.len(), "gate, up and dy of one size");
    let (mut d_gate, mut d_up) = (unwritten(gate.len()), unwritten(gate.len()));
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
                    let (gate, up) = (gate.get(), up.get());
                    let sigmoid = 1.0 / (1.0 + exp(-gate));
                    let silu = gate * sigmoid;
                    d_gate.write(T::of(dy * up * (sigmoid + silu * (1.0 - sigmoid))));
                    d_up.write(T::of(dy * silu));
                }
            },
        );
    });
    // SAFETY: the inputs are as long as the outputs, asserted above.
    unsafe { [written(d_gate), written(d_up)] }
}
