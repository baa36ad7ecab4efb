//! One f32 a word, rounded to bf16 or not. Rows of a left side are the columns of its transpose.

use std::arch::x86_64::{
    __m512, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_reduce_add_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_srli_epi32, _mm512_storeu_ps,
};

use super::{Gradient, KEYS, LANES, ROWS, Running, Words, lanes, rise, weights};
use crate::flex::gemm::micro::{MicroTile, x86};

/// f32, rounded to bf16 if so.
pub(in crate::flex) struct Singles<const ROUND: bool>;

impl<const ROUND: bool> Words for Singles<ROUND> {
    const VALUES: usize = 1;
    const ROUNDS: bool = ROUND;

    fn rows<'a>(_rows: &'a [f32], columns: &'a [f32]) -> &'a [f32] {
        columns
    }

    unsafe fn tile_by_rows(steps: usize, a: *const f32, b: *const f32, tile: MicroTile) {
        // SAFETY: by the caller's promise.
        unsafe { x86::avx512_f32::<ROWS, 1, KEYS>(steps, a, b, tile) };
    }

    unsafe fn tile_by_columns(steps: usize, a: *const f32, b: *const f32, tile: MicroTile) {
        // SAFETY: by the caller's promise.
        unsafe { x86::avx512_f32::<ROWS, KEYS, 1>(steps, a, b, tile) };
    }

    #[target_feature(enable = "avx512f")]
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
            for (half, total) in totals.iter_mut().enumerate() {
                let at = start + half * LANES;
                // SAFETY: whole registers inside rows that hold a multiple of two.
                unsafe {
                    let weights =
                        weights(scores.as_ptr().add(at), lanes(at, visible), scale, level);
                    *total = _mm512_add_ps(*total, weights);
                    _mm512_storeu_ps(to.as_mut_ptr().add(at), rounded::<ROUND>(weights));
                }
            }
        }
        *row.total += _mm512_reduce_add_ps(_mm512_add_ps(totals[0], totals[1]));
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn gradient_rows(
        of: &Gradient,
        products: [&[f32]; 2],
        keys: usize,
        columns: [&mut [f32]; 2],
        _rows: &mut [f32],
    ) {
        let columns = columns.map(<[f32]>::as_mut_ptr);
        for line in 0..2 {
            let products = products.map(|products| products[line * KEYS..].as_ptr());
            // SAFETY: whole registers inside rows that hold a multiple of them.
            unsafe {
                let of = of.row(line);
                for start in (0..keys).step_by(LANES) {
                    for (values, to) in of.gradient(products, start).into_iter().zip(columns) {
                        _mm512_storeu_ps(to.add(line * KEYS + start), rounded::<ROUND>(values));
                    }
                }
            }
        }
    }
}

/// Rounded to bf16, ties to even. Results of arithmetic that are no numbers stay so: their low bits are 0.
#[target_feature(enable = "avx512f")]
fn rounded<const ROUND: bool>(x: __m512) -> __m512 {
    if !ROUND {
        return x;
    }
    let constant = |bits: u32| _mm512_set1_epi32(bits.cast_signed());
    let bits = _mm512_castps_si512(x);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), constant(1));
    let up = _mm512_add_epi32(_mm512_add_epi32(bits, constant(0x7fff)), odd);
    _mm512_castsi512_ps(_mm512_and_si512(up, constant(0xffff_0000)))
}
