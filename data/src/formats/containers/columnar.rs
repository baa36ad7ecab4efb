//! Tables by columns: Parquet, and Arrow in its two forms, a file (Feather) and a stream, which is what the
//! `datasets` library keeps on disk.
//!
//! Rows are made of a few at a time, so that memory holds a page of each column and never the file. A struct's
//! field that is null is left out: these files have every field in every row.

mod footer;
mod pages;
mod values;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::ArrowError;
use graft_files::caught::caught;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use serde_json::{Map, Value};

use super::foreign::is_text;
use super::input::{FileDigest, Input, Raw};
use super::{Container, Record, Records};
use crate::error::{Error, RowPlace};
use crate::formats::MOST_BYTES_OF_A_ROW;
use crate::visible::visible;

pub(super) static PARQUET: Container = Container {
    endings: &["parquet"],
    of_text: false,
    // A text may begin so, too.
    begins: |head| head.starts_with(b"PAR1") && !is_text(head),
    foreign: |_| None,
    open: open_parquet,
};

pub(super) static ARROW: Container = Container {
    endings: &["arrow", "feather"],
    of_text: false,
    begins: |head| head.starts_with(MAGIC) || head.starts_with(CONTINUES),
    foreign: |_| None,
    open: open_arrow,
};

/// How a file of Arrow begins; from then on it is a stream.
const MAGIC: &[u8] = b"ARROW1\0\0";
/// Zeros behind that, at most.
const WIDEST_BEGINNING: usize = 56;
/// How such a file ends.
const END: &[u8] = b"ARROW1";
/// How every message of a stream begins.
const CONTINUES: &[u8] = b"\xff\xff\xff\xff";

/// Rows that are made at a time …
const ROWS: usize = 64;
/// … where their texts have no more bytes than these; else one by one.
const MOST_BYTES_AT_ONCE: u64 = 64 << 20;
/// The most bytes that a batch of a stream may have: it is read whole.
const MOST_BYTES_OF_A_BATCH: u64 = 512 << 20;
/// What is said of files whose columns are packed.
const PACKED: &str = "its columns are packed, by LZ4 or Zstandard; write it as Parquet, or without packing \
                      (`compression=\"uncompressed\"` in pandas and pyarrow)";
/// Bytes of a stream that are decoded at a time.
const PIECE: usize = 1 << 18;

/// The rows of an open table.
struct Rows<B> {
    path: PathBuf,
    /// What the file is, for messages.
    what: &'static str,
    batches: B,
    raw: Raw,
    digest: Option<FileDigest>,
    /// Rows that are not made yet.
    batch: Option<RecordBatch>,
    /// Rows that are made, the next one last.
    made: Vec<Map<String, Value>>,
    /// Rows behind.
    count: usize,
}

impl<B> fmt::Debug for Rows<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("path", &self.path)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

/// Batches of rows, one after the other.
trait Batches {
    /// The next one; `None` at the end.
    fn next(&mut self) -> Result<Option<RecordBatch>, String>;
}

impl<B: Batches + Send> Records for Rows<B> {
    fn next(&mut self) -> Result<Option<Record>, Error> {
        while self.made.is_empty() {
            let batch = match self.batch.take() {
                Some(batch) => batch,
                None => match self.caught(|rows| rows.batches.next())? {
                    Some(batch) => batch,
                    None => return Ok(None),
                },
            };
            self.make(batch)?;
        }
        let Some(row) = self.made.pop() else { return Ok(None) };
        self.count += 1;
        let bytes = row.iter().map(|(key, value)| key.len() + values::bytes(value)).sum();
        if bytes > MOST_BYTES_OF_A_ROW {
            return Err(self.too_long(self.count));
        }
        let (value, item) = (Value::Object(row), Some(self.count));
        Ok(Some(Record { value, line: 0, item, bytes, of_texts: false }))
    }

    fn digest(self: Box<Self>) -> Result<FileDigest, Error> {
        let Self { path, raw, digest, .. } = *self;
        digest.map_or_else(|| raw.digest().map_err(|source| Error::Read { path, source }), Ok)
    }
}

