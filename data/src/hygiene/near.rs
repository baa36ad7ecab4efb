//! Rows that say nearly the same: MinHash (Broder 1997) over stretches of three words, rows found by bands
//! of their signatures (Leskovec et al., "Mining of Massive Datasets", section 3.4), and every pair that is
//! found so compared as it is (`near/pairs.rs`).

pub(super) mod pairs;

use rayon::prelude::*;

use super::words::{mixed, shingles};

/// Words of a stretch.
pub(super) const SHINGLE: usize = 3;
/// Numbers of a signature.
const HASHES: usize = 70;
/// Pairs that may be compared: what bounds the memory that finding them takes, 8 bytes each.
const MOST_PAIRS: usize = 24 << 20;
/// Rows of one likeness that a row is compared with, where there are not too many pairs.
const MOST_PARTNERS: usize = 64;
/// Pairs that are as alike as asked for are to be found with this probability at least.
const RECALL: f64 = 0.99;

/// How signatures are cut into bands: rows that share one are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bands {
    count: usize,
    numbers: usize,
}

impl Bands {
    /// The widest bands that still find pairs of this likeness.
    fn for_likeness(threshold: f64) -> Self {
        let finds = |numbers: usize| {
            let count = (HASHES / numbers) as i32;
            1.0 - (1.0 - threshold.powi(numbers as i32)).powi(count)
        };
        let numbers = (1..=HASHES).rev().find(|&numbers| finds(numbers) >= RECALL).unwrap_or(1);
        Self { count: HASHES / numbers, numbers }
    }
}

/// The signatures of many rows.
pub(super) struct Signatures {
    shape: Bands,
    /// Rows that have words, in ascending order.
    rows: Vec<u32>,
    /// Hashes of their bands, `[row, band]`.
    bands: Vec<u32>,
}

/// Pairs of rows that may be alike, and how many rows were not compared with all others of their kind.
pub(super) struct Candidates {
    /// The earlier row before the later one; sorted by the later.
    pub(super) pairs: Vec<(u32, u32)>,
    /// Rows that so many others are alike to that they were compared with the first of them only.
    pub(super) crowded: usize,
}

impl Signatures {
    pub(super) fn for_likeness(threshold: f64) -> Self {
        let shape = Bands::for_likeness(threshold);
        Self { shape, rows: Vec::new(), bands: Vec::new() }
    }

    /// The bands of a row; `None` without words.
    pub(super) fn sign(&self, words: &[u64]) -> Option<Vec<u32>> {
        if words.is_empty() {
            return None;
        }
        let mut least = [u32::MAX; HASHES];
        shingles(words, SHINGLE, |shingle| {
            for (least, [flip, factor]) in least.iter_mut().zip(&FUNCTIONS) {
                *least = (*least).min(((shingle ^ flip).wrapping_mul(*factor) >> 32) as u32);
            }
        });
        let band = |numbers: &[u32]| {
            let hash = numbers.iter().fold(0, |hash, &number| mixed(hash ^ u64::from(number)));
            (hash >> 32) as u32
        };
        Some(least.chunks_exact(self.shape.numbers).take(self.shape.count).map(band).collect())
    }

    /// Adds a row behind all others.
    pub(super) fn push(&mut self, row: u32, bands: &[u32]) {
        self.rows.push(row);
        self.bands.extend(bands);
    }

    /// Pairs that share a band and may be compared. Of rows below `measured` none is compared with another.
    pub(super) fn candidates(
        &self,
        is_compared: impl Fn(u32) -> bool,
        measured: u32,
    ) -> Candidates {
        self.bounded(is_compared, measured, MOST_PARTNERS, MOST_PAIRS)
    }

    fn bounded(
        &self,
        is_compared: impl Fn(u32) -> bool,
        measured: u32,
        mut partners: usize,
        most: usize,
    ) -> Candidates {
        loop {
            if let Some(found) = self.with_partners(&is_compared, measured, partners, most) {
                return found;
            }
            partners = partners.div_ceil(2);
        }
    }

