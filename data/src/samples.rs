//! Samples one after the other, in memory or in files: what is trained on, however much of it there is.
//!
//! A sample is a record of `4 + 16 + 3·n + ⌈n/8⌉` bytes for `n` tokens: a CRC-32 of what follows, the line
//! and item that it comes from, the ids in 3 bytes each, and a bit for each that is a target. How long each is
//! stands beside, 8 bytes a sample, in memory; a record is read when it is asked for.

mod records;
mod rows;

use std::borrow::Cow;
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub(crate) use records::{Index, Records, Shard};
pub(crate) use rows::{MADE_BYTES, MadeBytes, ROW_BYTES, RowBytes, RowMade};
pub use rows::{RowRecord, Rows};

use crate::error::Error;
use crate::formats::Origin;
use crate::sample::{IGNORE, Sample};

/// Samples that are read one at a time.
pub trait SampleList {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of a sample.
    fn tokens_of(&self, at: usize) -> usize;

    /// Tokens of a sample that are predicted and count.
    fn targets_of(&self, at: usize) -> usize;

    /// A sample.
    ///
    /// # Errors
    /// It is damaged, or its file cannot be read.
    fn sample(&self, at: usize) -> Result<Cow<'_, Sample>, Error>;
}

impl SampleList for [Sample] {
    fn len(&self) -> usize {
        self.len()
    }

    fn tokens_of(&self, at: usize) -> usize {
        self[at].tokens.len()
    }

    fn targets_of(&self, at: usize) -> usize {
        self[at].targets()
    }

    fn sample(&self, at: usize) -> Result<Cow<'_, Sample>, Error> {
        Ok(Cow::Borrowed(&self[at]))
    }
}

/// Samples in file order, or some of them; clones share what is kept.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    kept: Arc<Kept>,
    /// Which of them, in ascending order; all where there is none.
    chosen: Option<Arc<[u32]>>,
}

#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) index: Index,
    pub(crate) records: Records,
}

impl Samples {
    pub(crate) fn new(index: Index, records: Records) -> Self {
        Self { kept: Arc::new(Kept { index, records }), chosen: None }
    }

    /// Those of `indices`, which ascend.
    #[must_use]
    pub fn choose(&self, indices: &[u32]) -> Self {
        let chosen = indices.iter().map(|&at| self.place(at as usize) as u32).collect();
        Self { kept: self.kept.clone(), chosen: Some(chosen) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.chosen.as_ref().map_or(self.kept.index.len(), |chosen| chosen.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of a sample.
    pub fn tokens_of(&self, at: usize) -> usize {
        self.kept.index.tokens(self.place(at))
    }

    /// Tokens of a sample that are predicted and count.
    pub fn targets_of(&self, at: usize) -> usize {
        self.kept.index.targets(self.place(at))
    }

    /// A sample.
    ///
    /// # Errors
    /// It is damaged, or its file cannot be read.
    pub fn sample(&self, at: usize) -> Result<Sample, Error> {
        let place = self.place(at);
        let Kept { index, records } = &*self.kept;
        let tokens = index.tokens(place);
        let start = index.offset(place);
        let record = records.read(start, record_bytes(tokens))?;
        unpacked(&record, index.file(place), tokens).ok_or_else(|| records.damaged(start))
    }

    /// Place among all that are kept.
    fn place(&self, at: usize) -> usize {
        self.chosen.as_ref().map_or(at, |chosen| chosen[at] as usize)
    }

    /// Whether the sample at this place among all that are kept is one of these.
    pub fn holds(&self, place: usize) -> bool {
        self.chosen.as_ref().map_or(place < self.kept.index.len(), |chosen| {
            chosen.binary_search(&(place as u32)).is_ok()
        })
    }

    /// Which file a sample comes from.
    pub fn file_of(&self, at: usize) -> usize {
        self.kept.index.file(self.place(at))
    }

    /// Samples of each file that has some, and their tokens, in file order.
    pub fn by_file(&self) -> Vec<(usize, usize, usize)> {
        let (mut ranges, mut counts) = (self.kept.index.files().iter().copied(), Vec::new());
        let (mut file, mut end) = (0, 0);
        for place in (0..self.len()).map(|at| self.place(at)) {
            while place >= end as usize {
                let next = ranges.next().expect("every sample is of a file");
                (file, end) = (next.0 as usize, next.1);
                counts.push((file, 0, 0));
            }
            let last = counts.last_mut().expect("the place is of a file that was begun");
            *last = (file, last.1 + 1, last.2 + self.kept.index.tokens(place));
        }
        counts
    }

    /// Where the row of a sample stands.
    ///
    /// # Errors
    /// As [`Self::sample`].
    pub fn origin_of(&self, at: usize) -> Result<Origin, Error> {
        Ok(self.sample(at)?.origin)
    }

    /// Tokens of every sample.
    pub fn lengths(&self) -> Vec<usize> {
        (0..self.len()).map(|at| self.tokens_of(at)).collect()
    }

    /// [`Self::lengths`] as they are kept, which takes no memory where these are all.
    pub fn stored_lengths(&self) -> Cow<'_, [u32]> {
        let all = self.kept.index.lengths();
        match &self.chosen {
            None => Cow::Borrowed(all),
            Some(chosen) => chosen.iter().map(|&place| all[place as usize]).collect(),
        }
    }

    /// Every sample, in order.
    ///
    /// # Errors
    /// As [`Self::sample`].
    pub fn iter(&self) -> impl Iterator<Item = Result<Sample, Error>> {
        (0..self.len()).map(|at| self.sample(at))
    }

    /// Which ids occur in these, and in what they were chosen from.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.kept.index.ids()
    }

    /// Bytes of their records, and of those that they were chosen from: in memory, and in files.
    pub fn bytes(&self) -> [u64; 2] {
        let bytes = self.kept.index.bytes();
        if self.kept.records.are_in_memory() { [bytes, 0] } else { [0, bytes] }
    }

    pub(crate) fn index(&self) -> &Index {
        &self.kept.index
    }
}

#[cfg(test)]
impl Samples {
    /// A sample that can be read.
    pub(crate) fn at(&self, at: usize) -> Sample {
        self.sample(at).unwrap()
    }
}

impl SampleList for Samples {
    fn len(&self) -> usize {
        self.len()
    }

