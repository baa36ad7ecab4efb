//! The files of a cache, read and written.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use graft_files::plain_file;
use graft_files::sha256::of_reader;
use serde::{Deserialize, Serialize};

use super::look::Look;
use crate::dataset::Dataset;
use crate::formats::{FileDigest, Origin, SourceFile};
use crate::samples::{Index, ROW_BYTES, Records, Rows, Samples, Shard};
use crate::statistics::Statistics;

pub(super) const ROWS: &str = "rows";
/// How rows became their samples: read where a cache is made again.
pub(super) const MADE: &str = "made";
pub(super) const SIZES: &str = "sizes";
/// Its last file, without which it is none.
pub(super) const DESCRIPTION: &str = "cache.json";
/// That file until it is whole.
const UNFINISHED: &str = "cache.json.new";
/// All but the files of records.
const NAMES: [&str; 5] = [DESCRIPTION, UNFINISHED, ROWS, MADE, SIZES];
/// The vocabulary's bits and the notes of files are the most of it.
const LARGEST_DESCRIPTION: u64 = 256 << 20;

/// The name of a file of records.
pub(super) fn shard(number: usize) -> String {
    format!("samples-{number:04}")
}

/// What stands in `cache.json`.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    files: Vec<StoredFile>,
    statistics: Statistics,
    samples: usize,
    rows: usize,
    /// Bytes of each file of records.
    shards: Vec<u64>,
    /// CRC-32 of the sizes.
    sizes: u32,
    /// Behind which sample each file ends.
    ranges: Vec<(u32, u32)>,
    /// Ids that occur, a bit each.
    seen: Vec<u64>,
    /// Rows that are parts of a document, each behind the first of it: file, line and item of both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    together: Vec<[StoredOrigin; 2]>,
}

/// File, line and item.
type StoredOrigin = (usize, usize, Option<usize>);

fn stored_origin(Origin { file, line, item }: Origin) -> StoredOrigin {
    (file, line, item)
}

fn origin((file, line, item): StoredOrigin) -> Origin {
    Origin { file, line, item }
}

#[derive(Serialize, Deserialize)]
struct StoredFile {
    bytes: u64,
    sha256: String,
    look: Option<Look>,
}

/// Writes what is known of all samples beside their records.
pub(super) fn write(folder: &Path, dataset: &Dataset, looks: &[Option<Look>]) -> io::Result<()> {
    let Dataset { samples, statistics, rows, files, together } = dataset;
    let index = samples.index();
    let mut sizes = crc32fast::Hasher::new();
    index.sizes().flatten().for_each(|number| sizes.update(&number.to_le_bytes()));
    let files = files.iter().zip(looks).map(|(FileDigest { bytes, sha256 }, look)| StoredFile {
        bytes: *bytes,
        sha256: sha256.clone(),
        look: *look,
    });
    let mut statistics = statistics.clone();
    for file in &mut statistics.files {
        // It may be no text, and is known.
        file.path = PathBuf::new();
    }
    let shards = (0..).map(shard).map(|name| folder.join(name).metadata());
    let stored = Stored {
        files: files.collect(),
        statistics,
        samples: index.len(),
        rows: rows.len(),
        shards: shards.map_while(Result::ok).map(|found| found.len()).collect(),
        sizes: sizes.finalize(),
        ranges: index.files().to_vec(),
        seen: index.seen().to_vec(),
        together: together.iter().map(|&(a, b)| [stored_origin(a), stored_origin(b)]).collect(),
    };
    describe(folder, &serde_json::to_vec(&stored)?)
}

/// Replaces the description.
fn describe(folder: &Path, text: &[u8]) -> io::Result<()> {
    let unfinished = folder.join(UNFINISHED);
    if let Err(error) = fs::remove_file(&unfinished)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = super::create(&unfinished)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(unfinished, folder.join(DESCRIPTION))?;
    File::open(folder)?.sync_all()
}

/// What is in the place of a cache.
pub(super) enum Found {
    /// The samples.
    Whole(Box<Dataset>),
    /// Samples of other bytes.
    Other,
    /// Some samples, of a start that was ended, or that found a damage.
    Unfinished,
    /// What is damaged.
    Damaged(String),
    Nothing,
}

impl Stored {
    /// What is in a folder for the samples of these files.
    pub(super) fn look(place: &Path, sources: &[SourceFile]) -> Found {
        match Self::read(place) {
            Ok(Some(mut stored)) => {
                if !stored.is_of(sources, place) {
                    return Found::Other;
                }
                let dataset = stored.dataset(place, sources);
                dataset.map_or_else(Found::Damaged, |dataset| Found::Whole(Box::new(dataset)))
            }
            Ok(None) if place.exists() => Found::Unfinished,
            Ok(None) => Found::Nothing,
            Err(problem) => Found::Damaged(problem),
        }
    }

