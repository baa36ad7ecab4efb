//! What is known of each row, whether it became a sample or not: where it stands, what it says, and what
//! the model sees of it.

use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::number;
use crate::cache::damaged;
use crate::error::Error;
use crate::fingerprint::RowDigest;
use crate::formats::Origin;

/// CRC-32, file, line, item, digest, what is seen, samples.
pub(crate) const ROW_BYTES: usize = 4 + 4 + 8 + 8 + 16 + 8 + 4;

/// A row as it is stored.
pub(crate) type RowBytes = [u8; ROW_BYTES];

/// Rows read at once.
const AT_ONCE: usize = 16_384;

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowRecord {
    /// Where it stands.
    pub origin: Origin,
    /// What it says.
    pub digest: RowDigest,
    /// A hash of its samples' tokens and labels: rows with the same one are the same to the model.
    pub seen: u64,
    /// How many samples it became.
    pub samples: u32,
}

impl RowRecord {
    pub(crate) fn packed(&self) -> RowBytes {
        let Self { origin: Origin { file, line, item }, digest, seen, samples } = self;
        let mut record = [0; ROW_BYTES];
        let mut at = 4;
        let mut put = |bytes: &[u8]| {
            record[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&(*file as u32).to_le_bytes());
        put(&(*line as u64).to_le_bytes());
        put(&item.map_or(0, |item| item as u64 + 1).to_le_bytes());
        put(&digest.bytes());
        put(&seen.to_le_bytes());
        put(&samples.to_le_bytes());
        let sum = crc32fast::hash(&record[4..]);
        record[..4].copy_from_slice(&sum.to_le_bytes());
        record
    }

    /// `None` where its sum is another.
    pub(crate) fn unpacked(record: &[u8]) -> Option<Self> {
        let (sum, content) = record.split_at(4);
        if number(sum) != u64::from(crc32fast::hash(content)) {
            return None;
        }
        let part = |from: usize, to: usize| number(&content[from..to]);
        let item = (part(12, 20) as usize).checked_sub(1);
        let digest = content[20..36].try_into().expect("it has sixteen bytes");
        Some(Self {
            origin: Origin { file: part(0, 4) as usize, line: part(4, 12) as usize, item },
            digest: RowDigest::of_bytes(digest),
            seen: part(36, 44),
            samples: part(44, 48) as u32,
        })
    }
}

/// What is known of how a row became its samples, so that it need not be encoded again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowMade {
    /// A hash of which of its turns are learnt.
    pub(crate) way: u64,
    /// Tokens, before it was cut.
    pub(crate) length: usize,
    /// Whether an answer in it is closed by no end token.
    pub(crate) open: bool,
    /// How many it was cut into, those without targets included.
    pub(crate) parts: usize,
}

/// CRC-32 of this and of the row's record, way, length, open, parts.
pub(crate) const MADE_BYTES: usize = 4 + 8 + 8 + 1 + 4;

/// [`RowMade`] as it is stored.
pub(crate) type MadeBytes = [u8; MADE_BYTES];

impl RowMade {
    /// As it is stored beside the record of its row.
    pub(crate) fn packed(&self, row: &RowBytes) -> MadeBytes {
        let Self { way, length, open, parts } = *self;
        let mut bytes = [0; MADE_BYTES];
        bytes[4..12].copy_from_slice(&way.to_le_bytes());
        bytes[12..20].copy_from_slice(&(length as u64).to_le_bytes());
        bytes[20] = u8::from(open);
        bytes[21..].copy_from_slice(&(parts as u32).to_le_bytes());
        let sum = Self::sum(&bytes, row);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// `None` where its sum is another.
    pub(crate) fn unpacked(bytes: &MadeBytes, row: &RowBytes) -> Option<Self> {
        (number(&bytes[..4]) == u64::from(Self::sum(bytes, row))).then(|| Self {
            way: number(&bytes[4..12]),
            length: number(&bytes[12..20]) as usize,
            open: bytes[20] == 1,
            parts: number(&bytes[21..]) as usize,
        })
    }

    fn sum(bytes: &MadeBytes, row: &RowBytes) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&bytes[4..]);
        sum.update(row);
        sum.finalize()
    }
}

