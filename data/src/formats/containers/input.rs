//! The bytes of a source, read once: what is hashed is what was read.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;

use graft_files::plain_file;
use graft_files::sha256::hexadecimal;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::formats::SourceFile;

/// Bytes that are read at a time, and looked at before the first row is.
const CAPACITY: usize = 1 << 18;

/// What a file held, by size and hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDigest {
    /// Bytes that were read: all.
    pub bytes: u64,
    /// SHA-256 over them, in hexadecimal.
    pub sha256: String,
}

/// An open source.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) path: PathBuf,
    bytes: Bytes,
    hasher: Sha256,
    /// Bytes behind.
    offset: u64,
}

#[derive(Debug)]
enum Bytes {
    File(BufReader<File>),
    /// What is left of a text in the program.
    Embedded(&'static [u8]),
}

impl Input {
    pub(super) fn open(source: &SourceFile) -> Result<Self, Error> {
        let path = source.path.clone();
        let bytes = match source.embedded_text() {
            Some(text) => Bytes::Embedded(text.as_bytes()),
            None => Bytes::File(BufReader::with_capacity(
                CAPACITY,
                plain_file::open(&path).map_err(|why| Error::unreadable(&path, why))?,
            )),
        };
        Ok(Self { path, bytes, hasher: Sha256::new(), offset: 0 })
    }

    /// Bytes behind: where the next one stands in the file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes, as many as are at hand; empty at the end.
    pub(super) fn ahead(&mut self) -> Result<&[u8], Error> {
        match &mut self.bytes {
            Bytes::Embedded(rest) => Ok(rest),
            Bytes::File(reader) => {
                let failed = |source| Error::Read { path: self.path.clone(), source };
                loop {
                    match reader.fill_buf() {
                        Ok(_) => break,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(failed(error)),
                    }
                }
                Ok(reader.buffer())
            }
        }
    }

    /// Goes over bytes that [`Self::ahead`] gave.
    pub(super) fn pass(&mut self, count: usize) {
        match &mut self.bytes {
            Bytes::Embedded(rest) => {
                let (passed, left) = rest.split_at(count);
                self.hasher.update(passed);
                *rest = left;
            }
            Bytes::File(reader) => {
                self.hasher.update(&reader.buffer()[..count]);
                reader.consume(count);
            }
        }
        self.offset += count as u64;
    }

    /// Adds the bytes up to the end of the line, or of the file, to `line`; false where they would
    /// be more than `limit`.
    pub(super) fn read_line(&mut self, line: &mut Vec<u8>, limit: usize) -> Result<bool, Error> {
        loop {
            let ahead = self.ahead()?;
            let end = ahead.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
            let count = end.unwrap_or(ahead.len());
            if line.len() + count > limit {
                return Ok(false);
            }
            line.extend_from_slice(&ahead[..count]);
            self.pass(count);
            if end.is_some() || count == 0 {
                return Ok(true);
            }
        }
    }

    /// Everything that is left; `None` where it is more than `limit` bytes.
    pub(super) fn read_to_end(&mut self, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let mut all = Vec::new();
        loop {
            let ahead = self.ahead()?;
            let count = ahead.len();
            if count == 0 {
                return Ok(Some(all));
            }
            if all.len() + count > limit {
                return Ok(None);
            }
            all.extend_from_slice(ahead);
            self.pass(count);
        }
    }

    /// Size and hash of the bytes that were passed.
    pub(super) fn digest(self) -> FileDigest {
        FileDigest { bytes: self.offset, sha256: hexadecimal(&self.hasher.finalize()) }
    }
}
