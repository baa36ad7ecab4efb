//! Dropout on the CPU: a bit for each value of an input, drawn by rows and applied where the input is read.
#![expect(unsafe_code, reason = "functions whose target features were detected")]

#[cfg(target_arch = "x86_64")]
mod low;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::gemm::{Left, Operand, Product, Right, Runs, View, shuffle};
#[cfg(target_arch = "x86_64")]
use super::isa::Isa;
use super::matrix::Matrix;
use crate::dropout::{BLOCKS, Dropout, GROUP, MULTIPLIERS, ROUNDS, WEYL};

/// Words of bits that a task draws: some microseconds.
const CHUNK: usize = 512;

/// One bit for each value of a `[rows, cols]`: whether it is kept.
pub(super) struct Kept {
    words: Vec<u64>,
    per_row: usize,
}

/// The bits of one input, with its shape.
type Drawn = (Dropout, [usize; 2], Rc<Kept>);

/// Inputs whose bits are remembered: a branch has four at most, and its gradients come right after it.
const RECENT: usize = 4;

thread_local! {
    static DRAWN: RefCell<VecDeque<Drawn>> = RefCell::default();
}

impl Kept {
    /// The bits, maybe drawn before.
    pub(super) fn of(dropout: &Dropout, rows: usize, cols: usize) -> Rc<Self> {
        DRAWN.with_borrow_mut(|drawn| {
            let mut before = drawn.iter();
            let before = before.find(|(of, shape, _)| (of, shape) == (dropout, &[rows, cols]));
            if let Some((.., kept)) = before {
                return kept.clone();
            }
            drawn.truncate(RECENT - 1);
            let kept = Rc::new(Self::draw(dropout, rows, cols));
            drawn.push_front((*dropout, [rows, cols], kept.clone()));
            kept
        })
    }

    /// Draws the bits.
    fn draw(dropout: &Dropout, rows: usize, cols: usize) -> Self {
        let per_row = cols.div_ceil(GROUP).max(1);
        let mut words = vec![0; rows * per_row];
        let keys = keys(dropout);
        let rows_of_task = CHUNK.div_ceil(per_row);
        let draw = |(task, words): (usize, &mut [u64])| {
            draw_rows(dropout, &keys, task * rows_of_task, per_row, words);
        };
        if words.len() <= CHUNK {
            draw((0, &mut words));
        } else {
            words.par_chunks_mut(rows_of_task * per_row).enumerate().for_each(draw);
        }
        Self { words, per_row }
    }

    /// The bits of a row from the group on that `column` is the first of.
    #[inline(always)]
    pub(super) fn from(&self, row: usize, column: usize) -> &[u64] {
        debug_assert!(column.is_multiple_of(GROUP), "column {column}");
        &self.words[row * self.per_row..(row + 1) * self.per_row][column / GROUP..]
    }

    /// The bits of up to [`GROUP`] columns of a row, all in one group.
    #[inline(always)]
    pub(super) fn bits(&self, row: usize, column: usize) -> u64 {
        self.words[row * self.per_row + column / GROUP] >> (column % GROUP)
    }
}

