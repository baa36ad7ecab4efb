//! Random numbers as a function of their place: Philox4x32-10, Salmon et al. 2011, "Parallel random
//! numbers: as easy as 1, 2, 3", with the constants of the Random123 library.
//!
//! There is no state to save: number `i` of a stream is the same whoever asks, in whatever order,
//! on whatever thread. A stream is named by (seed, purpose, a, b), such as (seed, shuffle, epoch, 0).

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// What a stream is for, so that two uses of one seed never share numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// Order of the rows; a = epoch.
    Shuffle = 1,
    /// Which rows are held out.
    ValidationSplit = 2,
    /// First values of an adapter.
    AdapterInit = 3,
    /// First values of a model.
    ModelInit = 4,
    /// Dropped activations; a = step.
    Dropout = 5,
    /// Sampled tokens.
    Generation = 6,
    /// Which rows of a source have their turn first; a = part of the mixture.
    Mixture = 7,
}

/// A stream of random numbers with random access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterRng {
    key: [u32; 2],
    stream: [u32; 2],
}

impl CounterRng {
    /// The stream named by `seed`, `purpose` and two numbers of the caller's choice.
    ///
    /// The name is itself hashed by Philox into 128 bits: 64 become the key, 64 the upper half of
    /// the counter; the lower half counts blocks.
    pub fn new(seed: u64, purpose: Purpose, a: u64, b: u64) -> Self {
        // Multiples of an odd constant differ in all their bits, and are distinct.
        let tag = (purpose as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let [a_low, a_high] = halves(a);
        let [b_low, b_high] = halves(b);
        let name = philox4x32_10([a_low, a_high, b_low, b_high], halves(seed ^ tag));
        Self { key: [name[0], name[1]], stream: [name[2], name[3]] }
    }

    /// The stream's name as 128 bits, key and upper counter, for those who draw its blocks themselves.
    pub fn name(&self) -> [u32; 4] {
        [self.key[0], self.key[1], self.stream[0], self.stream[1]]
    }

    /// Number `index`: 64 uniform bits.
    pub fn u64_at(&self, index: u64) -> u64 {
        self.attempt(index, 0)
    }

    /// Number `index` as a float: a multiple of 2⁻²⁴ in [0, 1).
    pub fn uniform_f32_at(&self, index: u64) -> f32 {
        // 24 bits are what an f32 holds exactly.
        (self.u64_at(index) >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// Number `index` as a float: a multiple of 2⁻⁵³ in [0, 1).
    pub fn uniform_f64_at(&self, index: u64) -> f64 {
        (self.u64_at(index) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Number `index` as an integer below `n`, every one equally likely (Lemire 2019).
    ///
    /// # Panics
    /// When `n` is 0: there is no such integer.
    pub fn below(&self, index: u64, n: u64) -> u64 {
        assert!(n > 0, "no integer is below 0");
        let uneven = n.wrapping_neg() % n;
        let mut attempt = 0;
        loop {
            let product = u128::from(self.attempt(index, attempt)) * u128::from(n);
            // A rejected draw is replaced from the same index, so that indices stay independent.
            if product as u64 >= uneven {
                return (product >> 64) as u64;
            }
            attempt += 1;
        }
    }

    /// Puts `items` into a random order (Fisher and Yates).
    pub fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64, last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }

    fn attempt(&self, index: u64, attempt: u32) -> u64 {
        // One block of 128 bits holds two numbers.
        let [low, high] = halves(index / 2);
        let counter = [low, high, self.stream[0], self.stream[1] ^ attempt];
        let block = philox4x32_10(counter, self.key);
        let at = 2 * (index % 2) as usize;
        u64::from(block[at]) | u64::from(block[at + 1]) << 32
    }
}

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let [low0, high0] = halves(u64::from(MULTIPLIERS[0]) * u64::from(counter[0]));
        let [low1, high1] = halves(u64::from(MULTIPLIERS[1]) * u64::from(counter[2]));
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
    }
    counter
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn philox_gives_the_known_answers_of_random123() {
        // Random123, tests/kat_vectors, lines "philox4x32 10".
        assert_eq!(
            philox4x32_10([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32_10(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn every_part_of_the_name_changes_the_stream() {
        let first = |rng: CounterRng| rng.u64_at(0);
        let base = first(CounterRng::new(7, Purpose::Shuffle, 0, 0));
        assert_ne!(base, first(CounterRng::new(8, Purpose::Shuffle, 0, 0)));
        assert_ne!(base, first(CounterRng::new(7, Purpose::Dropout, 0, 0)));
        assert_ne!(base, first(CounterRng::new(7, Purpose::Shuffle, 1, 0)));
        assert_ne!(base, first(CounterRng::new(7, Purpose::Shuffle, 0, 1)));
    }

    #[test]
    fn uniform_numbers_have_the_mean_and_variance_of_the_uniform_distribution() {
        let rng = CounterRng::new(1, Purpose::AdapterInit, 0, 0);
        let n = 100_000;
        let values: Vec<f64> = (0..n).map(|i| f64::from(rng.uniform_f32_at(i))).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
        // Five standard errors: sqrt(1/12/n) = 0.0009 and sqrt(1/180/n) = 0.00024.
        assert!((mean - 0.5).abs() < 0.0046, "mean {mean}");
        assert!((variance - 1.0 / 12.0).abs() < 0.0012, "variance {variance}");
        assert!(values.iter().all(|value| (0.0..1.0).contains(value)));
    }

    #[test]
    fn below_is_even_where_the_range_does_not_divide() {
        // A range of 3·2⁶² rejects a quarter of the draws; thirds must stay thirds.
        let rng = CounterRng::new(1, Purpose::Shuffle, 0, 0);
        let n = 3 << 62;
        let mut thirds = [0_u32; 3];
        for index in 0..30_000 {
            thirds[(rng.below(index, n) >> 62) as usize] += 1;
        }
        // Five standard deviations: 5·sqrt(30000·2/9) = 408.
        assert!(thirds.iter().all(|&third| third.abs_diff(10_000) < 408), "{thirds:?}");
    }

    proptest! {
        #[test]
        fn a_shuffle_keeps_every_item(seed in any::<u64>(), n in 0_usize..200) {
            let mut items: Vec<usize> = (0..n).collect();
            CounterRng::new(seed, Purpose::Shuffle, 0, 0).shuffle(&mut items);
            items.sort_unstable();
            prop_assert_eq!(items, (0..n).collect::<Vec<_>>());
        }

        #[test]
        fn below_stays_below(seed in any::<u64>(), index in any::<u64>(), n in 1..=u64::MAX) {
            prop_assert!(CounterRng::new(seed, Purpose::Shuffle, 0, 0).below(index, n) < n);
        }
    }
}
