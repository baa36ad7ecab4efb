//! Leaves values out by their bits.
#![expect(unsafe_code, reason = "functions whose target features were detected")]

use super::Kept;
use crate::dropout::GROUP;
#[cfg(target_arch = "x86_64")]
use crate::flex::isa::Isa;

/// A type of values of which some are dropped.
pub(in crate::flex) trait Lane: Copy + Default + Send + Sync {
    /// Copies values, zeros in place of those that are dropped; both sides may be the same.
    ///
    /// # Safety
    /// Needs avx512f, bw and vl; `from` and `to` point to `len` values, for which there are bits, and nothing
    /// else refers to those of `to`.
    #[cfg(target_arch = "x86_64")]
    unsafe fn keep_avx512(from: *const Self, to: *mut Self, len: usize, words: &[u64]);
}

impl Lane for f32 {
    #[cfg(target_arch = "x86_64")]
    unsafe fn keep_avx512(from: *const Self, to: *mut Self, len: usize, words: &[u64]) {
        // SAFETY: by the caller's promise.
        unsafe { x86::keep_words(from, to, len, words) }
    }
}

impl Lane for u16 {
    #[cfg(target_arch = "x86_64")]
    unsafe fn keep_avx512(from: *const Self, to: *mut Self, len: usize, words: &[u64]) {
        // SAFETY: by the caller's promise.
        unsafe { x86::keep_halves(from, to, len, words) }
    }
}

