//! What is not yet in its place, and what killed processes left of theirs.
//!
//! Crate `tempfile` makes temporaries, too, but holds no lock on them, by which those of a killed process are
//! told from a living one's.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sha256::sha256_hex;

/// A temporary file or folder that is removed when dropped while `armed`.
pub(crate) struct Temporary {
    pub(super) path: PathBuf,
    /// Holds the lock that tells a living writer's temporary from a leftover.
    pub(super) handle: File,
    pub(super) armed: bool,
}

impl Temporary {
    pub(super) fn file(parent: &Path, name: &OsStr) -> io::Result<Self> {
        Self::create(parent, name, |path| {
            OpenOptions::new().write(true).create_new(true).open(path)
        })
    }

    pub(crate) fn folder(parent: &Path, name: &OsStr) -> io::Result<Self> {
        Self::create(parent, name, |path| {
            fs::create_dir(path)?;
            File::open(path)
        })
    }

    fn create(
        parent: &Path,
        name: &OsStr,
        make: impl Fn(&Path) -> io::Result<File>,
    ) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path =
                parent.join(marked(name, TEMPORARY, &format!("{}-{count}", std::process::id())));
            match make(&path) {
                Ok(handle) => {
                    // Some network file systems cannot lock; leftovers there are then kept. Between the two
                    // lines another process may have taken it for a leftover: then it has another name.
                    let taken = matches!(handle.try_lock(), Err(TryLockError::WouldBlock));
                    match is_still_at(&handle, &path) {
                        Ok(true) if !taken => return Ok(Self { path, handle, armed: true }),
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            remove(&path);
                            return Err(error);
                        }
                        // Taken, or gone already.
                        _ => {}
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.armed {
            remove(&self.path);
        }
    }
}

/// What a file or folder is called until it takes the place of `name`.
pub(super) const TEMPORARY: &str = ".tmp-";
/// What a folder is called that made room, where two cannot be exchanged.
pub(super) const OLD: &str = ".old-";

pub(super) fn prefix(name: &OsStr, kind: &str) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(kind);
    prefix
}

/// `PREFIX PID-COUNT-MARK`: the mark follows from all before it, so that nobody gives such a name to a file of
/// their own.
pub(super) fn marked(name: &OsStr, kind: &str, number: &str) -> OsString {
    let mut marked = prefix(name, kind);
    marked.push(number);
    let mark = sha256_hex(marked.as_encoded_bytes());
    marked.push(format!("-{}", &mark[..8]));
    marked
}

/// `PID-COUNT` of a name that [`marked`] gave.
pub(super) fn number<'a>(found: &'a OsStr, name: &OsStr, kind: &str) -> Option<&'a str> {
    let prefix = prefix(name, kind);
    let rest = found.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes())?;
    let (number, _) = std::str::from_utf8(rest).ok()?.rsplit_once('-')?;
    (marked(name, kind, number) == found).then_some(number)
}

/// Whether the open file or folder is still the one at `path`, or the one that a link there leads to.
pub fn is_at(handle: &File, path: &Path) -> bool {
    is_still_at(handle, path).unwrap_or(false)
}

fn is_still_at(handle: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (open, named) = (handle.metadata()?, fs::metadata(path)?);
    Ok((open.dev(), open.ino()) == (named.dev(), named.ino()))
}

/// Puts a folder back that had made room for one that never came, and removes temporaries of `name`
/// whose writer is gone. Failing to do so harms nobody: silent.
pub(crate) fn remove_leftovers(parent: &Path, name: &OsStr) {
    let target = parent.join(name);
    for old in named(parent, name, OLD) {
        if target.symlink_metadata().is_err() {
            let _ = fs::rename(&old, &target);
        } else {
            remove_if_left(&old);
        }
    }
    for temporary in named(parent, name, TEMPORARY) {
        remove_if_left(&temporary);
    }
}

/// Removes the temporaries of all names in a folder whose writers are gone; a folder that had made room stays.
pub fn remove_leftovers_in(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let found = entry.file_name();
        let name = found.to_str().and_then(|found| found.strip_prefix('.'));
        let name =
            name.and_then(|found| found.rsplit_once(TEMPORARY)).map(|(name, _)| OsStr::new(name));
        if name.is_some_and(|name| number(&found, name, TEMPORARY).is_some()) {
            remove_if_left(&entry.path());
        }
    }
}

/// What [`marked`] named in a folder.
fn named(parent: &Path, name: &OsStr, kind: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let ours = |entry: &fs::DirEntry| number(&entry.file_name(), name, kind).is_some();
    entries.flatten().filter(ours).map(|entry| entry.path()).collect()
}

fn remove_if_left(path: &Path) {
    let Ok(handle) = File::open(path) else { return };
    if handle.try_lock().is_ok() {
        // Locked until it is gone: a writer that made it just now sees that it was taken.
        remove(path);
    }
}

fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}