/// All rows, in file order, in memory or in a file.
#[derive(Debug, Clone)]
pub struct Rows(Kept);

#[derive(Debug, Clone)]
enum Kept {
    Memory(Arc<Vec<RowBytes>>),
    File {
        file: Arc<File>,
        /// What it is in.
        folder: PathBuf,
        count: usize,
    },
}

impl Default for Rows {
    fn default() -> Self {
        Self::in_memory(Vec::new())
    }
}

impl Rows {
    pub(crate) fn in_memory(rows: Vec<RowBytes>) -> Self {
        Self(Kept::Memory(Arc::new(rows)))
    }

    pub(crate) fn in_file(file: File, folder: PathBuf, count: usize) -> Self {
        Self(Kept::File { file: Arc::new(file), folder, count })
    }

    /// What the file of them is in, where they are in one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match &self.0 {
            Kept::Memory(_) => None,
            Kept::File { folder, .. } => Some(folder),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kept::Memory(rows) => rows.len(),
            Kept::File { count, .. } => *count,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every row, in order; some thousand are in memory at once.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn iter(&self) -> impl Iterator<Item = Result<RowRecord, Error>> {
        let (count, mut block, mut first) = (self.len(), Vec::new(), 0);
        (0..count).map(move |at| {
            if let Kept::Memory(rows) = &self.0 {
                return RowRecord::unpacked(&rows[at])
                    .ok_or_else(|| self.problem("its sum is another"));
            }
            if block.is_empty() || at - first == AT_ONCE {
                first = at;
                block = self.read(at, AT_ONCE.min(count - at))?;
            }
            let record = &block[(at - first) * ROW_BYTES..][..ROW_BYTES];
            RowRecord::unpacked(record).ok_or_else(|| self.problem("its sum is another"))
        })
    }

    /// What `each` makes of some thousand rows at a time, in order; on all threads.
    ///
    /// # Errors
    /// As [`Self::iter`].
    pub fn in_blocks<T: Send>(
        &self,
        each: impl Fn(&mut dyn Iterator<Item = RowRecord>) -> T + Sync,
    ) -> Result<Vec<T>, Error> {
        let of_block = |block: usize| {
            let (at, count) = (block * AT_ONCE, AT_ONCE.min(self.len() - block * AT_ONCE));
            let bytes = match &self.0 {
                Kept::Memory(rows) => Cow::Borrowed(rows[at..at + count].as_flattened()),
                Kept::File { .. } => Cow::Owned(self.read(at, count)?),
            };
            let mut whole = 0;
            let records = bytes.chunks_exact(ROW_BYTES).map_while(RowRecord::unpacked);
            let made = each(&mut records.inspect(|_| whole += 1));
            if whole == count { Ok(made) } else { Err(self.problem("its sum is another")) }
        };
        (0..self.len().div_ceil(AT_ONCE)).into_par_iter().map(of_block).collect()
    }

    fn read(&self, at: usize, rows: usize) -> Result<Vec<u8>, Error> {
        let Kept::File { file, .. } = &self.0 else { return Ok(Vec::new()) };
        let mut bytes = vec![0; rows * ROW_BYTES];
        let read = file.read_exact_at(&mut bytes, (at * ROW_BYTES) as u64);
        read.map_err(|error| self.problem(&error.to_string()))?;
        Ok(bytes)
    }

    fn problem(&self, problem: &str) -> Error {
        match &self.0 {
            Kept::Memory(_) => Error::DamagedMemory,
            Kept::File { folder, .. } => {
                damaged(folder, format!("a row cannot be read: {problem}"))
            }
        }
    }
}

impl FromIterator<RowRecord> for Rows {
    fn from_iter<I: IntoIterator<Item = RowRecord>>(rows: I) -> Self {
        Self::in_memory(rows.into_iter().map(|row| row.packed()).collect())
    }
}

impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        let same = |(one, other): (Result<RowRecord, Error>, Result<RowRecord, Error>)| matches!((one, other), (Ok(one), Ok(other)) if one == other);
        self.len() == other.len() && self.iter().zip(other.iter()).all(same)
    }
}
