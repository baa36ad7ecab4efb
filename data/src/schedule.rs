//! Which rows belong to which optimizer step: a function of the step's number alone, so that a
//! resumed run needs no cursor and can neither repeat nor skip a row.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;
use crate::packing::pack;
use crate::random::{CounterRng, Purpose};
use crate::sample::Sample;

/// Whether several rows share a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// A unit of a micro-batch is one row.
    Off,
    /// A unit of a micro-batch is a bin of rows that hold at most `max_seq_len` tokens together.
    Bins {
        /// Room of a bin, in tokens.
        max_seq_len: usize,
    },
}

/// How rows are dealt out to steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduleOptions {
    /// Rows, or bins, of one forward pass.
    pub micro_batch_size: NonZeroUsize,
    /// Forward passes of one optimizer step.
    pub accumulation: NonZeroUsize,
    /// Whether rows share a sequence.
    pub packing: Packing,
    /// Another order every epoch; file order otherwise.
    pub shuffle: bool,
    /// Decides the orders.
    pub seed: u64,
}

/// The plan of all steps of a run.
#[derive(Debug)]
pub struct Schedule {
    options: ScheduleOptions,
    /// Rows of each unit.
    units: Vec<Vec<usize>>,
    /// The order of the epoch asked for last: a convenience, never a state.
    cache: Mutex<Option<(u64, Arc<Vec<usize>>)>>,
}

impl Schedule {
    /// Plans rows of these lengths (in tokens, at least one row).
    ///
    /// # Errors
    /// There is no row.
    pub fn new(lengths: &[usize], options: ScheduleOptions) -> Result<Self, Error> {
        if lengths.is_empty() {
            let reason = "there is no row to train on".to_owned();
            return Err(Error::EmptyDataset { reason });
        }
        let units = match options.packing {
            Packing::Off => (0..lengths.len()).map(|row| vec![row]).collect(),
            Packing::Bins { max_seq_len } => {
                let mut bins = pack(lengths, max_seq_len);
                // Bins come longest row first; without shuffling they follow the file.
                bins.sort();
                bins
            }
        };
        Ok(Self { options, units, cache: Mutex::new(None) })
    }

    /// Rows, or bins, of an epoch.
    pub fn units(&self) -> usize {
        self.units.len()
    }

    /// Tokens of every row, or bin, longest first; `lengths` are those that the schedule was made of.
    pub fn unit_lengths(&self, lengths: &[usize]) -> Vec<usize> {
        let length = |unit: &Vec<usize>| unit.iter().map(|&row| lengths[row]).sum();
        let mut lengths: Vec<usize> = self.units.iter().map(length).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths
    }

    /// Optimizer steps of an epoch; the last one may hold fewer rows.
    pub fn steps_per_epoch(&self) -> usize {
        self.units.len().div_ceil(self.units_per_step())
    }

    /// The epoch, from 0, that a step (from 0) belongs to.
    pub fn epoch(&self, step: u64) -> u64 {
        step / self.steps_per_epoch() as u64
    }

    /// The micro-batches of a step (from 0, over all epochs): for each the indices of its rows.
    pub fn step(&self, step: u64) -> Vec<Vec<usize>> {
        let order = self.order(self.epoch(step));
        let within = (step % self.steps_per_epoch() as u64) as usize;
        let start = within * self.units_per_step();
        let end = (start + self.units_per_step()).min(order.len());
        order[start..end]
            .chunks(self.options.micro_batch_size.get())
            .map(|units| units.iter().flat_map(|&unit| self.units[unit].clone()).collect())
            .collect()
    }

    fn units_per_step(&self) -> usize {
        self.options.micro_batch_size.saturating_mul(self.options.accumulation).get()
    }

    fn order(&self, epoch: u64) -> Arc<Vec<usize>> {
        // A panic elsewhere cannot leave a half-written order: it is replaced whole.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = cache.as_ref().filter(|(cached, _)| *cached == epoch) {
            return Arc::clone(order);
        }
        let mut order: Vec<usize> = (0..self.units.len()).collect();
        if self.options.shuffle {
            CounterRng::new(self.options.seed, Purpose::Shuffle, epoch, 0).shuffle(&mut order);
        }
        let order = Arc::new(order);
        *cache = Some((epoch, Arc::clone(&order)));
        order
    }
}