    fn tokens_of(&self, at: usize) -> usize {
        self.tokens_of(at)
    }

    fn targets_of(&self, at: usize) -> usize {
        self.targets_of(at)
    }

    fn sample(&self, at: usize) -> Result<Cow<'_, Sample>, Error> {
        self.sample(at).map(Cow::Owned)
    }
}

impl FromIterator<Sample> for Samples {
    fn from_iter<I: IntoIterator<Item = Sample>>(samples: I) -> Self {
        let (mut index, mut records) = (Index::default(), Records::default());
        for sample in samples {
            records.add_in_memory(&packed(&sample));
            index.add(&sample);
        }
        Self::new(index, records)
    }
}

impl PartialEq for Samples {
    fn eq(&self, other: &Self) -> bool {
        let same = |(one, other): (Result<Sample, Error>, Result<Sample, Error>)| matches!((one, other), (Ok(one), Ok(other)) if one == other);
        self.len() == other.len() && self.iter().zip(other.iter()).all(same)
    }
}

/// CRC-32, line, item.
pub(crate) const HEAD: usize = 4 + 8 + 8;

/// Bytes of a sample's record.
pub(crate) fn record_bytes(tokens: usize) -> usize {
    HEAD + 3 * tokens + tokens.div_ceil(8)
}

/// A sample as its record.
pub(crate) fn packed(sample: &Sample) -> Vec<u8> {
    let Sample { tokens, labels, origin } = sample;
    let mut record = Vec::with_capacity(record_bytes(tokens.len()));
    record.extend([0; 4]);
    record.extend((origin.line as u64).to_le_bytes());
    record.extend(origin.item.map_or(0, |item| item as u64 + 1).to_le_bytes());
    // Ids have at most 22 bits.
    record.extend(tokens.iter().flat_map(|token| token.to_le_bytes().into_iter().take(3)));
    for eight in labels.chunks(8) {
        let bits = eight.iter().enumerate().filter(|(_, label)| **label != IGNORE);
        record.push(bits.fold(0, |bits, (at, _)| bits | 1 << at));
    }
    let sum = crc32fast::hash(&record[4..]);
    record[..4].copy_from_slice(&sum.to_le_bytes());
    record
}

/// A number of eight bytes.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// A hash of the tokens and labels in the records of a row.
pub(crate) fn seen_of<'a>(records: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut seen = Sha256::new();
    for record in records {
        // Behind what stands for its place.
        seen.update((record.len() as u64).to_le_bytes());
        seen.update(&record[HEAD..]);
    }
    number(&seen.finalize()[..8])
}

