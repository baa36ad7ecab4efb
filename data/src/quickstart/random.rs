//! `SplitMix64`, Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 12.

/// A small seeded generator: the same key gives the same text on every machine.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

/// What a stream of random numbers is for; streams of different purposes never share numbers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Corpus = 1,
    General = 2,
    Task = 3,
}

impl Random {
    /// The stream of one item: keyed, so that item 7 is the same with or without item 6.
    pub(super) fn new(seed: u64, purpose: Purpose, index: u64) -> Self {
        let mut random = Self(seed);
        let first = random.next() ^ (purpose as u64);
        random.0 = first;
        let second = random.next() ^ index;
        random.0 = second;
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; the high half of a 128-bit product, so no modulo is needed.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// A number in `low..=high`.
    pub(super) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True in `percent` of a hundred cases.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `items`, which must not be empty.
    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// Fisher–Yates.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        let mut random = Random(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        assert_eq!([random.next(), random.next()], expected);
    }

    #[test]
    fn purposes_and_indices_have_their_own_streams() {
        let first = |purpose, index| Random::new(7, purpose, index).next();
        assert_eq!(first(Purpose::Task, 0), first(Purpose::Task, 0));
        assert_ne!(first(Purpose::Task, 0), first(Purpose::Task, 1));
        assert_ne!(first(Purpose::Task, 0), first(Purpose::General, 0));
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<usize> = (0..50).collect();
        Random::new(7, Purpose::Task, 0).shuffle(&mut items);
        assert!(items.windows(2).any(|pair| pair[0] > pair[1]));
        items.sort_unstable();
        assert!(items.into_iter().eq(0..50));
    }
}
