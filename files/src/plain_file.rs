//! Files from outside, read so that none can hang a command or fill its memory: only plain files, and whole
//! only up to a limit.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;

/// Why a file was not read, without its name.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// What the system says.
    #[error("{0}")]
    System(#[from] io::Error),
    /// A pipe may never end, a device has no end, a folder no bytes.
    #[error("it is {0}, and only plain files are read")]
    NotPlain(FileKind),
    /// More bytes than a file of its kind has.
    #[error("it has {found} bytes; allowed: at most {limit}")]
    TooLarge {
        /// Its size.
        found: FileSize,
        /// The most that is read.
        limit: u64,
    },
}

impl Unreadable {
    /// Whether nothing is there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::System(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// What is no plain file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A folder.
    Folder,
    /// A pipe with a name.
    Pipe,
    /// A socket.
    Socket,
    /// A device, be it of blocks or of characters.
    Device,
}

impl fmt::Display for FileKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Folder => "a folder",
            Self::Pipe => "a pipe",
            Self::Socket => "a socket",
            Self::Device => "a device",
        })
    }
}

/// How many bytes a file has, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSize {
    /// So many.
    Exactly(u64),
    /// More: it was read no further.
    MoreThan(u64),
}

impl fmt::Display for FileSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(bytes) => write!(formatter, "{bytes}"),
            Self::MoreThan(bytes) => write!(formatter, "more than {bytes}"),
        }
    }
}

/// Opens a plain file, or a link to one; never waits for a pipe's other end.
///
/// # Errors
/// It is missing, cannot be opened, or is no plain file.
pub fn open(path: &Path) -> Result<File, Unreadable> {
    // Asked before it is opened: a pipe without a writer would keep `open` waiting.
    check(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    // Something else may have taken its place.
    check(&file.metadata()?)?;
    Ok(file)
}

/// Reads a plain file of at most `limit` bytes.
///
/// # Errors
/// It is missing, cannot be read, is no plain file, or is larger.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Unreadable> {
    let file = open(path)?;
    let size = file.metadata()?.len();
    if size > limit {
        return Err(Unreadable::TooLarge { found: FileSize::Exactly(size), limit });
    }
    let mut bytes = Vec::new();
    // It may grow meanwhile, and files of the system have no size until they are read.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(Unreadable::TooLarge { found: FileSize::MoreThan(limit), limit });
    }
    Ok(bytes)
}

fn check(found: &Metadata) -> Result<(), Unreadable> {
    if found.is_file() { Ok(()) } else { Err(Unreadable::NotPlain(kind(found))) }
}

fn kind(found: &Metadata) -> FileKind {
    if found.is_dir() {
        return FileKind::Folder;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = found.file_type();
        if kind.is_fifo() {
            return FileKind::Pipe;
        }
        if kind.is_socket() {
            return FileKind::Socket;
        }
    }
    FileKind::Device
}

#[cfg(all(test, unix))]
#[expect(clippy::disallowed_methods, reason = "tests write their own input files")]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_plain_files_are_opened_and_links_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("plain"), "abc").unwrap();
        symlink(at("plain"), at("link")).unwrap();
        symlink("../../blobs/0a1b", at("dangling")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(made.success());
        for name in ["plain", "link"] {
            assert_eq!(read(&at(name), 3).unwrap(), b"abc");
        }
        for name in ["dangling", "none", "plain/none"] {
            let error = open(&at(name)).unwrap_err();
            assert_eq!(error.is_missing(), name != "plain/none", "{name}: {error}");
        }
        let refused = |path: &Path| open(path).unwrap_err().to_string();
        insta::assert_snapshot!(refused(&at("pipe")), @"it is a pipe, and only plain files are read");
        insta::assert_snapshot!(refused(&at("socket")), @"it is a socket, and only plain files are read");
        insta::assert_snapshot!(refused(Path::new("/dev/zero")), @"it is a device, and only plain files are read");
        insta::assert_snapshot!(refused(folder.path()), @"it is a folder, and only plain files are read");
        insta::assert_snapshot!(refused(&at("none")), @"No such file or directory (os error 2)");
    }

    #[test]
    fn no_more_than_the_limit_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse");
        // A terabyte of nothing.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        insta::assert_snapshot!(read(&path, 1 << 20).unwrap_err(), @"it has 1099511627776 bytes; allowed: at most 1048576");
        fs::write(&path, "abcd").unwrap();
        assert!(read(&path, 3).is_err() && read(&path, 4).is_ok());
    }

    #[test]
    fn a_file_of_the_system_without_a_size_is_read_up_to_the_limit() {
        let status = Path::new("/proc/self/status");
        if status.exists() {
            assert!(!read(status, 1 << 20).unwrap().is_empty());
            insta::assert_snapshot!(read(status, 8).unwrap_err(), @"it has more than 8 bytes; allowed: at most 8");
        }
    }
}
