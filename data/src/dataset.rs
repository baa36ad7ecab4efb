//! Files to samples: rows are encoded on all threads, and judged one after the other in file order,
//! so that the result and the first error are the same on every machine.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::cache::{Basis, kept_or};
use crate::error::Error;
use crate::formats::{
    FileDigest, FileRows, MOST_BYTES_OF_A_ROW, Origin, Row, RowReader, SourceFile,
};
use crate::hygiene::dropped_by;
use crate::overlong::{Overlong, OverlongReport, OverlongRow};
use crate::sample::{RowFailure, Sample, SampleOptions, encode_row};
use crate::samples::{
    Index, Records, RowBytes, RowMade, RowRecord, Rows, Samples, packed, seen_of,
};
use crate::split::{Split, split_validation};
use crate::statistics::{FileStatistics, Histogram, Lengths, Statistics};
use crate::tokenizer::Tokenizer;

/// Rows read before they are encoded together: bounds the text held in memory.
const ROWS_AT_ONCE: usize = 4_096;
/// Bytes of text after which no more rows are added to those.
const BYTES_AT_ONCE: u64 = 8 * MOST_BYTES_OF_A_ROW as u64;

/// Samples in file order, and what they are in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The samples.
    pub samples: Samples,
    /// Numbers about them.
    pub statistics: Statistics,
    /// What every row says, in file order, those that became no sample included.
    pub rows: Rows,
    /// Size and hash of each file: of the very bytes that became the samples.
    pub files: Vec<FileDigest>,
    /// Rows that are parts of a document, each with the first row of the same document.
    pub together: Vec<(Origin, Origin)>,
}

impl Dataset {
    /// Reads and encodes files; the text of at most a few thousand rows is in memory at once.
    ///
    /// # Errors
    /// A file cannot be read or holds a wrong row; a row is too long under `overlong: error`, or has
    /// no target token; no row is left; or no token at all is a target.
    pub fn load(
        sources: &[SourceFile],
        tokenizer: &Tokenizer,
        options: &SampleOptions,
    ) -> Result<Self, Error> {
        Self::load_into(Box::new(InMemory::default()), sources, tokenizer, options)
    }

    /// [`Self::load`], with the samples kept by `keeper`.
    pub(crate) fn load_into(
        keeper: Box<dyn Keeper>,
        sources: &[SourceFile],
        tokenizer: &Tokenizer,
        options: &SampleOptions,
    ) -> Result<Self, Error> {
        let mut builder = Builder::new(sources, tokenizer, options, keeper)?;
        let mut reader = RowReader::new(sources)
            .leaving_out_empty(options.allow_empty_targets)
            .cutting_by(tokenizer);
        loop {
            let rows = some_rows(&mut reader)?;
            if rows.is_empty() {
                return builder.finish(reader.into_files());
            }
            builder.push(&rows)?;
        }
    }

    /// Holds out rows as [`split_validation`] does, or as it did at an earlier start over the same cache.
    ///
    /// # Errors
    /// As [`split_validation`].
    pub fn split(
        &self,
        fraction: f64,
        seed: u64,
        together: &[(Origin, Origin)],
    ) -> Result<Split, Error> {
        let make = || split_validation(&self.rows, fraction, seed, together);
        match self.rows.folder() {
            None => make(),
            Some(folder) => {
                let (files, samples) = (&self.files, self.samples.len());
                kept_or(folder, &Basis { files, fraction, seed, together, samples }, make)
            }
        }
    }

    /// Tokens of every sample.
    pub fn lengths(&self) -> Vec<usize> {
        self.samples.lengths()
    }
}

/// Encodes rows that were read from `sources`; see [`Dataset::load`]. Their files are not known.
///
/// # Errors
/// As [`Dataset::load`], but for reading.
pub fn encode_rows(
    sources: &[SourceFile],
    rows: &[(Row, Origin)],
    tokenizer: &Tokenizer,
    options: &SampleOptions,
) -> Result<Dataset, Error> {
    let mut builder = Builder::new(sources, tokenizer, options, Box::new(InMemory::default()))?;
    builder.push(rows)?;
    builder.finish(Vec::new())
}

/// The next rows, as many as should be in memory at once; none at the end.
pub(crate) fn some_rows(reader: &mut RowReader<'_>) -> Result<Vec<(Row, Origin)>, Error> {
    let (mut rows, before) = (Vec::new(), reader.bytes());
    while rows.len() < ROWS_AT_ONCE && reader.bytes() - before < BYTES_AT_ONCE {
        match reader.next() {
            Some(row) => rows.push(row?),
            None => break,
        }
    }
    Ok(rows)
}

/// Takes the records of samples and rows as they are made.
pub(crate) trait Keeper {
    /// What the next rows became when they were read before, each where it is still kept and the row is
    /// the same.
    fn known(&mut self, _rows: &[RowRecord], _ways: &[u64]) -> Vec<Option<Known>> {
        Vec::new()
    }
    fn sample(&mut self, sample: &Made) -> Result<(), Error>;
    fn row(&mut self, record: &RowRecord, made: &RowMade) -> Result<(), Error>;
    fn finish(self: Box<Self>) -> Result<(Records, Rows), Error>;
}