/// Indices of the training samples and of the validation samples, each in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// To train on; at least one row.
    pub train: Vec<usize>,
    /// Held out; at least one row.
    pub validation: Vec<usize>,
}

/// Holds out `fraction` of the rows (rounded, at least one, never all), chosen by `seed`.
///
/// Samples of one row stay together: parts of a split row never stand on both sides.
///
/// # Errors
/// The fraction is not between 0 and 1, or there are fewer than two rows.
pub fn split_validation(samples: &[Sample], fraction: f64, seed: u64) -> Result<Split, Error> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::Fraction { found: fraction });
    }
    let mut rows: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, sample) in samples.iter().enumerate() {
        rows.entry(sample.origin).or_default().push(index);
    }
    let mut rows: Vec<Vec<usize>> = rows.into_values().collect();
    if rows.len() < 2 {
        return Err(Error::TooFewRows { rows: rows.len() });
    }
    let held_out = ((rows.len() as f64 * fraction).round() as usize).clamp(1, rows.len() - 1);
    CounterRng::new(seed, Purpose::ValidationSplit, 0, 0).shuffle(&mut rows);
    let sorted = |rows: &[Vec<usize>]| {
        let mut indices: Vec<usize> = rows.concat();
        indices.sort_unstable();
        indices
    };
    let (validation, train) = rows.split_at(held_out);
    Ok(Split { train: sorted(train), validation: sorted(validation) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::Batch;
    use crate::formats::Origin;
    use crate::sample::IGNORE;

    fn options(micro_batch: usize, accumulation: usize, seed: u64) -> ScheduleOptions {
        ScheduleOptions {
            micro_batch_size: NonZeroUsize::new(micro_batch).unwrap(),
            accumulation: NonZeroUsize::new(accumulation).unwrap(),
            packing: Packing::Off,
            shuffle: true,
            seed,
        }
    }

    #[test]
    fn the_last_step_of_an_epoch_is_smaller_and_kept() {
        let options = ScheduleOptions { shuffle: false, ..options(2, 2, 0) };
        let schedule = Schedule::new(&[1; 7], options).unwrap();
        assert_eq!(schedule.steps_per_epoch(), 2);
        assert_eq!(schedule.step(0), [vec![0, 1], vec![2, 3]]);
        assert_eq!(schedule.step(1), [vec![4, 5], vec![6]]);
        assert_eq!(schedule.step(2), schedule.step(0));
        assert_eq!((schedule.epoch(1), schedule.epoch(2)), (0, 1));
    }

    #[test]
    fn epochs_and_seeds_have_orders_of_their_own() {
        let orders: Vec<_> = [(1, 0), (1, 1), (2, 0)]
            .map(|(seed, epoch)| Schedule::new(&[1; 50], options(50, 1, seed)).unwrap().step(epoch))
            .to_vec();
        assert!(orders[0] != orders[1] && orders[0] != orders[2] && orders[1] != orders[2]);
    }

    #[test]
    fn no_rows_is_an_error() {
        let error = Schedule::new(&[], options(1, 1, 0)).unwrap_err();
        insta::assert_snapshot!(error, @"the dataset is empty: there is no row to train on");
    }

    proptest! {
        #[test]
        fn every_epoch_holds_every_row_once_and_steps_need_no_history(
            lengths in proptest::collection::vec(1_usize..=30, 1..60),
            micro_batch in 1_usize..5, accumulation in 1_usize..5,
            packed in any::<bool>(), shuffle in any::<bool>(), seed in any::<u64>(),
        ) {
            let packing = if packed { Packing::Bins { max_seq_len: 30 } } else { Packing::Off };
            let options = ScheduleOptions { packing, shuffle, ..options(micro_batch, accumulation, seed) };
            let schedule = Schedule::new(&lengths, options).unwrap();
            let steps = schedule.steps_per_epoch() as u64;
            for epoch in 0..2 {
                let mut rows = Vec::new();
                for step in epoch * steps..(epoch + 1) * steps {
                    let plan = schedule.step(step);
                    prop_assert!(!plan.is_empty() && plan.len() <= accumulation);
                    let fresh = Schedule::new(&lengths, options).unwrap();
                    prop_assert_eq!(&fresh.step(step), &plan);
                    rows.extend(plan.into_iter().flatten());
                }
                rows.sort_unstable();
                prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
            }
        }

        #[test]
        fn packed_batches_hold_every_row_once_as_a_document_of_its_own(
            lengths in proptest::collection::vec(1_usize..=30, 1..60),
            micro_batch in 1_usize..4, seed in any::<u64>(),
        ) {
            // Every token says which row and which place in it is its own.
            let samples: Vec<Sample> = lengths.iter().enumerate().map(|(row, &length)| {
                let tokens: Vec<u32> = (0..length as u32).map(|at| row as u32 * 100 + at).collect();
                let labels = tokens.iter().map(|&token| token as i32).collect();
                Sample { tokens, labels, origin: Origin { file: 0, line: row } }
            }).collect();
            let packing = Packing::Bins { max_seq_len: 30 };
            let options = ScheduleOptions { packing, ..options(micro_batch, 2, seed) };
            let schedule = Schedule::new(&lengths, options).unwrap();
            let mut seen = Vec::new();
            for step in 0..schedule.steps_per_epoch() as u64 {
                for rows in schedule.step(step) {
                    let chosen: Vec<&Sample> = rows.iter().map(|&row| &samples[row]).collect();
                    let batch = Batch::collate(&chosen, 1, 0);
                    prop_assert!(batch.len() <= 30 * micro_batch);
                    for document in &batch.documents {
                        seen.push((batch.tokens[document.start] / 100) as usize);
                        for at in document.clone() {
                            prop_assert_eq!(batch.positions[at], (at - document.start) as u32);
                            prop_assert_eq!(batch.tokens[at] % 100, batch.positions[at]);
                            let last = at + 1 == document.end;
                            let next = if last { IGNORE } else { batch.tokens[at + 1] as i32 };
                            prop_assert_eq!(batch.labels[at], next);
                        }
                    }
                }
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        }

        #[test]
        fn held_out_rows_are_whole_and_disjoint(
            rows in proptest::collection::vec(1_usize..4, 2..40),
            fraction in 0.001_f64..0.999, seed in any::<u64>(),
        ) {
            let samples: Vec<Sample> = rows.iter().enumerate().flat_map(|(line, &parts)| {
                let origin = Origin { file: 0, line };
                vec![Sample { tokens: vec![1, 2], labels: vec![-100, 2], origin }; parts]
            }).collect();
            let split = split_validation(&samples, fraction, seed).unwrap();
            prop_assert!(!split.train.is_empty() && !split.validation.is_empty());
            let lines = |indices: &[usize]| -> std::collections::BTreeSet<usize> {
                indices.iter().map(|&index| samples[index].origin.line).collect()
            };
            prop_assert!(lines(&split.train).is_disjoint(&lines(&split.validation)));
            let mut all = [&split.train[..], &split.validation[..]].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..samples.len()).collect::<Vec<_>>());
            prop_assert_eq!(split_validation(&samples, fraction, seed).unwrap(), split);
        }
    }

    #[test]
    fn impossible_splits_say_why() {
        let sample =
            Sample { tokens: vec![1], labels: vec![1], origin: Origin { file: 0, line: 1 } };
        insta::assert_snapshot!(split_validation(std::slice::from_ref(&sample), 0.5, 0).unwrap_err(), @"cannot hold out validation rows from 1 row(s): at least 2 are needed; give a separate validation file or add rows");
        insta::assert_snapshot!(split_validation(&[sample], 1.5, 0).unwrap_err(), @"validation fraction is 1.5, expected a number greater than 0 and less than 1");
        assert!(split_validation(&[], f64::NAN, 0).is_err());
    }
}
