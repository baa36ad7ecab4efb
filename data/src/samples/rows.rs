//! What is known of each row, whether it became a sample or not: where it stands, what it says, and what
//! the model sees of it.

use std::sync::Arc;

use super::number;
use crate::error::Error;
use crate::fingerprint::RowDigest;
use crate::formats::Origin;

/// CRC-32, file, line, item, digest, what is seen, samples.
const ROW_BYTES: usize = 4 + 4 + 8 + 8 + 16 + 8 + 4;

/// A row as it is stored.
pub(crate) type RowBytes = [u8; ROW_BYTES];

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
    fn unpacked(record: &[u8]) -> Option<Self> {
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

/// All rows, in file order.
#[derive(Debug, Clone, Default)]
pub struct Rows(Arc<Vec<RowBytes>>);

impl Rows {
    pub(crate) fn new(rows: Vec<RowBytes>) -> Self {
        Self(Arc::new(rows))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every row, in order.
    ///
    /// # Errors
    /// Its memory is damaged.
    pub fn iter(&self) -> impl Iterator<Item = Result<RowRecord, Error>> {
        self.0.iter().map(|row| RowRecord::unpacked(row).ok_or(Error::DamagedMemory))
    }
}

impl FromIterator<RowRecord> for Rows {
    fn from_iter<I: IntoIterator<Item = RowRecord>>(rows: I) -> Self {
        Self::new(rows.into_iter().map(|row| row.packed()).collect())
    }
}

impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
