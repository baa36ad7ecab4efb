//! How alike two rows are: the share of the stretches of words of either that both have (Jaccard 1901),
//! of the rows themselves and not of their signatures.
//!
//! The rows are read again for it. A row's stretches are kept while others are still to be compared with
//! it, and where that takes more than a bound, what is left is compared in another pass.

use std::collections::BTreeMap;

use super::super::words::shingles;
use super::SHINGLE;

/// Stretches kept at a time, 4 bytes each.
const MOST_KEPT: usize = 64 << 20;

/// Stretches of a row, sorted. Of their hashes 32 bits: two rows of n stretches have by chance n / 2³² of them
/// in common.
pub(in crate::hygiene) type Stretches = Vec<u32>;

/// The stretches of these words.
pub(in crate::hygiene) fn stretches(words: &[u64]) -> Stretches {
    let mut all = Vec::with_capacity(words.len());
    shingles(words, SHINGLE, |hash| all.push((hash >> 32) as u32));
    all.sort_unstable();
    all.dedup();
    all
}

/// The share of all stretches that both have, from 0 to 1.
pub(in crate::hygiene) fn likeness(one: &[u32], other: &[u32]) -> f64 {
    let (mut left, mut right, mut both) = (0, 0, 0_usize);
    while left < one.len() && right < other.len() {
        let (a, b) = (one[left], other[right]);
        both += usize::from(a == b);
        left += usize::from(a <= b);
        right += usize::from(b <= a);
    }
    both as f64 / (one.len() + other.len() - both).max(1) as f64
}

/// Two rows that are alike, and how much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::hygiene) struct Alike {
    pub(in crate::hygiene) earlier: u32,
    pub(in crate::hygiene) later: u32,
    pub(in crate::hygiene) likeness: f32,
}

/// Compares pairs of rows as the rows come by.
pub(in crate::hygiene) struct Comparison {
    threshold: f64,
    most_kept: usize,
    /// What this pass compares, sorted by the later row, which is the first of each.
    pairs: Vec<(u32, u32)>,
    /// The first pair that was not compared yet.
    next: usize,
    /// The last row that each row is compared with as the earlier of two.
    last: BTreeMap<u32, u32>,
    kept: BTreeMap<u32, Stretches>,
    kept_stretches: usize,
    /// What there was no room for.
    put_off: Vec<(u32, u32)>,
    alike: Vec<Alike>,
}

impl Comparison {
    /// Of these pairs (earlier, later), to be fed all rows that it asks for, in order, in as many passes as
    /// [`Comparison::next_pass`] asks for.
    pub(in crate::hygiene) fn new(threshold: f64, pairs: &[(u32, u32)]) -> Self {
        Self::within(threshold, pairs, MOST_KEPT)
    }

    fn within(threshold: f64, pairs: &[(u32, u32)], most_kept: usize) -> Self {
        let put_off = pairs.iter().map(|&(earlier, later)| (later, earlier)).collect();
        let (pairs, last, kept, alike) = Default::default();
        Self { threshold, most_kept, pairs, next: 0, last, kept, kept_stretches: 0, put_off, alike }
    }

    /// Begins with the first row again; whether there is anything left to compare.
    pub(in crate::hygiene) fn next_pass(&mut self) -> bool {
        self.pairs = std::mem::take(&mut self.put_off);
        self.pairs.sort_unstable();
        self.next = 0;
        self.kept.clear();
        self.kept_stretches = 0;
        self.last = self.pairs.iter().map(|&(later, earlier)| (earlier, later)).collect();
        !self.pairs.is_empty()
    }

    /// Whether the row is compared with any in this pass.
    pub(in crate::hygiene) fn asks_for(&self, row: u32) -> bool {
        let rest = &self.pairs[self.next..];
        self.last.contains_key(&row) || rest.binary_search_by_key(&row, |pair| pair.0).is_ok()
    }

    /// The next row that was asked for.
    pub(in crate::hygiene) fn push(&mut self, row: u32, stretches: Stretches) {
        while let Some(&(later, earlier)) = self.pairs.get(self.next).filter(|pair| pair.0 <= row) {
            self.next += 1;
            match self.kept.get(&earlier) {
                Some(other) => {
                    let likeness = likeness(other, &stretches);
                    if likeness >= self.threshold {
                        self.alike.push(Alike { earlier, later, likeness: likeness as f32 });
                    }
                }
                None => self.put_off.push((later, earlier)),
            }
            if self.last.get(&earlier) == Some(&later) {
                self.forget(earlier);
            }
        }
        // A single row is always kept: each pass compares something.
        if self.last.contains_key(&row)
            && (self.kept.is_empty() || self.kept_stretches + stretches.len() <= self.most_kept)
        {
            self.kept_stretches += stretches.len();
            self.kept.insert(row, stretches);
        }
    }

    fn forget(&mut self, row: u32) {
        if let Some(stretches) = self.kept.remove(&row) {
            self.kept_stretches -= stretches.len();
        }
    }

    /// The pairs that are alike, sorted by the later row.
    pub(in crate::hygiene) fn finish(self) -> Vec<Alike> {
        let mut alike = self.alike;
        alike.sort_unstable_by_key(|pair| (pair.later, pair.earlier));
        alike
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likeness_is_the_share_of_what_both_have() {
        for (one, other, expected) in [
            (&[1, 2, 3, 4][..], &[1, 2, 3, 4][..], 1.0),
            (&[1, 2, 3, 4], &[3, 4, 5, 6], 2.0 / 6.0),
            (&[1, 2], &[3], 0.0),
            (&[], &[3], 0.0),
        ] {
            assert!((likeness(one, other) - expected).abs() < 1e-12);
            assert!((likeness(other, one) - expected).abs() < 1e-12);
        }
        // A word that stands three times is one stretch only where the stretch is the same.
        assert_eq!(stretches(&[1; 9]).len(), 1);
    }

    #[test]
    fn with_little_room_the_same_pairs_are_found_in_more_passes() {
        let rows: Vec<Stretches> = (0..40).map(|row| (row / 4..row / 4 + 10).collect()).collect();
        let pairs: Vec<(u32, u32)> =
            (0..40).flat_map(|later| (0..later).map(move |earlier| (earlier, later))).collect();
        let compare = |most| {
            let mut comparison = Comparison::within(0.8, &pairs, most);
            let mut passes = 0;
            while comparison.next_pass() {
                passes += 1;
                for (row, stretches) in (0..).zip(&rows) {
                    if comparison.asks_for(row) {
                        comparison.push(row, stretches.clone());
                    }
                }
            }
            (passes, comparison.finish())
        };
        let (once, all) = compare(1 << 20);
        let (often, same) = compare(25);
        assert_eq!((once, &all), (1, &same));
        assert!(often > 5, "{often}");
        // Four rows of each kind, and the next kind has 9 of 11 stretches in common.
        assert_eq!(all.len(), 10 * 6 + 9 * 16);
    }
}
