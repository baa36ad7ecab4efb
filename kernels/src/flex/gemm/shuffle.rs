//! Rounding to bf16, pairing and transposing while a panel is packed.
//!
//! A pair is one 32-bit word: the bf16 of an even depth in the low half, of the next in the high half.
//! Words travel as `f32` values that nothing computes with.
#![expect(unsafe_code, reason = "SIMD intrinsics inside slices whose lengths are checked first")]

use std::mem::MaybeUninit;

use half::bf16;

#[cfg(target_arch = "x86_64")]
use super::super::isa::Isa;
use super::super::matrix::Value;
use super::super::simd::vectorize;

/// Rounds a run to bf16, each as [`round`] does.
pub(crate) fn round_run(values: &[f32], out: &mut [u16]) {
    round_into(values, unwritten(out));
}

/// Rounds a run to bf16, each as [`round`] does, to memory that may hold no values yet.
pub(super) fn round_into(values: &[f32], out: &mut [MaybeUninit<u16>]) {
    assert_eq!(values.len(), out.len(), "values of a run");
    #[cfg(target_arch = "x86_64")]
    if crate::flex::bf16_is_native() {
        // SAFETY: the features were detected, the lengths asserted.
        unsafe { x86::round_into(values, out) };
        return;
    }
    vectorize(
        #[inline(always)]
        || {
            for (out, &value) in out.iter_mut().zip(values) {
                out.write(round(value));
            }
        },
    );
}

/// Memory as it is written to, with no regard to what it holds.
#[inline(always)]
fn unwritten<T: Copy>(values: &mut [T]) -> &mut [MaybeUninit<T>] {
    // SAFETY: the same memory, borrowed for as long. This module writes nothing but values to it.
    unsafe { &mut *(std::ptr::from_mut(values) as *mut [MaybeUninit<T>]) }
}

/// The bits of a value as bf16.
#[inline(always)]
pub(crate) fn round(value: f32) -> u16 {
    <bf16 as Value>::of(value).to_bits()
}

/// Rounds values to bf16 where they are.
pub(crate) fn round_in_place(values: &mut [f32]) {
    vectorize(
        #[inline(always)]
        || {
            for value in values {
                *value = <bf16 as Value>::of(*value).get();
            }
        },
    );
}

/// bf16 as f32; for the closures of `vectorize`.
#[inline(always)]
pub(super) fn widen(halves: &[u16], out: &mut [f32]) {
    assert_eq!(halves.len(), out.len(), "values of a run");
    let ((halves, halves_rest), (out, out_rest)) =
        (halves.as_chunks::<16>(), out.as_chunks_mut::<16>());
    for (out, halves) in out.iter_mut().zip(halves) {
        *out = halves.map(widened);
    }
    for (out, &half) in out_rest.iter_mut().zip(halves_rest) {
        *out = widened(half);
    }
}

/// The bits of a bf16 as f32.
#[inline(always)]
fn widened(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

/// What lines that are transposed hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lines {
    /// Values of 32 bits, or pairs of bf16.
    Words,
    /// Values in bf16.
    Halves,
}

/// Copies a short line; a call of the system's copy costs more than the line.
#[inline(always)]
pub(super) fn copy(from: &[f32], to: &mut [f32]) {
    copy_into(from, unwritten(to));
}

/// Copies a short line to memory that may hold no values yet.
#[inline(always)]
pub(super) fn copy_into(from: &[f32], to: &mut [MaybeUninit<f32>]) {
    let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<16>(), to.as_chunks_mut::<16>());
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.map(MaybeUninit::new);
    }
    for (to, from) in to_rest.iter_mut().zip(from_rest) {
        to.write(*from);
    }
}

/// The words as halves: two a word, the low one first.
pub(crate) fn halves(words: &mut [f32]) -> &mut [u16] {
    // SAFETY: the same memory, borrowed alone for as long: an `f32` has the size and more than the alignment of
    // two `u16`, and both take any bits.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), 2 * words.len()) }
}

/// Pairs two lines: `out[i]` holds `low[i]` and `high[i]`.
pub(super) fn pair_lines(low: &[u16], high: &[u16], out: &mut [f32]) {
    assert!(low.len() == high.len() && low.len() <= out.len(), "pairs of two lines");
    #[cfg(target_arch = "x86_64")]
    if Isa::get() >= Isa::Avx512 {
        // SAFETY: the processor has the features of its level, the lengths are asserted.
        unsafe { x86::pair_lines(low, high, out) };
        return;
    }
    for (out, (&low, &high)) in out.iter_mut().zip(low.iter().zip(high)) {
        *out = f32::from_bits(u32::from(high) << 16 | u32::from(low));
    }
}