impl<B> Rows<B> {
    /// Makes the rows of a batch, or its first one where they are large. A row that is too long is refused
    /// before it is made: one value of a dictionary may stand in it a million times.
    fn make(&mut self, batch: RecordBatch) -> Result<(), Error> {
        self.caught(|_| values::check(&batch.schema()))?;
        let bytes = self.caught(|_| Ok(values::bytes_of_texts(&batch)))?;
        if batch.num_rows() > 1 && bytes > MOST_BYTES_AT_ONCE {
            self.batch = Some(batch.slice(1, batch.num_rows() - 1));
            return self.make(batch.slice(0, 1));
        }
        if batch.num_rows() == 1 && bytes > MOST_BYTES_OF_A_ROW as u64 {
            return Err(self.too_long(self.count + 1));
        }
        self.made = self.caught(|_| values::rows(&batch))?;
        self.made.reverse();
        Ok(())
    }

    fn too_long(&self, number: usize) -> Error {
        let place = RowPlace { path: self.path.clone(), line: 0, item: Some(number) };
        Error::LongRow { place: Box::new(place), limit: MOST_BYTES_OF_A_ROW }
    }

    /// What `work` gives. The libraries may panic on what a stranger's file asks of them.
    fn caught<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, Error> {
        let (path, what, rows) = (self.path.clone(), self.what, self.count);
        let result = caught(|| work(self));
        let problem = match result {
            Some(Ok(result)) => return Ok(result),
            Some(Err(problem)) => problem,
            None => "it is not as such files are".to_owned(),
        };
        Err(broken(path, what, Some(rows), &problem))
    }
}

fn broken(path: PathBuf, what: &'static str, rows: Option<usize>, problem: &str) -> Error {
    /// Characters of what a library says that are said.
    const MOST: usize = 400;
    let mut problem: String = visible(problem.trim()).chars().take(MOST).collect();
    if let Some(rows) = rows.filter(|&rows| rows > 0) {
        problem = format!("behind row {rows}: {problem}");
    }
    Error::Table { path, what, problem }
}

fn open_parquet(input: Input) -> Result<Box<dyn Records>, Error> {
    const WHAT: &str = "a Parquet file";
    let (path, raw) = (input.path.clone(), input.raw());
    let Some((path, file, digest)) = input.into_file()? else {
        let what = "a Parquet file that was packed; unpack it first".to_owned();
        return Err(Error::NotRows { path, what: format!("it is {what}") });
    };
    let opened = caught(|| begin_parquet(file));
    let batches = match opened {
        Some(Ok(batches)) => batches,
        Some(Err(problem)) => return Err(broken(path, WHAT, None, &problem)),
        None => return Err(broken(path, WHAT, None, "it is not as such files are")),
    };
    let (digest, made) = (Some(digest), Vec::new());
    Ok(Box::new(Rows { path, what: WHAT, batches, raw, digest, batch: None, made, count: 0 }))
}

fn begin_parquet(mut file: File) -> Result<ParquetRecordBatchReader, String> {
    let text = |error: &dyn fmt::Display| error.to_string();
    footer::check(&mut file)?;
    // What is said of Arrow's types beside them need not be true.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let mut metadata = ArrowReaderMetadata::load(&file, options).map_err(|error| text(&error))?;
    values::check(metadata.schema())?;
    let dictionaries = pages::check(&file, metadata.metadata())?;
    if dictionaries.in_lists > MOST_BYTES_AT_ONCE {
        // A value of a dictionary may stand in a list a million times: it is kept once.
        let schema = values::with_dictionaries(metadata.schema());
        let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
        metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options)
            .map_err(|error| text(&error))?;
    }
    // A value of a dictionary may stand in every row.
    let rows = (MOST_BYTES_AT_ONCE / dictionaries.largest.max(1)).clamp(1, ROWS as u64);
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
    builder.with_batch_size(rows as usize).build().map_err(|error| text(&error))
}

