//! Samples of files, kept in a folder: made once, and read again as long as what they were made of is the same.
//!
//! ```text
//! FOLDER/rows-HASH/     the hash of the form, the tokenizer, how rows become samples, and which files are read how
//!     samples-0000 …    the records of samples, some 256 MB each
//!     rows              the records of rows
//!     sizes             tokens and targets of each sample
//!     cache.json        what was read, by its hash, and what is known of all samples
//! ```
//!
//! The hash of a file is taken of the very bytes that became the samples. A look at the file (its place on the disk, size and
//! times) stands for its hash until it changes; then the file is hashed again. The folder takes its place when it
//! is whole, so one that is there is never half of one, and nobody but its owner may read it.

mod look;
mod stored;

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use graft_files::atomic;
use graft_files::sha256::{hexadecimal, sha256_hex};

use crate::dataset::{Dataset, Keeper};
use crate::error::Error;
use crate::formats::SourceFile;
use crate::sample::SampleOptions;
use crate::samples::{Records, RowBytes, Rows, Shard};
use crate::tokenizer::Tokenizer;
use look::Look;
use stored::Stored;

/// Of the records and of what becomes of rows: another one is made anew.
const FORM: &str = concat!("1 ", env!("CARGO_PKG_VERSION"));
/// Bytes behind which another file begins.
const SHARD: u64 = 256 << 20;
/// Nobody else's.
const OWN_FOLDER: u32 = 0o700;
const OWN_FILE: u32 = 0o600;

/// A folder for samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    folder: PathBuf,
    shard: u64,
}

impl Cache {
    /// In a folder that is there or can be made.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), shard: SHARD }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether something can be written there; the folder is made.
    ///
    /// # Errors
    /// It cannot be made or written to.
    pub fn try_writing(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(OWN_FOLDER).create(&self.folder)?;
        graft_files::disk::try_writing(&self.folder)
    }

    /// As [`Dataset::load`], with the samples in files; those that are there are taken where they were made of
    /// the same bytes, in the same way. `told` is given what a person should know.
    ///
    /// # Errors
    /// As [`Dataset::load`]; the folder cannot be written.
    pub fn load(
        &self,
        sources: &[SourceFile],
        tokenizer: &Tokenizer,
        options: &SampleOptions,
        told: &mut dyn FnMut(String),
    ) -> Result<Dataset, Error> {
        let place = self.folder.join(name(sources, tokenizer, options));
        match Stored::open(&place, sources) {
            Ok(Some(dataset)) => return Ok(dataset),
            Ok(None) => {}
            Err(problem) => told(format!(
                "the cache of samples in {} is damaged ({problem}), and is made again",
                place.display()
            )),
        }
        self.make(&place, sources, tokenizer, options)
    }

    fn make(
        &self,
        place: &Path,
        sources: &[SourceFile],
        tokenizer: &Tokenizer,
        options: &SampleOptions,
    ) -> Result<Dataset, Error> {
        let failed = |source: io::Error| Error::CacheWrite { folder: self.folder.clone(), source };
        self.try_writing().map_err(failed)?;
        // What is there is of no more use, and its room is needed.
        clear(place).map_err(failed)?;
        let mut made = None;
        let result = atomic::replace_folder(place, |folder| -> Result<(), Failure> {
            fs::set_permissions(folder, fs::Permissions::from_mode(OWN_FOLDER))?;
            let before: Vec<_> = sources.iter().map(|source| Look::at(&source.path).ok()).collect();
            let keeper = Box::new(InFiles::new(folder, place, self.shard)?);
            let dataset = Dataset::load_into(keeper, sources, tokenizer, options)?;
            let looks = sources.iter().zip(before).map(|(source, before)| {
                let after = Look::at(&source.path).ok().filter(Look::is_settled);
                after.filter(|_| after == before)
            });
            stored::write(folder, &dataset, &looks.collect::<Vec<_>>())?;
            made = Some(dataset);
            Ok(())
        });
        match result {
            Ok(()) => Ok(made.expect("the folder was filled")),
            Err(Failure::Data(error)) => Err(error),
            Err(Failure::Disk(error)) => Err(failed(error)),
        }
    }
}

