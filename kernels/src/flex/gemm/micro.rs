//! Micro-kernels: one `MR × NR` tile of `C (+)= A·B` from packed panels, chosen at run time.
//!
//! Panel layout: `A` is `[depth][MR]`, `B` is `[depth][NR]`, both `f32`. The bf16 kernel takes pairs:
//! one `u32` holds the bf16 values of two consecutive depths (low half first), so its panels are
//! `[depth / 2][MR]` and `[depth / 2][NR]`. Accumulation is always f32, in depth order.
#![expect(unsafe_code, reason = "SIMD intrinsics on panels whose sizes the driver guarantees")]

#[cfg(target_arch = "x86_64")]
use super::super::isa::{Isa, multiplies_pairs};

/// One micro-kernel with its tile shape.
#[derive(Clone, Copy)]
pub(super) struct Micro {
    /// Rows of the tile.
    pub(super) mr: usize,
    /// Columns of the tile.
    pub(super) nr: usize,
    /// Whether the panels hold bf16 pairs instead of f32.
    pub(super) pairs: bool,
    /// `run(steps, a, b, tile)`: `steps` panel rows are multiplied and added to the tile.
    pub(super) run: Run,
}

type Run = unsafe fn(usize, *const f32, *const f32, MicroTile);

/// Where a kernel's sums go, and what they are added to: whole tiles, row by row. While a kernel runs its rows
/// are good for writing, those that it adds to hold values, and nothing else refers to either or touches them.
#[derive(Clone, Copy)]
pub(crate) struct MicroTile {
    /// Nothing, if null.
    from: *const f32,
    from_row: usize,
    to: *mut f32,
    to_row: usize,
}

impl MicroTile {
    /// Finished sums go to `to`, rows `row` apart, added to what is there if `accumulate`.
    pub(crate) fn at(to: *mut f32, row: usize, accumulate: bool) -> Self {
        let from = if accumulate { to.cast_const() } else { std::ptr::null() };
        Self { from, from_row: row, to, to_row: row }
    }

    /// Goes where it went; the sums so far are at `from`, rows `row` apart.
    pub(super) fn from(self, from: *const f32, row: usize) -> Self {
        Self { from, from_row: row, ..self }
    }
}

/// The largest tile of any kernel, in elements.
pub(super) const MAX_TILE: usize = 12 * 32;

/// The fastest f32 kernel of those in use for so many rows.
pub(super) fn f32_kernel(rows: usize) -> Micro {
    #[cfg(target_arch = "x86_64")]
    match Isa::get() {
        Isa::Avx512 | Isa::Avx512Bf16 => {
            let (mr, run): (usize, Run) = match tile_rows(rows) {
                1 => (1, x86::avx512_f32::<1, 1, 1>),
                2 => (2, x86::avx512_f32::<2, 2, 1>),
                4 => (4, x86::avx512_f32::<4, 4, 1>),
                8 => (8, x86::avx512_f32::<8, 8, 1>),
                _ => (12, x86::avx512_f32::<12, 12, 1>),
            };
            return Micro { mr, nr: 32, pairs: false, run };
        }
        Isa::Avx2 => return Micro { mr: 6, nr: 16, pairs: false, run: x86::avx2_f32 },
        Isa::Portable => {}
    }
    let _ = rows;
    Micro { mr: 4, nr: 16, pairs: false, run: portable_f32 }
}

/// The bf16 kernel for so many rows, if pairs are multiplied.
pub(super) fn bf16_kernel(rows: usize) -> Option<Micro> {
    #[cfg(target_arch = "x86_64")]
    if multiplies_pairs() {
        let (mr, run): (usize, Run) = match tile_rows(rows) {
            1 => (1, x86::avx512_bf16::<1, 1, 1>),
            2 => (2, x86::avx512_bf16::<2, 2, 1>),
            4 => (4, x86::avx512_bf16::<4, 4, 1>),
            8 => (8, x86::avx512_bf16::<8, 8, 1>),
            _ => (12, x86::avx512_bf16::<12, 12, 1>),
        };
        return Some(Micro { mr, nr: 32, pairs: true, run });
    }
    let _ = rows;
    None
}

/// Rows of the tiles that cover `rows` with the fewest instructions: a step costs two for each row of a
/// tile and two for its columns. The height of a tile does not change a bit.
#[cfg(target_arch = "x86_64")]
fn tile_rows(rows: usize) -> usize {
    let cost = |mr: usize| rows.div_ceil(mr) * (2 * mr + 2);
    [12, 8, 4, 2, 1].into_iter().min_by_key(|&mr| cost(mr)).unwrap_or(12)
}

