//! What a register's lanes hold of a left side, and what becomes of scores in them.
#![expect(unsafe_code, reason = "kernels for instructions that were detected")]

mod pairs;
mod singles;

use std::arch::x86_64::{
    __m512, __mmask16, _mm512_add_ps, _mm512_fmadd_ps, _mm512_fmsub_ps, _mm512_fnmadd_ps,
    _mm512_loadu_ps, _mm512_mask_loadu_ps, _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_mul_ps,
    _mm512_reduce_max_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_ps, _mm512_sub_ps,
};

pub(in crate::flex) use pairs::Pairs;
pub(in crate::flex) use singles::Singles;

pub(in crate::flex) use super::{COLS, KEYS, ROWS};
use crate::flex::gemm::Form;
use crate::flex::gemm::micro::MicroTile;
use crate::precision::Precision;

/// Lanes of a register.
const LANES: usize = 16;

/// What the forward pass keeps of a row while it goes over the keys.
pub(in crate::flex) struct Running<'a> {
    pub(in crate::flex) level: &'a mut f32,
    pub(in crate::flex) total: &'a mut f32,
    pub(in crate::flex) sums: &'a mut [f32],
}

/// What becomes of two rows of scores in the backward pass.
pub(in crate::flex) struct Gradient {
    pub(in crate::flex) scale: f32,
    pub(in crate::flex) visible: [usize; 2],
    pub(in crate::flex) lse: [f32; 2],
    /// The output times its gradient.
    pub(in crate::flex) along: [f32; 2],
}

/// Words of 32 bits, of one or two values each.
pub(in crate::flex) trait Words {
    /// Values of a word.
    const VALUES: usize;
    /// Words from one row of a left side to the next: room for a tile of keys, and for a head.
    const LINE: usize = KEYS / Self::VALUES;
    /// Whether values are rounded to bf16.
    const ROUNDS: bool;

    /// Panels of so many steps, packed from values that are not operands yet.
    fn form(steps: usize) -> Form {
        let precision = if Self::ROUNDS { Precision::Bf16 } else { Precision::F32 };
        Form { precision, ..Self::unrounded(steps) }
    }

    /// Panels of so many steps, packed from values that are operands already.
    fn unrounded(steps: usize) -> Form {
        let pairs = Self::VALUES == 2;
        let precision = if pairs { Precision::Bf16 } else { Precision::F32 };
        Form { width: COLS, stride: steps * COLS, pairs, precision }
    }

    /// `C (+)= A·B` for a tile of [`ROWS`] by [`COLS`]: `A` in rows of [`Self::LINE`] words, `B` a panel.
    fn by_rows(steps: usize, a: &[f32], b: &[f32], c: &mut [f32], ldc: usize, accumulate: bool) {
        assert!(a.len() >= (ROWS - 1) * Self::LINE + steps, "rows of a left side");
        assert!(b.len() >= steps * COLS, "a panel of {steps} steps");
        assert!(c.len() >= (ROWS - 1) * ldc + COLS, "a tile of sums");
        let [a, b] = [a, b].map(<[f32]>::as_ptr);
        let tile = MicroTile::at(c.as_mut_ptr(), ldc, accumulate);
        // SAFETY: the lengths are asserted, and `c` is borrowed alone; the way is taken only where the
        // instructions are.
        unsafe { Self::tile_by_rows(steps, a, b, tile) };
    }

    /// `C (+)= A·B` for a tile of [`ROWS`] by [`COLS`] wherever it lies: the transpose of `A` with its steps
    /// [`KEYS`] words apart, `B` a panel.
    ///
    /// # Safety
    /// All rows of the tile are good for writing, and for reading where it adds to them, and nothing else
    /// refers to them or touches them meanwhile.
    unsafe fn by_columns(steps: usize, a: &[f32], b: &[f32], c: MicroTile) {
        assert!(a.len() + KEYS >= steps * KEYS + ROWS, "columns of a left side");
        assert!(b.len() >= steps * COLS, "a panel of {steps} steps");
        let [a, b] = [a, b].map(<[f32]>::as_ptr);
        // SAFETY: the lengths are asserted, the tile is the caller's promise; the way is taken only where
        // the instructions are.
        unsafe { Self::tile_by_columns(steps, a, b, c) };
    }

