//! Runs of a frozen weight, decoded with wide registers where the machine has them.
//!
//! A block's sixteen values are scaled (and rounded) once, then looked up: the values are those of
//! `CODE[index] · absmax`, to the bit, in f32 and rounded to bf16.
#![expect(unsafe_code, reason = "SIMD intrinsics inside slices whose lengths are checked first")]

use super::gemm::shuffle;
#[cfg(target_arch = "x86_64")]
use super::isa::Isa;
use super::simd;
use crate::frozen::{FrozenMatrix, Storage};
use crate::nf4::{Absmax, CODE, block_runs, look_up};

/// Values that other forms pass through on their way to bf16.
const CHUNK: usize = 128;

/// Decodes `out.len()` values of row `row` from column `column` on.
pub(super) fn f32_run(matrix: &FrozenMatrix, row: usize, column: usize, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if let Storage::Nf4 { codes, absmax } = matrix.storage()
        && Isa::get() >= Isa::Avx512
    {
        assert_run(matrix, row, column, out.len());
        let start = row * matrix.shape()[1] + column;
        // SAFETY: the processor has the features of its level; `block_runs` gives runs inside `codes` and `out`.
        block_runs(start, out, |block, offset, run| unsafe {
            x86::f32_block(codes, absmax.scale(block), offset, run);
        });
        return;
    }
    matrix.decode(row, column, out);
}

/// Decodes `out.len()` values of row `row` from column `column` on, rounded to bf16, to nearest even.
pub(super) fn bf16_run(matrix: &FrozenMatrix, row: usize, column: usize, out: &mut [u16]) {
    match matrix.storage() {
        Storage::Bf16(bytes) => {
            let start = row * matrix.shape()[1] + column;
            let bytes = &bytes[start * 2..(start + out.len()) * 2];
            for (out, value) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *out = u16::from_le_bytes(*value);
            }
        }
        Storage::Nf4 { codes, absmax } => {
            assert_run(matrix, row, column, out.len());
            bf16_nf4(codes, absmax, row * matrix.shape()[1] + column, out);
        }
        Storage::F32(_) | Storage::F16(_) => {
            let mut values = [0.0; CHUNK];
            for (index, out) in out.chunks_mut(CHUNK).enumerate() {
                let values = &mut values[..out.len()];
                matrix.decode(row, column + index * CHUNK, values);
                shuffle::round_run(values, out);
            }
        }
    }
}

/// The values of row `row` from column `column` on, where the file has them as bf16, at an even address.
pub(super) fn halves(
    matrix: &FrozenMatrix,
    row: usize,
    column: usize,
    len: usize,
) -> Option<&[u16]> {
    let Storage::Bf16(bytes) = matrix.storage() else { return None };
    let start = row * matrix.shape()[1] + column;
    let bytes = &bytes[start * 2..(start + len) * 2];
    // SAFETY: any bytes are `u16`s.
    let (before, halves, after) = unsafe { bytes.align_to::<u16>() };
    let is_whole = before.is_empty() && after.is_empty() && cfg!(target_endian = "little");
    is_whole.then_some(halves)
}

/// Asks for the memory of a run that will be decoded soon.
pub(super) fn prefetch(matrix: &FrozenMatrix, row: usize, column: usize, len: usize) {
    let start = row * matrix.shape()[1] + column;
    let (bytes, run) = match matrix.storage() {
        Storage::F32(bytes) => (bytes, 4 * start..4 * (start + len)),
        Storage::F16(bytes) | Storage::Bf16(bytes) => (bytes, 2 * start..2 * (start + len)),
        Storage::Nf4 { codes, .. } => (codes, start / 2..usize::midpoint(start, len)),
    };
    simd::prefetch(bytes.get(run).unwrap_or_default());
}

/// Keeps the pointers below inside their slices.
fn assert_run(matrix: &FrozenMatrix, row: usize, column: usize, len: usize) {
    let [rows, cols] = matrix.shape();
    assert!(row < rows && column + len <= cols, "{len} values at {row}, {column}");
}

