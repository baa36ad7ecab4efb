//! All rows of a run, read once: what measures first, then what is learnt, each row with a number in that
//! order. Of a pair the earlier one stays, and so what is measured does.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::cleaning::{Cleaning, changed};
use super::contamination::Stretches;
use super::judgement::Judgement;
use super::near::Signatures;
use super::near::pairs::{Alike, Comparison, stretches};
use super::personal::Personal;
use super::report::Report;
use super::words::words;
use super::{Hygiene, texts};
use crate::dataset::some_rows;
use crate::error::Error;
use crate::fingerprint::RowDigest;
use crate::formats::{FileDigest, Origin, Row, RowReader, SourceFile};
use crate::tokenizer::Tokenizer;

/// Places that a finding names.
pub(super) const MOST_PLACES: usize = 50;
/// Rows that can be told apart by their numbers.
const MOST_ROWS: usize = u32::MAX as usize;

/// Files of one section of a recipe.
#[derive(Clone, Copy)]
pub struct Section<'a> {
    /// The section's key.
    pub key: &'a str,
    /// Its files.
    pub sources: &'a [SourceFile],
    /// Whether rows with an empty answer are left out of it.
    pub leaves_out_empty: bool,
    /// What documents are cut by; `None` where none are read.
    pub tokenizer: Option<&'a Tokenizer>,
}

/// A section whose rows cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Unread {
    /// The section's key.
    pub key: String,
    /// Why.
    #[source]
    pub error: Error,
}

/// What was found, and what follows.
#[derive(Debug, PartialEq)]
pub struct Survey {
    /// What was found.
    pub report: Report,
    /// By section, the one that is learnt last: what is to be done to the rows of each of its files; `None` where
    /// nothing is.
    pub cleanings: Vec<Vec<Option<Arc<Cleaning>>>>,
    /// Rows that are learnt and nearly equal to an earlier one that is: (earlier, later).
    pub alike: Vec<(Origin, Origin)>,
    /// By section, as the cleanings: size and hash of each file that was read.
    pub files: Vec<Vec<FileDigest>>,
}

/// Reads the rows of all sections.
///
/// # Errors
/// A file cannot be read, or holds a row that is wrong.
pub fn survey(
    measured: &[Section<'_>],
    train: Section<'_>,
    hygiene: &Hygiene,
) -> Result<Survey, Unread> {
    let mut rows = Rows::new(hygiene);
    for section in measured {
        rows.read(section, Side::Measured)?;
    }
    if let Some(known) = &mut rows.known {
        known.complete();
    }
    rows.measured = rows.count();
    rows.read(&train, Side::Train)?;
    let equal = rows.equal();
    let alike = rows.compare(measured, &train, &equal)?;
    Ok(Judgement::of(rows, &equal, &alike, hygiene).survey(measured, &train))
}

/// Whether a section's rows are learnt.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Measured,
    Train,
}

/// A file of which rows were read.
pub(super) struct FileRead {
    pub(super) section: usize,
    /// Its number in the section.
    file: usize,
    pub(super) rows: Range<u32>,
    pub(super) digest: Option<FileDigest>,
}

/// What was found of one thing that is looked for in texts.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) rows: usize,
    pub(super) values: usize,
    /// The first rows, each with the mask of its first value.
    pub(super) places: Vec<(u32, String)>,
}

/// What is kept of all rows; by their numbers.
pub(super) struct Rows {
    digests: Vec<RowDigest>,
    /// Line and item of each.
    places: Vec<(u32, u32)>,
    pub(super) files: Vec<FileRead>,
    sections: usize,
    /// Number of the first row that is learnt.
    pub(super) measured: u32,
    near: Option<(f64, Signatures)>,
    pub(super) known: Option<Stretches>,
    /// Rows that are learnt, with the measured one that they share a stretch of words with.
    pub(super) contaminated: Vec<(u32, u32)>,
    pub(super) crowded: usize,
    personal: Arc<Personal>,
    /// One for each thing that is looked for in texts.
    pub(super) seen: Vec<Seen>,
    /// Rows in which any of it was found, each with what it was.
    pub(super) with_values: Vec<(u32, Vec<usize>)>,
}

