//! RMSNorm, Zhang and Sennrich 2019: `y = x · r · w`, `r = 1 / sqrt(mean(x²) + eps)`, a row at a time.

#![expect(unsafe_code, reason = "results are written whole, see `fresh`")]

use rayon::prelude::*;

use super::fresh::{unwritten, written};
use super::matrix::Value;
use super::simd::{dot, sum3, vectorize};

/// `1 / sqrt(mean(x²) + eps)`.
#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}

/// `[tokens, d_model]` → the same.
pub(super) fn forward<T: Value>(x: &[f32], weight: &[f32], eps: f32) -> Vec<T> {
    let width = weight.len();
    assert!(x.len().is_multiple_of(width), "whole rows of {width}");
    let mut y = unwritten(x.len());
    y.par_chunks_exact_mut(width).zip(x.par_chunks_exact(width)).for_each(|(y, x)| {
        vectorize(
            #[inline(always)]
            || {
                let inverse = inverse_rms(x, eps);
                for ((y, &x), &weight) in y.iter_mut().zip(x).zip(weight) {
                    y.write(T::of(x * inverse * weight));
                }
            },
        );
    });
    // SAFETY: every row is whole, asserted above, and as wide as the weight.
    unsafe { written(y) }
}

/// `dx = r·(w·dy) − x · r³ · Σ(w·dy·x) / d_model`.
pub(super) fn dx(x: &[f32], weight: &[f32], eps: f32, dy: &[f32]) -> Vec<f32> {
    let width = weight.len();
    assert!(x.len().is_multiple_of(width) && x.len() == dy.len(), "whole rows of {width}");
    let mut dx = unwritten(x.len());
    dx.par_chunks_exact_mut(width)
        .zip(x.par_chunks_exact(width))
        .zip(dy.par_chunks_exact(width))
        .for_each(|((dx, x), dy)| {
            vectorize(
                #[inline(always)]
                || {
                    let inverse = inverse_rms(x, eps);
                    let dot = sum3(weight, dy, x, |weight, dy, x| weight * dy * x);
                    let back = inverse * inverse * inverse * dot / width as f32;
                    let inputs = weight.iter().zip(dy).zip(x);
                    for (dx, ((&weight, &dy), &x)) in dx.iter_mut().zip(inputs) {
                        dx.write(inverse * weight * dy - x * back);
                    }
                },
            );
        });
    // SAFETY: every row is whole and has its dy, asserted above.
    unsafe { written(dx) }
}

/// `dw = Σ over tokens of dy · x · r`, in token order.
pub(super) fn dw(x: &[f32], width: usize, eps: f32, dy: &[f32]) -> Vec<f32> {
    let mut dw = vec![0.0; width];
    vectorize(
        #[inline(always)]
        || {
            for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
                let inverse = inverse_rms(x, eps);
                for ((dw, &x), &dy) in dw.iter_mut().zip(x).zip(dy) {
                    *dw += dy * x * inverse;
                }
            }
        },
    );
    dw
}