    /// Turns a row of raw scores into weights under a maximum that may have risen: what was summed before
    /// is scaled to it. The first `visible` are seen, the rest weighs nothing; `most` weights are written,
    /// or some more.
    fn weigh(
        scores: &[f32],
        visible: usize,
        most: usize,
        scale: f32,
        row: Running<'_>,
        weights: &mut [f32],
    ) {
        assert!(scores.len() == KEYS && weights.len() == Self::LINE, "a row of scores");
        assert!(visible <= most && most <= KEYS, "{visible} of {most} keys");
        // SAFETY: the lengths are asserted; the way is taken only where the instructions are.
        unsafe { Self::weigh_row(scores, visible, most, scale, row, weights) };
    }

    /// Turns two rows of raw scores, and of what their weights are multiplied with, into weights and the
    /// gradient of `q·kᵀ`, both as columns; so many keys, or some more, are written. The gradient's rows go
    /// to `rows`, where columns do not serve as such.
    fn gradient(
        of: &Gradient,
        products: [&[f32]; 2],
        keys: usize,
        columns: [&mut [f32]; 2],
        rows: &mut [f32],
    ) {
        let columns_of_two = 2 / Self::VALUES * KEYS;
        assert!(products.iter().all(|rows| rows.len() == 2 * KEYS), "two rows of scores");
        assert!(columns.iter().all(|columns| columns.len() == columns_of_two), "their columns");
        assert!(rows.len() == 2 * Self::LINE && keys <= KEYS, "two rows of gradients");
        // SAFETY: the lengths are asserted; the way is taken only where the instructions are.
        unsafe { Self::gradient_rows(of, products, keys, columns, rows) };
    }

    /// Which of both are rows.
    fn rows<'a>(rows: &'a [f32], columns: &'a [f32]) -> &'a [f32];

    /// [`Self::by_rows`].
    ///
    /// # Safety
    /// Needs its instructions; all rows, steps and columns lie in what the pointers point to.
    unsafe fn tile_by_rows(steps: usize, a: *const f32, b: *const f32, tile: MicroTile);

    /// [`Self::by_columns`].
    ///
    /// # Safety
    /// As for the rows.
    unsafe fn tile_by_columns(steps: usize, a: *const f32, b: *const f32, tile: MicroTile);

    /// [`Self::weigh`].
    ///
    /// # Safety
    /// Needs its instructions; the slices are as long as is asserted there.
    unsafe fn weigh_row(
        scores: &[f32],
        visible: usize,
        most: usize,
        scale: f32,
        row: Running<'_>,
        weights: &mut [f32],
    );

    /// [`Self::gradient`].
    ///
    /// # Safety
    /// Needs its instructions; the slices are as long as is asserted there.
    unsafe fn gradient_rows(
        of: &Gradient,
        products: [&[f32]; 2],
        keys: usize,
        columns: [&mut [f32]; 2],
        rows: &mut [f32],
    );
}

/// The lanes from `start` on that are among the first `count`.
fn lanes(start: usize, count: usize) -> __mmask16 {
    let left = count.saturating_sub(start);
    if left >= LANES { __mmask16::MAX } else { (1 << left) - 1 }
}

/// Raises the level of a row to the largest of its first `visible` scores, and scales what was summed.
///
/// # Safety
/// Needs avx512f; there are so many scores.
#[target_feature(enable = "avx512f")]
unsafe fn rise(scores: &[f32], visible: usize, scale: f32, row: &mut Running<'_>) {
    let lowest = _mm512_set1_ps(f32::NEG_INFINITY);
    let mut highest = lowest;
    for start in (0..visible).step_by(LANES) {
        // SAFETY: masked lanes are not read, the others lie in the row.
        let scores = unsafe {
            _mm512_mask_loadu_ps(lowest, lanes(start, visible), scores.as_ptr().add(start))
        };
        highest = _mm512_max_ps(highest, scores);
    }
    let highest = _mm512_reduce_max_ps(highest) * scale;
    if *row.level == f32::NEG_INFINITY {
        *row.level = highest;
    } else if highest > *row.level {
        let factor = (*row.level - highest).exp();
        *row.total *= factor;
        for sum in &mut *row.sums {
            *sum *= factor;
        }
        *row.level = highest;
    }
}

/// Weights of sixteen scores.
///
/// # Safety
/// Needs avx512f; there are sixteen.
#[target_feature(enable = "avx512f")]
unsafe fn weights(scores: *const f32, seen: __mmask16, scale: __m512, level: __m512) -> __m512 {
    // SAFETY: by the caller's promise.
    let scores = unsafe { _mm512_loadu_ps(scores) };
    _mm512_maskz_mov_ps(seen, exp(_mm512_fmsub_ps(scores, scale, level)))
}