/// Whether lanes can be masked.
pub(super) fn masks() -> bool {
    #[cfg(target_arch = "x86_64")]
    return Isa::get() >= Isa::Avx512;
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Clears what is dropped of up to [`GROUP`] values, one by one: they are few.
fn clear<T: Lane>(values: &mut [T], bits: u64) {
    let there = u64::MAX >> (GROUP - values.len().clamp(1, GROUP));
    let mut dropped = !bits & there;
    while dropped != 0 {
        values[dropped.trailing_zeros() as usize] = T::default();
        dropped &= dropped - 1;
    }
}

/// Clears what is dropped of a run of values.
pub(super) fn clear_run<T: Lane>(values: &mut [T], words: &[u64]) {
    assert!(values.len() <= words.len() * GROUP, "bits of a run");
    #[cfg(target_arch = "x86_64")]
    if masks() {
        let (at, len) = (values.as_mut_ptr(), values.len());
        // SAFETY: the features were detected; there are bits for all values, as asserted, which are borrowed
        // alone and reached through this pointer only.
        return unsafe { T::keep_avx512(at, at, len, words) };
    }
    for (values, &bits) in values.chunks_mut(GROUP).zip(words) {
        clear(values, bits);
    }
}

/// Copies a run without what is dropped.
pub(super) fn copy_run<T: Lane>(from: &[T], to: &mut [T], words: &[u64]) {
    assert!(from.len() == to.len() && to.len() <= words.len() * GROUP, "bits of a run");
    #[cfg(target_arch = "x86_64")]
    if masks() {
        // SAFETY: the features were detected; there are bits for all values, as asserted; `to` is borrowed alone.
        return unsafe { T::keep_avx512(from.as_ptr(), to.as_mut_ptr(), to.len(), words) };
    }
    to.copy_from_slice(from);
    clear_run(to, words);
}

/// Clears what is dropped of `height` lines of a tile, each up to [`GROUP`] values of a row in one group.
pub(in crate::flex) fn clear_tile(
    sums: &mut [f32],
    width: usize,
    height: usize,
    kept: &Kept,
    [row, column]: [usize; 2],
) {
    assert!(sums.len() >= height * width && column % GROUP + width <= GROUP, "lines of a tile");
    #[cfg(target_arch = "x86_64")]
    if masks() {
        // SAFETY: the features were detected; the lines are there, as asserted.
        return unsafe { x86::clear_tile(sums, width, height, kept, [row, column]) };
    }
    for (line, sums) in sums.chunks_exact_mut(width).take(height).enumerate() {
        clear(sums, kept.bits(row + line, column));
    }
}

/// Clears what is dropped of a row that lies in panels, `width` values in each, `apart` from one another.
pub(in crate::flex) fn clear_panels(
    panels: &mut [f32],
    width: usize,
    apart: usize,
    columns: usize,
    words: &[u64],
) {
    assert!(columns <= words.len() * GROUP, "bits of a row");
    #[cfg(target_arch = "x86_64")]
    if masks() {
        // SAFETY: the features were detected; there are bits for all columns, as asserted.
        return unsafe { x86::clear_panels(panels, width, apart, columns, words) };
    }
    for (panel, column) in panels.chunks_mut(apart).zip((0..columns).step_by(width)) {
        let values = &mut panel[..width.min(columns - column)];
        clear(values, words[column / GROUP] >> (column % GROUP));
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm512_mask_storeu_epi16, _mm512_mask_storeu_ps, _mm512_maskz_loadu_epi16,
        _mm512_maskz_loadu_ps, _mm512_storeu_epi16, _mm512_storeu_ps,
    };

    use super::{GROUP, Kept};

    /// [`super::clear_tile`].
    ///
    /// # Safety
    /// Needs the features; `height` lines of `width` values are in `sums`, each in one group.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn clear_tile(
        sums: &mut [f32],
        width: usize,
        height: usize,
        kept: &Kept,
        [row, column]: [usize; 2],
    ) {
        for (line, sums) in sums.chunks_exact_mut(width).take(height).enumerate() {
            let (at, bits) = (sums.as_mut_ptr(), kept.bits(row + line, column));
            // SAFETY: a line, borrowed alone, has one group of bits at most.
            unsafe { keep_words(at, at, width, &[bits]) };
        }
    }

    /// [`super::clear_panels`].
    ///
    /// # Safety
    /// Needs the features; there are bits for all columns.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn clear_panels(
        panels: &mut [f32],
        width: usize,
        apart: usize,
        columns: usize,
        words: &[u64],
    ) {
        for (panel, column) in panels.chunks_mut(apart).zip((0..columns).step_by(width)) {
            let values = &mut panel[..width.min(columns - column)];
            let (at, bits) = (values.as_mut_ptr(), words[column / GROUP] >> (column % GROUP));
            // SAFETY: a panel's part of a row, borrowed alone, lies in one group.
            unsafe { keep_words(at, at, values.len(), &[bits]) };
        }
    }

    /// [`super::Lane::keep_avx512`] of words, sixteen lanes at a time.
    ///
    /// # Safety
    /// As there.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    pub(super) unsafe fn keep_words(from: *const f32, to: *mut f32, len: usize, words: &[u64]) {
        for start in (0..len).step_by(16) {
            let bits = (words[start / GROUP] >> (start % GROUP)) as u16;
            // SAFETY: whole registers inside the values, then lanes masked to what is left.
            unsafe {
                let (from, to) = (from.add(start), to.add(start));
                if len - start >= 16 {
                    _mm512_storeu_ps(to, _mm512_maskz_loadu_ps(bits, from));
                } else {
                    let lanes = (1 << (len - start)) - 1;
                    let values = _mm512_maskz_loadu_ps(bits & lanes, from);
                    _mm512_mask_storeu_ps(to, lanes, values);
                }
            }
        }
    }

    /// [`super::Lane::keep_avx512`] of halves, 32 lanes at a time.
    ///
    /// # Safety
    /// As there.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    pub(super) unsafe fn keep_halves(from: *const u16, to: *mut u16, len: usize, words: &[u64]) {
        for start in (0..len).step_by(32) {
            let bits = (words[start / GROUP] >> (start % GROUP)) as u32;
            // SAFETY: as above.
            unsafe {
                let (from, to) = (from.add(start).cast(), to.add(start).cast());
                if len - start >= 32 {
                    _mm512_storeu_epi16(to, _mm512_maskz_loadu_epi16(bits, from));
                } else {
                    let lanes = (1 << (len - start)) - 1;
                    let values = _mm512_maskz_loadu_epi16(bits & lanes, from);
                    _mm512_mask_storeu_epi16(to, lanes, values);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::dropout;
    use super::*;

    #[test]
    fn what_is_dropped_is_zero_and_the_rest_untouched() {
        for len in [1, 15, 16, 17, 64, 65, 150] {
            let dropout = dropout(0.4);
            let kept = Kept::draw(&dropout, 2, len);
            let values: Vec<f32> = (1..=len).map(|value| value as f32).collect();
            let halves: Vec<u16> = (1..=len as u16).collect();
            let expected = |column: usize| if dropout.keeps(1, column) { column + 1 } else { 0 };
            let words = kept.from(1, 0);
            let (mut copied, mut cleared) = (vec![7.0; len], values.clone());
            copy_run(&values, &mut copied, words);
            clear_run(&mut cleared, words);
            let as_floats: Vec<f32> = (0..len).map(|column| expected(column) as f32).collect();
            assert_eq!((&copied, &cleared), (&as_floats, &as_floats), "{len} values");
            let (mut copied, mut cleared) = (vec![7; len], halves.clone());
            copy_run(&halves, &mut copied, words);
            clear_run(&mut cleared, words);
            let as_halves: Vec<u16> = (0..len).map(|column| expected(column) as u16).collect();
            assert_eq!((&copied, &cleared), (&as_halves, &as_halves), "{len} halves");
            let mut one_by_one = values.clone();
            for (values, &bits) in one_by_one.chunks_mut(GROUP).zip(words) {
                clear(values, bits);
            }
            assert_eq!(one_by_one, as_floats, "{len} values, one by one");
        }
    }
}