/// A sample and its record.
pub(crate) struct Made {
    pub(crate) sample: Sample,
    pub(crate) record: Vec<u8>,
    /// Where the record stands already, among all.
    pub(crate) at: Option<u64>,
}

impl Made {
    fn new(sample: Sample) -> Self {
        Self { record: packed(&sample), sample, at: None }
    }
}

/// What a row became.
pub(crate) struct Known {
    pub(crate) made: RowMade,
    pub(crate) samples: Vec<Made>,
}

#[derive(Default)]
struct InMemory {
    records: Records,
    rows: Vec<RowBytes>,
}

impl Keeper for InMemory {
    fn sample(&mut self, Made { record, .. }: &Made) -> Result<(), Error> {
        self.records.add_in_memory(record);
        Ok(())
    }

    fn row(&mut self, record: &RowRecord, _made: &RowMade) -> Result<(), Error> {
        self.rows.push(record.packed());
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(Records, Rows), Error> {
        Ok((self.records, Rows::in_memory(self.rows)))
    }
}

struct Builder<'a> {
    sources: &'a [SourceFile],
    tokenizer: &'a Tokenizer,
    options: &'a SampleOptions,
    stops: Vec<u32>,
    keeper: Box<dyn Keeper>,
    index: Index,
    statistics: Statistics,
    /// How many rows have which length.
    lengths: BTreeMap<usize, usize>,
    /// The first row that is too long and the longest.
    overlong: Option<(OverlongRow, OverlongRow)>,
}

impl<'a> Builder<'a> {
    fn new(
        sources: &'a [SourceFile],
        tokenizer: &'a Tokenizer,
        options: &'a SampleOptions,
        keeper: Box<dyn Keeper>,
    ) -> Result<Self, Error> {
        if options.max_seq_len < 2 {
            return Err(Error::SequenceTooShort { found: options.max_seq_len });
        }
        if sources.is_empty() {
            return Err(Error::EmptyDataset { reason: "no file was given".to_owned() });
        }
        let file = |source: &SourceFile| FileStatistics {
            path: source.path.clone(),
            rows: 0,
            tokens: 0,
            targets: 0,
            notes: BTreeMap::new(),
            remarks: Vec::new(),
        };
        let statistics = Statistics {
            rows: 0,
            samples: 0,
            tokens: 0,
            targets: 0,
            lengths: Lengths::default(),
            dropped_overlong: 0,
            dropped_without_targets: 0,
            dropped_empty: 0,
            left_out_by_themselves: 0,
            cleaned: BTreeMap::new(),
            truncated: 0,
            split: 0,
            parts_without_targets: 0,
            answers_without_end: 0,
            files: sources.iter().map(file).collect(),
        };
        let (stops, overlong) = (tokenizer.stop_ids(), None);
        Ok(Self {
            sources,
            tokenizer,
            options,
            stops,
            keeper,
            index: Index::default(),
            statistics,
            lengths: BTreeMap::new(),
            overlong,
        })
    }

    fn push(&mut self, rows: &[(Row, Origin)]) -> Result<(), Error> {
        let read: Vec<(RowRecord, u64)> =
            rows.par_iter().map(|(row, origin)| (row.record(*origin), row.way())).collect();
        let (records, ways): (Vec<_>, Vec<_>) = read.into_iter().unzip();
        let mut known = self.keeper.known(&records, &ways);
        known.resize_with(rows.len(), || None);
        let encoded: Vec<Option<Result<Sample, RowFailure>>> = rows
            .par_iter()
            .zip(&known)
            .map(|((row, origin), known)| {
                known.is_none().then(|| encode_row(row, *origin, self.tokenizer, self.options))
            })
            .collect();
        for (((encoded, known), record), way) in
            encoded.into_iter().zip(known).zip(records).zip(ways)
        {
            let known = match encoded {
                Some(result) => self.judged(result, record.origin, way)?,
                None => known.expect("what is not known was encoded"),
            };
            self.keep(record, &known)?;
        }
        Ok(())
    }

    /// What a row becomes by the policies for long rows and for rows without targets.
    fn judged(
        &self,
        encoded: Result<Sample, RowFailure>,
        origin: Origin,
        way: u64,
    ) -> Result<Known, Error> {
        let place = || Box::new(origin.place(self.sources));
        let sample = encoded.map_err(|failure| match failure {
            RowFailure::Other(error) => error,
            RowFailure::Row(problem) => Error::Row { place: place(), problem },
        })?;
        let (length, open) = (sample.tokens.len(), sample.has_open_answer(&self.stops));
        let SampleOptions { max_seq_len, overlong, allow_empty_targets, .. } = self.options;
        let is_long = length > *max_seq_len;
        let parts = if is_long { overlong.apply(sample, *max_seq_len) } else { vec![sample] };
        let (first, all) = (parts.first().map_or(0, |part| part.tokens.len()), parts.len());
        let learnable = parts.into_iter().filter(|part| part.targets() > 0).map(Made::new);
        let samples: Vec<Made> = learnable.collect();
        if all > 0 && samples.is_empty() && !allow_empty_targets {
            let cut = if is_long { ", after cutting it to `max_seq_len`" } else { "" };
            return Err(Error::NoTargets { place: place(), tokens: first, cut });
        }
        Ok(Known { made: RowMade { way, length, open, parts: all }, samples })
    }

