//! Tiles of products whose left side lies where it was written, and what becomes of scores.

use std::arch::x86_64::{
    __m256i, __m512, __m512bh, __m512i, __mmask16, _mm256_storeu_si256, _mm512_add_ps,
    _mm512_castsi512_si256, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_extracti64x4_epi64,
    _mm512_fmadd_ps, _mm512_fmsub_ps, _mm512_fnmadd_ps, _mm512_loadu_epi16, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mask_loadu_ps, _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_mul_ps,
    _mm512_permutexvar_epi16, _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_roundscale_ps,
    _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    _mm512_storeu_si512, _mm512_sub_ps,
};

use super::{COLS, KEYS, LINE, ROWS};

/// Lanes of a register.
const LANES: usize = 16;

/// `C (+)= A·B` for a tile of [`ROWS`] by [`COLS`]: `A` in rows of [`LINE`] words, `B` a panel.
pub(super) fn by_rows(
    steps: usize,
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
    ldc: usize,
    accumulate: bool,
) {
    assert!(steps <= LINE && a.len() >= (ROWS - 1) * LINE + steps, "rows of a left side");
    product::<1, LINE>(steps, a, b, c, ldc, accumulate);
}

/// The same with `A` as its transpose's pairs of rows, [`KEYS`] words apart.
pub(super) fn by_pairs(
    steps: usize,
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
    ldc: usize,
    accumulate: bool,
) {
    assert!(a.len() + KEYS >= steps * KEYS + ROWS, "pairs of a left side");
    product::<KEYS, 1>(steps, a, b, c, ldc, accumulate);
}

fn product<const STEP: usize, const ROW: usize>(
    steps: usize,
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
    ldc: usize,
    accumulate: bool,
) {
    assert!(b.len() >= steps * COLS, "a panel of {steps} steps");
    assert!(c.len() >= (ROWS - 1) * ldc + COLS, "a tile of sums");
    // SAFETY: the lengths are asserted, those of `a` by the callers; the way is taken only where the
    // instructions are.
    unsafe {
        tile::<STEP, ROW>(steps, a.as_ptr(), b.as_ptr(), c.as_mut_ptr(), ldc, accumulate);
    }
}

/// Word `step` of row `i` of the left side is `a[step · STEP + i · ROW]`.
///
/// # Safety
/// Needs avx512f and avx512bf16; all rows, steps and columns lie in what the pointers point to.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile<const STEP: usize, const ROW: usize>(
    steps: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
) {
    // SAFETY: by the caller's promise; a pair of bf16 and an i32 have the same bits and size.
    unsafe {
        let a = a.cast::<i32>();
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        for step in 0..steps {
            let pairs = |half: usize| -> __m512bh {
                let b = b.add(step * COLS + half * LANES);
                std::mem::transmute(_mm512_loadu_si512(b.cast()))
            };
            let b = [pairs(0), pairs(1)];
            for (i, row) in sums.iter_mut().enumerate() {
                let left: __m512bh =
                    std::mem::transmute(_mm512_set1_epi32(*a.add(step * STEP + i * ROW)));
                row[0] = _mm512_dpbf16_ps(row[0], left, b[0]);
                row[1] = _mm512_dpbf16_ps(row[1], left, b[1]);
            }
        }
        for (i, row) in sums.iter().enumerate() {
            for (half, &sum) in row.iter().enumerate() {
                let out = c.add(i * ldc + half * LANES);
                let sum = if accumulate { _mm512_add_ps(_mm512_loadu_ps(out), sum) } else { sum };
                _mm512_storeu_ps(out, sum);
            }
        }
    }
}

/// What the forward pass keeps of a row while it goes over the keys.
pub(super) struct Running<'a> {
    pub(super) level: &'a mut f32,
    pub(super) total: &'a mut f32,
    pub(super) sums: &'a mut [f32],
}

/// Turns a row of raw scores into weights under a maximum that may have risen: what was summed before is
/// scaled to it. The first `visible` are seen, the rest weighs nothing; `most` weights are written, or some
/// more.
pub(super) fn weigh(
    scores: &[f32],
    visible: usize,
    most: usize,
    scale: f32,
    row: Running<'_>,
    weights: &mut [f32],
) {
    assert!(scores.len() == KEYS && weights.len() == LINE, "a row of scores");
    assert!(visible <= most && most <= KEYS, "{visible} of {most} keys");
    // SAFETY: the lengths are asserted; the way is taken only where the instructions are.
    unsafe { weigh_row(scores, visible, most, scale, row, weights) };
}

/// The lanes from `start` on that are among the first `count`.
fn lanes(start: usize, count: usize) -> __mmask16 {
    let left = count.saturating_sub(start);
    if left >= LANES { __mmask16::MAX } else { (1 << left) - 1 }
}

