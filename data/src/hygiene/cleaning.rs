//! What is to be done to the rows of a file while they are read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use graft_files::sha256::sha256_hex;

use super::personal::Personal;
use super::report::Check;
use crate::error::Error;
use crate::formats::{FileDigest, Row};

/// What happens to each row of a file. It belongs to the very bytes that were surveyed.
#[derive(Debug, PartialEq)]
pub struct Cleaning {
    /// One a row, in the order in which they are read.
    verdicts: Vec<Verdict>,
    personal: Arc<Personal>,
    /// The bytes that the verdicts are about.
    digest: FileDigest,
}

impl Eq for Cleaning {}

/// What happens to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is learnt as it is.
    Keep,
    /// Something in it is masked.
    Mask,
    /// It is left out.
    Drop(Check),
    /// It is left out for something that is looked for in texts, by its number.
    DropFor(u16),
}

/// What was done to the rows of a file, and how often.
pub type Cleaned = BTreeMap<String, usize>;

/// How it is said that rows were left out.
const DROPPED: &str = "rows dropped: ";

/// Rows that were left out, of all that was done.
pub fn dropped_by(cleaned: &Cleaned) -> usize {
    let dropped = cleaned.iter().filter(|(what, _)| is_dropping(what));
    dropped.map(|(_, count)| count).sum()
}

/// Whether what was done was to leave rows out.
pub(crate) fn is_dropping(what: &str) -> bool {
    what.starts_with(DROPPED)
}

impl Cleaning {
    pub(super) fn new(verdicts: Vec<Verdict>, personal: Arc<Personal>, digest: FileDigest) -> Self {
        Self { verdicts, personal, digest }
    }

    /// One a row, in the order in which they are read.
    pub(super) fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// Whether it does anything.
    pub(super) fn is_idle(&self) -> bool {
        self.verdicts.iter().all(|verdict| *verdict == Verdict::Keep)
    }

    /// A hash of what happens to which row of which bytes: two cleanings with one hash leave the same texts.
    pub fn sha256(&self) -> String {
        let word = |verdict: &Verdict| match verdict {
            Verdict::Keep => b'k',
            Verdict::Mask => b'm',
            Verdict::Drop(_) | Verdict::DropFor(_) => b'd',
        };
        let words: Vec<u8> = self.verdicts.iter().map(word).collect();
        let (digest, personal) = (&self.digest.sha256, self.personal.identity());
        sha256_hex(format!("{}\n{digest}\n{personal}", sha256_hex(&words)).as_bytes())
    }

    /// Row `number` of the file, counted from 0; `None` where it is left out.
    pub(crate) fn apply(&self, number: usize, mut row: Row, cleaned: &mut Cleaned) -> Option<Row> {
        let mut count = |what: String| *cleaned.entry(what).or_default() += 1;
        match self.verdicts.get(number).copied().unwrap_or(Verdict::Keep) {
            Verdict::Keep => Some(row),
            Verdict::Mask => {
                self.personal.mask_row(&mut row, &mut |what| count(format!("masked: {what}")));
                Some(row)
            }
            Verdict::Drop(check) => {
                count(format!("{DROPPED}{}", check.words()));
                None
            }
            Verdict::DropFor(by) => {
                count(format!("{DROPPED}with {}", self.personal.said(usize::from(by)).1));
                None
            }
        }
    }

    /// Holds the file that was read to the one that was surveyed.
    ///
    /// # Errors
    /// It is another one.
    pub(crate) fn check(&self, path: &Path, digest: &FileDigest) -> Result<(), Error> {
        if self.digest == *digest { Ok(()) } else { Err(changed(path)) }
    }
}

/// A file was read twice, and was not the same.
pub(super) fn changed(path: &Path) -> Error {
    let what = "the file changed while it was read; leave it alone and start again".to_owned();
    Error::NotRows { path: path.to_owned(), what }
}
