//! What a disk gives: room, and leave to write; and its refusals in words that help.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::atomic::Temporary;

/// Makes a file in `folder`, which exists, and leaves nothing of it: whether something can be written there.
///
/// # Errors
/// The system's: no permission, a file system that is only read, a quota that is used up.
pub fn try_writing(folder: impl AsRef<Path>) -> io::Result<()> {
    let folder = folder.as_ref();
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{Mode, OFlags, open};
        use rustix::io::Errno;
        // A file without a name is gone whatever becomes of this process; some file systems know none.
        let nameless = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        match open(folder, nameless, Mode::from_raw_mode(0o666)) {
            Ok(_) => return Ok(()),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(at("write in", folder)(error.into())),
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
    let found = rustix::fs::statvfs(existing);
    let found = found.map_err(|error| at("ask for the free space at", path)(error.into()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Refuses early when the file system of `path` has less than `needed` bytes left.
pub fn require_free(path: impl AsRef<Path>, needed: u64) -> io::Result<()> {
    let path = path.as_ref();
    let free = free_bytes(path)?;
    if free >= needed {
        return Ok(());
    }
    let path = path.to_path_buf();
    Err(io::Error::new(io::ErrorKind::StorageFull, NoRoom { path, needed, free }))
}

/// What is asked for does not fit, as was found before anything was written.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{}` needs {needed} bytes, but its disk has {free} bytes left: free some space or choose another disk",
    path.display()
)]
struct NoRoom {
    path: PathBuf,
    needed: u64,
    free: u64,
}

/// Whether an error is that of [`require_free`]: too much was asked for, and nothing has failed.
pub fn is_too_much(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<NoRoom>)
}

/// Adds the path to an error of the system, keeping its kind, and a way out where there is one.
pub(crate) fn at(action: &'static str, path: &Path) -> impl Fn(io::Error) -> io::Error + use<> {
    let path = path.to_path_buf();
    move |error| {
        let way_out = way_out(&error);
        let text = format!("cannot {action} `{}`: {error}{way_out}", path.display());
        io::Error::new(error.kind(), text)
    }
}

/// What helps where the system takes no more, to follow its own words.
pub fn way_out(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(rustix::io::Errno::FAULT.raw_os_error()) {
        return ". What was to be written cannot be read: a file of the base was cut short, or its disk failed";
    }
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
