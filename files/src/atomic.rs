//! Whole-file and whole-folder replacement: a reader sees the old content or the new, never a part.
//!
//! A file is written to a temporary beside its target, synced, renamed over the target, and the
//! folder is synced so that the rename itself survives a power cut. A folder is built the same way
//! and exchanged with its predecessor in one step; where the file system cannot, the predecessor waits
//! as `.NAME.old-PID-COUNT-MARK`, and goes back to its place when the same target is next replaced. Temporaries
//! are called `.NAME.tmp-PID-COUNT-MARK` and stay locked while their writer lives: what a killed process left
//! behind is therefore recognised without trusting process numbers, and removed likewise. The mark is a hash
//! of the name before it, so that no file of somebody else's is taken for one.
//!
//! What replaces is no more open to others than what it replaces, file by file: who narrowed a mode meant it.
//! It is for a program's own files. [`create_file`] and [`create_folder`] are for places that
//! people name: nothing that is there goes, not even what came while the work was done.

mod mode;
mod temporary;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

pub use mode::{mode_of, narrow_to};
use mode::{narrow, narrow_tree};
use temporary::{OLD, TEMPORARY, marked, number};
pub(crate) use temporary::{Temporary, remove_leftovers};
pub use temporary::{is_at, remove_leftovers_in};

use crate::disk::at;

/// Replaces the file `path` with what `fill` writes.
///
/// # Errors
/// On any error, of `fill` or of the disk, the temporary is removed and the old content stays.
pub fn write_file<E: From<io::Error>>(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let target = path.as_ref();
    let (parent, name) = split(target)?;
    let temporary = filled(target, &parent, &name, fill)?;
    Ok(take_place(temporary, target, &parent, "replace")?)
}

/// Gives a finished temporary the place of `target` by rename(2).
fn take_place(
    mut temporary: Temporary,
    target: &Path,
    parent: &Path,
    action: &'static str,
) -> io::Result<()> {
    fs::rename(&temporary.path, target).map_err(at(action, target))?;
    temporary.armed = false;
    sync_folder(parent)
}

/// As [`write_file`], but fails where something is in the place already, at the latest when the file is
/// to take it.
///
/// # Errors
/// As [`write_file`]; of the kind `AlreadyExists` where the place is taken.
pub fn create_file<E: From<io::Error>>(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    create_file_checked(path, fill, |_| Ok(()))
}

/// As [`create_file`], and `check` is given the finished file where it lies before it takes its place, and keeps it
/// from there with an error.
///
/// # Errors
/// As [`create_file`], and those of `check`.
pub fn create_file_checked<E: From<io::Error>>(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    check: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let target = path.as_ref();
    let (parent, name) = split(target)?;
    // Whoever was killed may come back under another name.
    remove_leftovers_in(&parent);
    let temporary = filled(target, &parent, &name, fill)?;
    check(&temporary.path)?;
    // A second name, and the first one goes with the temporary: unlike a rename, it replaces nothing.
    match fs::hard_link(&temporary.path, target) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(at("write", target)(error).into());
        }
        // File systems without links: a look, then a rename.
        Err(_) if target.symlink_metadata().is_err() => {
            fs::rename(&temporary.path, target).map_err(at("write", target))?;
        }
        Err(error) => return Err(at("write", target)(error).into()),
    }
    drop(temporary);
    sync_folder(&parent)?;
    Ok(())
}

/// A temporary beside `target` with what `fill` writes, on the disk.
fn filled<E: From<io::Error>>(
    target: &Path,
    parent: &Path,
    name: &OsStr,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<Temporary, E> {
    remove_leftovers(parent, name);
    let temporary = Temporary::file(parent, name).map_err(at("create a file for", target))?;
    narrow(&temporary.path, target).map_err(at("set the mode of a file for", target))?;
    let file = temporary.handle.try_clone().map_err(at("write", target))?;
    let mut writer = BufWriter::with_capacity(1 << 20, Named { file, target });
    fill(&mut writer)?;
    writer.flush()?;
    temporary.handle.sync_all().map_err(at("sync", target))?;
    Ok(temporary)
}

/// Replaces the file `path` with `bytes`; see [`write_file`].
pub fn write_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
    write_file(path, |writer| writer.write_all(bytes))
}

