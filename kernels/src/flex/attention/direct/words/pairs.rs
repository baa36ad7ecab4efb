//! Two values of bf16 a word, multiplied by `vdpbf16ps`. Rows hold neighbouring values of a row in a word,
//! columns those of two rows.

use std::arch::x86_64::{
    __m256i, __m512, __m512bh, __m512i, _mm256_storeu_si256, _mm512_add_ps, _mm512_castsi512_si256,
    _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_extracti64x4_epi64, _mm512_loadu_epi16,
    _mm512_loadu_si512, _mm512_permutexvar_epi16, _mm512_reduce_add_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_si512,
};

use super::{
    COLS, Gradient, KEYS, LANES, ROWS, Running, Words, assert_tile, lanes, rise, weights, write,
};

/// Pairs of bf16.
pub(in super::super) struct Pairs;

impl Words for Pairs {
    const VALUES: usize = 2;
    const ROUNDS: bool = true;

    fn by_rows(steps: usize, a: &[f32], b: &[f32], c: &mut [f32], ldc: usize, accumulate: bool) {
        assert_tile(steps, b, c, ldc);
        assert!(a.len() >= (ROWS - 1) * Self::LINE + steps, "rows of a left side");
        let [a, b] = [a, b].map(<[f32]>::as_ptr);
        // SAFETY: the lengths are asserted; the way is taken only where the instructions are.
        unsafe { tile::<1, { Pairs::LINE }>(steps, a, b, c.as_mut_ptr(), ldc, accumulate) };
    }

    fn by_columns(steps: usize, a: &[f32], b: &[f32], c: &mut [f32], ldc: usize, accumulate: bool) {
        assert_tile(steps, b, c, ldc);
        assert!(a.len() + KEYS >= steps * KEYS + ROWS, "columns of a left side");
        let [a, b] = [a, b].map(<[f32]>::as_ptr);
        // SAFETY: as above.
        unsafe { tile::<KEYS, 1>(steps, a, b, c.as_mut_ptr(), ldc, accumulate) };
    }

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
        unsafe { weigh_row(scores, visible, most, scale, row, weights) };
    }

    fn gradient(
        of: &Gradient,
        products: [&[f32]; 2],
        keys: usize,
        columns: [&mut [f32]; 2],
        rows: &mut [f32],
    ) {
        assert!(products.iter().all(|rows| rows.len() == 2 * KEYS), "two rows of scores");
        assert!(columns.iter().all(|pairs| pairs.len() == KEYS), "a row of pairs");
        assert!(rows.len() == 2 * Self::LINE && keys <= KEYS, "two rows of gradients");
        // SAFETY: the lengths are asserted; the way is taken only where the instructions are.
        unsafe { gradient_rows(of, products, keys, columns, rows) };
    }

    fn rows<'a>(rows: &'a [f32], _columns: &'a [f32]) -> &'a [f32] {
        rows
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
        write(&sums, c, ldc, accumulate);
    }
}

/// # Safety
/// Needs avx512f and avx512bf16; the slices are as long as [`Words::weigh`] asserts.
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
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().add(start / 2).cast(), convert(low, high)) };
    }
    *row.total += _mm512_reduce_add_ps(_mm512_add_ps(totals[0], totals[1]));
}

/// Two registers as bf16, the low one first.
#[target_feature(enable = "avx512f,avx512bf16")]
fn convert(low: __m512, high: __m512) -> __m512i {
    // SAFETY: the same bits.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

/// # Safety
/// Needs avx512f, bw and bf16; the slices are as long as [`Words::gradient`] asserts.
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
    let two = [0, 1].map(|line: usize| products.map(|products| products[line * KEYS..].as_ptr()));
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
