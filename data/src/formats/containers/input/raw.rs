//! A file's own bytes, hashed while they are read.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use graft_files::sha256::hexadecimal;
use sha2::{Digest, Sha256};

/// What a file held, by size and hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDigest {
    /// Bytes of the file: all.
    pub bytes: u64,
    /// SHA-256 over them, in hexadecimal.
    pub sha256: String,
}

/// Where bytes come from.
#[derive(Debug)]
pub(in crate::formats) enum Bytes {
    File(File),
    /// What is left of a text in the program.
    Embedded(&'static [u8]),
}

/// The bytes of one source. Whoever has a clone reads on where another stopped, and all that any has read
/// is hashed.
#[derive(Debug, Clone)]
pub(in crate::formats::containers) struct Raw(Arc<Mutex<Hashed>>);

#[derive(Debug)]
struct Hashed {
    bytes: Bytes,
    hasher: Sha256,
    read: u64,
}

impl Raw {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(Arc::new(Mutex::new(Hashed { bytes, hasher: Sha256::new(), read: 0 })))
    }

    fn hashed(&self) -> MutexGuard<'_, Hashed> {
        // A reader that panicked left whole bytes behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that were read so far.
    pub(super) fn count(&self) -> u64 {
        self.hashed().read
    }

    /// Another handle of the file, if it is one.
    pub(super) fn file(&self) -> io::Result<Option<File>> {
        match &self.hashed().bytes {
            Bytes::File(file) => file.try_clone().map(Some),
            Bytes::Embedded(_) => Ok(None),
        }
    }

    /// Reads what is left; size and hash of all.
    pub(in crate::formats::containers) fn digest(mut self) -> io::Result<FileDigest> {
        let mut buffer = vec![0; super::CAPACITY];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let hashed = self.hashed();
        let sha256 = hexadecimal(&hashed.hasher.clone().finalize());
        Ok(FileDigest { bytes: hashed.read, sha256 })
    }
}

impl Read for Raw {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut hashed = self.hashed();
        let count = match &mut hashed.bytes {
            Bytes::File(file) => file.read(into)?,
            Bytes::Embedded(rest) => rest.read(into)?,
        };
        hashed.hasher.update(&into[..count]);
        hashed.read += count as u64;
        Ok(count)
    }
}