/// Replaces the file `path` with `bytes`, and gives what was in its place to `retire`, which may move it away;
/// it is removed otherwise. The new one is no more open to others than what was in its place, nor than `mode`,
/// which one had that was moved away before.
///
/// # Errors
/// Those of the disk and of `retire`; of the latter `path` has its new content.
pub fn exchange_bytes<E: From<io::Error>>(
    path: impl AsRef<Path>,
    bytes: &[u8],
    mode: Option<u32>,
    retire: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let target = path.as_ref();
    let (parent, name) = split(target)?;
    let mut temporary = filled(target, &parent, &name, |writer| writer.write_all(bytes))?;
    if let Some(mode) = mode {
        narrow_to(&temporary.path, mode).map_err(at("set the mode of a file for", target))?;
    }
    let is_file = target.symlink_metadata().is_ok_and(|found| found.is_file());
    if !is_file {
        return Ok(take_place(temporary, target, &parent, "replace")?);
    }
    if exchange(&temporary.path, target).is_err() {
        let aside = aside(&temporary.path, target);
        two_renames(&temporary.path, target, &aside).map_err(at("replace", target))?;
        temporary.path = aside;
    }
    sync_folder(&parent)?;
    retire(&temporary.path)
}

/// Replaces the folder `path` with what `build` puts into the temporary folder it is given.
///
/// Files inside may be written plainly: everything is synced before the folder takes its place.
///
/// # Errors
/// On any error the temporary folder is removed and the old one stays as it was.
pub fn replace_folder<E: From<io::Error>>(
    path: impl AsRef<Path>,
    build: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let target = path.as_ref();
    let (parent, name) = split(target)?;
    let mut temporary = built(target, &parent, &name, build)?;
    let aside = aside(&temporary.path, target);
    match put_in_place(&temporary.path, target, &aside, exchange).map_err(at("replace", target))? {
        // Should removing the predecessor fail, the next replacement tries again.
        Some(old) => temporary.path = old,
        None => temporary.armed = false,
    }
    sync_folder(&parent)?;
    drop(temporary);
    Ok(())
}

/// Replaces the folder `path` by the one that `make` makes at the path it is given, where nothing is yet.
/// What was in the place is given to `retire`, which takes from it what is to stay; the rest of it is removed.
///
/// # Errors
/// Those of `make`, of `retire` and of the disk. What `make` made is removed unless it is in its place, and
/// only then anything is retired.
pub fn remake_folder<T, E: From<io::Error>>(
    path: impl AsRef<Path>,
    make: impl FnOnce(&Path) -> Result<T, E>,
    retire: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<T, E> {
    let target = path.as_ref();
    let (parent, name) = split(target)?;
    remove_leftovers(&parent, &name);
    let mut workshop =
        Temporary::folder(&parent, &name).map_err(at("create a folder for", target))?;
    let new = workshop.path.join(&name);
    let made = make(&new)?;
    narrow(&new, target).map_err(at("set the mode of a folder for", target))?;
    narrow_tree(&new, target).map_err(at("set the modes in a folder for", target))?;
    sync_tree(&new)?;
    let aside = aside(&workshop.path, target);
    let old = put_in_place(&new, target, &aside, exchange).map_err(at("replace", target))?;
    sync_folder(&parent)?;
    if let Some(old) = old {
        retire(&old)?;
        if old == aside {
            let _ = fs::remove_dir(&workshop.path);
            workshop.path = old;
        }
    }
    Ok(made)
}

/// As [`replace_folder`], but fails where something other than an empty folder is in the place already,
/// at the latest when the new one is to take it.
///
/// # Errors
/// As [`replace_folder`], and where the place is taken.
pub fn create_folder<E: From<io::Error>>(
    path: impl AsRef<Path>,
    build: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let target = path.as_ref();
    let (parent, name) = split(target)?;
    remove_leftovers_in(&parent);
    let temporary = built(target, &parent, &name, build)?;
    // rename(2) puts a folder in the place of an empty one, and of nothing else.
    Ok(take_place(temporary, target, &parent, "write")?)
}

/// A temporary beside `target` with what `build` puts into it, on the disk.
fn built<E: From<io::Error>>(
    target: &Path,
    parent: &Path,
    name: &OsStr,
    build: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<Temporary, E> {
    remove_leftovers(parent, name);
    let temporary = Temporary::folder(parent, name).map_err(at("create a folder for", target))?;
    narrow(&temporary.path, target).map_err(at("set the mode of a folder for", target))?;
    build(&temporary.path)?;
    narrow_tree(&temporary.path, target).map_err(at("set the modes in a folder for", target))?;
    sync_tree(&temporary.path)?;
    Ok(temporary)
}

/// Writes to a file and names the target in every error.
struct Named<'a> {
    file: File,
    target: &'a Path,
}

impl Write for Named<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(at("write", self.target))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(at("write", self.target))
    }
}