    /// `None` where there are more pairs than `most`, and fewer partners would make them fewer.
    fn with_partners(
        &self,
        is_compared: &impl Fn(u32) -> bool,
        measured: u32,
        partners: usize,
        most: usize,
    ) -> Option<Candidates> {
        let (mut pairs, mut crowded): (Vec<(u32, u32)>, Vec<u32>) = Default::default();
        for band in 0..self.shape.count {
            let hashes = self.bands.chunks_exact(self.shape.count).map(|bands| bands[band]);
            let mut rows: Vec<(u32, u32)> = hashes.zip(self.rows.iter().copied()).collect();
            rows.retain(|&(_, row)| is_compared(row));
            rows.par_sort_unstable();
            for alike in rows.chunk_by(|a, b| a.0 == b.0) {
                for (at, &(_, row)) in alike.iter().enumerate().skip(1) {
                    if row < measured {
                        continue;
                    }
                    let before = &alike[..at.min(partners)];
                    pairs.extend(before.iter().map(|&(_, other)| (row, other)));
                    if at > partners {
                        crowded.push(row);
                    }
                }
                if pairs.len() > 2 * most {
                    distinct(&mut pairs);
                    if pairs.len() > most && partners > 1 {
                        return None;
                    }
                }
            }
            distinct(&mut pairs);
            distinct(&mut crowded);
            if pairs.len() > most && partners > 1 {
                return None;
            }
        }
        let pairs = pairs.into_iter().map(|(later, earlier)| (earlier, later)).collect();
        Some(Candidates { pairs, crowded: crowded.len() })
    }
}

fn distinct<T: Ord + Send>(items: &mut Vec<T>) {
    items.par_sort_unstable();
    items.dedup();
}

/// The functions whose least values make a signature: what is flipped, and an odd factor.
const FUNCTIONS: [[u64; 2]; HASHES] = {
    let mut functions = [[0; 2]; HASHES];
    let (mut at, mut state) = (0, 0_u64);
    while at < 2 * HASHES {
        // SplitMix64 (Steele et al. 2014).
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^= value >> 31;
        functions[at / 2][at % 2] = if at % 2 == 1 { value | 1 } else { value };
        at += 1;
    }
    functions
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_are_as_wide_as_the_likeness_allows() {
        let shape = |threshold| {
            let Bands { count, numbers } = Bands::for_likeness(threshold);
            (count, numbers)
        };
        assert_eq!(shape(0.8), (14, 5));
        assert_eq!(shape(0.5), (35, 2));
        assert!(shape(0.95).1 > 8);
    }

    #[test]
    fn crowds_are_compared_with_their_first_and_counted() {
        let mut signatures = Signatures::for_likeness(0.8);
        let bands = signatures.sign(&[1, 2, 3]).unwrap();
        for row in 0..100 {
            signatures.push(row, &bands);
        }
        assert_eq!(signatures.sign(&[]), None);
        let all = signatures.candidates(|_| true, 0);
        let expected = (0..100).map(|at: usize| at.min(MOST_PARTNERS)).sum::<usize>();
        assert_eq!((all.pairs.len(), all.crowded), (expected, 100 - MOST_PARTNERS - 1));
        // With room for fewer pairs, with fewer.
        let few = signatures.bounded(|_| true, 0, MOST_PARTNERS, 500);
        assert!(few.pairs.len() <= 500 && few.crowded > 90, "{} {}", few.pairs.len(), few.crowded);
        // Rows that are measured are not compared with each other, nor is what is left out.
        let some = signatures.candidates(|row| row != 3, 98);
        assert!(some.pairs.iter().all(|&(a, b)| b >= 98 && a != 3));
        assert!(some.pairs.contains(&(0, 98)) && some.pairs.contains(&(0, 99)));
    }
}
