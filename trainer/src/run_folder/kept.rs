//! What somebody else put into folders of the run, or changed there: it stays when those are made again, or
//! removed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use graft_files::atomic;

use super::made::files_below;
use super::manifest::{FileHash, Made, hash_file};
use super::{ADAPTER, Error, Result, RunFolder};

/// Where what cannot stay in a folder is kept beside it, for people to see.
const KEPT: &str = "kept-";
/// Where it waits while the folder is made again.
const WAITING: &str = ".kept-";

/// Tells what is the run's own in a folder, by its path inside.
pub(super) trait Own {
    /// Whether the run made this file as it is.
    fn is_file(&self, file: &Path) -> bool;
    /// Whether the run made this folder; what lies in any other is not its own.
    fn is_folder(&self, folder: &Path) -> bool;
}

/// What nothing is of.
pub(super) struct Nobody;

impl Own for Nobody {
    fn is_file(&self, _file: &Path) -> bool {
        false
    }

    fn is_folder(&self, _folder: &Path) -> bool {
        false
    }
}

impl RunFolder {
    /// Makes the folder `name` of the values after `step`, and of `of`, at the path that `make` is given.
    /// Files and folders in it that the run did not make, or not so, are there again afterwards, also where
    /// `make` fails; one whose place is taken then is kept beside the folder, and told of in a sentence, which
    /// is given with what `make` gives. No file is more open than that of its name was.
    ///
    /// # Errors
    /// Something else stands there that the run did not make; a file cannot be moved; those of `make`, which
    /// come with the sentences.
    pub fn make_folder<T, E: From<Error>>(
        &mut self,
        name: &str,
        step: u64,
        of: &str,
        make: impl FnOnce(&Path) -> Result<T, E>,
    ) -> (Result<T, E>, Vec<String>) {
        let mut told = Vec::new();
        let made = self.make_and_tell(name, step, of, make, &mut told);
        (made, told)
    }

    fn make_and_tell<T, E: From<Error>>(
        &mut self,
        name: &str,
        step: u64,
        of: &str,
        make: impl FnOnce(&Path) -> Result<T, E>,
        told: &mut Vec<String>,
    ) -> Result<T, E> {
        self.check_place()?;
        let path = self.own_place(name)?;
        let mut own = OfResult {
            name: name.to_owned(),
            folder: path.clone(),
            made: self.manifest.made.get(name).cloned().unwrap_or_default(),
            looks: Looks::default(),
        };
        let modes = modes_of(&path, &own.made);
        // Before anything is announced: a run killed from here on finds them where they wait.
        let waiting = path.with_file_name(format!("{WAITING}{name}"));
        set_aside(&path, &waiting, &own)?;
        self.claim(name, None)?;
        if name != ADAPTER {
            // A model is large: the disk need not have room for two.
            remove_own(&path, &own, &|_| false)?;
        }
        let remade = atomic::remake_folder(
            &path,
            |new| -> Result<_, Failure<E>> {
                let made = make(new).map_err(Failure::Making)?;
                for (file, mode) in modes {
                    let _ = atomic::narrow_to(&new.with_file_name(file), mode);
                }
                Ok((made, files_below(name, new).map_err(Failure::Keeping)?))
            },
            |old| retire(old, &waiting, &mut own).map_err(Failure::Keeping),
        );
        // A file of the run's own name is not put where it would be taken for the run's.
        let stays = |file: &Path| own.is_named(file);
        let kept = free(beside(&path));
        let back = Back { waiting: &waiting, folder: &path, kept, stays: &stays };
        back.put(Path::new(""), told)?;
        back.keep_the_rest()?;
        let (made, files) = remade.map_err(|failure| match failure {
            Failure::Making(error) => error,
            Failure::Keeping(error) => error.into(),
        })?;
        let entry = Made { after_step: Some(step), of: of.to_owned(), files, coming: None };
        self.manifest.made.insert(name.to_owned(), entry);
        self.record()?;
        Ok(made)
    }
}

/// Why a folder was not made again.
enum Failure<E> {
    Making(E),
    Keeping(Error),
}