impl Batches for ParquetRecordBatchReader {
    fn next(&mut self) -> Result<Option<RecordBatch>, String> {
        Iterator::next(self).transpose().map_err(|error| error.to_string())
    }
}

fn open_arrow(mut input: Input) -> Result<Box<dyn Records>, Error> {
    let ahead = input.ahead()?;
    let is_file = ahead.starts_with(MAGIC);
    if is_file {
        // Some writers begin with as many zeros as 64 bytes have room for, others with two.
        let zeros = ahead[MAGIC.len()..].iter().take(WIDEST_BEGINNING).take_while(|it| **it == 0);
        let zeros = zeros.count() / MAGIC.len() * MAGIC.len();
        input.pass(MAGIC.len() + zeros);
    }
    let (path, raw) = (input.path.clone(), input.raw());
    let what = if is_file { "an Arrow file" } else { "an Arrow stream" };
    let batches = Stream {
        is_file,
        input,
        decoder: StreamDecoder::new(),
        piece: Buffer::from([]),
        whole: None,
        next: 0,
        tail: Vec::new(),
    };
    let (digest, batch, made) = (None, None, Vec::new());
    Ok(Box::new(Rows { path, what, batches, raw, digest, batch, made, count: 0 }))
}

/// The batches of a stream; each is given in pieces of a few rows.
struct Stream {
    is_file: bool,
    input: Input,
    decoder: StreamDecoder,
    /// Bytes that are to be decoded.
    piece: Buffer,
    whole: Option<RecordBatch>,
    /// The next row of the whole batch.
    next: usize,
    /// The last bytes that were read.
    tail: Vec<u8>,
}

impl Batches for Stream {
    fn next(&mut self) -> Result<Option<RecordBatch>, String> {
        loop {
            if let Some(whole) = &self.whole {
                let count = ROWS.min(whole.num_rows() - self.next);
                if count > 0 {
                    self.next += count;
                    return Ok(Some(whole.slice(self.next - count, count)));
                }
            }
            self.whole = self.decoded()?;
            self.next = 0;
            if self.whole.is_none() {
                return Ok(None);
            }
        }
    }
}

impl Stream {
    /// The next bytes; none at the end.
    fn read(&mut self) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; PIECE];
        let count = self.input.read(&mut bytes).map_err(|error| error.to_string())?;
        bytes.truncate(count);
        self.tail.extend_from_slice(&bytes[count.saturating_sub(MAGIC.len())..]);
        self.tail.drain(..self.tail.len().saturating_sub(MAGIC.len()));
        Ok(bytes)
    }

    /// Refuses a file that is cut between two batches, or behind them.
    fn ended(&self) -> Result<(), String> {
        if self.is_file && !self.tail.ends_with(END) {
            return Err("it does not end in the mark of such files: it is cut short".to_owned());
        }
        Ok(())
    }

    /// The next whole batch.
    fn decoded(&mut self) -> Result<Option<RecordBatch>, String> {
        let mut read = 0;
        loop {
            if self.piece.is_empty() {
                let bytes = self.read()?;
                if bytes.is_empty() {
                    self.decoder.finish().map_err(|error| error.to_string())?;
                    return self.ended().map(|()| None);
                }
                self.piece = Buffer::from(bytes);
            }
            let before = self.piece.len();
            let batch = match self.decoder.decode(&mut self.piece) {
                // What follows the end in a file says again where its batches are.
                Err(ArrowError::IpcError(what)) if self.is_file && what == "Unexpected EOS" => {
                    while !self.read()?.is_empty() {}
                    return self.ended().map(|()| None);
                }
                Err(ArrowError::InvalidArgumentError(what)) if what.contains("decompression") => {
                    return Err(PACKED.to_owned());
                }
                decoded => decoded.map_err(|error| error.to_string())?,
            };
            read += (before - self.piece.len()) as u64;
            if read > MOST_BYTES_OF_A_BATCH {
                return Err(format!("a batch of it has more than {MOST_BYTES_OF_A_BATCH} bytes"));
            }
            if batch.is_some() {
                return Ok(batch);
            }
        }
    }
}