/// # Safety
/// Needs avx512f and avx512bf16; `scores` has [`KEYS`] values, `weights` [`LINE`] words.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn weigh_row(
    scores: &[f32],
    visible: usize,
    most: usize,
    scale: f32,
    row: Running<'_>,
    weights: &mut [f32],
) {
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
        for sum in row.sums {
            *sum *= factor;
        }
        *row.level = highest;
    }
    let (scale, level) = (_mm512_set1_ps(scale), _mm512_set1_ps(*row.level));
    let mut totals = [_mm512_setzero_ps(); 2];
    for start in (0..most).step_by(2 * LANES) {
        let weight = |start: usize| {
            // SAFETY: whole registers inside the row, which holds a multiple of them.
            let scores = unsafe { _mm512_loadu_ps(scores.as_ptr().add(start)) };
            let weight = exp(_mm512_fmsub_ps(scores, scale, level));
            _mm512_maskz_mov_ps(lanes(start, visible), weight)
        };
        let [low, high] = [weight(start), weight(start + LANES)];
        totals = [_mm512_add_ps(totals[0], low), _mm512_add_ps(totals[1], high)];
        let halves: __m512i = convert(low, high);
        // SAFETY: a whole register inside the row.
        unsafe { _mm512_storeu_si512(weights.as_mut_ptr().add(start / 2).cast(), halves) };
    }
    *row.total += _mm512_reduce_add_ps(_mm512_add_ps(totals[0], totals[1]));
}

/// Two registers as bf16, the low one first.
#[target_feature(enable = "avx512f,avx512bf16")]
fn convert(low: __m512, high: __m512) -> __m512i {
    // SAFETY: the same bits.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

/// What becomes of two rows of scores in the backward pass.
pub(super) struct Gradient {
    pub(super) scale: f32,
    pub(super) visible: [usize; 2],
    pub(super) lse: [f32; 2],
    /// The output times its gradient.
    pub(super) along: [f32; 2],
}

/// Turns two rows of raw scores, and of what their weights are multiplied with, into weights and the
/// gradient of `q·kᵀ`, as pairs; the gradient's rows, too. So many keys, or some more, are written.
pub(super) fn gradient(
    of: &Gradient,
    [scores, d_weights]: [&[f32]; 2],
    keys: usize,
    [weights, d_scores]: [&mut [f32]; 2],
    rows: &mut [f32],
) {
    assert!(scores.len() == 2 * KEYS && d_weights.len() == 2 * KEYS, "two rows of scores");
    assert!(weights.len() == KEYS && d_scores.len() == KEYS, "a row of pairs");
    assert!(rows.len() == 2 * LINE && keys <= KEYS, "two rows of gradients");
    // SAFETY: the lengths are asserted; the way is taken only where the instructions are.
    unsafe { gradient_rows(of, [scores, d_weights], keys, [weights, d_scores], rows) };
}

/// # Safety
/// Needs avx512f, bw and bf16; the slices are as long as [`gradient`] asserts.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn gradient_rows(
    of: &Gradient,
    [scores, d_weights]: [&[f32]; 2],
    keys: usize,
    [weights, d_scores]: [&mut [f32]; 2],
    rows: &mut [f32],
) {
    // Word i takes lane i of the first row, then that of the second.
    let order: [u16; 2 * LANES] = std::array::from_fn(|i| (i / 2 + i % 2 * LANES) as u16);
    let scale = _mm512_set1_ps(of.scale);
    let (lse, along) = (of.lse.map(|x| _mm512_set1_ps(x)), of.along.map(|x| _mm512_set1_ps(x)));
    for start in (0..keys).step_by(LANES) {
        let row = |row: usize| {
            // SAFETY: whole registers inside rows that hold a multiple of them.
            let [scores, d_weights] = unsafe {
                [scores, d_weights].map(|x| _mm512_loadu_ps(x.as_ptr().add(row * KEYS + start)))
            };
            let weights = exp(_mm512_fmsub_ps(scores, scale, lse[row]));
            let gradient = _mm512_mul_ps(_mm512_sub_ps(d_weights, along[row]), scale);
            let gradient = _mm512_mul_ps(weights, gradient);
            let seen = lanes(start, of.visible[row]);
            [_mm512_maskz_mov_ps(seen, weights), _mm512_maskz_mov_ps(seen, gradient)]
        };
        let ([first, d_first], [second, d_second]) = (row(0), row(1));
        let gradients = convert(d_first, d_second);
        // SAFETY: whole registers, or halves of one, inside the slices.
        unsafe {
            let order = _mm512_loadu_epi16(order.as_ptr().cast());
            let pairs = _mm512_permutexvar_epi16(order, convert(first, second));
            _mm512_storeu_si512(weights.as_mut_ptr().add(start).cast(), pairs);
            let pairs = _mm512_permutexvar_epi16(order, gradients);
            _mm512_storeu_si512(d_scores.as_mut_ptr().add(start).cast(), pairs);
            let halves: [__m256i; 2] =
                [_mm512_castsi512_si256(gradients), _mm512_extracti64x4_epi64::<1>(gradients)];
            for (line, half) in halves.into_iter().enumerate() {
                let row = rows.as_mut_ptr().add(line * LINE + start / 2);
                _mm256_storeu_si256(row.cast(), half);
            }
        }
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
