//! A run folder's own files, read so that none can hang a command or fill its memory: whoever damages a
//! folder may have put a pipe, a device or a huge file in their place.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::path::Path;

/// The most that is read of a file whole: metrics of some four million steps.
const LIMIT: u64 = 1 << 30;

/// Opens a plain file, or a link to one; never waits for a pipe's other end.
///
/// # Errors
/// It is missing, cannot be opened, or is no plain file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Asked before it is opened: a pipe without a writer would keep `open` waiting.
    check(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    // Something else may have taken its place.
    check(&file.metadata()?)?;
    Ok(file)
}

/// Reads a plain file whole.
///
/// # Errors
/// As [`open`]; or it has more than 1 GiB.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    if file.metadata()?.len() <= LIMIT {
        file.take(LIMIT + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 <= LIMIT {
            return Ok(bytes);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it has more than 1 GiB; allowed: at most that"))
}

fn check(found: &Metadata) -> io::Result<()> {
    if found.is_file() {
        return Ok(());
    }
    let what = if found.is_dir() { "a folder" } else { "a pipe, a socket or a device" };
    let message = format!("it is {what}, and only plain files are read: move it away");
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_of_a_bounded_size_are_read_and_nothing_waits() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let pipe = std::process::Command::new("mkfifo").arg(place("pipe")).status();
        assert!(pipe.unwrap().success());
        std::os::unix::fs::symlink("/dev/zero", place("device")).unwrap();
        File::create(place("huge")).unwrap().set_len(LIMIT + 1).unwrap();
        graft_model::atomic::write_bytes(place("small"), b"{}").unwrap();
        let said = |name: &str| read(&place(name)).unwrap_err().to_string();
        for name in ["pipe", "device"] {
            assert_eq!(
                said(name),
                "it is a pipe, a socket or a device, and only plain files are read: move it away"
            );
        }
        assert_eq!(said("."), "it is a folder, and only plain files are read: move it away");
        assert_eq!(said("huge"), "it has more than 1 GiB; allowed: at most that");
        assert_eq!(read(&place("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(read(&place("small")).unwrap(), b"{}");
    }
}
