//! Which rows are held out: equal ones, and those that belong together, stand on one side.

use std::collections::BTreeMap;
use std::ops::Range;

use rayon::prelude::*;

use crate::error::Error;
use crate::formats::Origin;
use crate::random::{CounterRng, Purpose};
use crate::samples::Rows;

/// Indices of the training samples and of the validation samples, each in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// To train on; at least one row.
    pub train: Vec<u32>,
    /// Held out; at least one row.
    pub validation: Vec<u32>,
}

/// Holds out `fraction` of the rows (rounded, at least one, never all), chosen by `seed`.
///
/// Samples of one row stay together, and so do rows that are equal as the model sees them: neither
/// parts of a row nor its copies stand on both sides, and neither do the two rows of a pair of `together`.
/// Rows of one side that would be more than the fraction are trained on, so fewer rows may be held out.
///
/// # Errors
/// The fraction is not between 0 and 1, or there are fewer than two different rows.
pub fn split_validation(
    rows: &Rows,
    fraction: f64,
    seed: u64,
    together: &[(Origin, Origin)],
) -> Result<Split, Error> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::Fraction { found: fraction });
    }
    let rows = Equal::of(rows, together)?;
    let held_out = (rows.samples.len() as f64 * fraction).round() as usize;
    // Groups of equal rows, by their first ones.
    let mut groups: Vec<u32> = (0..).take(rows.first.len()).collect();
    groups.retain(|&row| rows.first[row as usize] == row);
    if groups.len() < 2 {
        return Err(Error::TooFewRows { rows: groups.len() });
    }
    CounterRng::new(seed, Purpose::ValidationSplit, 0, 0).shuffle(&mut groups);
    let count = |group: u32| rows.copies[group as usize] as usize;
    let (mut is_validation, mut taken, mut left) =
        (vec![false; rows.first.len()], 0, held_out.max(1));
    for &group in &groups {
        // The last group is needed to train on, whatever it holds.
        if count(group) <= left && taken + 1 < groups.len() {
            left -= count(group);
            taken += 1;
            is_validation[group as usize] = true;
        }
    }
    if taken == 0 {
        // Every row has more copies than the fraction has room for: those with the fewest are taken.
        let fewest = groups.iter().copied().min_by_key(|&group| count(group));
        is_validation[fewest.expect("there are two at least") as usize] = true;
    }
    let mut split = Split { train: Vec::new(), validation: Vec::new() };
    for (first, samples) in rows.first.iter().zip(&rows.samples) {
        let is_held_out = is_validation[*first as usize];
        let side = if is_held_out { &mut split.validation } else { &mut split.train };
        side.extend(samples.clone());
    }
    Ok(split)
}

/// Rows that are trained on, and which of them are equal as the model sees them; 20 bytes a row.
struct Equal {
    /// The samples of each row.
    samples: Vec<Range<u32>>,
    /// The first row that is equal to each.
    first: Vec<u32>,
    /// How many rows are equal to each first one, itself among them.
    copies: Vec<u32>,
}

impl Equal {
    fn of(rows: &Rows, together: &[(Origin, Origin)]) -> Result<Self, Error> {
        let (mut samples, mut seen, mut behind) = (Vec::new(), Vec::new(), 0);
        let mut of_row = BTreeMap::new();
        for row in rows.iter() {
            let row = row?;
            if row.samples > 0 {
                if !together.is_empty() {
                    of_row.insert(row.origin, seen.len());
                }
                samples.push(behind..behind + row.samples);
                seen.push(row.seen);
                behind += row.samples;
            }
        }
        let mut order: Vec<u32> = (0..).take(seen.len()).collect();
        order.par_sort_unstable_by_key(|&row| (seen[row as usize], row));
        let (mut first, mut copies) = (vec![0; seen.len()], vec![0; seen.len()]);
        for equal in order.chunk_by(|&one, &other| seen[one as usize] == seen[other as usize]) {
            copies[equal[0] as usize] = equal.len() as u32;
            for &row in equal {
                first[row as usize] = equal[0];
            }
        }
        if !together.is_empty() {
            join(&mut first, &mut copies, &of_row, together);
        }
        Ok(Self { samples, first, copies })
    }
}

