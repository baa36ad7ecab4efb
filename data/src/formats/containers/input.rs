//! The text of a source, read once: unpacked and in UTF-8 whatever the file is in, while its own bytes are
//! hashed.

mod packing;
mod raw;
mod wide;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use crate::error::Error;
use crate::formats::SourceFile;
pub(super) use packing::Packing;
pub(in crate::formats) use raw::Bytes;
pub use raw::FileDigest;
pub(super) use raw::Raw;
use wide::Wide;

/// Bytes that are read at a time, and looked at before the first row is.
const CAPACITY: usize = 1 << 18;
/// Bytes that tell what a text is.
const HEAD: usize = 4_096;

/// An open source.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) path: PathBuf,
    raw: Raw,
    text: Text,
    buffer: Vec<u8>,
    /// What of the buffer is to come.
    ahead: std::ops::Range<usize>,
    /// Bytes of the text behind.
    offset: u64,
}

/// The text as it comes.
enum Text {
    /// The file's own bytes.
    Plain(Raw),
    /// Unpacked, or in another encoding.
    Changed(Box<dyn Read + Send>),
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::Plain(_)) { "Plain" } else { "Changed" })
    }
}

impl Input {
    pub(super) fn open(source: &SourceFile) -> Result<Self, Error> {
        let path = source.path.clone();
        let raw = Raw::new(source.bytes()?);
        let (text, buffer) = (Text::Plain(raw.clone()), vec![0; CAPACITY]);
        let mut input = Self { path, raw, text, buffer, ahead: 0..0, offset: 0 };
        input.look(HEAD)?;
        if let Some(packing) = Packing::of(input.at_hand()) {
            let begun = input.at_hand().to_vec();
            let raw = io::Cursor::new(begun).chain(input.raw.clone());
            let unpacked =
                packing.unpacked(raw, input.raw.clone()).map_err(|it| input.failed(it))?;
            input.changed(unpacked)?;
        }
        if let Some(wide) = Wide::of(input.at_hand()) {
            let begun = io::Cursor::new(input.at_hand().to_vec());
            let rest: Box<dyn Read + Send> =
                match std::mem::replace(&mut input.text, Text::Changed(Box::new(io::empty()))) {
                    Text::Plain(raw) => Box::new(begun.chain(raw)),
                    Text::Changed(rest) => Box::new(begun.chain(rest)),
                };
            input.changed(Box::new(wide.in_utf8(rest)))?;
        }
        Ok(input)
    }

    /// Goes on with a text that is made of the one before.
    fn changed(&mut self, text: Box<dyn Read + Send>) -> Result<(), Error> {
        self.text = Text::Changed(text);
        self.ahead = 0..0;
        self.look(HEAD)
    }

    /// Fills the buffer with so many bytes that are to come, as far as there are so many.
    fn look(&mut self, count: usize) -> Result<(), Error> {
        while self.ahead.len() < count {
            if self.ahead.start > 0 {
                self.buffer.copy_within(self.ahead.clone(), 0);
                self.ahead = 0..self.ahead.len();
            }
            let room = &mut self.buffer[self.ahead.end..];
            let read = match &mut self.text {
                Text::Plain(raw) => raw.read(room),
                Text::Changed(text) => text.read(room),
            };
            match read {
                Ok(0) => break,
                Ok(read) => self.ahead.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    fn failed(&self, source: io::Error) -> Error {
        let path = self.path.clone();
        // What the system says of a file has a number; the rest is about what the file holds.
        match source.raw_os_error() {
            Some(_) => Error::Read { path, source },
            None => Error::NotRows { path, what: source.to_string() },
        }
    }

    fn at_hand(&self) -> &[u8] {
        &self.buffer[self.ahead.clone()]
    }

    /// Bytes behind: where the next one stands in the text.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes, as many as are at hand; empty at the end.
    pub(super) fn ahead(&mut self) -> Result<&[u8], Error> {
        self.look(1)?;
        Ok(self.at_hand())
    }

    /// Goes over bytes that [`Self::ahead`] gave.
    pub(super) fn pass(&mut self, count: usize) {
        self.ahead.start += count;
        debug_assert!(self.ahead.start <= self.ahead.end, "more was passed than is there");
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

    /// The file itself, for containers that are read here and there, and the digest of it; `None` where its
    /// content is packed, or the program's own.
    pub(super) fn into_file(self) -> Result<Option<(PathBuf, File, FileDigest)>, Error> {
        let Text::Plain(raw) = &self.text else { return Ok(None) };
        let Some(mut file) = raw.file().map_err(|it| self.failed(it))? else { return Ok(None) };
        let path = self.path.clone();
        let digest = self.digest()?;
        file.seek(SeekFrom::Start(0))
            .map_err(|source| Error::Read { path: path.clone(), source })?;
        Ok(Some((path, file, digest)))
    }

    /// What its own bytes are read from.
    pub(super) fn raw(&self) -> Raw {
        self.raw.clone()
    }

    /// Size and hash of the whole file.
    pub(super) fn digest(self) -> Result<FileDigest, Error> {
        let Self { path, raw, .. } = self;
        raw.digest().map_err(|source| Error::Read { path, source })
    }
}

/// For readers of streams: what is read is passed.
impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let ahead = self.ahead().map_err(io::Error::other)?;
        let count = ahead.len().min(into.len());
        into[..count].copy_from_slice(&ahead[..count]);
        self.pass(count);
        Ok(count)
    }
}
