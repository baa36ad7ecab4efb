//! A run folder's own files, read so that none can hang a command or fill its memory: whoever damages a
//! folder may have put a pipe, a device or a huge file in their place.

use std::fs::File;
use std::io;
use std::path::Path;

use graft_files::plain_file::{self, Unreadable};

/// The most that is read of a file whole: metrics of some four million steps.
const LIMIT: u64 = 1 << 30;

/// Opens a plain file, or a link to one.
///
/// # Errors
/// It is missing, cannot be opened, or is no plain file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    plain_file::open(path).map_err(with_way_out)
}

/// Reads a plain file whole.
///
/// # Errors
/// It is missing, cannot be read, is no plain file, or has more than 1 GiB.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    plain_file::read(path, LIMIT).map_err(with_way_out)
}

fn with_way_out(why: Unreadable) -> io::Error {
    let message = match why {
        Unreadable::System(error) => return error,
        Unreadable::NotPlain(_) => format!("{why}: move it away"),
        Unreadable::TooLarge { .. } => "it has more than 1 GiB; allowed: at most that".to_owned(),
    };
    io::Error::new(io::ErrorKind::InvalidData, message)
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
        graft_files::atomic::write_bytes(place("small"), b"{}").unwrap();
        let said = |name: &str| read(&place(name)).unwrap_err().to_string();
        for (name, what) in [("pipe", "a pipe"), ("device", "a device"), (".", "a folder")] {
            let expected = format!("it is {what}, and only plain files are read: move it away");
            assert_eq!(said(name), expected);
        }
        assert_eq!(said("huge"), "it has more than 1 GiB; allowed: at most that");
        assert_eq!(read(&place("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(read(&place("small")).unwrap(), b"{}");
    }
}
