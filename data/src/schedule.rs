//! Which rows belong to which optimizer step: a function of the step's number alone, so that a
//! resumed run needs no cursor and can neither repeat nor skip a row.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use crate::error::Error;
use crate::mixture::{Part, is_plain};
use crate::packing::{Bins, Length};
use crate::random::{CounterRng, Purpose};

/// Rows or bins whose lengths are found before the longest of them are chosen.
const UNITS_AT_ONCE: usize = 65_536;

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
    units: Units,
    /// What an epoch has of which units; these are all, in order.
    parts: Vec<Drawn>,
    /// The order of the epoch asked for last: a convenience, never a state.
    cache: Mutex<Option<(u64, Arc<Vec<u32>>)>>,
}

/// The rows of each unit, 4 bytes a row and none where a unit is a row.
#[derive(Debug)]
enum Units {
    /// As many as there are rows.
    Rows(usize),
    Bins {
        /// Of all bins.
        rows: Vec<u32>,
        /// Where those of each bin end.
        ends: Vec<u32>,
    },
}

impl Units {
    fn len(&self) -> usize {
        match self {
            Self::Rows(count) => *count,
            Self::Bins { ends, .. } => ends.len(),
        }
    }

    /// Adds those of rows that stand together, the first of which is `first`.
    fn add(&mut self, lengths: &[impl Length], first: usize, packing: Packing) {
        match (self, packing) {
            (Self::Bins { rows, ends }, Packing::Bins { max_seq_len }) => {
                let bins = Bins::of(lengths, max_seq_len);
                if rows.is_empty() && first == 0 {
                    (*rows, *ends) = (bins.rows, bins.ends);
                    return;
                }
                let (first, behind) = (first as u32, rows.len() as u32);
                rows.extend(bins.rows.iter().map(|row| first + row));
                ends.extend(bins.ends.iter().map(|end| behind + end));
            }
            (Self::Bins { rows, ends }, Packing::Off) => {
                rows.extend((0..).take(lengths.len()).map(|row: u32| first as u32 + row));
                ends.extend((1..).take(lengths.len()).map(|row: u32| first as u32 + row));
            }
            (Self::Rows(count), _) => *count += lengths.len(),
        }
    }

    /// The rows of a unit.
    fn of(&self, unit: usize) -> impl Iterator<Item = usize> {
        let (rows, range) = match self {
            Self::Rows(_) => (None, unit..unit + 1),
            Self::Bins { rows, ends } => {
                let begin = unit.checked_sub(1).map_or(0, |before| ends[before]);
                (Some(rows), begin as usize..ends[unit] as usize)
            }
        };
        range.map(move |at| rows.map_or(at, |rows| rows[at] as usize))
    }
}

/// Units that stand together, of which an epoch has some.
#[derive(Debug)]
struct Drawn {
    /// Which.
    units: Range<usize>,
    /// How many an epoch has; at least one.
    each_epoch: usize,
}

impl Drawn {
    /// How often an epoch has all of them, and how many it has once more.
    fn rounds(&self) -> (usize, usize) {
        (self.each_epoch / self.units.len(), self.each_epoch % self.units.len())
    }

    /// How often an epoch has the same one, at most.
    fn most(&self) -> usize {
        self.each_epoch.div_ceil(self.units.len())
    }

    /// Adds those of an epoch. `turns` is the order in which those that are taken once more have their turn,
    /// epoch after epoch, so that each is taken as often as any other.
    fn add(&self, epoch: u64, turns: impl FnOnce() -> Vec<u32>, order: &mut Vec<u32>) {
        let (rounds, more) = self.rounds();
        for _ in 0..rounds {
            order.extend(self.units.clone().map(|unit| unit as u32));
        }
        if more > 0 {
            let turns = turns();
            let behind = u128::from(epoch) * more as u128 % turns.len() as u128;
            order.extend(turns.iter().cycle().skip(behind as usize).take(more));
        }
    }
}

impl Schedule {
    /// Plans rows of these lengths (in tokens, at least one row), each once an epoch.
    ///
    /// # Errors
    /// There is no row.
    pub fn new(lengths: &[impl Length], options: ScheduleOptions) -> Result<Self, Error> {
        Self::mixed(lengths, &[Part { samples: lengths.len(), times: 1.0 }], options)
    }

