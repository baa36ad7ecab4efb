//! Samples of files, kept in a folder: made once, and read again as long as what they were made of is the same.
//!
//! ```text
//! FOLDER/rows-HASH/     the hash of the form, the tokenizer, how rows become samples, and which files are read how
//!     samples-0000 …    the records of samples, some 256 MB each
//!     rows, made        the records of rows, and how each became its samples
//!     sizes             tokens and targets of each sample
//!     split-HASH        which samples are held out (`splits.rs`)
//!     cache.json        what was read, by its hash, and what is known of all samples
//! FOLDER/found-HASH     what was found in rows that were looked through (`found.rs`)
//! ```
//!
//! The hash of a file is taken of the very bytes that became the samples. A look at the file (its place on the disk, size and
//! times) stands for its hash until it changes; then the file is hashed again. `cache.json` comes last: a folder without
//! it was left unfinished, or a record in it was found to be damaged, and the next start goes on with it, row by row: what a
//! row became is taken over where the row is the same and the sums of its records are right. A folder is made by one process
//! at a time, and nobody but its owner may read it.

mod found;
mod look;
mod making;
mod others;
mod sealed;
mod splits;
mod stored;

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use graft_files::sha256::{hexadecimal, sha256_hex};

use crate::dataset::Dataset;
use crate::error::Error;
use crate::formats::SourceFile;
use crate::sample::SampleOptions;
use crate::tokenizer::Tokenizer;
use look::Look;
use making::InFiles;
pub(crate) use splits::{Basis, kept_or};
use stored::{Found, Stored};

/// Of the records and of what becomes of rows: another one is made anew.
const FORM: &str = concat!("2 ", env!("CARGO_PKG_VERSION"));
/// Bytes behind which another file begins.
const SHARD: u64 = 256 << 20;
/// Nobody else's.
const OWN_FOLDER: u32 = 0o700;
const OWN_FILE: u32 = 0o600;
/// Between two tries to make what another process makes.
const PAUSE: Duration = Duration::from_millis(100);
/// After so many tries it is told what is waited for.
const TRIES_UNTOLD: usize = 5;

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
        if let Found::Whole(dataset) = Stored::look(&place, sources) {
            return Ok(*dataset);
        }
        let failed = |source: io::Error| Error::CacheWrite { folder: self.folder.clone(), source };
        self.try_writing().map_err(failed)?;
        let _alone = alone_in(&place, told).map_err(failed)?;
        // Another process may have made it meanwhile.
        let found = Stored::look(&place, sources);
        let found = match found {
            Found::Whole(dataset) => return Ok(*dataset),
            other => other,
        };
        check_parts(&place).map_err(failed)?;
        let state = match &found {
            Found::Damaged(problem) => Some(format!("is damaged ({problem})")),
            Found::Unfinished if place.join(stored::ROWS).exists() => {
                Some("was not finished, or is damaged".to_owned())
            }
            _ => None,
        };
        if let Found::Other = found {
            // It is of no more use, and its room is needed.
            empty(&place).map_err(failed)?;
        } else {
            undescribe(&place);
        }
        let taken = Rc::new(Cell::new(0));
        let made = self.make(&place, sources, tokenizer, options, &taken);
        if let (Some(state), Ok(dataset)) = (state, &made) {
            let (place, taken, rows) = (place.display(), taken.get(), dataset.rows.len());
            told(format!(
                "the cache of samples in {place} {state}: {taken} of {rows} rows are taken from it, and the others made \
                 again"
            ));
        }
        if let Some(others) = others::told(&self.folder, &place).filter(|_| made.is_ok()) {
            told(others);
        }
        made
    }

    fn make(
        &self,
        place: &Path,
        sources: &[SourceFile],
        tokenizer: &Tokenizer,
        options: &SampleOptions,
        taken: &Rc<Cell<usize>>,
    ) -> Result<Dataset, Error> {
        let failed = |source: io::Error| Error::CacheWrite { folder: place.to_owned(), source };
        let before: Vec<_> = sources.iter().map(|source| Look::at(&source.path).ok()).collect();
        let keeper = Box::new(InFiles::over(place, self.shard, Rc::clone(taken)).map_err(failed)?);
        let made = Dataset::load_into(keeper, sources, tokenizer, options);
        let described = made.and_then(|dataset| {
            let looks = sources.iter().zip(before).map(|(source, before)| {
                let after = Look::at(&source.path).ok().filter(Look::is_settled);
                after.filter(|_| after == before)
            });
            stored::write(place, &dataset, &looks.collect::<Vec<_>>()).map_err(failed)?;
            Ok(dataset)
        });
        // Where a row is to be mended, what was made of those before it is of use.
        let is_of_use = |error: &Error| error.is_of_rows() && place.join(stored::shard(1)).exists();
        described.inspect_err(|error| {
            if !is_of_use(error) {
                // What cannot be removed is looked at again, and no more.
                let _ = empty(place).and_then(|()| fs::remove_dir(place));
            }
        })
    }
}

/// The folder of a cache, made if it is not there, for this process alone until the handle goes.
fn alone_in(place: &Path, told: &mut dyn FnMut(String)) -> io::Result<File> {
    let mut tries = 0;
    loop {
        match fs::symlink_metadata(place) {
            Ok(found) if !found.is_dir() => return Err(no_part(place)),
            _ => fs::DirBuilder::new().recursive(true).mode(OWN_FOLDER).create(place)?,
        }
        let handle = File::open(place)?;
        // Some network file systems cannot lock: there nobody is waited for.
        if !matches!(handle.try_lock(), Err(TryLockError::WouldBlock)) {
            let is_same = |now: fs::Metadata| {
                handle.metadata().is_ok_and(|it| (it.dev(), it.ino()) == (now.dev(), now.ino()))
            };
            if fs::metadata(place).is_ok_and(is_same) {
                return Ok(handle);
            }
            // It was removed between the two lines.
            continue;
        }
        tries += 1;
        // A program that is just being started by this one holds it for a moment.
        if tries == TRIES_UNTOLD {
            told(format!(
                "another process makes the samples in {}: waited for it",
                place.display()
            ));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Refuses a folder with something in it that somebody else put there.
fn check_parts(place: &Path) -> io::Result<()> {
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        if !entry.file_type()?.is_file() || !stored::is_part(&entry.file_name()) {
            return Err(no_part(&entry.path()));
        }
    }
    Ok(())
}

fn no_part(path: &Path) -> io::Error {
    io::Error::other(format!("`{}` is no part of a cache: take it away", path.display()))
}

/// Removes all files of a cache, but nothing that somebody else put there.
fn empty(place: &Path) -> io::Result<()> {
    check_parts(place)?;
    undescribe(place);
    fs::read_dir(place)?.try_for_each(|entry| fs::remove_file(entry?.path()))
}

/// From now on it is unfinished.
fn undescribe(folder: &Path) {
    // If it cannot be removed, the next start finds the damage again.
    let _ = fs::remove_file(folder.join(stored::DESCRIPTION));
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

/// Has the damaged part of a cache made again at the next start, and says why.
pub(crate) fn damaged(folder: &Path, problem: String) -> Error {
    undescribe(folder);
    Error::Cache { folder: folder.to_owned(), problem }
}

/// A new file that nobody else may read.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(OWN_FILE).open(path)
}

#[cfg(test)]
mod tests;
