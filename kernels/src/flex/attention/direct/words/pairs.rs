//! Two values of bf16 a word, multiplied by `vdpbf16ps`. Rows hold neighbouring values of a row in a word,
//! columns those of two rows.

use std::arch::x86_64::{
    __m256i, __m512, __m512i, _mm256_storeu_si256, _mm512_add_ps, _mm512_castsi512_si256,
    _mm512_cvtne2ps_pbh, _mm512_extracti64x4_epi64, _mm512_loadu_epi16, _mm512_permutexvar_epi16,
    _mm512_reduce_add_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_si512,
};

use super::{Gradient, KEYS, LANES, ROWS, Running, Words, lanes, rise, weights};
use crate::flex::gemm::micro::{MicroTile, x86};

/// Pairs of bf16.
pub(in crate::flex) struct Pairs;

impl Words for Pairs {
    const VALUES: usize = 2;
    const ROUNDS: bool = true;

    fn rows<'a>(rows: &'a [f32], _columns: &'a [f32]) -> &'a [f32] {
        rows
    }

    unsafe fn tile_by_rows(steps: usize, a: *const f32, b: *const f32, tile: MicroTile) {
        // SAFETY: by the caller's promise.
        unsafe { x86::avx512_bf16::<ROWS, 1, { Pairs::LINE }>(steps, a, b, tile) };
    }

    unsafe fn tile_by_columns(steps: usize, a: *const f32, b: *const f32, tile: MicroTile) {
        // SAFETY: by the caller's promise.
        unsafe { x86::avx512_bf16::<ROWS, KEYS, 1>(steps, a, b, tile) };
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn weigh_row(
        scores: &[f32],
        visible: usize,
        most: usize,
        scale: f32,
        mut row: Running<'_>,
        to: &mut [f32],
    ) {
        // SAFETY: there are as many as are visible.
        unsafe { rise(scores, visible, scale, &mut row) };
        let (scale, level) = (_mm512_set1_ps(scale), _mm512_set1_ps(*row.level));
        let mut totals = [_mm512_setzero_ps(); 2];
        for start in (0..most).step_by(2 * LANES) {
            // SAFETY: whole registers inside the row, which holds a multiple of two.
            let [low, high] = [start, start + LANES].map(|at| unsafe {
                weights(scores.as_ptr().add(at), lanes(at, visible), scale, level)
            });
            totals = [_mm512_add_ps(totals[0], low), _mm512_add_ps(totals[1], high)];
            // SAFETY: a whole register inside the row.
            unsafe {
                _mm512_storeu_si512(to.as_mut_ptr().add(start / 2).cast(), convert(low, high));
            };
        }
        *row.total += _mm512_reduce_add_ps(_mm512_add_ps(totals[0], totals[1]));
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn gradient_rows(
        of: &Gradient,
        products: [&[f32]; 2],
        keys: usize,
        [weights, d_scores]: [&mut [f32]; 2],
        rows: &mut [f32],
    ) {
        // Word i takes lane i of the first row, then that of the second.
        let order: [u16; 2 * LANES] = std::array::from_fn(|i| (i / 2 + i % 2 * LANES) as u16);
        let two =
            [0, 1].map(|line: usize| products.map(|products| products[line * KEYS..].as_ptr()));
        // SAFETY: whole registers, or halves of one, inside slices that hold a multiple of them.
        unsafe {
            let order = _mm512_loadu_epi16(order.as_ptr().cast());
            let of = [of.row(0), of.row(1)];
            for start in (0..keys).step_by(LANES) {
                let [first, d_first] = of[0].gradient(two[0], start);
                let [second, d_second] = of[1].gradient(two[1], start);
                let gradients = convert(d_first, d_second);
                let pairs = _mm512_permutexvar_epi16(order, convert(first, second));
                _mm512_storeu_si512(weights.as_mut_ptr().add(start).cast(), pairs);
                let pairs = _mm512_permutexvar_epi16(order, gradients);
                _mm512_storeu_si512(d_scores.as_mut_ptr().add(start).cast(), pairs);
                let halves: [__m256i; 2] =
                    [_mm512_castsi512_si256(gradients), _mm512_extracti64x4_epi64::<1>(gradients)];
                for (line, half) in halves.into_iter().enumerate() {
                    let row = rows.as_mut_ptr().add(line * Pairs::LINE + start / 2);
                    _mm256_storeu_si256(row.cast(), half);
                }
            }
        }
    }
}

/// Two registers as bf16, the low one first.
#[target_feature(enable = "avx512f,avx512bf16")]
fn convert(low: __m512, high: __m512) -> __m512i {
    // SAFETY: the same bits.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}