    /// Plans rows of these lengths, of which an epoch has the parts; they are all rows, in order. Rows of
    /// several parts share a sequence only where an epoch has every row once.
    ///
    /// # Errors
    /// There is no row.
    ///
    /// # Panics
    /// The parts have more or fewer rows than there are.
    pub fn mixed(
        lengths: &[impl Length],
        parts: &[Part],
        options: ScheduleOptions,
    ) -> Result<Self, Error> {
        if lengths.is_empty() {
            let reason = "there is no row to train on".to_owned();
            return Err(Error::EmptyDataset { reason });
        }
        let all = [Part { samples: lengths.len(), times: 1.0 }];
        let parts = if is_plain(parts) { &all } else { parts };
        let mut units = match options.packing {
            Packing::Off => Units::Rows(0),
            Packing::Bins { .. } => Units::Bins { rows: Vec::new(), ends: Vec::new() },
        };
        let (mut drawn, mut first) = (Vec::new(), 0);
        for part in parts.iter().filter(|part| part.samples > 0) {
            let rows = first..first + part.samples;
            let begin = units.len();
            units.add(&lengths[rows], first, options.packing);
            first += part.samples;
            let count = units.len() - begin;
            let each_epoch = ((count as f64 * part.times).round() as usize).max(1);
            drawn.push(Drawn { units: begin..units.len(), each_epoch });
        }
        assert_eq!(first, lengths.len(), "parts are of all rows");
        Ok(Self { options, units, parts: drawn, cache: Mutex::new(None) })
    }

    /// What it was made with.
    pub fn options(&self) -> &ScheduleOptions {
        &self.options
    }

    /// Rows, or bins, of an epoch.
    pub fn units(&self) -> usize {
        self.parts.iter().map(|part| part.each_epoch).sum()
    }

    /// Rows that an epoch has of each part, on average over epochs: a bin counts with all its rows.
    pub fn rows_of_parts(&self) -> Vec<f64> {
        let rows = |part: &Drawn| {
            let rows: usize = part.units.clone().map(|unit| self.units.of(unit).count()).sum();
            rows as f64 * part.each_epoch as f64 / part.units.len() as f64
        };
        self.parts.iter().map(rows).collect()
    }

    /// Tokens of the longest rows, or bins, as many as a step has, each as often as a step may have it, longest first;
    /// `tokens` are those of a row that the schedule was made of.
    pub fn unit_lengths(&self, tokens: impl Fn(usize) -> usize + Sync) -> Vec<usize> {
        let longest_first = |a: &usize, b: &usize| b.cmp(a);
        let (asked, mut lengths) = (self.units_per_step(), Vec::<usize>::new());
        for part in &self.parts {
            // No more of one than a step has are ever together.
            let most = part.most().min(asked);
            let length = |unit: usize| self.units.of(unit).map(&tokens).sum::<usize>();
            for begin in part.units.clone().step_by(UNITS_AT_ONCE) {
                let end = part.units.end.min(begin + UNITS_AT_ONCE);
                let some: Vec<usize> = (begin..end).into_par_iter().map(length).collect();
                for length in some {
                    lengths.extend(std::iter::repeat_n(length, most));
                    // Of millions of rows only those of a step are kept.
                    if lengths.len() > asked.saturating_mul(2).saturating_add(UNITS_AT_ONCE) {
                        lengths.select_nth_unstable_by(asked, longest_first);
                        lengths.truncate(asked);
                    }
                }
            }
        }
        lengths.sort_unstable_by(longest_first);
        lengths.truncate(asked);
        lengths
    }

    /// Optimizer steps of an epoch; the last one may hold fewer rows.
    pub fn steps_per_epoch(&self) -> usize {
        self.units().div_ceil(self.units_per_step())
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
            .map(|units| units.iter().flat_map(|&unit| self.units.of(unit as usize)).collect())
            .collect()
    }

    fn units_per_step(&self) -> usize {
        self.options.micro_batch_size.saturating_mul(self.options.accumulation).get()
    }