    fn dataset(mut self, place: &Path, sources: &[SourceFile]) -> Result<Dataset, String> {
        let index = self.index(place)?;
        let records = self.records(place, index.bytes())?;
        let file = open(place, ROWS, (self.rows * ROW_BYTES) as u64)?;
        let rows = Rows::in_file(file, place.to_owned(), self.rows);
        for (file, source) in self.statistics.files.iter_mut().zip(sources) {
            file.path.clone_from(&source.path);
        }
        let files = self.files.into_iter();
        let files = files.map(|StoredFile { bytes, sha256, .. }| FileDigest { bytes, sha256 });
        Ok(Dataset {
            samples: Samples::new(index, records),
            statistics: self.statistics,
            rows,
            files: files.collect(),
            together: self.together.into_iter().map(|[a, b]| (origin(a), origin(b))).collect(),
        })
    }

    fn read(place: &Path) -> Result<Option<Self>, String> {
        let path = place.join(DESCRIPTION);
        let file = match plain_file::open(&path) {
            Ok(file) => file,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(format!("{DESCRIPTION}: {error}")),
        };
        let mut bytes = Vec::new();
        let read = file.take(LARGEST_DESCRIPTION).read_to_end(&mut bytes);
        read.map_err(|error| format!("{DESCRIPTION}: {error}"))?;
        let stored = serde_json::from_slice(&bytes);
        stored.map(Some).map_err(|error| format!("{DESCRIPTION}: {error}"))
    }

    /// Whether the files are those that were read. Where their hashes say so and the looks at them do not, new looks are kept.
    fn is_of(&mut self, sources: &[SourceFile], place: &Path) -> bool {
        let (mut same, mut has_new) = (self.files.len() == sources.len(), false);
        for (file, source) in self.files.iter_mut().zip(sources) {
            let Ok(look) = Look::at(&source.path) else { return false };
            if file.look == Some(look) {
                continue;
            }
            same &= look.bytes == file.bytes
                && hash(&source.path).is_ok_and(|found| found == file.sha256);
            if !same {
                return false;
            }
            if look.is_settled() && Look::at(&source.path).is_ok_and(|after| after == look) {
                (file.look, has_new) = (Some(look), true);
            }
        }
        if has_new
            && same
            && let Ok(text) = serde_json::to_vec(self)
        {
            // Without it the files are hashed again, and no more.
            let _ = describe(place, &text);
        }
        same
    }

    fn index(&self, place: &Path) -> Result<Index, String> {
        let file = open(place, SIZES, 8 * self.samples as u64)?;
        let mut bytes = Vec::new();
        let read = BufReader::new(file).read_to_end(&mut bytes);
        read.map_err(|error| format!("{SIZES}: {error}"))?;
        if crc32fast::hash(&bytes) != self.sizes {
            return Err(format!("{SIZES}: its sum is another"));
        }
        let number =
            |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("it has four bytes"));
        let sizes = bytes.chunks_exact(8).map(|pair| [number(&pair[..4]), number(&pair[4..])]);
        if self.ranges.last().map_or(0, |(_, end)| *end as usize) != self.samples {
            return Err(format!("{DESCRIPTION}: its files have another number of samples"));
        }
        Ok(Index::of_stored(sizes, self.ranges.clone(), self.seen.clone()))
    }

    fn records(&self, place: &Path, all: u64) -> Result<Records, String> {
        let (mut shards, mut start) = (Vec::new(), 0);
        for (number, &bytes) in self.shards.iter().enumerate() {
            let file = open(place, &shard(number), bytes)?;
            shards.push(Shard { file, start });
            start += bytes;
        }
        if start != all {
            return Err(format!("its records have {start} bytes, and not {all}"));
        }
        Ok(Records::Files { shards, folder: place.to_owned() })
    }
}

/// Whether a file of this name is part of a cache.
pub(super) fn is_part(name: &OsStr) -> bool {
    let numbered = |name: &str| {
        name.strip_prefix("samples-").is_some_and(|rest| rest.bytes().all(|it| it.is_ascii_digit()))
    };
    let split = |name: &str| name.starts_with(super::splits::PREFIX);
    name.to_str().is_some_and(|name| NAMES.contains(&name) || numbered(name) || split(name))
}

/// A file of this size.
fn open(place: &Path, name: &str, bytes: u64) -> Result<File, String> {
    let file = plain_file::open(&place.join(name)).map_err(|error| format!("{name}: {error}"))?;
    let found = file.metadata().map_err(|error| format!("{name}: {error}"))?.len();
    if found != bytes {
        return Err(format!("{name} has {found} bytes, and not {bytes}"));
    }
    Ok(file)
}

/// Of a file's bytes.
pub(super) fn hash(path: &Path) -> io::Result<String> {
    of_reader(&mut File::open(path)?, |_| ()).map(|(_, sha256)| sha256)
}
