//! Records on their way into the files of a cache, over what an earlier start left there: a row that is the same
//! and whose samples are whole is not encoded again, and everything stands where it would stand in a new cache.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{OWN_FILE, stored};
use crate::dataset::{Keeper, Known, Made};
use crate::error::Error;
use crate::samples::{
    MADE_BYTES, MadeBytes, ROW_BYTES, Records, RowBytes, RowMade, RowRecord, Rows, Shard, number,
    record_bytes, seen_of, unpacked,
};

/// Bytes that are written at once.
const AT_ONCE: usize = 1 << 20;
/// Bytes of a record that no row has.
const LARGEST_RECORD: u64 = 256 << 20;
/// Bytes of tokens and targets of a sample.
const SIZE_BYTES: usize = 8;

/// Where the next records stand.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    rows: usize,
    samples: usize,
    /// Bytes of all records before.
    end: u64,
    /// Files of records that were begun, and where the last of them begins.
    shards: usize,
    start: u64,
}

impl Place {
    /// Number of the file of a record, and its place there; from then on it lies behind.
    fn take(&mut self, bytes: usize, most: u64) -> (usize, u64) {
        if self.shards == 0 || self.end - self.start + bytes as u64 > most {
            self.shards += 1;
            self.start = self.end;
        }
        let place = (self.shards - 1, self.end - self.start);
        self.end += bytes as u64;
        self.samples += 1;
        place
    }
}

/// Writes records into files as they come.
pub(super) struct InFiles {
    folder: PathBuf,
    /// Bytes behind which another file of records begins.
    most: u64,
    place: Place,
    shards: Vec<Shard>,
    /// The last of them, while it is written.
    open: Option<Written>,
    rows: Written,
    made: Written,
    sizes: Written,
    /// Whether what stands behind may be of use.
    is_over_others: bool,
    /// What was taken from there, for whoever asks when all is made.
    taken: Rc<Cell<usize>>,
}

impl InFiles {
    /// Over what is in the folder. The cell counts rows that are taken from it.
    pub(super) fn over(folder: &Path, most: u64, taken: Rc<Cell<usize>>) -> io::Result<Self> {
        let file = |name: &str| Written::at(&folder.join(name));
        let (rows, made, sizes) = (file(stored::ROWS)?, file(stored::MADE)?, file(stored::SIZES)?);
        let is_over_others = rows.file.metadata()?.len() > 0;
        Ok(Self {
            folder: folder.to_owned(),
            most,
            place: Place::default(),
            shards: Vec::new(),
            open: None,
            rows,
            made,
            sizes,
            is_over_others,
            taken,
        })
    }

    fn write(&mut self, Made { sample, record, at }: &Made) -> io::Result<()> {
        let end = self.place.end;
        let (shard, offset) = self.place.take(record.len(), self.most);
        if shard == self.shards.len() {
            // Whatever comes, this much is kept.
            self.flush()?;
            let open = Written::at(&self.folder.join(stored::shard(shard)))?;
            self.shards.push(Shard { file: open.file.try_clone()?, start: end });
            self.close(open)?;
        }
        let sizes = [sample.tokens.len() as u32, sample.targets() as u32];
        self.sizes.put(sizes.map(u32::to_le_bytes).as_flattened())?;
        match &mut self.open {
            Some(open) if *at == Some(end) => open.pass(offset + record.len() as u64),
            Some(open) => open.put(record),
            None => Ok(()),
        }
    }

    /// Ends the file of records that was written, and begins the next.
    fn close(&mut self, next: Written) -> io::Result<()> {
        self.open.replace(next).map_or(Ok(()), Written::end)
    }

    fn flush(&mut self) -> io::Result<()> {
        for file in [&mut self.rows, &mut self.made, &mut self.sizes] {
            file.flush()?;
        }
        self.open.as_mut().map_or(Ok(()), Written::flush)
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::CacheWrite { folder: self.folder.clone(), source }
    }

    /// Ends every file where its records end, and removes what an earlier start left behind them.
    fn end(self) -> io::Result<(Vec<Shard>, File)> {
        let Self { folder, shards, open, rows, made, sizes, .. } = self;
        open.map_or(Ok(()), Written::end)?;
        made.end()?;
        sizes.end()?;
        let file = rows.file.try_clone()?;
        rows.end()?;
        for number in shards.len().. {
            match fs::remove_file(folder.join(stored::shard(number))) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                other => other?,
            }
        }
        Ok((shards, file))
    }
}

impl Keeper for InFiles {
    fn known(&mut self, rows: &[RowRecord], ways: &[u64]) -> Vec<Option<Known>> {
        if !self.is_over_others || self.flush().is_err() {
            return Vec::new();
        }
        let mut before = Before::new(self);
        let known: Vec<Option<Known>> =
            rows.iter().zip(ways).map_while(|(row, way)| before.next(row, *way)).collect();
        // A row that is another one, or the end: nothing behind it is looked at again.
        self.is_over_others = known.len() == rows.len() || before.is_lost;
        self.taken.set(self.taken.get() + known.iter().flatten().count());
        known
    }

    fn sample(&mut self, sample: &Made) -> Result<(), Error> {
        self.write(sample).map_err(|error| self.failed(error))
    }