fn bf16_nf4(codes: &[u8], absmax: &Absmax, start: usize, out: &mut [u16]) {
    #[cfg(target_arch = "x86_64")]
    if super::bf16_is_native() {
        // SAFETY: the features were detected; the run lies inside `codes`.
        unsafe { x86::bf16_run(codes, absmax, start, out) };
        return;
    }
    block_runs(start, out, |block, offset, run| {
        let scale = absmax.scale(block);
        let table = CODE.map(|code| shuffle::round(code * scale));
        look_up(codes, &table, offset, run);
    });
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm_loadl_epi64, _mm_loadu_si128, _mm256_storeu_si256,
        _mm512_castsi256_si512, _mm512_castsi512_si256, _mm512_cvtepu8_epi32, _mm512_cvtepu8_epi64,
        _mm512_cvtneps_pbh, _mm512_inserti64x4, _mm512_loadu_ps, _mm512_mul_ps, _mm512_or_si512,
        _mm512_permutexvar_epi16, _mm512_permutexvar_ps, _mm512_set1_ps, _mm512_slli_epi32,
        _mm512_slli_epi64, _mm512_srli_epi32, _mm512_srli_epi64, _mm512_storeu_ps,
        _mm512_storeu_si512,
    };

    use crate::nf4::{Absmax, BLOCK, CODE, look_up};

    /// A block's sixteen values as bf16, twice, since an index has five bits and a code only four.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    #[inline]
    pub(in crate::flex) fn bf16_table(scale: f32) -> __m512i {
        // SAFETY: the code has sixteen values; bf16 and integers of as many bits take any.
        unsafe {
            let scaled = _mm512_mul_ps(_mm512_loadu_ps(CODE.as_ptr()), _mm512_set1_ps(scale));
            let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(scaled));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(rounded), rounded)
        }
    }

    /// The 32 values of sixteen bytes of codes.
    ///
    /// # Safety
    /// Needs the features; `codes` points to sixteen bytes.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    #[inline]
    pub(in crate::flex) unsafe fn bf16_values(codes: *const u8, table: __m512i) -> __m512i {
        // SAFETY: by the caller's promise.
        let pairs = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(codes.cast()) });
        // The high nibble is the first value: the low half of a pair.
        let index = _mm512_or_si512(_mm512_srli_epi32::<4>(pairs), _mm512_slli_epi32::<16>(pairs));
        _mm512_permutexvar_epi16(index, table)
    }

    /// A run, block by block; the loop is compiled with what it calls.
    ///
    /// # Safety
    /// Needs avx512f, bw, vl and bf16; `codes` holds the values `start..start + out.len()`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn bf16_run(codes: &[u8], absmax: &Absmax, start: usize, out: &mut [u16]) {
        let (mut index, mut rest) = (start, out);
        while !rest.is_empty() {
            let len = (BLOCK - index % BLOCK).min(rest.len());
            let (run, tail) = rest.split_at_mut(len);
            // SAFETY: by the caller's promise.
            unsafe { bf16_block(codes, absmax.scale(index / BLOCK), index, run) };
            index += len;
            rest = tail;
        }
    }

    /// Part of a block, from value `offset` of the matrix on, as bf16.
    ///
    /// # Safety
    /// Needs avx512f, bw, vl and bf16; `codes` holds the values `offset..offset + out.len()`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    #[inline]
    unsafe fn bf16_block(codes: &[u8], scale: f32, offset: usize, out: &mut [u16]) {
        // SAFETY: sixteen bytes of codes are read and 32 values written while so many are left.
        unsafe {
            let table = bf16_table(scale);
            let mut done = 0;
            if offset.is_multiple_of(2) {
                while done + 32 <= out.len() {
                    let values =
                        bf16_values(codes.as_ptr().add(usize::midpoint(offset, done)), table);
                    _mm512_storeu_si512(out.as_mut_ptr().add(done).cast(), values);
                    done += 32;
                }
            }
            if done < out.len() {
                let mut table = [0_u16; 16];
                let rounded = _mm512_castsi512_si256(bf16_table(scale));
                _mm256_storeu_si256(table.as_mut_ptr().cast(), rounded);
                look_up(codes, &table, offset + done, &mut out[done..]);
            }
        }
    }

    /// Part of a block as f32.
    ///
    /// # Safety
    /// Needs avx512f; `codes` holds the values `offset..offset + out.len()`.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn f32_block(codes: &[u8], scale: f32, offset: usize, out: &mut [f32]) {
        // SAFETY: eight bytes of codes are read and 16 values written while so many are left.
        unsafe {
            let table = _mm512_mul_ps(_mm512_loadu_ps(CODE.as_ptr()), _mm512_set1_ps(scale));
            let mut done = 0;
            if offset.is_multiple_of(2) {
                while done + 16 <= out.len() {
                    let from = codes.as_ptr().add(usize::midpoint(offset, done)).cast();
                    let pairs: __m512i = _mm512_cvtepu8_epi64(_mm_loadl_epi64(from));
                    // The high nibble is the first value; an index takes its low four bits.
                    let index = _mm512_or_si512(
                        _mm512_srli_epi64::<4>(pairs),
                        _mm512_slli_epi64::<32>(pairs),
                    );
                    _mm512_storeu_ps(
                        out.as_mut_ptr().add(done),
                        _mm512_permutexvar_ps(index, table),
                    );
                    done += 16;
                }
            }
            if done < out.len() {
                look_up(codes, &CODE.map(|code| code * scale), offset + done, &mut out[done..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::nf4;

    /// Widths with and without blocks that run over the ends of rows.
    fn matrices() -> Vec<FrozenMatrix> {
        let values = |len: usize| (0..len).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<_>>();
        let mut matrices = vec![];
        for cols in [100, 128, 63] {
            let packed = nf4::quantize(&values(64 * cols), nf4::AbsmaxFormat::Plain).unwrap();
            let storage = Storage::Nf4 { codes: packed.codes.into(), absmax: packed.absmax };
            matrices.push(FrozenMatrix::new(64, cols, storage).unwrap());
            let dense = FrozenMatrix::from_f32(64, cols, &values(64 * cols));
            matrices.extend([dense.to_bf16(), dense]);
        }
        matrices
    }

    #[test]
    fn runs_are_those_of_the_matrix_to_the_bit() {
        for matrix in matrices() {
            let cols = matrix.shape()[1];
            for row in [0, 1, 63] {
                for (column, end) in [(0, cols), (1, cols), (2, 60), (27, 29), (36, cols - 1)] {
                    let mut expected = vec![0.0; end - column];
                    matrix.decode(row, column, &mut expected);
                    let mut found = vec![f32::NAN; end - column];
                    f32_run(&matrix, row, column, &mut found);
                    let mut rounded = vec![u16::MAX; end - column];
                    bf16_run(&matrix, row, column, &mut rounded);
                    for ((expected, found), rounded) in expected.iter().zip(found).zip(rounded) {
                        assert_eq!(expected.to_bits(), found.to_bits(), "{row}, {column}..{end}");
                        assert_eq!(bf16::from_f32(*expected).to_bits(), rounded);
                    }
                }
            }
        }
    }
}
