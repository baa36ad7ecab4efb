//! Files from outside, opened so that none can hang a command or fill its memory: only plain files
//! are read, and whole only up to a limit.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Why a file was not read, without its name.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// What the operating system said.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It never ends, or gives other bytes each time.
    #[error("it is {0}, and only plain files are read: write what it gives into a file first")]
    Endless(&'static str),
    /// It is a folder.
    #[error("it is a folder")]
    Folder,
    /// A link whose target was not copied with it.
    #[error(
        "it is a link to `{}`, which is not there: copy the files that the links of this folder \
         lead to, too (`cp -rL` does)",
        .0.display()
    )]
    Dangling(PathBuf),
    /// More bytes than fit in memory with care.
    #[error("it is larger than {limit} bytes, the most that is read of such a file")]
    TooLarge {
        /// The most that is read.
        limit: u64,
    },
}

/// Opens a plain file, or a link to one; never waits for a pipe's other end.
///
/// # Errors
/// It is missing, cannot be read, or is no plain file.
pub fn open_plain(path: &Path) -> Result<File, FileProblem> {
    // Asked before it is opened: a pipe without a writer would keep `open` waiting.
    let found = fs::metadata(path).map_err(|error| missing(path, error))?;
    check(&found)?;
    let file = File::open(path)?;
    // Something else may have taken its place.
    check(&file.metadata()?)?;
    Ok(file)
}

/// Reads a plain file of at most `limit` bytes.
///
/// # Errors
/// As [`open_plain`]; or it is larger.
pub fn read_plain(path: &Path, limit: u64) -> Result<Vec<u8>, FileProblem> {
    let file = open_plain(path)?;
    if file.metadata()?.len() > limit {
        return Err(FileProblem::TooLarge { limit });
    }
    let mut bytes = Vec::new();
    // The size may grow meanwhile, and some systems' files say 0.
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(FileProblem::TooLarge { limit });
    }
    Ok(bytes)
}

fn missing(path: &Path, error: io::Error) -> FileProblem {
    match fs::read_link(path) {
        Ok(target) if error.kind() == io::ErrorKind::NotFound => FileProblem::Dangling(target),
        _ => FileProblem::Io(error),
    }
}

fn check(found: &Metadata) -> Result<(), FileProblem> {
    if found.is_file() {
        return Ok(());
    }
    if found.is_dir() {
        return Err(FileProblem::Folder);
    }
    Err(FileProblem::Endless(kind(found)))
}

#[cfg(unix)]
fn kind(found: &Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    let kind = found.file_type();
    if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(not(unix))]
fn kind(_: &Metadata) -> &'static str {
    "no plain file"
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
            assert_eq!(read_plain(&at(name), 3).unwrap(), b"abc");
        }
        let refused = |path: &Path| open_plain(path).unwrap_err().to_string();
        insta::assert_snapshot!(refused(&at("pipe")), @"it is a pipe, and only plain files are read: write what it gives into a file first");
        insta::assert_snapshot!(refused(&at("socket")), @"it is a socket, and only plain files are read: write what it gives into a file first");
        insta::assert_snapshot!(refused(Path::new("/dev/zero")), @"it is a device, and only plain files are read: write what it gives into a file first");
        insta::assert_snapshot!(refused(folder.path()), @"it is a folder");
        insta::assert_snapshot!(refused(&at("dangling")), @"it is a link to `../../blobs/0a1b`, which is not there: copy the files that the links of this folder lead to, too (`cp -rL` does)");
        insta::assert_snapshot!(refused(&at("none")), @"No such file or directory (os error 2)");
    }

    #[test]
    fn no_more_than_the_limit_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse");
        // A terabyte of nothing.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        insta::assert_snapshot!(read_plain(&path, 1 << 20).unwrap_err(), @"it is larger than 1048576 bytes, the most that is read of such a file");
        fs::write(&path, "abcd").unwrap();
        assert!(read_plain(&path, 3).is_err() && read_plain(&path, 4).is_ok());
    }
}