    fn row(&mut self, record: &RowRecord, made: &RowMade) -> Result<(), Error> {
        self.place.rows += 1;
        let row = record.packed();
        let written = self.rows.put(&row).and_then(|()| self.made.put(&made.packed(&row)));
        written.map_err(|error| self.failed(error))
    }

    fn finish(self: Box<Self>) -> Result<(Records, Rows), Error> {
        let (folder, count) = (self.folder.clone(), self.place.rows);
        let failed = |source| Error::CacheWrite { folder: folder.clone(), source };
        let (shards, rows) = self.end().map_err(failed)?;
        let rows = Rows::in_file(rows, folder.clone(), count);
        Ok((Records::Files { shards, folder }, rows))
    }
}

/// What an earlier start left behind the place that is written at.
struct Before<'a> {
    files: &'a InFiles,
    place: Place,
    /// The file of records that was read last.
    shard: Option<(usize, File)>,
    /// Whether it is not known where what follows stands.
    is_lost: bool,
}

impl<'a> Before<'a> {
    fn new(files: &'a InFiles) -> Self {
        Self { files, place: files.place, shard: None, is_lost: false }
    }

    /// What the next row became: `Some(None)` where that is damaged, and `None` where the row is another one, or what
    /// follows is lost.
    #[expect(clippy::option_option, reason = "an answer, no answer, and the end of answers")]
    fn next(&mut self, row: &RowRecord, way: u64) -> Option<Option<Known>> {
        let at = self.place.rows;
        let mut record: RowBytes = [0; ROW_BYTES];
        self.files.rows.file.read_exact_at(&mut record, (at * ROW_BYTES) as u64).ok()?;
        let Some(was) = RowRecord::unpacked(&record) else {
            self.is_lost = true;
            return None;
        };
        if (was.digest, was.origin) != (row.digest, row.origin) {
            return None;
        }
        let mut made: MadeBytes = [0; MADE_BYTES];
        let read = self.files.made.file.read_exact_at(&mut made, (at * MADE_BYTES) as u64);
        let made = read.ok().and_then(|()| RowMade::unpacked(&made, &record));
        if made.is_some_and(|made| made.way != way) {
            return None;
        }
        self.place.rows += 1;
        let samples: Vec<Option<Made>> = (0..was.samples).map_while(|_| self.sample(row)).collect();
        if samples.len() < was.samples as usize {
            self.is_lost = true;
            return None;
        }
        let samples: Option<Vec<Made>> = samples.into_iter().collect();
        let known = made.zip(samples).map(|(made, samples)| Known { made, samples });
        let seen = |known: &Known| seen_of(known.samples.iter().map(|made| &made.record[..]));
        Some(known.filter(|known| seen(known) == was.seen))
    }

    /// The next sample of a row, or `Some(None)` where it is damaged; `None` where its size is not known.
    #[expect(clippy::option_option, reason = "an answer, no answer, and the end of answers")]
    fn sample(&mut self, row: &RowRecord) -> Option<Option<Made>> {
        let mut size = [0; SIZE_BYTES];
        let at = (self.place.samples * SIZE_BYTES) as u64;
        self.files.sizes.file.read_exact_at(&mut size, at).ok()?;
        let (tokens, targets) = (number(&size[..4]) as usize, number(&size[4..]) as usize);
        let (bytes, end) = (record_bytes(tokens), self.place.end);
        if bytes as u64 > self.files.most.max(LARGEST_RECORD) {
            return None;
        }
        let (shard, offset) = self.place.take(bytes, self.files.most);
        let record = self.read(shard, offset, bytes);
        let sample = record.as_deref().and_then(|it| unpacked(it, row.origin.file, tokens));
        let is_of_row = sample.filter(|it| it.origin == row.origin && it.targets() == targets);
        Some(record.zip(is_of_row).map(|(record, sample)| Made { sample, record, at: Some(end) }))
    }

    /// Bytes of a file of records; `None` where there are no such.
    fn read(&mut self, number: usize, offset: u64, bytes: usize) -> Option<Vec<u8>> {
        if self.shard.as_ref().is_none_or(|(known, _)| *known != number) {
            let path = self.files.folder.join(stored::shard(number));
            self.shard = Some((number, graft_files::plain_file::open(&path).ok()?));
        }
        let (_, file) = self.shard.as_ref()?;
        let mut record = vec![0; bytes];
        file.read_exact_at(&mut record, offset).ok()?;
        Some(record)
    }
}

/// A file that is written from its beginning, over what is there.
struct Written {
    file: File,
    /// Where what is not written yet belongs.
    at: u64,
    waiting: Vec<u8>,
}

impl Written {
    fn at(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(OWN_FILE);
        Ok(Self { file: options.open(path)?, at: 0, waiting: Vec::new() })
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() < AT_ONCE { Ok(()) } else { self.flush() }
    }

    /// Leaves what is there as it is, up to here.
    fn pass(&mut self, end: u64) -> io::Result<()> {
        self.flush()?;
        self.at = end;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.waiting, self.at)?;
        self.at += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// The file ends here, and is on the disk.
    fn end(mut self) -> io::Result<()> {
        self.flush()?;
        self.file.set_len(self.at)?;
        self.file.sync_all()
    }
}