/// A type of values of which some are dropped.
pub(super) trait Lane: Copy + Default + Send + Sync {
    /// Copies values, zeros in place of those that are dropped; both sides may be the same.
    ///
    /// # Safety
    /// Needs avx512f, bw and vl; `from` and `to` point to `len` values, for which there are bits.
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
fn masks() -> bool {
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
fn clear_run<T: Lane>(values: &mut [T], words: &[u64]) {
    assert!(values.len() <= words.len() * GROUP, "bits of a run");
    #[cfg(target_arch = "x86_64")]
    if masks() {
        let (at, len) = (values.as_mut_ptr(), values.len());
        // SAFETY: the features were detected; there are bits for all values, as asserted.
        return unsafe { T::keep_avx512(at, at, len, words) };
    }
    for (values, &bits) in values.chunks_mut(GROUP).zip(words) {
        clear(values, bits);
    }
}

/// Copies a run without what is dropped.
fn copy_run<T: Lane>(from: &[T], to: &mut [T], words: &[u64]) {
    assert!(from.len() == to.len() && to.len() <= words.len() * GROUP, "bits of a run");
    #[cfg(target_arch = "x86_64")]
    if masks() {
        // SAFETY: the features were detected; there are bits for all values, as asserted.
        return unsafe { T::keep_avx512(from.as_ptr(), to.as_mut_ptr(), to.len(), words) };
    }
    to.copy_from_slice(from);
    clear_run(to, words);
}

/// Clears what is dropped of `height` lines of a tile, each up to [`GROUP`] values of a row in one group.
pub(super) fn clear_tile(
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
pub(super) fn clear_panels(
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

/// `drop(x)·Aᵀ`, `a` `[rank, in]`; all of `product` but its left side is that of `x` itself.
pub(super) fn low(x: &Dropped<'_>, product: Product, a: &[f32]) -> Vec<f32> {
    #[cfg(target_arch = "x86_64")]
    if masks() {
        return low::low(x, product, a);
    }
    packed_low(x, product, a)
}

/// The same with the input packed.
fn packed_low(x: &Dropped<'_>, product: Product, a: &[f32]) -> Vec<f32> {
    let left = Left::packed(product, x, product.is_large());
    left.multiply_new(product, &Right::of(&View::rows(a, product.depth)))
}

/// The values that are kept, zeros in place of the others.
pub(super) fn dropped<T: Lane>(x: &[T], cols: usize, kept: &Kept) -> Vec<T> {
    let mut y = vec![T::default(); x.len()];
    y.par_chunks_exact_mut(cols.max(1))
        .zip(x.par_chunks_exact(cols.max(1)))
        .with_min_len(16)
        .enumerate()
        .for_each(|(row, (y, x))| copy_run(x, y, kept.from(row, 0)));
    y
}

/// The rows of an input, of which some values are dropped, as a left side.
pub(super) struct Dropped<'a> {
    pub(super) data: Matrix<'a>,
    pub(super) cols: usize,
    pub(super) kept: &'a Kept,
}

impl Operand for Dropped<'_> {
    fn runs(&self) -> Runs {
        Runs::AlongDepth
    }

    fn run<'s>(&'s self, line: usize, start: usize, scratch: &'s mut [f32]) -> &'s [f32] {
        let (place, words) = (line * self.cols + start, self.kept.from(line, start));
        match self.data {
            Matrix::F32(values) => {
                copy_run(&values[place..place + scratch.len()], scratch, words);
            }
            Matrix::Bf16(_) => {
                self.data.run(place, scratch);
                clear_run(scratch, words);
            }
        }
        scratch
    }

    fn bf16_run(&self, line: usize, start: usize, _scratch: &mut [f32], out: &mut [u16]) {
        let place = line * self.cols + start;
        let (range, words) = (place..place + out.len(), self.kept.from(line, start));
        match self.data {
            Matrix::F32(values) => {
                shuffle::round_run(&values[range], out);
                clear_run(out, words);
            }
            Matrix::Bf16(values) => copy_run(values[range].reinterpret_cast(), out, words),
        }
    }
}

type Keys = [[u32; 2]; ROUNDS as usize];

/// The key of every round.
fn keys(dropout: &Dropout) -> Keys {
    std::array::from_fn(|round| {
        [0, 1].map(|i| dropout.key[i].wrapping_add(WEYL[i].wrapping_mul(round as u32)))
    })
}

/// Draws the bits of rows from `first` on, `per_row` words each.
fn draw_rows(dropout: &Dropout, keys: &Keys, first: usize, per_row: usize, words: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    match Isa::get() {
        // SAFETY: the processor has the features of its level.
        Isa::Avx512 | Isa::Avx512Bf16 => {
            return unsafe { x86::rows_avx512(dropout, keys, first, per_row, words) };
        }
        // SAFETY: the same.
        Isa::Avx2 => return unsafe { x86::rows_avx2(dropout, keys, first, per_row, words) },
        Isa::Portable => {}
    }
    for (row, words) in words.chunks_exact_mut(per_row).enumerate() {
        for (group, word) in words.iter_mut().enumerate() {
            *word = portable(dropout, keys, (first + row) as u32, group);
        }
    }
}

/// The bits of a group, its blocks side by side. What lies above 32 bits of a lane is never read.
fn portable(dropout: &Dropout, keys: &Keys, row: u32, group: usize) -> u64 {
    let lanes = |value: u32| [u64::from(value); BLOCKS];
    let mut counter = [lanes(0), lanes(row), lanes(dropout.stream[0]), lanes(dropout.stream[1])];
    for (lane, block) in counter[0].iter_mut().enumerate() {
        *block = (group * BLOCKS + lane) as u64;
    }
    let product = |multiplier: u32, lanes: [u64; BLOCKS]| {
        lanes.map(|lane| u64::from(multiplier) * (lane & 0xffff_ffff))
    };
    for key in keys {
        let [c0, c1, c2, c3] = counter;
        let (low0, low1) = (product(MULTIPLIERS[0], c0), product(MULTIPLIERS[1], c2));
        let [even, odd] = [(low1, c1, key[0]), (low0, c3, key[1])].map(|(low, other, key)| {
            std::array::from_fn(|lane| (low[lane] >> 32) ^ other[lane] ^ u64::from(key))
        });
        counter = [even, low1, odd, low0];
    }
    let kept = |lane: usize, word: usize, half: usize| {
        u64::from((counter[word][lane] >> (16 * half)) as u16 >= dropout.threshold)
    };
    let column = |c: usize| kept(c % 32 / 4, c / 32 * 2 + c % 4 / 2, c % 2) << c;
    (0..GROUP).map(column).fold(0, |word, bit| word | bit)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm256_add_epi64, _mm256_blend_epi32, _mm256_cmpeq_epi16,
        _mm256_max_epu16, _mm256_movemask_epi8, _mm256_mul_epu32, _mm256_packs_epi16,
        _mm256_permute4x64_epi64, _mm256_set_epi64x, _mm256_set1_epi16, _mm256_set1_epi64x,
        _mm256_slli_epi64, _mm256_srli_epi64, _mm256_xor_si256, _mm512_add_epi64,
        _mm512_cmpge_epu16_mask, _mm512_mask_blend_epi32, _mm512_mask_storeu_epi16,
        _mm512_mask_storeu_ps, _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_ps, _mm512_mul_epu32,
        _mm512_set_epi64, _mm512_set1_epi16, _mm512_set1_epi64, _mm512_slli_epi64,
        _mm512_srli_epi64, _mm512_storeu_epi16, _mm512_storeu_ps, _mm512_ternarylogic_epi64,
    };

    use super::{BLOCKS, Dropout, GROUP, Kept, Keys, MULTIPLIERS};

    /// `a ^ b ^ c` as a table of three bits.
    const XOR: i32 = 0x96;

    /// The bits of rows: a block a lane of 64 bits, whose upper half is never read.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn rows_avx512(
        dropout: &Dropout,
        keys: &Keys,
        first: usize,
        per_row: usize,
        words: &mut [u64],
    ) {
        let all = |value: u32| _mm512_set1_epi64(i64::from(value));
        let multipliers = MULTIPLIERS.map(all);
        let keys = keys.map(|key| key.map(all));
        let threshold = _mm512_set1_epi16(dropout.threshold as i16);
        let lanes = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
        let stream = dropout.stream.map(all);
        let kept = |even: __m512i, odd: __m512i| {
            // Both words of a block in its lane.
            let both = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64::<32>(odd));
            u64::from(_mm512_cmpge_epu16_mask(both, threshold))
        };
        for (index, word) in words.iter_mut().enumerate() {
            let (row, group) = (all((first + index / per_row) as u32), index % per_row);
            let first = _mm512_set1_epi64((group * BLOCKS) as i64);
            let mut counter = [_mm512_add_epi64(lanes, first), row, stream[0], stream[1]];
            for key in &keys {
                let [c0, c1, c2, c3] = counter;
                let low0 = _mm512_mul_epu32(c0, multipliers[0]);
                let low1 = _mm512_mul_epu32(c2, multipliers[1]);
                let high0 = _mm512_srli_epi64::<32>(low0);
                let high1 = _mm512_srli_epi64::<32>(low1);
                counter = [
                    _mm512_ternarylogic_epi64::<XOR>(high1, c1, key[0]),
                    low1,
                    _mm512_ternarylogic_epi64::<XOR>(high0, c3, key[1]),
                    low0,
                ];
            }
            let [c0, c1, c2, c3] = counter;
            *word = kept(c0, c1) | kept(c2, c3) << 32;
        }
    }

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
            // SAFETY: a line has one group of bits at most.
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
            // SAFETY: a panel's part of a row lies in one group.
            unsafe { keep_words(at, at, values.len(), &[bits]) };
        }
    }

    /// [`super::Lane::keep_avx512`], sixteen lanes at a time.
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

    /// The same, 32 lanes at a time.
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

    /// [`rows_avx512`] with four blocks a register.
    #[target_feature(enable = "avx2")]
    pub(super) fn rows_avx2(
        dropout: &Dropout,
        keys: &Keys,
        first: usize,
        per_row: usize,
        words: &mut [u64],
    ) {
        let all = |value: u32| _mm256_set1_epi64x(i64::from(value));
        let multipliers = MULTIPLIERS.map(all);
        let threshold = _mm256_set1_epi16(dropout.threshold as i16);
        let lanes = [_mm256_set_epi64x(3, 2, 1, 0), _mm256_set_epi64x(7, 6, 5, 4)];
        let stream = dropout.stream.map(all);
        let xor = |a: __m256i, b: __m256i, c: __m256i| _mm256_xor_si256(a, _mm256_xor_si256(b, c));
        let kept = |even: __m256i, odd: __m256i| {
            let both = _mm256_blend_epi32::<0xaa>(even, _mm256_slli_epi64::<32>(odd));
            // The larger of both is the value itself where it is not below.
            _mm256_cmpeq_epi16(_mm256_max_epu16(both, threshold), both)
        };
        for (index, word) in words.iter_mut().enumerate() {
            let (row, group) = (all((first + index / per_row) as u32), index % per_row);
            let first = _mm256_set1_epi64x((group * BLOCKS) as i64);
            let mut counters =
                lanes.map(|lanes| [_mm256_add_epi64(lanes, first), row, stream[0], stream[1]]);
            for key in keys {
                let key = key.map(all);
                counters = counters.map(|[c0, c1, c2, c3]| {
                    let low0 = _mm256_mul_epu32(c0, multipliers[0]);
                    let low1 = _mm256_mul_epu32(c2, multipliers[1]);
                    let high0 = _mm256_srli_epi64::<32>(low0);
                    let high1 = _mm256_srli_epi64::<32>(low1);
                    [xor(high1, c1, key[0]), low1, xor(high0, c3, key[1]), low0]
                });
            }
            let [[a0, a1, a2, a3], [b0, b1, b2, b3]] = counters;
            let bits = |first: __m256i, last: __m256i| {
                // Packing goes by halves of a register: their middle parts change places.
                let bytes = _mm256_packs_epi16(first, last);
                let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(bytes);
                u64::from(_mm256_movemask_epi8(bytes).cast_unsigned())
            };
            let low = bits(kept(a0, a1), kept(b0, b1));
            let high = bits(kept(a2, a3), kept(b2, b3));
            *word = low | high << 32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropout(rate: f64) -> Dropout {
        Dropout::new([0x1234_5678, 0xffff_ffff, 0x9abc_def0, 7], rate).unwrap()
    }

    #[test]
    fn bits_are_those_of_the_definition_at_every_edge() {
        for (rows, cols) in [(1, 1), (3, 63), (2, 64), (70, 65), (9, 200), (40, 1_100)] {
            for rate in [1e-9, 0.05, 0.5, 0.999_999] {
                let dropout = dropout(rate);
                let kept = Kept::draw(&dropout, rows, cols);
                for (row, column) in
                    (0..rows).flat_map(|row| (0..cols).map(move |column| (row, column)))
                {
                    let found = kept.bits(row, column) & 1 == 1;
                    let expected = dropout.keeps(row, column);
                    assert_eq!(found, expected, "{rate}: row {row}, column {column} of {cols}");
                }
            }
        }
    }

    #[test]
    fn the_portable_way_draws_the_same_bits() {
        let dropout = dropout(0.3);
        let mut words = [0; 20];
        for row in [0, 1, 1_000, u32::MAX] {
            draw_rows(&dropout, &keys(&dropout), row as usize, words.len(), &mut words);
            let portable: Vec<u64> = (0..words.len())
                .map(|group| portable(&dropout, &keys(&dropout), row, group))
                .collect();
            assert_eq!(words[..], portable, "row {row}");
        }
    }

    #[test]
    fn both_ways_of_the_narrow_product_are_those_of_plain_loops_at_every_edge() {
        use crate::precision::Precision;
        // Small whole numbers: exact in bf16, and in every order of the sums.
        let whole = |i: usize| (i * 7 % 13) as f32 - 6.0;
        for (rows, cols, rank) in
            [(1, 1, 1), (13, 65, 8), (25, 191, 33), (40, 193, 32), (97, 400, 5), (12, 384, 70)]
        {
            let dropout = dropout(0.3);
            let kept = &Kept::draw(&dropout, rows, cols);
            let x: Vec<f32> = (0..rows * cols).map(whole).collect();
            let halves: Vec<half::bf16> = x.iter().map(|&x| half::bf16::from_f32(x)).collect();
            let a: Vec<f32> = (0..rank * cols).map(|i| whole(3 * i + 1)).collect();
            let product = |i: usize| -> f32 {
                let (row, r) = (i / rank, i % rank);
                let of = |d: usize| x[row * cols + d] * a[r * cols + d];
                (0..cols).filter(|&d| dropout.keeps(row, d)).map(of).sum()
            };
            let expected: Vec<f32> = (0..rows * rank).map(|i| product(i) + 0.0).collect();
            for precision in [Precision::F32, Precision::Bf16] {
                for data in [Matrix::F32(&x), Matrix::Bf16(&halves)] {
                    let x = Dropped { data, cols, kept };
                    let product = Product::new(rows, rank, cols, precision);
                    for found in [low(&x, product, &a), packed_low(&x, product, &a)] {
                        let what = format!("{rows} x {cols} x {rank}, {}", precision.name());
                        assert_eq!(found, expected, "{what}");
                    }
                }
            }
        }
    }

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