/// Lines of `depth` values become the first columns of `panel`, `[depth][width]`. They are words, or halves
/// that are widened to words, as `of` says; `lines[i]` points to the values, however they are aligned.
///
/// # Safety
/// Every pointer is good for reading its values, of halves as many as make whole words.
pub(super) unsafe fn transpose(
    lines: &[*const f32],
    of: Lines,
    depth: usize,
    panel: &mut [f32],
    width: usize,
) {
    assert!(lines.len() <= width, "lines of a panel");
    assert!(panel.len() >= depth * width, "a panel {depth} deep");
    #[cfg(target_arch = "x86_64")]
    if Isa::get() >= Isa::Avx512 {
        // SAFETY: the processor has the features of its level, the lengths are asserted, the lines are the
        // caller's promise.
        unsafe {
            match of {
                Lines::Words => x86::transpose::<false>(lines, depth, panel, width),
                Lines::Halves => x86::transpose::<true>(lines, depth, panel, width),
            }
        }
        return;
    }
    for (index, out) in panel.chunks_exact_mut(width).take(depth).enumerate() {
        for (out, line) in out.iter_mut().zip(lines) {
            // SAFETY: by the caller's promise.
            *out = unsafe {
                match of {
                    Lines::Words => line.add(index).read_unaligned(),
                    Lines::Halves => widened(line.cast::<u16>().add(index).read_unaligned()),
                }
            };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512, __m512i, __mmask16, _mm256_mask_storeu_epi16, _mm512_and_si512,
        _mm512_castpd_ps, _mm512_castps_pd, _mm512_castps_si512, _mm512_castsi512_ps,
        _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_loadu_epi16, _mm512_loadu_ps,
        _mm512_mask_storeu_ps, _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_ps,
        _mm512_permutex2var_epi16, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_shuffle_f32x4,
        _mm512_slli_epi32, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_unpackhi_pd,
        _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
    };
    use std::mem::MaybeUninit;

    /// The first `count` of 16 lanes.
    fn mask(count: usize) -> __mmask16 {
        if count >= 16 { u16::MAX } else { (1_u16 << count) - 1 }
    }

    /// # Safety
    /// Needs avx512f, bw, vl and bf16; the slices have one length.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn round_into(values: &[f32], out: &mut [MaybeUninit<u16>]) {
        let whole = values.len() / 32 * 32;
        for start in (0..whole).step_by(32) {
            // SAFETY: whole registers inside the slices.
            unsafe {
                let low = _mm512_loadu_ps(values.as_ptr().add(start));
                let high = _mm512_loadu_ps(values.as_ptr().add(start + 16));
                let rounded: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
                _mm512_storeu_si512(out.as_mut_ptr().add(start).cast(), rounded);
            }
        }
        for start in (whole..values.len()).step_by(16) {
            let lanes = mask(values.len() - start);
            // SAFETY: masked lanes are not touched, the others lie inside the slices.
            unsafe {
                let values = _mm512_maskz_loadu_ps(lanes, values.as_ptr().add(start));
                let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(values));
                _mm256_mask_storeu_epi16(out.as_mut_ptr().add(start).cast(), lanes, rounded);
            }
        }
    }

    /// # Safety
    /// Needs avx512f and bw; `out` is at least as long as the others, which have one length.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn pair_lines(low: &[u16], high: &[u16], out: &mut [f32]) {
        // Lane 2i takes lane i of the first register, lane 2i + 1 that of the second.
        let order: [u16; 64] = std::array::from_fn(|i| (i / 2 + i % 2 * 32) as u16);
        let whole = low.len() / 32 * 32;
        // SAFETY: whole registers inside the slices, then lanes masked to what is left.
        unsafe {
            let first = _mm512_loadu_epi16(order.as_ptr().cast());
            let second = _mm512_loadu_epi16(order.as_ptr().add(32).cast());
            if whole < low.len() {
                let left = low.len() - whole;
                let lanes = (1_u32 << left) - 1;
                let low = _mm512_maskz_loadu_epi16(lanes, low.as_ptr().add(whole).cast());
                let high = _mm512_maskz_loadu_epi16(lanes, high.as_ptr().add(whole).cast());
                let out = out.as_mut_ptr().add(whole);
                let pairs = _mm512_castsi512_ps(_mm512_permutex2var_epi16(low, first, high));
                _mm512_mask_storeu_ps(out, mask(left), pairs);
                if left > 16 {
                    let pairs = _mm512_castsi512_ps(_mm512_permutex2var_epi16(low, second, high));
                    _mm512_mask_storeu_ps(out.add(16), mask(left - 16), pairs);
                }
            }
            for start in (0..whole).step_by(32) {
                let low = _mm512_loadu_epi16(low.as_ptr().add(start).cast());
                let high = _mm512_loadu_epi16(high.as_ptr().add(start).cast());
                let out = out.as_mut_ptr().add(start);
                _mm512_storeu_si512(out.cast(), _mm512_permutex2var_epi16(low, first, high));
                let second = _mm512_permutex2var_epi16(low, second, high);
                _mm512_storeu_si512(out.add(16).cast(), second);
            }
        }
    }

    /// Halves travel in pairs, as words: a transposed word gives two rows of the panel.
    ///
    /// # Safety
    /// Needs avx512f; each of at most `width` lines has `depth` values in whole words, `panel` holds
    /// `depth * width`.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn transpose<const HALVES: bool>(
        lines: &[*const f32],
        depth: usize,
        panel: &mut [f32],
        width: usize,
    ) {
        let (rows, end) = (lines.len(), depth * width);
        let words = if HALVES { depth.div_ceil(2) } else { depth };
        for row0 in (0..rows).step_by(16) {
            let height = (rows - row0).min(16);
            // What a whole register spills into the next row of the panel, that row overwrites. Masked
            // stores are several times slower.
            let spills = row0 + 16 > width;
            let mut store = |index: usize, column: __m512| {
                let start = index * width + row0;
                let fits = if spills { start + 16 <= end && height == width } else { height == 16 };
                // SAFETY: a whole register inside the panel, or row `index` of it, masked to its lines.
                unsafe {
                    let to = panel.as_mut_ptr().add(start);
                    if fits {
                        _mm512_storeu_ps(to, column);
                    } else {
                        _mm512_mask_storeu_ps(to, mask(height), column);
                    }
                }
            };
            for word0 in (0..words).step_by(16) {
                let count = (words - word0).min(16);
                let mut block = [_mm512_setzero_ps(); 16];
                for (line, from) in block.iter_mut().zip(&lines[row0..row0 + height]) {
                    // SAFETY: this line, masked to its words.
                    *line = unsafe {
                        let from = from.add(word0);
                        if count == 16 {
                            _mm512_loadu_ps(from)
                        } else {
                            _mm512_maskz_loadu_ps(mask(count), from)
                        }
                    };
                }
                let block = transpose_16(&block);
                for (column, word) in block.iter().take(count).zip(word0..) {
                    if !HALVES {
                        store(word, *column);
                        continue;
                    }
                    let pair = _mm512_castps_si512(*column);
                    store(2 * word, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pair)));
                    if 2 * word + 1 < depth {
                        let high = _mm512_and_si512(pair, _mm512_set1_epi32(-0x1_0000));
                        store(2 * word + 1, _mm512_castsi512_ps(high));
                    }
                }
            }
        }
    }

    /// Sixteen registers as a 16 × 16 matrix, transposed: pairs, fours, then quarters of registers.
    #[target_feature(enable = "avx512f")]
    fn transpose_16(rows: &[__m512; 16]) -> [__m512; 16] {
        let mut twos = *rows;
        for i in 0..8 {
            twos[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
            twos[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
        }
        let mut fours = twos;
        for i in 0..4 {
            let pd = |k: usize| _mm512_castps_pd(twos[4 * i + k]);
            fours[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(pd(0), pd(2)));
            fours[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(pd(0), pd(2)));
            fours[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(pd(1), pd(3)));
            fours[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(pd(1), pd(3)));
        }
        // `fours[4i + k]` holds columns k, 4 + k, 8 + k, 12 + k of rows 4i..4i + 4, a quarter each.
        let mut out = fours;
        for k in 0..4 {
            let low_even = _mm512_shuffle_f32x4::<0x88>(fours[k], fours[4 + k]);
            let low_odd = _mm512_shuffle_f32x4::<0xdd>(fours[k], fours[4 + k]);
            let high_even = _mm512_shuffle_f32x4::<0x88>(fours[8 + k], fours[12 + k]);
            let high_odd = _mm512_shuffle_f32x4::<0xdd>(fours[8 + k], fours[12 + k]);
            out[k] = _mm512_shuffle_f32x4::<0x88>(low_even, high_even);
            out[8 + k] = _mm512_shuffle_f32x4::<0xdd>(low_even, high_even);
            out[4 + k] = _mm512_shuffle_f32x4::<0x88>(low_odd, high_odd);
            out[12 + k] = _mm512_shuffle_f32x4::<0xdd>(low_odd, high_odd);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_as_bf16_instructions_round() {
        let patterns = (0..=u16::MAX).flat_map(|high| {
            let low = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
            low.map(|low| f32::from_bits(u32::from(high) << 16 | low))
        });
        let values: Vec<f32> = patterns.collect();
        let mut out = vec![0; values.len()];
        round_run(&values, &mut out);
        let (mut in_place, mut wide) = (values.clone(), vec![0.0; values.len()]);
        round_in_place(&mut in_place);
        widen(&out, &mut wide);
        for ((&value, found), (in_place, wide)) in
            values.iter().zip(out).zip(in_place.into_iter().zip(wide))
        {
            let nearest = half::bf16::from_f32(value).to_bits();
            let expected = if value.is_subnormal() { nearest & 0x8000 } else { nearest };
            assert_eq!(found, expected, "{value:e}, {:#x}", value.to_bits());
            assert_eq!(in_place.to_bits(), u32::from(expected) << 16, "{value:e}");
            assert_eq!(wide.to_bits(), u32::from(expected) << 16, "{value:e}");
        }
    }

    fn numbers(len: usize) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * 0.37).sin() * 3.0).collect()
    }

    const PANELS: [(usize, usize); 7] =
        [(1, 12), (12, 12), (5, 12), (16, 16), (17, 32), (32, 32), (31, 32)];

    /// `panel` has the lines' values as columns, and nothing in the columns that they leave.
    fn assert_transposed(panel: &[f32], width: usize, lines: &[Vec<f32>]) {
        for (step, column) in panel.chunks_exact(width).enumerate() {
            for (i, value) in column.iter().enumerate() {
                let expected = lines.get(i).map_or(f32::NAN, |line| line[step]);
                assert_eq!(
                    value.to_bits(),
                    expected.to_bits(),
                    "{} lines: {i}, {step}",
                    lines.len()
                );
            }
        }
    }

    #[test]
    fn a_panel_is_the_transpose_of_its_lines() {
        for (rows, width) in PANELS {
            for depth in [1, 15, 16, 17, 40] {
                let lines: Vec<_> = (0..rows).map(|i| numbers(depth + i).split_off(i)).collect();
                let starts: Vec<_> = lines.iter().map(Vec::as_ptr).collect();
                let mut panel = vec![f32::NAN; depth * width];
                // SAFETY: lines of `depth` words.
                unsafe { transpose(&starts, Lines::Words, depth, &mut panel, width) };
                assert_transposed(&panel, width, &lines);
            }
        }
    }

    #[test]
    fn halves_are_widened_on_their_way_into_a_panel() {
        for (rows, width) in PANELS {
            for depth in [1, 2, 31, 32, 33, 34, 80] {
                let mut lines: Vec<_> =
                    (0..rows).map(|i| numbers(depth + i).split_off(i)).collect();
                let rounded = |line: &Vec<f32>| {
                    let mut out = vec![u16::MAX; depth.next_multiple_of(2)];
                    round_run(line, &mut out[..depth]);
                    out
                };
                let halves: Vec<_> = lines.iter().map(rounded).collect();
                let starts: Vec<_> = halves.iter().map(|line| line.as_ptr().cast()).collect();
                let mut panel = vec![f32::NAN; depth * width];
                // SAFETY: lines of `depth` halves, and one more where that is odd.
                unsafe { transpose(&starts, Lines::Halves, depth, &mut panel, width) };
                for line in &mut lines {
                    round_in_place(line);
                }
                assert_transposed(&panel, width, &lines);
            }
        }
    }

    #[test]
    fn pairs_are_the_rounded_values_side_by_side() {
        for len in [1, 2, 31, 32, 33, 100] {
            let rounded = |values: &[f32]| {
                let mut out = vec![0; values.len()];
                round_run(values, &mut out);
                for (out, &value) in out.iter().zip(values) {
                    assert_eq!(*out, half::bf16::from_f32(value).to_bits(), "{len}");
                }
                out
            };
            let (low, high) = (rounded(&numbers(len)), rounded(&numbers(2 * len)[len..]));
            let mut out = vec![0.0; len];
            pair_lines(&low, &high, &mut out);
            for (i, pair) in halves(&mut out).chunks_exact(2).enumerate() {
                assert_eq!(pair, [low[i], high[i]], "{len}: {i}");
            }
        }
    }
}