    /// Counts and keeps what a row became.
    fn keep(&mut self, record: RowRecord, known: &Known) -> Result<(), Error> {
        let (origin, Known { made, samples }) = (record.origin, known);
        self.count(origin, made, samples.len());
        for made in samples {
            let (tokens, targets) = (made.sample.tokens.len(), made.sample.targets());
            let file = &mut self.statistics.files[origin.file];
            file.tokens += tokens;
            file.targets += targets;
            self.statistics.tokens += tokens;
            self.statistics.targets += targets;
            self.statistics.samples += 1;
            self.index.add(&made.sample);
            self.keeper.sample(made)?;
        }
        let seen = seen_of(samples.iter().map(|made| &made.record[..]));
        let record = RowRecord { seen, samples: samples.len() as u32, ..record };
        self.keeper.row(&record, made)
    }

    fn count(&mut self, origin: Origin, made: &RowMade, samples: usize) {
        let RowMade { way: _, length, open, parts } = *made;
        let statistics = &mut self.statistics;
        statistics.rows += 1;
        statistics.files[origin.file].rows += 1;
        *self.lengths.entry(length).or_default() += 1;
        statistics.answers_without_end += usize::from(open);
        if length > self.options.max_seq_len {
            match self.options.overlong {
                Overlong::Error => self.note_overlong(origin, length),
                Overlong::Drop => statistics.dropped_overlong += 1,
                Overlong::TruncateLeft | Overlong::TruncateRight => statistics.truncated += 1,
                Overlong::Split => statistics.split += 1,
            }
        }
        if samples > 0 {
            self.statistics.parts_without_targets += parts - samples;
        } else if parts > 0 {
            self.statistics.dropped_without_targets += 1;
        }
    }

    fn note_overlong(&mut self, origin: Origin, tokens: usize) {
        let row = OverlongRow { place: origin.place(self.sources), tokens };
        match &mut self.overlong {
            None => self.overlong = Some((row.clone(), row)),
            Some((_, longest)) if longest.tokens < tokens => *longest = row,
            Some(_) => {}
        }
    }

    /// `files` were met while the rows were read.
    fn finish(self, files: Vec<FileRows>) -> Result<Dataset, Error> {
        let Self { mut statistics, keeper, index, lengths, overlong, options, .. } = self;
        let encoded = statistics.rows;
        let mut hashes = Vec::with_capacity(files.len());
        let (mut dropped, mut together, mut documents) = (0, Vec::new(), BTreeMap::new());
        for (file, met) in statistics.files.iter_mut().zip(files) {
            let FileRows {
                digest,
                notes,
                documents: parts,
                left_out,
                by_themselves,
                remarks,
                cleaned,
            } = met;
            for (part, document) in parts {
                together.push((*documents.entry(document).or_insert(part), part));
            }
            let unlearnt = left_out + by_themselves + dropped_by(&cleaned);
            dropped += dropped_by(&cleaned);
            file.rows += unlearnt;
            file.notes = notes;
            file.remarks = remarks;
            statistics.rows += unlearnt;
            statistics.dropped_empty += left_out;
            statistics.left_out_by_themselves += by_themselves;
            for (what, count) in cleaned {
                *statistics.cleaned.entry(what).or_default() += count;
            }
            hashes.push(digest);
        }
        let rows = statistics.rows;
        if let Some((first, longest)) = overlong {
            let max_seq_len = options.max_seq_len;
            return Err(Error::Overlong(Box::new(OverlongReport {
                first,
                longest,
                max_seq_len,
                overlong: lengths.range(max_seq_len + 1..).map(|(_, count)| count).sum(),
                rows,
                histogram: Histogram::of_counts(&lengths),
            })));
        }
        if rows == 0 {
            return Err(Error::EmptyDataset { reason: "the files hold no rows".to_owned() });
        }
        if encoded == 0 && dropped > 0 {
            let what = statistics.cleaned.iter().map(|(what, count)| format!("{what}: {count}"));
            let what = what.collect::<Vec<_>>().join("; ");
            let reason = format!("`data.hygiene` leaves no row of {rows} ({what})");
            return Err(Error::EmptyDataset { reason });
        }
        if encoded > 0 && statistics.dropped_overlong == encoded {
            let reason = format!(
                "all {encoded} rows are longer than max_seq_len {} and were dropped; raise it",
                options.max_seq_len
            );
            return Err(Error::EmptyDataset { reason });
        }
        if statistics.targets == 0 {
            return Err(Error::AllMasked { rows });
        }
        statistics.lengths = Lengths::of_counts(&lengths);
        let (records, rows) = keeper.finish()?;
        together.retain(|(first, part)| first != part);
        let samples = Samples::new(index, records);
        Ok(Dataset { samples, statistics, rows, files: hashes, together })
    }
}

#[cfg(test)]
mod tests;
