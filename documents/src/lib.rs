//! Documents as people keep them (text, HTML, office files, mail, PDF) as Markdown that knows where it came from.
//!
//! [`read`] gives a [`Document`]: blocks (headings, paragraphs, list items, tables, code), each with its place in
//! the file, and what was left out, counted by kind. [`Document::chunks`] cuts it along its structure. What a file
//! is, its content says and not its name. Nothing is dropped in silence: what cannot be read is an [`Error`] that
//! names the file and says why, under [`Limits`] that hold for whatever a stranger's file holds.
//!
//! Nothing here knows a recipe, a row form or a tokenizer.

mod budget;
mod caught;
mod chunk;
mod cut;
mod decode;
mod document;
mod error;
mod kind;
mod limits;
mod readers;
mod rows;
mod sources;
mod words;
mod writer;

use std::path::Path;

pub use chunk::Chunk;
pub use document::{Block, Document, Form, Left, Place, Span, Unit};
pub use error::{Error, Why};
pub use kind::Kind;
pub use limits::Limits;
pub use rows::row;
pub use sources::{Found, Sources};
pub use words::words;

/// Reads the document at `path`.
///
/// # Errors
/// It is no plain file, of no kind that is read, broken, locked by a password, without text, or beyond a limit.
pub fn read(path: &Path, limits: &Limits) -> Result<Document, Error> {
    let of = |why| Error { path: path.to_path_buf(), why };
    let bytes =
        graft_files::plain_file::read(path, limits.bytes).map_err(|error| of(error.into()))?;
    read_bytes(path, bytes, limits)
}

/// Reads a document from bytes; `path` is what it is called, and opened by nobody.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(path: &Path, bytes: Vec<u8>, limits: &Limits) -> Result<Document, Error> {
    let result = caught::on_a_thread(path, bytes, limits);
    result.map_err(|why| Error { path: path.to_path_buf(), why })
}
