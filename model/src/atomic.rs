//! Whole-file and whole-folder replacement: a reader sees the old content or the new, never a part.
//!
//! A file is written to a temporary beside its target, synced, renamed over the target, and the
//! folder is synced so that the rename itself survives a power cut. A folder is built the same way
//! and exchanged with its predecessor in one step; where the file system cannot, the predecessor waits
//! as `.NAME.old-PID-COUNT`, and goes back to its place when the same target is next replaced. Temporaries
//! are called `.NAME.tmp-PID-COUNT` and stay locked while their writer lives: what a killed process left
//! behind is therefore recognised without trusting process numbers, and removed likewise.
//!
//! What replaces is no more open to others than what it replaces, file by file: who narrowed a mode meant it.
//! It is for a program's own files. [`create_file`] and [`create_folder`] are for places that
//! people name: nothing that is there goes, not even what came while the work was done.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
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
    let mut temporary = filled(target, &parent, &name, fill)?;
    fs::rename(&temporary.path, target).map_err(at("replace", target))?;
    temporary.armed = false;
    sync_folder(&parent)?;
    Ok(())
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
    let target = path.as_ref();
    let (parent, name) = split(target)?;
    let temporary = filled(target, &parent, &name, fill)?;
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
    put_in_place(&mut temporary, target, exchange).map_err(at("replace", target))?;
    sync_folder(&parent)?;
    // The predecessor now lies under the temporary's name; should removing it fail, the next
    // replacement tries again.
    drop(temporary);
    Ok(())
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
    let mut temporary = built(target, &parent, &name, build)?;
    // rename(2) puts a folder in the place of an empty one, and of nothing else.
    fs::rename(&temporary.path, target).map_err(at("write", target))?;
    temporary.armed = false;
    sync_folder(&parent)?;
    Ok(())
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

/// Takes from a file or folder what its predecessor, where there is one, does not give to others.
fn narrow(new: &Path, old: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    match fs::symlink_metadata(old) {
        Ok(old) if !old.is_symlink() => narrow_to(new, old.mode()),
        _ => Ok(()),
    }
}

/// Takes from a file or folder, for all but its owner, what `mode` does not give.
pub fn narrow_to(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let found = fs::symlink_metadata(path)?.mode() & 0o7777;
    let narrowed = found & (mode | !0o077);
    if narrowed == found {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(narrowed))
}

/// [`narrow`] for all that lies in a folder; links are left alone.
fn narrow_tree(new: &Path, old: &Path) -> io::Result<()> {
    if !old.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(new)? {
        let entry = entry?;
        let (kind, old) = (entry.file_type()?, old.join(entry.file_name()));
        if kind.is_symlink() {
            continue;
        }
        narrow(&entry.path(), &old)?;
        if kind.is_dir() {
            narrow_tree(&entry.path(), &old)?;
        }
    }
    Ok(())
}

/// Makes a file in `folder`, which exists, and leaves nothing of it: whether something can be written there.
///
/// # Errors
/// The system's: no permission, a file system that is only read, a quota that is used up.
pub fn try_writing(folder: impl AsRef<Path>) -> io::Result<()> {
    let folder = folder.as_ref();
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // A file without a name is gone whatever becomes of this process; some file systems know none.
        let mut options = OpenOptions::new();
        match options.write(true).custom_flags(libc::O_TMPFILE).open(folder) {
            Ok(_) => return Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL | libc::ENOENT) => {}
                _ => return Err(at("write in", folder)(error)),
            },
        }
    }
    Temporary::folder(folder, OsStr::new("graft")).map(drop).map_err(at("write in", folder))
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
            let mut temporary = prefix(name, TEMPORARY);
            temporary.push(format!("{}-{count}", std::process::id()));
            let path = parent.join(temporary);
            match make(&path) {
                Ok(handle) => {
                    // Some network file systems cannot lock; leftovers there are then kept. Between the two
                    // lines another process may have taken it for a leftover: then it has another name.
                    let taken = matches!(handle.try_lock(), Err(TryLockError::WouldBlock));
                    if !taken && is_at(&handle, &path) {
                        return Ok(Self { path, handle, armed: true });
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

/// Adds the path to an error of the system, keeping its kind, and a way out where there is one.
fn at(action: &'static str, path: &Path) -> impl Fn(io::Error) -> io::Error + use<> {
    let path = path.to_path_buf();
    move |error| {
        let way_out = way_out(&error);
        let text = format!("cannot {action} `{}`: {error}{way_out}", path.display());
        io::Error::new(error.kind(), text)
    }
}

/// What helps where the system takes no more, to follow its own words.
pub fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => ". Free some space on its disk, or choose another",
        io::ErrorKind::QuotaExceeded => {
            ". Free some space of your quota there, or choose another disk"
        }
        io::ErrorKind::FileTooLarge => {
            ". A limit on the size of files (`ulimit -f`) or the file system allows no more"
        }
        io::ErrorKind::ReadOnlyFilesystem => ". Its file system is read-only: choose another",
        _ => "",
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

/// What a file or folder is called until it takes the place of `name`.
const TEMPORARY: &str = ".tmp-";
/// What a folder is called that made room, where two cannot be exchanged.
const OLD: &str = ".old-";

fn prefix(name: &OsStr, kind: &str) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(kind);
    prefix
}

/// Whether the open file or folder is still the one at `path`.
fn is_at(handle: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let same = |open: fs::Metadata, named: fs::Metadata| {
        (open.dev(), open.ino()) == (named.dev(), named.ino())
    };
    let found = handle.metadata().and_then(|open| Ok(same(open, fs::symlink_metadata(path)?)));
    found.unwrap_or(false)
}

/// Puts a folder back that had made room for one that never came, and removes temporaries of `name`
/// whose writer is gone. Failing to do so harms nobody: silent.
fn remove_leftovers(parent: &Path, name: &OsStr) {
    let target = parent.join(name);
    for old in named(parent, &prefix(name, OLD)) {
        if target.symlink_metadata().is_err() {
            let _ = fs::rename(&old, &target);
        } else {
            remove_if_left(&old);
        }
    }
    for temporary in named(parent, &prefix(name, TEMPORARY)) {
        remove_if_left(&temporary);
    }
}

/// What is called `PREFIX PID-COUNT` in a folder.
fn named(parent: &Path, prefix: &OsStr) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let ours = |entry: &fs::DirEntry| {
        let found = entry.file_name();
        let rest = found.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        rest.is_some_and(|rest| {
            !rest.is_empty() && rest.iter().all(|&byte| byte.is_ascii_digit() || byte == b'-')
        })
    };
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

/// Moves the finished folder to `target`; an existing folder ends up under the temporary's name, to go
/// with it.
fn put_in_place(
    temporary: &mut Temporary,
    target: &Path,
    exchange: fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
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
            // File systems without exchange: two renames, the old folder kept until both are done. A kill
            // between them leaves it under a name from which `remove_leftovers` puts it back.
            let aside = aside(&temporary.path, target);
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

/// Where the folder at `target` waits while `temporary` takes its place.
fn aside(temporary: &Path, target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default();
    let own = temporary.file_name().unwrap_or_default().as_encoded_bytes();
    let number = own.strip_prefix(prefix(name, TEMPORARY).as_encoded_bytes()).unwrap_or_default();
    let mut aside = prefix(name, OLD);
    aside.push(String::from_utf8_lossy(number).as_ref());
    target.with_file_name(aside)
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
