//! Rounding to bf16, pairing and transposing while a panel is packed.
//!
//! A pair is one 32-bit word: the bf16 of an even depth in the low half, of the next in the high half.
//! Words travel as `f32` values that nothing computes with.
#![expect(unsafe_code, reason = "SIMD intrinsics inside slices whose lengths are checked first")]

/// Pairs neighbours of a run: `out[i]` holds values `2i` and `2i + 1`, zero after the end.
pub(super) fn pair_run(values: &[f32], out: &mut [f32]) {
    assert_eq!(out.len(), values.len().div_ceil(2), "pairs of a run");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512f") {
        // SAFETY: the features were detected, the lengths asserted.
        unsafe { x86::pair_run(values, out) };
        return;
    }
    for (out, pair) in out.iter_mut().zip(values.chunks(2)) {
        *out = word(pair[0], pair.get(1).copied().unwrap_or(0.0));
    }
}

/// Pairs two lines: `out[i]` holds `low[i]` and `high[i]`.
pub(super) fn pair_lines(low: &[f32], high: &[f32], out: &mut [f32]) {
    assert!(low.len() == high.len() && low.len() <= out.len(), "pairs of two lines");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512f") {
        // SAFETY: the features were detected, the lengths asserted.
        unsafe { x86::pair_lines(low, high, out) };
        return;
    }
    for (out, (&low, &high)) in out.iter_mut().zip(low.iter().zip(high)) {
        *out = word(low, high);
    }
}

/// `lines` `[rows][steps]` becomes the first `rows` columns of `panel` `[steps][width]`.
pub(super) fn transpose(lines: &[f32], rows: usize, steps: usize, panel: &mut [f32], width: usize) {
    assert!(rows <= width && lines.len() >= rows * steps, "lines of a panel");
    assert!(panel.len() >= steps * width, "a panel of {steps} steps");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature was detected, the lengths asserted.
        unsafe { x86::transpose(lines, rows, steps, panel, width) };
        return;
    }
    for (step, out) in panel.chunks_exact_mut(width).take(steps).enumerate() {
        for (i, out) in out[..rows].iter_mut().enumerate() {
            *out = lines[i * steps + step];
        }
    }
}

/// Two values rounded to bf16, to nearest even, in one word.
fn word(low: f32, high: f32) -> f32 {
    let bits = |value: f32| u32::from(half::bf16::from_f32(value).to_bits());
    f32::from_bits((bits(high) << 16) | bits(low))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512, __m512i, __mmask16, _mm512_castpd_ps, _mm512_castps_pd,
        _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_mask_storeu_epi32,
        _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_or_si512, _mm512_setzero_ps,
        _mm512_shuffle_f32x4, _mm512_slli_epi32, _mm512_unpackhi_pd, _mm512_unpackhi_ps,
        _mm512_unpacklo_pd, _mm512_unpacklo_ps,
    };

    /// The first `count` of 16 lanes.
    fn mask(count: usize) -> __mmask16 {
        if count >= 16 { u16::MAX } else { (1_u16 << count) - 1 }
    }

    /// # Safety
    /// Needs avx512f and avx512bf16; `out` holds half of `values`, rounded up.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn pair_run(values: &[f32], out: &mut [f32]) {
        for start in (0..values.len()).step_by(32) {
            let left = values.len() - start;
            // SAFETY: masked lanes are not touched, the others lie inside the slices.
            unsafe {
                let from = values.as_ptr().add(start);
                let low = _mm512_maskz_loadu_ps(mask(left), from);
                let high =
                    _mm512_maskz_loadu_ps(mask(left.saturating_sub(16)), from.wrapping_add(16));
                let pairs: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
                let to = out.as_mut_ptr().add(start / 2).cast();
                _mm512_mask_storeu_epi32(to, mask(left.div_ceil(2)), pairs);
            }
        }
    }

    /// # Safety
    /// Needs avx512f and avx512bf16; the three slices hold at least `low.len()` values.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn pair_lines(low: &[f32], high: &[f32], out: &mut [f32]) {
        for start in (0..low.len()).step_by(16) {
            let lanes = mask(low.len() - start);
            // SAFETY: masked lanes are not touched, the others lie inside the slices.
            unsafe {
                let widen = |values: &[f32]| {
                    let values = _mm512_maskz_loadu_ps(lanes, values.as_ptr().add(start));
                    let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(values));
                    _mm512_cvtepu16_epi32(rounded)
                };
                let pairs = _mm512_or_si512(widen(low), _mm512_slli_epi32::<16>(widen(high)));
                _mm512_mask_storeu_epi32(out.as_mut_ptr().add(start).cast(), lanes, pairs);
            }
        }
    }

    /// # Safety
    /// Needs avx512f; `lines` holds `rows * steps`, `panel` `steps * width` values, `rows <= width`.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn transpose(
        lines: &[f32],
        rows: usize,
        steps: usize,
        panel: &mut [f32],
        width: usize,
    ) {
        for row0 in (0..rows).step_by(16) {
            let height = (rows - row0).min(16);
            for step0 in (0..steps).step_by(16) {
                let count = (steps - step0).min(16);
                let mut block = [_mm512_setzero_ps(); 16];
                for (i, line) in block.iter_mut().take(height).enumerate() {
                    // SAFETY: row `row0 + i`, masked to its steps.
                    *line = unsafe {
                        let from = lines.as_ptr().add((row0 + i) * steps + step0);
                        _mm512_maskz_loadu_ps(mask(count), from)
                    };
                }
                let block = transpose_16(&block);
                for (step, column) in block.iter().take(count).enumerate() {
                    // SAFETY: step `step0 + step` of the panel, masked to its rows.
                    unsafe {
                        let to = panel.as_mut_ptr().add((step0 + step) * width + row0);
                        _mm512_mask_storeu_ps(to, mask(height), *column);
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

    fn numbers(len: usize) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * 0.37).sin() * 3.0).collect()
    }

    #[test]
    fn a_panel_is_the_transpose_of_its_lines() {
        for (rows, width) in [(1, 12), (12, 12), (5, 12), (16, 16), (17, 32), (32, 32), (31, 32)] {
            for steps in [1, 15, 16, 17, 40] {
                let lines = numbers(rows * steps);
                let mut panel = vec![f32::NAN; steps * width];
                transpose(&lines, rows, steps, &mut panel, width);
                for (step, column) in panel.chunks_exact(width).enumerate() {
                    for (i, value) in column.iter().enumerate() {
                        let expected = if i < rows {
                            lines[i * steps + step].to_bits()
                        } else {
                            f32::NAN.to_bits()
                        };
                        assert_eq!(value.to_bits(), expected, "{rows} x {steps}: {i}, {step}");
                    }
                }
            }
        }
    }

    #[test]
    fn pairs_are_the_rounded_neighbours() {
        for len in [1, 2, 31, 32, 33, 100] {
            let values = numbers(len);
            let mut out = vec![0.0; len.div_ceil(2)];
            pair_run(&values, &mut out);
            for (i, pair) in values.chunks(2).enumerate() {
                let expected = word(pair[0], pair.get(1).copied().unwrap_or(0.0));
                assert_eq!(out[i].to_bits(), expected.to_bits(), "{len}: {i}");
            }
            let other = numbers(2 * len)[len..].to_vec();
            let mut out = vec![0.0; len];
            pair_lines(&values, &other, &mut out);
            for i in 0..len {
                assert_eq!(out[i].to_bits(), word(values[i], other[i]).to_bits(), "{len}: {i}");
            }
        }
    }
}