impl<E> From<io::Error> for Failure<E> {
    fn from(error: io::Error) -> Self {
        Self::Keeping(error.into())
    }
}

/// Takes from a folder that made room what came into it meanwhile, and removes what is the run's.
fn retire(old: &Path, waiting: &Path, own: &mut OfResult) -> Result<()> {
    old.clone_into(&mut own.folder);
    let taken = set_aside(old, waiting, own).and_then(|_| remove_own(old, own, &|_| false));
    let taken = taken.and_then(|()| match fs::remove_dir(old) {
        Ok(()) => Ok(false),
        // Somebody came in the very moment.
        Err(_) => set_aside(old, waiting, &Nobody),
    });
    if taken.is_err() {
        let _ = fs::rename(old, free(waiting.join(name_of(old))));
    }
    taken.map(|_| ())
}

/// Files that a result has, by their paths in the run folder, and their modes.
fn modes_of(folder: &Path, made: &Made) -> Vec<(String, u32)> {
    let mode =
        |file: &String| folder.with_file_name(file).symlink_metadata().ok().map(|it| it.mode());
    made.files.keys().filter_map(|file| Some((file.clone(), mode(file)?))).collect()
}

/// A result of the run, and the entry of the manifest that it had until now.
struct OfResult {
    name: String,
    folder: PathBuf,
    made: Made,
    looks: Looks,
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
        // What a killed run made behind its list waits with the others, and goes once it is made again.
        let listed = self.made.files.get(&self.key(file));
        listed.is_some_and(|listed| self.looks.is_still(&self.folder.join(file), listed, None))
    }

    fn is_folder(&self, folder: &Path) -> bool {
        let inside = self.key(folder) + "/";
        self.made.files.keys().any(|file| file.starts_with(&inside))
    }
}

/// Files that were read, and found to be as they were written: they are read once.
#[derive(Debug, Default)]
pub(super) struct Looks(RefCell<BTreeMap<Inode, Stamp>>);

/// What a file is called by the system.
type Inode = (u64, u64);

/// What changes with a file's content: its length, and when it was written to and changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

/// Larger files of a checkpoint are not read: it goes every few minutes.
const AT_A_GLANCE: u64 = 256 << 20;

impl Looks {
    /// Whether a file is as it was written, also after it was read. A large one that was not written to after
    /// `since` need not be read.
    pub(super) fn is_still(
        &self,
        path: &Path,
        as_written: &FileHash,
        since: Option<&Metadata>,
    ) -> bool {
        let stamp = |found: &Metadata| Stamp {
            bytes: found.len(),
            written: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        };
        let Ok(found) = path.symlink_metadata() else { return false };
        let (inode, before) = ((found.dev(), found.ino()), stamp(&found));
        if before.bytes != as_written.bytes {
            return false;
        }
        let is_older = since.is_some_and(|since| stamp(since).written >= before.written);
        if self.0.borrow().get(&inode) == Some(&before) || (is_older && before.bytes > AT_A_GLANCE)
        {
            return true;
        }
        let is_same = hash_file(path, |_| ()).is_ok_and(|found| found == *as_written);
        let is_as_before = path.symlink_metadata().is_ok_and(|found| stamp(&found) == before);
        if is_same && is_as_before {
            self.0.borrow_mut().insert(inode, before);
        }
        is_same && is_as_before
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
    let kept = folder.with_file_name(format!("{KEPT}{name}"));
    if kept.is_dir() { kept } else { free(kept) }
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

/// Removes the run's own files from `folder`, those that are `last` behind all others, and its own folders in
/// it where nothing is left.
pub(super) fn remove_own(folder: &Path, own: &dyn Own, last: &dyn Fn(&Path) -> bool) -> Result<()> {
    let mut files = Vec::new();
    let mut folders = Vec::new();
    match own_in(folder, Path::new(""), own, &mut files, &mut folders) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(Error::Read { path: folder.to_owned(), source });
        }
        _ => {}
    }
    files.sort_by_key(|file| last(file));
    for file in files {
        let path = folder.join(&file);
        // Somebody may have come while the others were looked at.
        if !own.is_file(&file) {
            continue;
        }
        fs::remove_file(&path).map_err(|source| Error::write(&path, source))?;
    }
    for inner in folders.iter().rev() {
        let _ = fs::remove_dir(folder.join(inner));
    }
    Ok(())
}

