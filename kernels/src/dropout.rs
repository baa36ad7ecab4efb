//! Which inputs of an update dropout leaves out, as a function of their place: there is nothing to store,
//! and a block that is run again drops what it dropped before, on any device and number of threads.
//!
//! Bits come from Philox4x32-7, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3": seven
//! rounds are the fewest that pass all of BigCrush there (section 5, table 2); ten, which other draws use,
//! are a margin that a choice of which values to drop has no need of. The counter of a block is (block, row, stream), its 128 bits decide eight columns of that row, sixteen bits
//! each. Of a group of 64 columns, column `c` is decided by block `c % 32 / 4` of the group's eight, by its
//! word `c / 32 · 2 + c % 4 / 2`, the lower half of it where `c` is even: the order in which registers of
//! sixteen-bit lanes compare them.

/// Columns that eight blocks decide.
pub(crate) const GROUP: usize = 64;

/// Blocks of a group.
pub(crate) const BLOCKS: usize = 8;

/// Multipliers of a round.
pub(crate) const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];

/// What each round adds to the key.
pub(crate) const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Rounds of a block.
pub(crate) const ROUNDS: u32 = 7;

/// The values that sixteen bits take.
const VALUES: u32 = 1 << 16;

/// Dropout of one input matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropout {
    /// Of Philox.
    pub(crate) key: [u32; 2],
    /// The upper half of the counter.
    pub(crate) stream: [u32; 2],
    /// What lies below it drops.
    pub(crate) threshold: u16,
}

impl Dropout {
    /// Dropout at a rate from 0 to below 1, `None` at 0; `name` is a key and a stream that no other matrix
    /// has.
    ///
    /// The rate is rounded to a multiple of 2⁻¹⁶, to one at least: a millionth is not nothing.
    ///
    /// # Panics
    /// If the rate is not from 0 to below 1.
    pub fn new(name: [u32; 4], rate: f64) -> Option<Self> {
        assert!((0.0..1.0).contains(&rate), "a rate of dropout of {rate}");
        let [key0, key1, stream0, stream1] = name;
        let threshold = (rate * f64::from(VALUES)).round().clamp(1.0, f64::from(u16::MAX)) as u16;
        let dropout = Self { key: [key0, key1], stream: [stream0, stream1], threshold };
        (rate > 0.0).then_some(dropout)
    }

    /// What is kept counts so much more, so that the mean stays: `1 / (1 − rate)`, of the rate in effect.
    pub fn factor(&self) -> f32 {
        VALUES as f32 / (VALUES - u32::from(self.threshold)) as f32
    }

    /// Whether the value in this row and column is kept: the definition that every kernel follows.
    pub fn keeps(&self, row: usize, column: usize) -> bool {
        let in_group = column % GROUP;
        let block = column / GROUP * BLOCKS + in_group % 32 / 4;
        let words = self.block(row as u32, block as u32);
        let word = words[in_group / 32 * 2 + in_group % 4 / 2];
        (word >> (16 * (in_group % 2))) as u16 >= self.threshold
    }

    /// The 128 bits of a block.
    fn block(&self, row: u32, block: u32) -> [u32; 4] {
        philox([block, row, self.stream[0], self.stream[1]], self.key)
    }
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let product = |multiplier: u32, value: u32| {
        let product = u64::from(multiplier) * u64::from(value);
        [product as u32, (product >> 32) as u32]
    };
    for _ in 0..ROUNDS {
        let [low0, high0] = product(MULTIPLIERS[0], counter[0]);
        let [low1, high1] = product(MULTIPLIERS[1], counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_known_answers_of_random123() {
        // Random123, tests/kat_vectors, lines "philox4x32 7".
        assert_eq!(philox([0; 4], [0; 2]), [0x5f6f_b709, 0x0d89_3f64, 0x4f12_1f81, 0x4f73_0a48]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x5207_ddc2, 0x4516_5e59, 0x4d8e_e751, 0x8c52_f662]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0x4dfc_caba, 0x190a_87f0, 0xc473_62ba, 0xb6b5_242a]
        );
    }

    #[test]
    fn every_bit_of_a_block_decides_one_column() {
        let dropout = Dropout { key: [1, 2], stream: [3, 4], threshold: 0x8000 };
        let mut halves: Vec<u16> = Vec::new();
        for block in 0..8 {
            halves
                .extend(dropout.block(5, block).iter().flat_map(|&w| [w as u16, (w >> 16) as u16]));
        }
        // As many columns as halves, and a column's decision is that of its own half.
        assert_eq!(halves.len(), GROUP);
        let mut of_columns: Vec<u16> = Vec::new();
        for column in 0..GROUP {
            let at = |threshold| Dropout { threshold, ..dropout }.keeps(5, column);
            // The largest threshold that keeps it.
            let half = (0..16).rev().fold(0_u16, |half, bit| {
                let more = half | 1 << bit;
                if at(more) { more } else { half }
            });
            of_columns.push(half);
        }
        halves.sort_unstable();
        of_columns.sort_unstable();
        assert_eq!(of_columns, halves);
    }

    #[test]
    fn no_rate_drops_nothing_and_the_smallest_drops_something() {
        assert_eq!(Dropout::new([0; 4], 0.0), None);
        let of = |rate| Dropout::new([0; 4], rate).map(|dropout| dropout.threshold);
        assert_eq!(of(1e-9), Some(1));
        assert_eq!(of(0.05), Some(3_277));
        assert_eq!(of(0.5), Some(1 << 15));
        assert_eq!(of(1.0_f64.next_down()), Some(u16::MAX));
        let half = Dropout::new([0; 4], 0.5).map(|dropout| dropout.factor());
        assert_eq!(half, Some(2.0));
    }

    /// Bounds are six standard deviations of a binomial.
    #[test]
    fn values_drop_at_the_rate_and_independently_of_their_neighbours() {
        let (rows, columns) = (300, 700);
        for (rate, name) in [(0.05, [1, 2, 3, 4]), (0.5, [5, 6, 7, 8]), (0.9, [9, 9, 9, 9])] {
            let dropout = Dropout::new(name, rate).unwrap();
            let kept = |row, column| dropout.keeps(row, column);
            let places = || (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
            let count = (rows * columns) as f64;
            let near = |what: &str, found: usize, expected: f64| {
                let bound = 6.0 * (count * expected * (1.0 - expected)).sqrt();
                let apart = (found as f64 - count * expected).abs();
                assert!(apart < bound, "{what} at {rate}: {found} of {count}");
            };
            let dropped = places().filter(|&(row, column)| !kept(row, column)).count();
            near("dropped", dropped, rate);
            for (down, right) in [(0, 1), (0, 4), (0, 32), (0, 64), (1, 0), (1, 1), (64, 0)] {
                let both = |&(row, column): &(usize, usize)| {
                    !kept(row, column) && !kept(row + down, column + right)
                };
                let both = places().filter(both).count();
                near(&format!("dropped with ({down}, {right})"), both, rate * rate);
            }
        }
    }
}