/// Constants of a row of [`Gradient`], in every lane.
#[derive(Clone, Copy)]
struct Row {
    visible: usize,
    scale: __m512,
    lse: __m512,
    along: __m512,
}

impl Gradient {
    /// # Safety
    /// Needs avx512f.
    #[target_feature(enable = "avx512f")]
    unsafe fn row(&self, line: usize) -> Row {
        Row {
            visible: self.visible[line],
            scale: _mm512_set1_ps(self.scale),
            lse: _mm512_set1_ps(self.lse[line]),
            along: _mm512_set1_ps(self.along[line]),
        }
    }
}

impl Row {
    /// Sixteen weights, and the gradients of their scores.
    ///
    /// # Safety
    /// Needs avx512f; there are sixteen of both from `start` on.
    #[target_feature(enable = "avx512f")]
    unsafe fn gradient(self, [scores, d_weights]: [*const f32; 2], start: usize) -> [__m512; 2] {
        let Self { visible, scale, lse, along } = self;
        let seen = lanes(start, visible);
        // SAFETY: by the caller's promise.
        let (weights, d_weights) = unsafe {
            let weights = weights(scores.add(start), seen, scale, lse);
            (weights, _mm512_loadu_ps(d_weights.add(start)))
        };
        let gradient = _mm512_mul_ps(_mm512_sub_ps(d_weights, along), scale);
        // What nobody sees may be no number.
        [weights, _mm512_maskz_mov_ps(seen, _mm512_mul_ps(weights, gradient))]
    }
}

/// `e^x`, within 2 units in the last place where it is a normal number: `x = n·ln 2 + r`, a polynomial in
/// `r` (Cephes `expf`), times `2^n`.
#[target_feature(enable = "avx512f")]
fn exp(x: __m512) -> __m512 {
    const NEAREST: i32 = 0;
    let constant = |value: f32| _mm512_set1_ps(value);
    // Nothing is left of smaller ones; the second operand is taken where one is no number.
    let x = _mm512_max_ps(constant(-104.0), x);
    let n = _mm512_mul_ps(x, constant(std::f32::consts::LOG2_E));
    let n = _mm512_roundscale_ps::<NEAREST>(n);
    // ln 2 in two parts, so that n·ln 2 is exact enough.
    let r = _mm512_fnmadd_ps(n, constant(0.693_359_4), x);
    let r = _mm512_fmadd_ps(n, constant(2.121_944_4e-4), r);
    let coefficients = [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let mut p = constant(1.987_569_1e-4);
    for coefficient in coefficients {
        p = _mm512_fmadd_ps(p, r, constant(coefficient));
    }
    let p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, _mm512_add_ps(r, constant(1.0)));
    _mm512_scalef_ps(p, n)
}

#[cfg(test)]
mod tests {
    use std::arch::x86_64::{_mm512_setzero_ps, _mm512_storeu_ps};

    use super::*;
    use crate::flex::isa::Isa;

    /// Says what this processor, or the level asked for, leaves out.
    fn skip(what: &str) {
        eprintln!("skipped: {what}; the kernels in use are `{}`", Isa::get().name());
    }

    fn exp_of(x: f32) -> f32 {
        // SAFETY: the caller asked for the instructions.
        unsafe {
            let mut out = [0.0; LANES];
            let mut y = _mm512_setzero_ps();
            y = _mm512_add_ps(y, exp(_mm512_set1_ps(x)));
            _mm512_storeu_ps(out.as_mut_ptr(), y);
            out[0]
        }
    }

    #[test]
    fn exp_is_right_to_two_units_in_the_last_place() {
        if Isa::get() < Isa::Avx512 {
            // What others use instead is held to the same bound in `simd`.
            skip("exp in registers of AVX-512");
            return;
        }
        for i in -870_000..880_000 {
            let x = i as f32 * 1e-4;
            let (found, expected) = (exp_of(x), f64::from(x).exp());
            let unit = f64::from((expected as f32).next_up() - expected as f32);
            assert!((f64::from(found) - expected).abs() <= 2.0 * unit, "{x}: {found}, {expected}");
        }
        assert_eq!(exp_of(f32::NEG_INFINITY).to_bits(), 0.0_f32.to_bits());
        assert_eq!(exp_of(0.0).to_bits(), 1.0_f32.to_bits());
        assert!(exp_of(f32::NAN).is_nan());
        assert!(exp_of(f32::INFINITY).is_infinite());
    }
}