/// Paths inside of the run's own files, and of its own folders, each before what it has.
fn own_in(
    folder: &Path,
    inside: &Path,
    own: &dyn Own,
    files: &mut Vec<PathBuf>,
    folders: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder.join(inside))? {
        let entry = entry?;
        let (path, kind) = (inside.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() && own.is_folder(&path) {
            folders.push(path.clone());
            own_in(folder, &path, own, files, folders)?;
        } else if kind.is_file() && own.is_file(&path) {
            files.push(path);
        }
    }
    Ok(())
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

/// The last part of a path, for people.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The path, or one like it where that is taken.
pub(super) fn free(path: PathBuf) -> PathBuf {
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

/// Moves a file or folder. One that the system moves only for who may write in it, as a folder of mode 0555,
/// is let be written for as long as that takes.
fn move_to(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|source| Error::write(folder, source))?;
    let moved = fs::rename(from, to).or_else(|error| match from.symlink_metadata() {
        Ok(found) if error.kind() == io::ErrorKind::PermissionDenied && found.is_dir() => {
            let before = found.permissions();
            let mut writable = before.clone();
            writable.set_mode(before.mode() | 0o700);
            fs::set_permissions(from, writable).map_err(|_| error)?;
            let moved = fs::rename(from, to);
            let there = if moved.is_ok() { to } else { from };
            moved.and(fs::set_permissions(there, before))
        }
        _ => Err(error),
    });
    moved.map_err(|source| Error::Move { path: from.to_owned(), source })
}

/// The way back for what waited while a folder was made.
struct Back<'a> {
    waiting: &'a Path,
    folder: &'a Path,
    /// Where what finds its place taken is kept.
    kept: PathBuf,
    /// Files that do not go back though their place is free.
    stays: &'a dyn Fn(&Path) -> bool,
}

impl Back<'_> {
    /// Moves what waits, below `inside`, into the folder. What was made in the place of one stays there; the
    /// other is told of, unless it is the same.
    fn put(&self, inside: &Path, told: &mut Vec<String>) -> Result<()> {
        let Self { waiting, folder, kept, stays } = self;
        let Ok(entries) = fs::read_dir(waiting.join(inside)) else { return Ok(()) };
        for entry in entries {
            let unreadable = |source| Error::Read { path: waiting.to_path_buf(), source };
            let entry = entry.map_err(unreadable)?;
            let path = inside.join(entry.file_name());
            let (from, to) = (waiting.join(&path), folder.join(&path));
            let is_folder = entry.file_type().map_err(unreadable)?.is_dir();
            match to.symlink_metadata() {
                Err(_) if is_folder || !stays(&path) => move_to(&from, &to)?,
                Err(_) => told.push(format!(
                    "`{}` was not as the run made it, and is not made anew: it is `{}`",
                    to.display(),
                    kept.join(&path).display()
                )),
                Ok(found) if is_folder && found.is_dir() => self.put(&path, told)?,
                Ok(_) if is_same(&from, &to) => {
                    fs::remove_file(&from).map_err(|source| Error::write(&from, source))?;
                }
                Ok(_) => told.push(format!(
                    "`{}` was made anew; what was there, and was not as the run made it, is `{}`",
                    to.display(),
                    kept.join(&path).display()
                )),
            }
        }
        // Of the system's call, which takes no folder that holds something.
        let _ = fs::remove_dir(waiting.join(inside));
        Ok(())
    }

    /// Gives what is still waiting a name that people see.
    fn keep_the_rest(&self) -> Result<()> {
        if self.waiting.symlink_metadata().is_err() {
            return Ok(());
        }
        move_to(self.waiting, &self.kept)
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let length =
        |path: &Path| path.symlink_metadata().ok().filter(fs::Metadata::is_file).map(|it| it.len());
    let hash = |path: &Path| hash_file(path, |_| ()).ok();
    length(one).is_some() && length(one) == length(other) && {
        let first = hash(one);
        first.is_some() && first == hash(other)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests prepare folders by hand")]
mod tests;
