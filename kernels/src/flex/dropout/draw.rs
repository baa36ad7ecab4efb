//! Draws the bits of dropout, a group of columns at a time.
#![expect(unsafe_code, reason = "functions whose target features were detected")]

use crate::dropout::{BLOCKS, Dropout, GROUP, MULTIPLIERS, ROUNDS, WEYL};
#[cfg(target_arch = "x86_64")]
use crate::flex::isa::Isa;

pub(super) type Keys = [[u32; 2]; ROUNDS as usize];

/// The key of every round.
pub(super) fn keys(dropout: &Dropout) -> Keys {
    std::array::from_fn(|round| {
        [0, 1].map(|i| dropout.key[i].wrapping_add(WEYL[i].wrapping_mul(round as u32)))
    })
}

/// Draws the bits of rows from `first` on, `per_row` words each.
pub(super) fn draw_rows(
    dropout: &Dropout,
    keys: &Keys,
    first: usize,
    per_row: usize,
    words: &mut [u64],
) {
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
        _mm512_cmpge_epu16_mask, _mm512_mask_blend_epi32, _mm512_mul_epu32, _mm512_set_epi64,
        _mm512_set1_epi16, _mm512_set1_epi64, _mm512_slli_epi64, _mm512_srli_epi64,
        _mm512_ternarylogic_epi64,
    };

    use super::{BLOCKS, Dropout, Keys, MULTIPLIERS};

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
    use super::super::Kept;
    use super::super::tests::dropout;
    use super::*;

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
}