    fn order(&self, epoch: u64) -> Arc<Vec<u32>> {
        // A panic elsewhere cannot leave a half-written order: it is replaced whole.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = cache.as_ref().filter(|(cached, _)| *cached == epoch) {
            return Arc::clone(order);
        }
        let ScheduleOptions { shuffle, seed, .. } = self.options;
        let mut order: Vec<u32> = Vec::with_capacity(self.units());
        for (index, part) in self.parts.iter().enumerate() {
            let turns = || {
                let mut turns: Vec<u32> = part.units.clone().map(|unit| unit as u32).collect();
                if shuffle {
                    CounterRng::new(seed, Purpose::Mixture, index as u64, 0).shuffle(&mut turns);
                }
                turns
            };
            part.add(epoch, turns, &mut order);
        }
        if shuffle {
            CounterRng::new(seed, Purpose::Shuffle, epoch, 0).shuffle(&mut order);
        }
        let order = Arc::new(order);
        *cache = Some((epoch, Arc::clone(&order)));
        order
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::Batch;
    use crate::formats::Origin;
    use crate::sample::{IGNORE, Sample};

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
        let schedule = Schedule::new(&[1_u32; 7], options).unwrap();
        assert_eq!(schedule.steps_per_epoch(), 2);
        assert_eq!(schedule.step(0), [vec![0, 1], vec![2, 3]]);
        assert_eq!(schedule.step(1), [vec![4, 5], vec![6]]);
        assert_eq!(schedule.step(2), schedule.step(0));
        assert_eq!((schedule.epoch(1), schedule.epoch(2)), (0, 1));
    }

    #[test]
    fn epochs_and_seeds_have_orders_of_their_own() {
        let orders: Vec<_> = [(1, 0), (1, 1), (2, 0)]
            .map(|(seed, epoch)| {
                Schedule::new(&[1_usize; 50], options(50, 1, seed)).unwrap().step(epoch)
            })
            .to_vec();
        assert!(orders[0] != orders[1] && orders[0] != orders[2] && orders[1] != orders[2]);
    }

    #[test]
    fn no_rows_is_an_error() {
        let error = Schedule::new(&[0_u32; 0], options(1, 1, 0)).unwrap_err();
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
        fn epochs_of_a_mixture_have_its_parts_and_take_turns(
            parts in proptest::collection::vec((1_usize..20, 0.1_f64..3.5), 1..5),
            packed in any::<bool>(), shuffle in any::<bool>(), seed in any::<u64>(),
        ) {
            let parts: Vec<Part> =
                parts.iter().map(|&(samples, times)| Part { samples, times }).collect();
            let rows: usize = parts.iter().map(|part| part.samples).sum();
            let lengths: Vec<usize> = (0..rows).map(|row| 1 + row % 7).collect();
            let packing = if packed { Packing::Bins { max_seq_len: 12 } } else { Packing::Off };
            let options = ScheduleOptions { packing, shuffle, ..options(2, 2, seed) };
            let schedule = Schedule::mixed(&lengths, &parts, options).unwrap();
            let steps = schedule.steps_per_epoch() as u64;
            let epoch = |epoch: u64| -> Vec<usize> {
                (epoch * steps..(epoch + 1) * steps)
                    .flat_map(|step| schedule.step(step))
                    .flatten()
                    .collect()
            };
            // Steps need no history.
            let again = Schedule::mixed(&lengths, &parts, options).unwrap();
            prop_assert_eq!(again.step(5 * steps), schedule.step(5 * steps));
            let epochs: Vec<Vec<usize>> = (0..12).map(epoch).collect();
            let mut first = 0;
            for (part, expected) in parts.iter().zip(schedule.rows_of_parts()) {
                let of_part = first..first + part.samples;
                let mut counts = vec![0_usize; part.samples];
                for row in epochs.iter().flatten().filter(|row| of_part.contains(row)) {
                    counts[row - first] += 1;
                }
                let (fewest, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                prop_assert!(most - fewest <= 1, "{counts:?}");
                let found = counts.iter().sum::<usize>() as f64 / 12.0;
                let rounding = part.samples as f64 / 12.0;
                prop_assert!((found - expected).abs() <= rounding, "{found}, {expected}");
                if !packed {
                    let wanted = (part.samples as f64 * part.times).round().max(1.0);
                    prop_assert!((expected - wanted).abs() < 1e-9, "{expected}, {wanted}");
                }
                first += part.samples;
            }
            // What is said of the longest holds for every step.
            let bound = schedule.unit_lengths(|row| lengths[row]);
            for step in schedule.order(0).chunks(4).chain(schedule.order(7).chunks(4)) {
                let tokens = |&unit: &u32| {
                    schedule.units.of(unit as usize).map(|row| lengths[row]).sum()
                };
                let mut found: Vec<usize> = step.iter().map(tokens).collect();
                found.sort_unstable_by(|a, b| b.cmp(a));
                prop_assert!(found.iter().zip(&bound).all(|(found, bound)| found <= bound));
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
                Sample { tokens, labels, origin: Origin { file: 0, line: row, item: None } }
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
    }
}
