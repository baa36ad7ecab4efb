//! What somebody else put into folders of the run, or changed there: it stays when those are made again, or
//! removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::manifest::{Made, hash_file};
use super::{Error, Result, RunFolder, plain};

/// Where such files are while their folder is made again, and where one stays whose place is taken.
const KEPT: &str = "kept-";
/// Larger files of the run's own are not read to find out whether they were changed.
const COMPARED: u64 = 256 << 20;

/// Tells what is the run's own in a folder, by its path inside.
pub(super) trait Own {
    /// Whether the run made this file as it is.
    fn is_file(&self, file: &Path) -> bool;
    /// Whether the run made this folder; what lies in any other is not its own.
    fn is_folder(&self, folder: &Path) -> bool;
}

impl RunFolder {
    /// Makes the folder `name` of the values after `step`, and of `of`, at the path that `make` is given.
    /// Files and folders in it that the run did not make, or not so, are there again afterwards, also where
    /// `make` fails; one whose place is taken then is kept beside the folder, and told of in a sentence.
    ///
    /// # Errors
    /// Something else stands there that the run did not make; a file cannot be moved; those of `make`.
    pub fn make_folder<T, E: From<Error>>(
        &mut self,
        name: &str,
        step: u64,
        of: &str,
        make: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<(T, Vec<String>), E> {
        let own = OfResult {
            name: name.to_owned(),
            folder: self.path.join(name),
            made: self.manifest.made.get(name).cloned().unwrap_or_default(),
        };
        let path = self.claim(name)?;
        let kept = beside(&path);
        set_aside(&path, &kept, &own)?;
        let made = make(&path);
        let files = if made.is_ok() { self.files_of(name)? } else { Default::default() };
        let mut told = Vec::new();
        // A file of the run's own name is not put where it would be taken for the run's.
        put_back(&kept, &path, Path::new(""), &|file| own.is_named(file), &mut told)?;
        let made = made?;
        let entry = Made { after_step: Some(step), of: of.to_owned(), files };
        self.manifest.made.insert(name.to_owned(), entry);
        self.record()?;
        Ok((made, told))
    }
}

/// A result of the run, and the entry of the manifest that it had until now.
struct OfResult {
    name: String,
    folder: PathBuf,
    made: Made,
}

impl OfResult {
    fn key(&self, file: &Path) -> String {
        format!("{}/{}", self.name, file.to_string_lossy())
    }

    /// Whether the run's list has this name, or all such folders have it.
    fn is_named(&self, file: &Path) -> bool {
        self.made.files.contains_key(&self.key(file)) || is_of_weights(&file.to_string_lossy())
    }
}

impl Own for OfResult {
    fn is_file(&self, file: &Path) -> bool {
        // The list is written behind the folder: until then its files may be others than it says.
        if self.made.after_step.is_none() {
            return self.is_named(file);
        }
        let Some(listed) = self.made.files.get(&self.key(file)) else { return false };
        let path = self.folder.join(file);
        let is_large = path.metadata().is_ok_and(|found| found.len() > COMPARED);
        is_large || hash_file(&path, |_| ()).is_ok_and(|found| found == *listed)
    }

    fn is_folder(&self, folder: &Path) -> bool {
        let inside = self.key(folder) + "/";
        self.made.files.keys().any(|file| file.starts_with(&inside))
    }
}

/// Weights, and what describes them.
fn is_of_weights(file: &str) -> bool {
    const NAMES: [&str; 4] = [
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
        "model.safetensors.index.json",
    ];
    let shard = file.strip_prefix("model").and_then(|rest| rest.strip_suffix(".safetensors"));
    let counts = |c: char| c.is_ascii_digit() || c == '-' || "of".contains(c);
    NAMES.contains(&file) || shard.is_some_and(|between| between.chars().all(counts))
}

/// Where what is not the run's own in `folder` is kept.
pub(super) fn beside(folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!("{KEPT}{name}"))
}

/// Moves all that is not the run's own out of `folder` into `kept`; whether there was any.
pub(super) fn set_aside(folder: &Path, kept: &Path, own: &dyn Own) -> Result<bool> {
    let mut others = Vec::new();
    match others_in(folder, Path::new(""), own, &mut others) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(Error::Read { path: folder.to_owned(), source });
        }
        _ => {}
    }
    for other in &others {
        move_to(&folder.join(other), &free(kept.join(other)))?;
    }
    Ok(!others.is_empty())
}

/// Paths inside of files and whole folders that are not the run's own; links are files.
fn others_in(
    folder: &Path,
    inside: &Path,
    own: &dyn Own,
    out: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder.join(inside))? {
        let entry = entry?;
        let path = inside.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() && own.is_folder(&path) {
            others_in(folder, &path, own, out)?;
        } else if kind.is_dir() || !kind.is_file() || !own.is_file(&path) {
            out.push(path);
        }
    }
    Ok(())
}

/// The path, or one like it where that is taken.
fn free(path: PathBuf) -> PathBuf {
    let like = |count: u32| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!("-{count}"));
        path.with_file_name(name)
    };
    let taken = |path: &Path| path.symlink_metadata().is_ok();
    if taken(&path) {
        return (2..u32::MAX)
            .map(like)
            .find(|path| !taken(path))
            .expect("a folder has fewer than 2^32 files");
    }
    path
}

fn move_to(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|source| Error::write(folder, source))?;
    fs::rename(from, to).map_err(|source| Error::write(to, source))
}

/// Moves what is in `kept` back into `folder`, but for files that `stays` names. What was made in the place of
/// one stays there; the other is told of, unless it is the same.
fn put_back(
    kept: &Path,
    folder: &Path,
    inside: &Path,
    stays: &dyn Fn(&Path) -> bool,
    told: &mut Vec<String>,
) -> Result<()> {
    let Ok(entries) = fs::read_dir(kept.join(inside)) else { return Ok(()) };
    for entry in entries {
        let unreadable = |source| Error::Read { path: kept.to_owned(), source };
        let entry = entry.map_err(unreadable)?;
        let path = inside.join(entry.file_name());
        let (from, to) = (kept.join(&path), folder.join(&path));
        let is_folder = entry.file_type().map_err(unreadable)?.is_dir();
        match to.symlink_metadata() {
            Err(_) if is_folder || !stays(&path) => move_to(&from, &to)?,
            Err(_) => {}
            Ok(found) if is_folder && found.is_dir() => {
                put_back(kept, folder, &path, stays, told)?;
            }
            Ok(_) if is_same(&from, &to) => {
                fs::remove_file(&from).map_err(|source| Error::write(&from, source))?;
            }
            Ok(_) => told.push(format!(
                "`{}` was made anew; what was there, and was not as the run made it, is `{}`",
                to.display(),
                from.display()
            )),
        }
    }
    // Of the system's call, which takes no folder that holds something.
    let _ = fs::remove_dir(kept.join(inside));
    Ok(())
}

fn is_same(one: &Path, other: &Path) -> bool {
    let is_file = |path: &Path| path.symlink_metadata().is_ok_and(|found| found.is_file());
    is_file(one)
        && is_file(other)
        && matches!((plain::read(one), plain::read(other)), (Ok(one), Ok(other)) if one == other)
}