/// The sample of a record; `None` where its sum says that it is damaged.
pub(crate) fn unpacked(record: &[u8], file: usize, count: usize) -> Option<Sample> {
    let (sum, content) = record.split_at_checked(4)?;
    if number(sum) != u64::from(crc32fast::hash(content)) {
        return None;
    }
    let (line, item) = (number(&content[..8]) as usize, number(&content[8..16]) as usize);
    let (ids, bits) = content[16..].split_at_checked(3 * count)?;
    let tokens: Vec<u32> = ids.chunks_exact(3).map(|id| number(id) as u32).collect();
    let label = |(at, &id): (usize, &u32)| {
        if bits[at / 8] >> (at % 8) & 1 == 1 { id as i32 } else { IGNORE }
    };
    let labels = tokens.iter().enumerate().map(label).collect();
    let item = item.checked_sub(1);
    Some(Sample { tokens, labels, origin: Origin { file, line, item } })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn samples() -> impl Strategy<Value = Vec<Sample>> {
        let tokens = proptest::collection::vec((0_u32..1 << 22, any::<bool>()), 0..40);
        let place = (0_usize..4, any::<u32>(), proptest::option::of(0_usize..1 << 40));
        let one = (tokens, place).prop_map(|(pairs, (file, line, item))| Sample {
            tokens: pairs.iter().map(|&(id, _)| id).collect(),
            labels: pairs
                .iter()
                .map(|&(id, target)| if target { id as i32 } else { IGNORE })
                .collect(),
            origin: Origin { file, line: line as usize, item },
        });
        proptest::collection::vec(one, 0..200).prop_map(|mut samples| {
            samples.sort_by_key(|sample| sample.origin.file);
            samples
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_kept_comes_back(samples in samples(), every in 1_usize..4) {
            let kept: Samples = samples.iter().cloned().collect();
            prop_assert_eq!(kept.len(), samples.len());
            let back = kept.iter().collect::<Result<Vec<_>, _>>().unwrap();
            prop_assert_eq!(&back, &samples);
            let targets = samples.iter().map(Sample::targets);
            prop_assert!(targets.enumerate().all(|(at, targets)| kept.targets_of(at) == targets));
            let some: Vec<usize> = (0..samples.len()).step_by(every).collect();
            let chosen = kept.choose(&some.iter().map(|&at| at as u32).collect::<Vec<_>>());
            prop_assert!(chosen.stored_lengths().iter().map(|&it| it as usize).eq(chosen.lengths()));
            for (at, &place) in some.iter().enumerate() {
                prop_assert_eq!(&chosen.at(at), &samples[place]);
                prop_assert_eq!(chosen.tokens_of(at), samples[place].tokens.len());
                prop_assert_eq!(chosen.file_of(at), samples[place].origin.file);
            }
            let mut by_file = std::collections::BTreeMap::new();
            for at in 0..chosen.len() {
                let (count, tokens): &mut (usize, usize) = by_file.entry(chosen.file_of(at)).or_default();
                (*count, *tokens) = (*count + 1, *tokens + chosen.tokens_of(at));
            }
            let found = chosen.by_file().into_iter().filter(|(_, count, _)| *count > 0);
            let expected = by_file.into_iter().map(|(file, (count, tokens))| (file, count, tokens));
            prop_assert!(found.eq(expected));
            let held = (0..samples.len() + 2).filter(|&place| chosen.holds(place));
            prop_assert_eq!(held.collect::<Vec<_>>(), some);
            let mut ids: Vec<u32> = samples.iter().flat_map(|sample| sample.tokens.clone()).collect();
            ids.sort_unstable();
            ids.dedup();
            prop_assert_eq!(kept.ids().collect::<Vec<_>>(), ids);
        }
    }

    #[test]
    fn a_changed_byte_of_a_record_is_found() {
        let origin = Origin { file: 0, line: 7, item: Some(0) };
        let sample = Sample { tokens: vec![1, 70_000, 3], labels: vec![IGNORE, 70_000, 3], origin };
        let record = packed(&sample);
        assert_eq!(unpacked(&record, 0, 3), Some(sample));
        for at in 0..record.len() {
            let mut damaged = record.clone();
            damaged[at] ^= 4;
            assert_eq!(unpacked(&damaged, 0, 3), None, "byte {at}");
        }
    }
}