/// What is found in a row by itself.
struct Facts {
    digest: RowDigest,
    bands: Option<Vec<u32>>,
    /// Of a measured row.
    stretches: Vec<u64>,
    /// Of one that is learnt: the measured one that it shares a stretch of words with.
    shares: Option<u32>,
    /// What was found in its texts, how often, and the mask of the first.
    values: BTreeMap<usize, (usize, String)>,
}

/// Rows that say the same.
pub(super) struct Equal {
    /// The first row that says the same as each, among those that are measured or those that are learnt.
    pub(super) first: Vec<u32>,
    /// Rows that are learnt, with the first measured one that says the same.
    pub(super) leaks: BTreeMap<u32, u32>,
}

impl Rows {
    fn new(hygiene: &Hygiene) -> Self {
        let near = hygiene.near_duplicates;
        Self {
            digests: Vec::new(),
            places: Vec::new(),
            files: Vec::new(),
            sections: 0,
            measured: 0,
            near: near.map(|near| (near.threshold, Signatures::for_likeness(near.threshold))),
            known: hygiene.contamination.map(|it| Stretches::of_length(it.words)),
            contaminated: Vec::new(),
            crowded: 0,
            personal: Arc::clone(&hygiene.personal),
            seen: (0..hygiene.personal.len()).map(|_| Seen::default()).collect(),
            with_values: Vec::new(),
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.digests.len() as u32
    }

    fn read(&mut self, section: &Section<'_>, side: Side) -> Result<(), Unread> {
        let number = self.sections;
        self.sections += 1;
        if section.sources.is_empty() {
            return Ok(());
        }
        let unread = |error| Unread { key: section.key.to_owned(), error };
        let mut reader = reader(section);
        let first_file = self.files.len();
        for file in 0..section.sources.len() {
            let rows = self.count()..self.count();
            self.files.push(FileRead { section: number, file, rows, digest: None });
        }
        loop {
            let batch = some_rows(&mut reader).map_err(unread)?;
            if batch.is_empty() {
                break;
            }
            if self.digests.len() + batch.len() >= MOST_ROWS {
                let reason = format!("there are more than {MOST_ROWS} rows to look through");
                return Err(unread(Error::EmptyDataset { reason }));
            }
            self.add(&batch, first_file, side);
        }
        // Files that no row came from stand where those behind them begin.
        let mut end = self.count();
        for file in self.files[first_file..].iter_mut().rev() {
            if file.rows.is_empty() {
                file.rows = end..end;
            }
            end = file.rows.start;
        }
        for (file, read) in self.files[first_file..].iter_mut().zip(reader.into_files()) {
            file.digest = Some(read.digest);
        }
        Ok(())
    }

    fn add(&mut self, batch: &[(Row, Origin)], first_file: usize, side: Side) {
        let facts: Vec<Facts> = batch.par_iter().map(|(row, _)| self.facts(row, side)).collect();
        for (facts, (_, origin)) in facts.into_iter().zip(batch) {
            let (row, Facts { digest, bands, stretches, shares, values }) = (self.count(), facts);
            let file = &mut self.files[first_file + origin.file];
            if file.rows.is_empty() {
                file.rows.start = row;
            }
            file.rows.end = row + 1;
            self.digests.push(digest);
            let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            self.places.push((narrow(origin.line), origin.item.map_or(0, narrow)));
            if let (Some((_, near)), Some(bands)) = (&mut self.near, bands) {
                near.push(row, &bands);
            }
            if let (Some(known), Side::Measured) = (&mut self.known, side) {
                known.add(row, &stretches);
            }
            self.contaminated.extend(shares.map(|other| (row, other)));
            self.note(row, values);
        }
    }

    fn note(&mut self, row: u32, values: BTreeMap<usize, (usize, String)>) {
        if values.is_empty() {
            return;
        }
        self.with_values.push((row, values.keys().copied().collect()));
        for (by, (count, mask)) in values {
            let seen = &mut self.seen[by];
            seen.rows += 1;
            seen.values += count;
            if seen.places.len() < MOST_PLACES {
                seen.places.push((row, mask));
            }
        }
    }

    fn values(&self, row: &Row) -> BTreeMap<usize, (usize, String)> {
        let (personal, mut values) = (&self.personal, BTreeMap::new());
        if personal.is_empty() {
            return values;
        }
        texts::each(row, &mut |text| {
            for value in personal.find_all(text) {
                let mask = || (0, personal.mask(text, &value));
                values.entry(value.by).or_insert_with(mask).0 += 1;
            }
        });
        values
    }

    fn facts(&self, row: &Row, side: Side) -> Facts {
        let has_use = self.near.is_some() || self.known.is_some();
        let words = if has_use { words(row) } else { Vec::new() };
        let known = self.known.as_ref();
        let (of_measured, of_train) = match side {
            Side::Measured => (known, None),
            Side::Train => (None, known),
        };
        Facts {
            digest: row.digest(),
            bands: self.near.as_ref().and_then(|(_, near)| near.sign(&words)),
            stretches: of_measured.map_or_else(Vec::new, |known| known.of_row(&words)),
            shares: of_train.and_then(|known| known.find(&words)),
            values: self.values(row),
        }
    }

    fn equal(&self) -> Equal {
        let mut order: Vec<u32> = (0..self.count()).collect();
        order.par_sort_unstable_by_key(|&row| (self.digests[row as usize], row));
        let mut first: Vec<u32> = vec![0; order.len()];
        let mut leaks = BTreeMap::new();
        for equal in order.chunk_by(|&a, &b| self.digests[a as usize] == self.digests[b as usize]) {
            let (measured, train) =
                equal.split_at(equal.partition_point(|&row| row < self.measured));
            for side in [measured, train] {
                for &row in side {
                    first[row as usize] = side[0];
                }
            }
            if let Some(&other) = measured.first() {
                leaks.extend(train.iter().map(|&row| (row, other)));
            }
        }
        Equal { first, leaks }
    }

    /// Reads the rows again that may be alike, and compares them.
    fn compare(
        &mut self,
        measured: &[Section<'_>],
        train: &Section<'_>,
        equal: &Equal,
    ) -> Result<Vec<Alike>, Unread> {
        let Some((threshold, signatures)) = self.near.take() else { return Ok(Vec::new()) };
        // Copies are known.
        let is_compared = |row: u32| equal.first[row as usize] == row;
        let found = signatures.candidates(is_compared, self.measured);
        drop(signatures);
        self.crowded = found.crowded;
        let mut comparison = Comparison::new(threshold, &found.pairs);
        drop(found);
        while comparison.next_pass() {
            let mut row = 0_u32;
            for (number, section) in measured.iter().chain([train]).enumerate() {
                if section.sources.is_empty() {
                    continue;
                }
                let unread = |error| Unread { key: section.key.to_owned(), error };
                let mut reader = reader(section);
                loop {
                    let batch = some_rows(&mut reader).map_err(unread)?;
                    if batch.is_empty() {
                        break;
                    }
                    let numbered = batch.par_iter().zip(row..row + batch.len() as u32);
                    let asked = numbered.filter(|(_, row)| comparison.asks_for(*row));
                    let asked: Vec<(u32, Vec<u32>)> =
                        asked.map(|((text, _), row)| (row, stretches(&words(text)))).collect();
                    for (row, stretches) in asked {
                        comparison.push(row, stretches);
                    }
                    row += batch.len() as u32;
                }
                let digests = reader.into_files().into_iter().map(|file| file.digest);
                self.check_same(number, section, digests).map_err(unread)?;
            }
        }
        Ok(comparison.finish())
    }

    /// A file that was read twice has to have been the same.
    fn check_same(
        &self,
        number: usize,
        section: &Section<'_>,
        digests: impl Iterator<Item = FileDigest>,
    ) -> Result<(), Error> {
        let read = self.files.iter().filter(|file| file.section == number);
        let mut files = section.sources.iter().zip(read).zip(digests);
        match files.find(|((_, file), digest)| file.digest.as_ref() != Some(digest)) {
            Some(((source, _), _)) => Err(changed(&source.path)),
            None => Ok(()),
        }
    }

    pub(super) fn file_of(&self, row: u32) -> &FileRead {
        let at = self.files.partition_point(|file| file.rows.end <= row);
        &self.files[at]
    }

    pub(super) fn origin(&self, row: u32) -> Origin {
        let (line, item) = self.places[row as usize];
        let item = (item > 0).then_some(item as usize);
        Origin { file: self.file_of(row).file, line: line as usize, item }
    }
}

pub(super) fn reader<'a>(section: &Section<'a>) -> RowReader<'a> {
    let reader = RowReader::new(section.sources).leaving_out_empty(section.leaves_out_empty);
    match section.tokenizer {
        Some(tokenizer) => reader.cutting_by(tokenizer),
        None => reader,
    }
}
