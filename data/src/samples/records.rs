//! The records of samples, in memory or in files, and the index that says where each one is.

use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::cache::damaged;
use crate::error::Error;
use crate::sample::Sample;

use super::record_bytes;

/// Samples between two places that are remembered.
const STRIDE: usize = 64;
/// Bytes of a piece of records in memory.
const PIECE: usize = 4 << 20;

/// What is known of each sample without its record.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Index {
    lengths: Vec<u32>,
    targets: Vec<u32>,
    /// Where the record of each [`STRIDE`]th sample begins.
    offsets: Vec<u64>,
    end: u64,
    /// Files, and behind which sample each one ends.
    files: Vec<(u32, u32)>,
    /// Ids that occur, a bit each.
    seen: Vec<u64>,
}

impl Index {
    pub(crate) fn add(&mut self, sample: &Sample) {
        for &id in &sample.tokens {
            let (word, bit) = (id as usize / 64, id % 64);
            if self.seen.len() <= word {
                self.seen.resize(word + 1, 0);
            }
            self.seen[word] |= 1 << bit;
        }
        self.add_sizes(sample.tokens.len() as u32, sample.targets() as u32);
        let (file, end) = (sample.origin.file as u32, self.lengths.len() as u32);
        match self.files.last_mut() {
            Some((last, last_end)) if *last == file => *last_end = end,
            _ => self.files.push((file, end)),
        }
    }

    /// Room for so many more, and for no others.
    fn reserve(&mut self, samples: usize) {
        self.lengths.reserve_exact(samples);
        self.targets.reserve_exact(samples);
        self.offsets.reserve_exact(samples.div_ceil(STRIDE));
    }

    fn add_sizes(&mut self, tokens: u32, targets: u32) {
        if self.lengths.len().is_multiple_of(STRIDE) {
            self.offsets.push(self.end);
        }
        self.lengths.push(tokens);
        self.targets.push(targets);
        self.end += record_bytes(tokens as usize) as u64;
    }

    /// Tokens and targets of each sample, as they are stored.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = [u32; 2]> {
        self.lengths.iter().zip(&self.targets).map(|(&tokens, &targets)| [tokens, targets])
    }

    /// As it was stored.
    pub(crate) fn of_stored(
        sizes: impl ExactSizeIterator<Item = [u32; 2]>,
        files: Vec<(u32, u32)>,
        seen: Vec<u64>,
    ) -> Self {
        let mut index = Self { files, seen, ..Self::default() };
        index.reserve(sizes.len());
        sizes.for_each(|[tokens, targets]| index.add_sizes(tokens, targets));
        index
    }

    pub(crate) fn files(&self) -> &[(u32, u32)] {
        &self.files
    }

    pub(crate) fn seen(&self) -> &[u64] {
        &self.seen
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        let bits = |word: u64| (0..64).filter(move |bit| word >> bit & 1 == 1);
        (0_u32..)
            .zip(&self.seen)
            .flat_map(move |(at, &word)| bits(word).map(move |bit| 64 * at + bit))
    }

    pub(crate) fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Of all records.
    pub(crate) fn bytes(&self) -> u64 {
        self.end
    }

    /// Of every sample.
    pub(super) fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    pub(super) fn tokens(&self, place: usize) -> usize {
        self.lengths[place] as usize
    }

    pub(super) fn targets(&self, place: usize) -> usize {
        self.targets[place] as usize
    }

    pub(super) fn file(&self, place: usize) -> usize {
        let at = self.files.partition_point(|(_, end)| *end as usize <= place);
        self.files[at].0 as usize
    }

    /// Where the record of a sample begins.
    pub(super) fn offset(&self, place: usize) -> u64 {
        let first = place / STRIDE * STRIDE;
        let between =
            self.lengths[first..place].iter().map(|&tokens| record_bytes(tokens as usize));
        self.offsets[place / STRIDE] + between.sum::<usize>() as u64
    }
}

/// Records one after the other, in pieces that hold whole ones.
#[derive(Debug)]
pub(crate) enum Records {
    Memory {
        pieces: Vec<Vec<u8>>,
        /// Where each piece begins.
        starts: Vec<u64>,
    },
    Files {
        shards: Vec<Shard>,
        /// What holds them.
        folder: PathBuf,
    },
}

/// A file of records.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) file: File,
    /// Where it begins among all records.
    pub(crate) start: u64,
}

impl Default for Records {
    fn default() -> Self {
        Self::Memory { pieces: Vec::new(), starts: Vec::new() }
    }
}

impl Records {
    /// Adds a record to those in memory.
    ///
    /// # Panics
    /// These are in files.
    pub(crate) fn add_in_memory(&mut self, record: &[u8]) {
        let Self::Memory { pieces, starts } = self else { panic!("records of files are written") };
        match pieces.last_mut() {
            Some(last) if last.len() + record.len() <= PIECE => last.extend_from_slice(record),
            last => {
                let before = last.map_or(0, |last| last.len()) as u64;
                starts.push(starts.last().copied().unwrap_or(0) + before);
                pieces.push(record.to_vec());
            }
        }
    }

    pub(crate) fn are_in_memory(&self) -> bool {
        matches!(self, Self::Memory { .. })
    }

    /// Bytes of a record. Those of files are read, not mapped: pages of a map would count as memory of the
    /// process until the system wants them back.
    pub(super) fn read(&self, start: u64, length: usize) -> Result<Cow<'_, [u8]>, Error> {
        match self {
            Self::Memory { pieces, starts } => {
                let piece = starts.partition_point(|begin| *begin <= start) - 1;
                let at = (start - starts[piece]) as usize;
                Ok(Cow::Borrowed(&pieces[piece][at..at + length]))
            }
            Self::Files { shards, .. } => {
                let shard = &shards[shards.partition_point(|shard| shard.start <= start) - 1];
                let mut bytes = vec![0; length];
                let read = shard.file.read_exact_at(&mut bytes, start - shard.start);
                read.map_err(|error| self.problem(start, &error.to_string()))?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// What is said of a record whose sum is another.
    pub(super) fn damaged(&self, start: u64) -> Error {
        self.problem(start, "its sum is another")
    }

    fn problem(&self, start: u64, problem: &str) -> Error {
        match self {
            Self::Memory { .. } => Error::DamagedMemory,
            Self::Files { folder, .. } => {
                let problem = format!("the record at byte {start} cannot be read: {problem}");
                damaged(folder, problem)
            }
        }
    }
}