/// Plain loops, for processors without a kernel of their own.
///
/// # Safety
/// `a` holds `steps * 4`, `b` holds `steps * 16` values; `tile` is one of 4 × 16.
unsafe fn portable_f32(steps: usize, a: *const f32, b: *const f32, tile: MicroTile) {
    const MR: usize = 4;
    const NR: usize = 16;
    let mut acc = [[0.0_f32; NR]; MR];
    // SAFETY: the caller guarantees the panel lengths.
    let (a, b) = unsafe {
        (std::slice::from_raw_parts(a, steps * MR), std::slice::from_raw_parts(b, steps * NR))
    };
    for (a, b) in a.chunks_exact(MR).zip(b.chunks_exact(NR)) {
        for (row, &left) in acc.iter_mut().zip(a) {
            for (sum, &right) in row.iter_mut().zip(b) {
                *sum += left * right;
            }
        }
    }
    for (i, row) in acc.iter().enumerate() {
        for (j, &sum) in row.iter().enumerate() {
            // SAFETY: row `i` of the caller's tile, to which nothing else refers.
            unsafe {
                let before = tile.from.wrapping_add(i * tile.from_row + j);
                let sum = if tile.from.is_null() { sum } else { *before + sum };
                tile.to.add(i * tile.to_row + j).write(sum);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use std::arch::x86_64::{
        __m512bh, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps,
        _mm256_setzero_ps, _mm256_storeu_ps, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps,
        _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_storeu_ps,
    };

    use super::MicroTile;

    /// `MR` × 32 tile, f32: with 12 rows, 24 accumulators of 16 lanes. Row `i` of step `s` of the left side
    /// is `a[s · STEP + i · ROW]`: a packed panel has `MR` and 1.
    ///
    /// # Safety
    /// Needs avx512f; `a` holds all rows of `steps` steps, `b` holds `steps * 32` values, `tile` is one
    /// of `MR` × 32.
    #[target_feature(enable = "avx512f")]
    pub(crate) unsafe fn avx512_f32<const MR: usize, const STEP: usize, const ROW: usize>(
        steps: usize,
        a: *const f32,
        b: *const f32,
        tile: MicroTile,
    ) {
        // SAFETY: pointers stay inside the panels and the tile, by the caller's guarantee.
        unsafe {
            let mut acc = [[_mm512_setzero_ps(); 2]; MR];
            for step in 0..steps {
                let b0 = _mm512_loadu_ps(b.add(step * 32));
                let b1 = _mm512_loadu_ps(b.add(step * 32 + 16));
                for (i, row) in acc.iter_mut().enumerate() {
                    let left = _mm512_set1_ps(*a.add(step * STEP + i * ROW));
                    row[0] = _mm512_fmadd_ps(left, b0, row[0]);
                    row[1] = _mm512_fmadd_ps(left, b1, row[1]);
                }
            }
            for (i, row) in acc.iter().enumerate() {
                for (half, &sum) in row.iter().enumerate() {
                    let before = tile.from.wrapping_add(i * tile.from_row + half * 16);
                    let before = (!tile.from.is_null()).then(|| _mm512_loadu_ps(before));
                    let sum = before.map_or(sum, |before| _mm512_add_ps(before, sum));
                    _mm512_storeu_ps(tile.to.add(i * tile.to_row + half * 16), sum);
                }
            }
        }
    }

    /// `MR` × 32 tile of bf16 pairs with f32 accumulators (`vdpbf16ps`), a left side like that above.
    ///
    /// # Safety
    /// Needs avx512f and avx512bf16; `a` holds all rows of `steps` steps, `b` holds `steps * 32` pairs,
    /// `tile` is one of `MR` × 32.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(crate) unsafe fn avx512_bf16<const MR: usize, const STEP: usize, const ROW: usize>(
        steps: usize,
        a: *const f32,
        b: *const f32,
        tile: MicroTile,
    ) {
        // SAFETY: pointers stay inside the panels and the tile, by the caller's guarantee; a pair
        // of bf16 and an i32 have the same bits and size.
        unsafe {
            let a = a.cast::<i32>();
            let mut acc = [[_mm512_setzero_ps(); 2]; MR];
            for step in 0..steps {
                let b0: __m512bh = std::mem::transmute(_mm512_loadu_si512(b.add(step * 32).cast()));
                let b1: __m512bh =
                    std::mem::transmute(_mm512_loadu_si512(b.add(step * 32 + 16).cast()));
                for (i, row) in acc.iter_mut().enumerate() {
                    let left: __m512bh =
                        std::mem::transmute(_mm512_set1_epi32(*a.add(step * STEP + i * ROW)));
                    row[0] = _mm512_dpbf16_ps(row[0], left, b0);
                    row[1] = _mm512_dpbf16_ps(row[1], left, b1);
                }
            }
            for (i, row) in acc.iter().enumerate() {
                for (half, &sum) in row.iter().enumerate() {
                    let before = tile.from.wrapping_add(i * tile.from_row + half * 16);
                    let before = (!tile.from.is_null()).then(|| _mm512_loadu_ps(before));
                    let sum = before.map_or(sum, |before| _mm512_add_ps(before, sum));
                    _mm512_storeu_ps(tile.to.add(i * tile.to_row + half * 16), sum);
                }
            }
        }
    }

    /// 6 × 16 tile, f32: 12 accumulators of 8 lanes.
    ///
    /// # Safety
    /// Needs avx2 and fma; `a` holds `steps * 6`, `b` holds `steps * 16` values, `tile` is one of 6 × 16.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2_f32(steps: usize, a: *const f32, b: *const f32, tile: MicroTile) {
        // SAFETY: pointers stay inside the panels and the tile, by the caller's guarantee.
        unsafe {
            let mut acc = [[_mm256_setzero_ps(); 2]; 6];
            for step in 0..steps {
                let b0 = _mm256_loadu_ps(b.add(step * 16));
                let b1 = _mm256_loadu_ps(b.add(step * 16 + 8));
                for (i, row) in acc.iter_mut().enumerate() {
                    let left = _mm256_set1_ps(*a.add(step * 6 + i));
                    row[0] = _mm256_fmadd_ps(left, b0, row[0]);
                    row[1] = _mm256_fmadd_ps(left, b1, row[1]);
                }
            }
            for (i, row) in acc.iter().enumerate() {
                for (half, &sum) in row.iter().enumerate() {
                    let before = tile.from.wrapping_add(i * tile.from_row + half * 8);
                    let before = (!tile.from.is_null()).then(|| _mm256_loadu_ps(before));
                    let sum = before.map_or(sum, |before| _mm256_add_ps(before, sum));
                    _mm256_storeu_ps(tile.to.add(i * tile.to_row + half * 8), sum);
                }
            }
        }
    }
}