/// Removes a cache that is of no more use, but nothing that somebody else put there.
fn clear(place: &Path) -> io::Result<()> {
    let other = |path: &Path| {
        let message = format!("`{}` is no part of a cache: take it away", path.display());
        io::Error::other(message)
    };
    match fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.is_dir() => return Err(other(place)),
        Ok(_) => {}
    }
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        if !entry.file_type()?.is_file() || !stored::is_part(&entry.file_name()) {
            return Err(other(&entry.path()));
        }
    }
    fs::remove_dir_all(place)
}

/// Why a cache was not made.
enum Failure {
    Data(Error),
    Disk(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Data(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// What the samples depend on but the bytes of the files.
fn name(sources: &[SourceFile], tokenizer: &Tokenizer, options: &SampleOptions) -> String {
    let own = options.chat.own.as_ref().map(|template| template.identity());
    let mut text = format!("{FORM}\n{}\n{options:?}\n{own:?}\n", tokenizer.identity());
    for source in sources {
        let path = source.path.canonicalize().unwrap_or_else(|_| source.path.clone());
        // Writing to a String cannot fail.
        let path = hexadecimal(path.as_os_str().as_encoded_bytes());
        let _ = writeln!(text, "{path} {:?}", source.how_it_is_read());
    }
    format!("rows-{}", &sha256_hex(text.as_bytes())[..32])
}

/// Writes records into files as they come.
struct InFiles {
    folder: PathBuf,
    /// Where the folder will be.
    place: PathBuf,
    most: u64,
    shards: Vec<Shard>,
    /// The last of them, while it is written.
    open: Option<BufWriter<File>>,
    /// Bytes of all records.
    end: u64,
    rows: BufWriter<File>,
    count: usize,
}

impl InFiles {
    fn new(folder: &Path, place: &Path, most: u64) -> io::Result<Self> {
        Ok(Self {
            folder: folder.to_owned(),
            place: place.to_owned(),
            most,
            shards: Vec::new(),
            open: None,
            end: 0,
            rows: BufWriter::with_capacity(1 << 20, create(&folder.join(stored::ROWS))?),
            count: 0,
        })
    }

    fn write(&mut self, record: &[u8]) -> io::Result<()> {
        let begun = self.shards.last().map_or(0, |shard| shard.start);
        if self.open.is_none() || self.end - begun + record.len() as u64 > self.most {
            self.close()?;
            let file = create(&self.folder.join(stored::shard(self.shards.len())))?;
            self.shards.push(Shard { file: file.try_clone()?, start: self.end });
            self.open = Some(BufWriter::with_capacity(1 << 20, file));
        }
        if let Some(open) = &mut self.open {
            open.write_all(record)?;
        }
        self.end += record.len() as u64;
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        self.open.take().map_or(Ok(()), |mut open| open.flush())
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::CacheWrite { folder: self.place.clone(), source }
    }
}

impl Keeper for InFiles {
    fn sample(&mut self, record: &[u8]) -> Result<(), Error> {
        self.write(record).map_err(|error| self.failed(error))
    }

    fn row(&mut self, record: &RowBytes) -> Result<(), Error> {
        self.count += 1;
        self.rows.write_all(record).map_err(|error| self.failed(error))
    }

    fn finish(mut self: Box<Self>) -> Result<(Records, Rows), Error> {
        self.close().map_err(|error| self.failed(error))?;
        self.rows.flush().map_err(|error| self.failed(error))?;
        let file = self.rows.get_ref().try_clone().map_err(|error| self.failed(error))?;
        let Self { place, shards, count, .. } = *self;
        let rows = Rows::in_file(file, place.clone(), count);
        Ok((Records::Files { shards, folder: place }, rows))
    }
}

/// Has a cache made anew at the next start, and says why.
pub(crate) fn damaged(folder: &Path, problem: String) -> Error {
    // If it cannot be removed, the next start finds the damage again.
    let _ = fs::remove_file(folder.join(stored::DESCRIPTION));
    Error::Cache { folder: folder.to_owned(), problem }
}

/// A new file that nobody else may read.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(OWN_FILE).open(path)
}

#[cfg(test)]
mod tests;
