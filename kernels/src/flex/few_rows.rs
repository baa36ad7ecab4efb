//! `x·Wᵀ` for the few rows of a step of decoding, where reading the weight is all the work: every weight
//! is read once, in the order it lies in memory, and multiplied where it is decoded.
//!
//! The sums run along a row in sixteen lanes, in an order of their own: results differ from those of
//! [`super::gemm`] by roundings of the f32 sums. They do not depend on the number of threads.
#![expect(unsafe_code, reason = "SIMD intrinsics inside rows whose lengths are checked first")]

use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::bf16_is_native;
use super::gemm::{Product, shuffle};
use super::matrix::Matrix;
use crate::frozen::{FrozenMatrix, Storage};
use crate::nf4::BLOCK;
use crate::precision::Precision;

/// Rows that pay: with more, panels are faster.
const MOST: usize = 4;
/// Outputs that a task computes.
const CHUNK: usize = 32;

/// `[rows, out]` of `x` `[rows, in]` rounded to bf16, if this machine, this form of the weight and so few
/// rows have a way of their own.
pub(super) fn linear(x: Matrix<'_>, rows: usize, weight: &FrozenMatrix) -> Option<Vec<f32>> {
    let [cols, depth] = weight.shape();
    let fits = match weight.storage() {
        Storage::Nf4 { .. } | Storage::Bf16(_) => depth.is_multiple_of(BLOCK),
        Storage::F32(_) | Storage::F16(_) => false,
    };
    if !(1..=MOST).contains(&rows) || !fits || !bf16_is_native() {
        return None;
    }
    assert_eq!(x.len(), rows * depth, "rows of {depth} inputs");
    let rounded = match x {
        Matrix::F32(x) => {
            let mut rounded = vec![0; x.len()];
            shuffle::round_run(x, &mut rounded);
            rounded
        }
        Matrix::Bf16(x) => x.reinterpret_cast().to_vec(),
    };
    let mut columns = vec![0.0; rows * cols]; // [out, rows]
    let work = |(chunk, columns): (usize, &mut [f32])| {
        for (index, sums) in columns.chunks_exact_mut(rows).enumerate() {
            let row = chunk * CHUNK + index;
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the features were detected; row `row` is one of the weight's.
            unsafe {
                match rows {
                    1 => x86::row::<1>(&rounded, weight, row, sums),
                    2 => x86::row::<2>(&rounded, weight, row, sums),
                    3 => x86::row::<3>(&rounded, weight, row, sums),
                    _ => x86::row::<4>(&rounded, weight, row, sums),
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            unreachable!("row {row} of {sums:?}: no processor of this kind multiplies bf16");
        }
    };
    if Product::new(rows, cols, depth, Precision::Bf16).is_large() {
        columns.par_chunks_mut(CHUNK * rows).enumerate().for_each(work);
    } else {
        columns.chunks_mut(CHUNK * rows).enumerate().for_each(work);
    }
    if rows == 1 {
        return Some(columns);
    }
    let y = (0..rows * cols).map(|i| columns[i % cols * rows + i / cols]);
    Some(y.collect())
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_si512,
        _mm512_reduce_add_ps, _mm512_setzero_ps,
    };

    use super::super::decode::x86::{bf16_table, bf16_values};
    use crate::frozen::{FrozenMatrix, Storage};
    use crate::nf4::BLOCK;

    /// One output of `ROWS` rows of bf16 inputs.
    ///
    /// # Safety
    /// Needs avx512f, bw, vl and bf16; `x` holds `ROWS` rows of the weight's width, a multiple of
    /// [`BLOCK`]; the weight has row `row`, in NF4 or bf16; `sums` has `ROWS` elements.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn row<const ROWS: usize>(
        x: &[u16],
        weight: &FrozenMatrix,
        row: usize,
        sums: &mut [f32],
    ) {
        let [_, depth] = weight.shape();
        let mut acc = [[_mm512_setzero_ps(); 2]; ROWS];
        // SAFETY: block `block` of the row, and the same columns of every row of `x`.
        unsafe {
            match weight.storage() {
                Storage::Nf4 { codes, absmax } => {
                    let codes = codes.as_ptr().add(row * depth / 2);
                    for block in 0..depth / BLOCK {
                        let table = bf16_table(absmax.scale(row * (depth / BLOCK) + block));
                        let from = codes.add(block * BLOCK / 2);
                        let at = x.as_ptr().add(block * BLOCK);
                        multiply::<ROWS, 0>(&mut acc, bf16_values(from, table), at, depth);
                        let (from, at) = (from.add(16), at.add(32));
                        multiply::<ROWS, 1>(&mut acc, bf16_values(from, table), at, depth);
                    }
                }
                Storage::Bf16(bytes) => {
                    let values = bytes.as_ptr().add(row * depth * 2);
                    for block in 0..depth / BLOCK {
                        let from = values.add(block * BLOCK * 2);
                        let at = x.as_ptr().add(block * BLOCK);
                        let weights = _mm512_loadu_si512(from.cast());
                        multiply::<ROWS, 0>(&mut acc, weights, at, depth);
                        let weights = _mm512_loadu_si512(from.add(64).cast());
                        multiply::<ROWS, 1>(&mut acc, weights, at.add(32), depth);
                    }
                }
                Storage::F32(_) | Storage::F16(_) => {}
            }
        }
        for (sum, [even, odd]) in sums.iter_mut().zip(acc) {
            *sum = _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
        }
    }

    /// Adds 32 weights times the same columns of every row to the sums `HALF`, which stay in registers
    /// because it is no variable.
    ///
    /// # Safety
    /// Needs avx512f and bf16; `x` points to 32 values of the first row, rows are `depth` apart.
    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    unsafe fn multiply<const ROWS: usize, const HALF: usize>(
        acc: &mut [[__m512; 2]; ROWS],
        weights: __m512i,
        x: *const u16,
        depth: usize,
    ) {
        // SAFETY: 512 bits of pairs of bf16, whatever their type.
        let weights: __m512bh = unsafe { std::mem::transmute(weights) };
        for (row, acc) in acc.iter_mut().enumerate() {
            // SAFETY: by the caller's promise.
            let x: __m512bh =
                unsafe { std::mem::transmute(_mm512_loadu_si512(x.add(row * depth).cast())) };
            acc[HALF] = _mm512_dpbf16_ps(acc[HALF], weights, x);
        }
    }
}
