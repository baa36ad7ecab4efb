//! Lines of a file one at a time, so that memory holds a line and never the file.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::SourceFile;
use crate::error::Error;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Numbered lines of UTF-8 that hold something; blank lines are skipped.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    input: Input,
    /// Of the line read last, counted from 1.
    number: usize,
    /// Where the next line starts.
    offset: u64,
    buffer: Vec<u8>,
}

#[derive(Debug)]
enum Input {
    File(BufReader<File>),
    /// What is left of a text in the program.
    Embedded(&'static [u8]),
}

impl Input {
    fn read_line(&mut self, line: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::File(reader) => reader.read_until(b'\n', line),
            Self::Embedded(rest) => rest.read_until(b'\n', line),
        }
    }
}

impl Lines {
    pub(super) fn open(source: &SourceFile) -> Result<Self, Error> {
        let path = source.path.clone();
        let input = match source.embedded_text() {
            Some(text) => Input::Embedded(text.as_bytes()),
            None => match File::open(&path) {
                Ok(file) => Input::File(BufReader::with_capacity(1 << 18, file)),
                Err(source) => return Err(Error::Read { path, source }),
            },
        };
        Ok(Self { path, input, number: 0, offset: 0, buffer: Vec::new() })
    }

    /// The next line that is not blank, with its number.
    pub(super) fn next_line(&mut self) -> Result<Option<(usize, &str)>, Error> {
        let start = loop {
            let start = self.offset;
            self.buffer.clear();
            let read = self
                .input
                .read_line(&mut self.buffer)
                .map_err(|source| Error::Read { path: self.path.clone(), source })?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.offset += read as u64;
            if self.number == 1 && self.buffer.starts_with(BYTE_ORDER_MARK) {
                // Spaces keep columns and offsets as they are in the file.
                self.buffer[..BYTE_ORDER_MARK.len()].fill(b' ');
            }
            if !self.buffer.iter().all(u8::is_ascii_whitespace) {
                break start;
            }
        };
        match std::str::from_utf8(&self.buffer) {
            // Without its end, or the parser would place a cut-off row in column 0 of the next line.
            Ok(line) => Ok(Some((self.number, line.trim_end_matches(['\r', '\n'])))),
            Err(error) => Err(Error::NotUtf8 {
                path: self.path.clone(),
                line: self.number,
                offset: start + error.valid_up_to() as u64,
            }),
        }
    }
}

/// A whole file as one document.
pub(super) fn read_document(path: &Path) -> Result<String, Error> {
    let mut bytes =
        std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let mark = if bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    bytes.drain(..mark);
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].split(|&byte| byte == b'\n').count();
        Error::NotUtf8 { path: path.to_owned(), line, offset: (valid + mark) as u64 }
    })
}
