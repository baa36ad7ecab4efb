//! One f32 a word, rounded to bf16 or not. Rows of a left side are the columns of its transpose.

use std::arch::x86_64::{
    __m512, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_reduce_add_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_srli_epi32, _mm512_storeu_ps,
};

use super::{
    COLS, Gradient, KEYS, LANES, ROWS, Running, Words, assert_tile, lanes, rise, weights, write,
};

/// f32, rounded to bf16 if so.
pub(in super::super) struct Singles<const ROUND: bool>;

impl<const ROUND: bool> Words for Singles<ROUND> {
    const VALUES: usize = 1;
    const ROUNDS: bool = ROUND;

    fn by_rows(steps: usize, a: &[f32], b: &[f32], c: &mut [f32], ldc: usize, accumulate: bool) {
        assert_tile(steps, b, c, ldc);
        assert!(a.len() >= (ROWS - 1) * KEYS + steps, "rows of a left side");
        let [a, b] = [a, b].map(<[f32]>::as_ptr);
        // SAFETY: the lengths are asserted; the way is taken only where the instructions are.
        unsafe { tile::<1, KEYS>(steps, a, b, c.as_mut_ptr(), ldc, accumulate) };
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
        assert!(scores.len() == KEYS && weights.len() == KEYS, "a row of scores");
        assert!(visible <= most && most <= KEYS, "{visible} of {most} keys");
        // SAFETY: the lengths are asserted; the way is taken only where the instructions are.
        unsafe { weigh_row::<ROUND>(scores, visible, most, scale, row, weights) };
    }

    fn gradient(
        of: &Gradient,
        products: [&[f32]; 2],
        keys: usize,
        columns: [&mut [f32]; 2],
        _rows: &mut [f32],
    ) {
        assert!(products.iter().all(|rows| rows.len() == 2 * KEYS), "two rows of scores");
        assert!(columns.iter().all(|rows| rows.len() == 2 * KEYS) && keys <= KEYS, "two rows");
        // SAFETY: the lengths are asserted; the way is taken only where the instructions are.
        unsafe { gradient_rows::<ROUND>(of, products, keys, columns) };
    }

    fn rows<'a>(_rows: &'a [f32], columns: &'a [f32]) -> &'a [f32] {
        columns
    }
}

/// Value `step` of row `i` of the left side is `a[step · STEP + i · ROW]`.
///
/// # Safety
/// Needs avx512f; all rows, steps and columns lie in what the pointers point to.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const STEP: usize, const ROW: usize>(
    steps: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        for step in 0..steps {
            let b = [0, LANES].map(|half| _mm512_loadu_ps(b.add(step * COLS + half)));
            for (i, row) in sums.iter_mut().enumerate() {
                let left = _mm512_set1_ps(*a.add(step * STEP + i * ROW));
                row[0] = _mm512_fmadd_ps(left, b[0], row[0]);
                row[1] = _mm512_fmadd_ps(left, b[1], row[1]);
            }
        }
        write(&sums, c, ldc, accumulate);
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

/// # Safety
/// Needs avx512f; the slices are as long as [`Words::weigh`] asserts.
#[target_feature(enable = "avx512f")]
unsafe fn weigh_row<const ROUND: bool>(
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
                let weights = weights(scores.as_ptr().add(at), lanes(at, visible), scale, level);
                *total = _mm512_add_ps(*total, weights);
                _mm512_storeu_ps(to.as_mut_ptr().add(at), rounded::<ROUND>(weights));
            }
        }
    }
    *row.total += _mm512_reduce_add_ps(_mm512_add_ps(totals[0], totals[1]));
}

/// # Safety
/// Needs avx512f; the slices are as long as [`Words::gradient`] asserts.
#[target_feature(enable = "avx512f")]
unsafe fn gradient_rows<const ROUND: bool>(
    of: &Gradient,
    products: [&[f32]; 2],
    keys: usize,
    columns: [&mut [f32]; 2],
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