fn split(target: &Path) -> io::Result<(PathBuf, OsString)> {
    let Some(name) = target.file_name() else {
        let text = format!("`{}` does not name a file or folder to write", target.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    };
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    Ok((parent, name.to_os_string()))
}

/// Moves the finished folder `new` to `target`; gives where an existing folder lies from then on, which is
/// `aside` where the file system cannot exchange two.
fn put_in_place(
    new: &Path,
    target: &Path,
    aside: &Path,
    exchange: fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<Option<PathBuf>> {
    match fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::rename(new, target).map(|()| None)
        }
        Err(error) => Err(error),
        Ok(found) if !found.is_dir() => {
            Err(io::Error::new(io::ErrorKind::NotADirectory, "it exists and is not a folder"))
        }
        Ok(_) if exchange(new, target).is_ok() => Ok(Some(new.to_owned())),
        Ok(_) => {
            two_renames(new, target, aside)?;
            Ok(Some(aside.to_owned()))
        }
    }
}

/// Moves what is at `target` to `aside`, and `new` to `target`. A kill between the two leaves the old one under
/// a name from which `remove_leftovers` puts it back.
fn two_renames(new: &Path, target: &Path, aside: &Path) -> io::Result<()> {
    fs::rename(target, aside)?;
    if let Err(error) = fs::rename(new, target) {
        fs::rename(aside, target)?;
        return Err(error);
    }
    Ok(())
}

/// Where the folder at `target` waits while what is in `temporary` takes its place.
fn aside(temporary: &Path, target: &Path) -> PathBuf {
    let (name, own) = (target.file_name().unwrap_or_default(), temporary.file_name());
    let number = own.and_then(|own| number(own, name, TEMPORARY)).unwrap_or_default();
    target.with_file_name(marked(name, OLD, number))
}

/// The name of a temporary of `target` that no writer here gives to one: of who writes by other means, in a
/// signal's handler.
pub fn temporary_beside(target: &Path) -> PathBuf {
    let number = format!("{}-{}", std::process::id(), u64::MAX);
    target.with_file_name(marked(target.file_name().unwrap_or_default(), TEMPORARY, &number))
}

/// Swaps two folders in one step, so that a kill at any moment leaves a whole `target`.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn exchange(_one: &Path, _other: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder).and_then(|handle| handle.sync_all()).map_err(at("sync the folder", folder))
}

fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder).map_err(at("read", folder))? {
        let entry = entry.map_err(at("read", folder))?;
        let kind = entry.file_type().map_err(at("read", &entry.path()))?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            let path = entry.path();
            File::open(&path).and_then(|file| file.sync_all()).map_err(at("sync", &path))?;
        }
    }
    sync_folder(folder)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests prepare plain files")]
mod tests;
