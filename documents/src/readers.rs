//! One reader a kind.

pub(crate) mod archive;
mod docx;
mod epub;
mod html;
mod mail;
mod markdown;
mod opendocument;
mod pdf;
mod sheet;
mod text;
mod xlsx;
mod xml;

use std::path::Path;

use graft_files::sha256::sha256_hex;

use crate::budget::Budget;
use crate::document::Document;
use crate::error::Why;
use crate::kind::Kind;
use crate::limits::Limits;
use crate::writer::Writer;

/// Reads bytes that are of a kind.
pub(crate) fn read(
    path: &Path,
    kind: Kind,
    bytes: Vec<u8>,
    limits: &Limits,
) -> Result<Document, Why> {
    let budget = Budget::new(kind, limits);
    let sha256 = sha256_hex(&bytes);
    let size = bytes.len() as u64;
    let mut writer = Writer::new(&budget);
    into(&mut writer, kind, &bytes, 0)?;
    let Writer { blocks, left_out, pages, textless, unread, .. } = writer;
    if blocks.is_empty() {
        return Err(Why::Empty(empty(kind, pages)));
    }
    Ok(Document {
        path: path.to_path_buf(),
        kind,
        sha256,
        size,
        blocks,
        left_out,
        pages,
        textless,
        unread,
    })
}

/// Why there is no text.
fn empty(kind: Kind, pages: Option<u32>) -> String {
    match (kind, pages) {
        (Kind::Pdf, Some(1)) => {
            "its page has no text: it is scanned or drawn; recognise its text (OCR) first"
                .to_owned()
        }
        (Kind::Pdf, Some(pages)) => {
            format!(
                "none of its {pages} pages has text: they are scanned or drawn; recognise their text (OCR) first"
            )
        }
        _ => format!("this {kind} has no text"),
    }
}

/// Writes what the bytes say; `within` is how many documents they lie in.
fn into(writer: &mut Writer<'_>, kind: Kind, bytes: &[u8], within: usize) -> Result<(), Why> {
    match kind {
        Kind::Text => text::read(writer, bytes, None),
        Kind::Markdown => markdown::read(writer, bytes),
        Kind::Html => html::read(writer, bytes, None),
        Kind::Docx => docx::read(writer, bytes),
        Kind::Odt => opendocument::read(writer, bytes),
        Kind::Epub => epub::read(writer, bytes),
        Kind::Xlsx => xlsx::read(writer, bytes),
        Kind::Ods => opendocument::sheets::read(writer, bytes),
        Kind::Mail => mail::read(writer, bytes, within),
        Kind::Mailbox => mail::read_box(writer, bytes, within),
        Kind::Pdf => pdf::read(writer, bytes),
    }
}
