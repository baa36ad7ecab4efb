//! Whole-file and whole-folder replacement: a reader sees the old content or the new, never a part.
//!
//! A file is written to a temporary beside its target, synced, renamed over the target, and the
//! folder is synced so that the rename itself survives a power cut. A folder is built the same way
//! and exchanged with its predecessor in one step. Temporaries are called `.NAME.tmp-PID-COUNT` and
//! stay locked while their writer lives: what a killed process left behind is therefore recognised
//! without trusting process numbers, and removed when the same target is next replaced.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

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
    remove_leftovers(&parent, &name);
    let mut temporary = Temporary::file(&parent, &name).map_err(at("create a file for", target))?;
    let file = temporary.handle.try_clone().map_err(at("write", target))?;
    let mut writer = BufWriter::with_capacity(1 << 20, Named { file, target });
    fill(&mut writer)?;
    writer.flush()?;
    temporary.handle.sync_all().map_err(at("sync", target))?;
    fs::rename(&temporary.path, target).map_err(at("replace", target))?;
    temporary.armed = false;
    sync_folder(&parent)?;
    Ok(())
}

/// Replaces the file `path` with `bytes`; see [`write_file`].
pub fn write_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
    write_file(path, |writer| writer.write_all(bytes))
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
    remove_leftovers(&parent, &name);
    let mut temporary =
        Temporary::folder(&parent, &name).map_err(at("create a folder for", target))?;
    build(&temporary.path)?;
    sync_tree(&temporary.path)?;
    put_in_place(&mut temporary, target).map_err(at("replace", target))?;
    sync_folder(&parent)?;
    // The predecessor now lies under the temporary's name; should removing it fail, the next
    // replacement tries again.
    drop(temporary);
    Ok(())
}

/// Bytes that an ordinary user can still write on the file system that holds `path`, or would hold
/// it: the nearest existing folder above it counts.
pub fn free_bytes(path: impl AsRef<Path>) -> io::Result<u64> {
    let path = path.as_ref();
    let absolute = std::path::absolute(path)?;
    let existing = absolute.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    statvfs(existing).map_err(at("ask for the free space at", path))
}

/// Refuses early when the file system of `path` has less than `needed` bytes left.
pub fn require_free(path: impl AsRef<Path>, needed: u64) -> io::Result<()> {
    let path = path.as_ref();
    let free = free_bytes(path)?;
    if free >= needed {
        return Ok(());
    }
    let text = format!(
        "`{}` needs {needed} bytes, but its disk has {free} bytes left: free some space or choose \
         another disk",
        path.display()
    );
    Err(io::Error::new(io::ErrorKind::StorageFull, text))
}

#[expect(unsafe_code, reason = "statvfs is a C call")]
fn statvfs(existing: &Path) -> io::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(existing.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends in NUL and `stat` is writable memory of the type the call fills.
    let status = unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a status of 0 means that the call filled `stat`.
    let stat = unsafe { stat.assume_init() };
    #[allow(clippy::useless_conversion, reason = "the fields' width differs between systems")]
    Ok(u64::from(stat.f_bavail).saturating_mul(u64::from(stat.f_frsize)))
}

/// A temporary file or folder that is removed when dropped while `armed`.
struct Temporary {
    path: PathBuf,
    /// Holds the lock that tells a living writer's temporary from a leftover.
    handle: File,
    armed: bool,
}

impl Temporary {
    fn file(parent: &Path, name: &OsStr) -> io::Result<Self> {
        Self::create(parent, name, |path| {
            OpenOptions::new().write(true).create_new(true).open(path)
        })
    }

    fn folder(parent: &Path, name: &OsStr) -> io::Result<Self> {
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
            let mut temporary = prefix(name);
            temporary.push(format!("{}-{count}", std::process::id()));
            let path = parent.join(temporary);
            match make(&path) {
                Ok(handle) => {
                    // Some network file systems cannot lock; leftovers there are then kept.
                    let _ = handle.try_lock();
                    return Ok(Self { path, handle, armed: true });
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

/// Adds the path to an error of the system, keeping its kind.
fn at(action: &'static str, path: &Path) -> impl Fn(io::Error) -> io::Error + use<> {
    let path = path.to_path_buf();
    move |error| {
        io::Error::new(error.kind(), format!("cannot {action} `{}`: {error}", path.display()))
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

fn prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".tmp-");
    prefix
}

/// Removes temporaries of `name` whose writer is gone. Failing to do so harms nobody: silent.
fn remove_leftovers(parent: &Path, name: &OsStr) {
    let prefix = prefix(name);
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let found = entry.file_name();
        let rest = found.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        let ours = rest.is_some_and(|rest| {
            !rest.is_empty() && rest.iter().all(|&byte| byte.is_ascii_digit() || byte == b'-')
        });
        if ours && File::open(entry.path()).is_ok_and(|handle| handle.try_lock().is_ok()) {
            remove(&entry.path());
        }
    }
}

fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

/// Moves the finished folder to `target`; an existing folder ends up under the temporary's name.
fn put_in_place(temporary: &mut Temporary, target: &Path) -> io::Result<()> {
    match fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::rename(&temporary.path, target)?;
            temporary.armed = false;
            Ok(())
        }
        Err(error) => Err(error),
        Ok(found) if !found.is_dir() => {
            Err(io::Error::new(io::ErrorKind::NotADirectory, "it exists and is not a folder"))
        }
        Ok(_) => {
            if exchange(&temporary.path, target).is_ok() {
                return Ok(());
            }
            // File systems without exchange: two renames, the old folder kept until both are done.
            let mut aside = temporary.path.clone().into_os_string();
            aside.push("-0");
            let aside = PathBuf::from(aside);
            fs::rename(target, &aside)?;
            if let Err(error) = fs::rename(&temporary.path, target) {
                fs::rename(&aside, target)?;
                return Err(error);
            }
            temporary.path = aside;
            Ok(())
        }
    }
}

/// Swaps two folders in one step, so that a kill at any moment leaves a whole `target`.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "renameat2 is a C call without a counterpart in std")]
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let one = std::ffi::CString::new(one.as_os_str().as_bytes())?;
    let other = std::ffi::CString::new(other.as_os_str().as_bytes())?;
    // SAFETY: both paths end in NUL and outlive the call, which keeps neither.
    let status = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
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