/// Rows of a pair, and all that are equal to them, become one group, under the first of them.
fn join(
    first: &mut [u32],
    copies: &mut [u32],
    of_row: &BTreeMap<Origin, usize>,
    together: &[(Origin, Origin)],
) {
    let mut part_of: Vec<usize> = first.iter().map(|&row| row as usize).collect();
    for (one, other) in together {
        // A row that became no sample stands on no side.
        let (Some(&one), Some(&other)) = (of_row.get(one), of_row.get(other)) else { continue };
        let (one, other) = (root(&mut part_of, one), root(&mut part_of, other));
        part_of[one.max(other)] = one.min(other);
    }
    copies.fill(0);
    for (row, first) in first.iter_mut().enumerate() {
        *first = root(&mut part_of, row) as u32;
        copies[*first as usize] += 1;
    }
}

/// The first group that `at` is part of, which the way there leads to directly from now on.
fn root(part_of: &mut [usize], mut at: usize) -> usize {
    while part_of[at] != at {
        part_of[at] = part_of[part_of[at]];
        at = part_of[at];
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fingerprint::RowDigest;
    use crate::sample::Sample;
    use crate::samples::RowRecord;

    /// Rows that became these samples.
    fn rows_of(samples: &[Sample]) -> Rows {
        let mut known = Vec::new();
        let rows = samples.chunk_by(|one, other| one.origin == other.origin);
        let record = |parts: &[Sample]| {
            let of_row: Vec<_> =
                parts.iter().map(|part| (part.tokens.clone(), part.labels.clone())).collect();
            let seen = known.iter().position(|known| *known == of_row);
            let seen = seen.unwrap_or_else(|| {
                known.push(of_row);
                known.len() - 1
            });
            let digest = RowDigest::of_bytes([0; 16]);
            let origin = parts[0].origin;
            RowRecord { origin, digest, seen: seen as u64, samples: parts.len() as u32 }
        };
        rows.map(record).collect()
    }

    #[test]
    fn rows_of_a_pair_stand_on_one_side() {
        let origin = |line| Origin { file: 0, line, item: None };
        let sample = |line: usize| Sample {
            tokens: vec![line as u32; 2],
            labels: vec![line as i32; 2],
            origin: origin(line),
        };
        let samples: Vec<Sample> = (0..40).map(sample).collect();
        let pairs = [(3, 30), (30, 7), (12, 13), (99, 5)];
        let pairs = pairs.map(|(one, other)| (origin(one), origin(other)));
        let mut sides = [0; 2];
        for seed in 0..60 {
            let Split { train, validation } =
                split_validation(&rows_of(&samples), 0.4, seed, &pairs).unwrap();
            assert_eq!((train.len() + validation.len(), validation.len()), (40, 16));
            for together in [&[3, 7, 30][..], &[12, 13]] {
                let held = together.iter().filter(|row| validation.contains(row)).count();
                assert!(held == 0 || held == together.len(), "{together:?}: {validation:?}");
                sides[usize::from(held == 0)] += 1;
            }
        }
        assert!(sides.iter().all(|&times| times > 20), "{sides:?}");
    }

    proptest! {
        #[test]
        fn held_out_rows_are_whole_and_disjoint(
            rows in proptest::collection::vec(1_usize..4, 2..40),
            fraction in 0.001_f64..0.999, seed in any::<u64>(),
        ) {
            let samples: Vec<Sample> = rows.iter().enumerate().flat_map(|(line, &parts)| {
                let (origin, id) = (Origin { file: 0, line, item: None }, line as u32);
                vec![Sample { tokens: vec![1, id], labels: vec![-100, id as i32], origin }; parts]
            }).collect();
            let split = split_validation(&rows_of(&samples), fraction, seed, &[]).unwrap();
            prop_assert!(!split.train.is_empty() && !split.validation.is_empty());
            let lines = |indices: &[u32]| -> std::collections::BTreeSet<usize> {
                indices.iter().map(|&index| samples[index as usize].origin.line).collect()
            };
            prop_assert!(lines(&split.train).is_disjoint(&lines(&split.validation)));
            let mut all = [&split.train[..], &split.validation[..]].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..samples.len() as u32).collect::<Vec<_>>());
            prop_assert_eq!(split_validation(&rows_of(&samples), fraction, seed, &[]).unwrap(), split.clone());
            // Where no row is repeated, they are the first of the shuffled rows.
            let mut shuffled: Vec<usize> = (0..rows.len()).collect();
            CounterRng::new(seed, Purpose::ValidationSplit, 0, 0).shuffle(&mut shuffled);
            let held_out = (rows.len() as f64 * fraction).round() as usize;
            let first = &shuffled[..held_out.clamp(1, rows.len() - 1)];
            prop_assert_eq!(lines(&split.validation), first.iter().copied().collect());
        }

        #[test]
        fn equal_rows_stand_on_one_side(
            copies in proptest::collection::vec(1_usize..9, 2..20),
            fraction in 0.001_f64..0.999, seed in any::<u64>(),
        ) {
            // Copies of row n stand at lines n, n + 100, n + 200, …
            let mut samples: Vec<Sample> = copies.iter().enumerate().flat_map(|(id, &copies)| {
                (0..copies).map(move |copy| Sample {
                    tokens: vec![1, id as u32],
                    labels: vec![-100, id as i32],
                    origin: Origin { file: 0, line: id + 100 * copy, item: None },
                })
            }).collect();
            samples.sort_by_key(|sample| sample.origin);
            let split = split_validation(&rows_of(&samples), fraction, seed, &[]).unwrap();
            let ids = |indices: &[u32]| -> std::collections::BTreeSet<u32> {
                indices.iter().map(|&index| samples[index as usize].tokens[1]).collect()
            };
            prop_assert!(ids(&split.train).is_disjoint(&ids(&split.validation)));
            prop_assert!(!split.train.is_empty() && !split.validation.is_empty());
            prop_assert_eq!(split.train.len() + split.validation.len(), samples.len());
            let most = ((samples.len() as f64 * fraction).round() as usize).max(1);
            let fewest = copies.iter().min().copied().unwrap_or(0);
            prop_assert!(split.validation.len() <= most.max(fewest));
        }
    }

    #[test]
    fn impossible_splits_say_why() {
        let sample = Sample {
            tokens: vec![1],
            labels: vec![1],
            origin: Origin { file: 0, line: 1, item: None },
        };
        let copy = Sample { origin: Origin { file: 0, line: 2, item: None }, ..sample.clone() };
        insta::assert_snapshot!(split_validation(&rows_of(&[sample.clone(), copy]), 0.5, 0, &[]).unwrap_err(), @"cannot hold out validation rows from 1 row(s), copies, and all rows of one document, counted once: at least 2 are needed; give a separate validation file, or add rows");
        insta::assert_snapshot!(split_validation(&rows_of(std::slice::from_ref(&sample)), 0.5, 0, &[]).unwrap_err(), @"cannot hold out validation rows from 1 row(s), copies, and all rows of one document, counted once: at least 2 are needed; give a separate validation file, or add rows");
        insta::assert_snapshot!(split_validation(&rows_of(&[sample]), 1.5, 0, &[]).unwrap_err(), @"validation fraction is 1.5, expected a number greater than 0 and less than 1");
        assert!(split_validation(&Rows::default(), f64::NAN, 0, &[]).is_err());
    }
}
