//! A document as it was read: blocks in order, and what was left out.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::kind::Kind;

/// What came out of one file.
#[derive(Debug, Clone)]
pub struct Document {
    /// Where it was read.
    pub path: PathBuf,
    /// What it is, by its content.
    pub kind: Kind,
    /// SHA-256 of the bytes that were read, in hexadecimal.
    pub sha256: String,
    /// How many these were.
    pub size: u64,
    /// Its text, in order.
    pub blocks: Vec<Block>,
    /// What of the file is not in the text, or is there otherwise, and how often.
    pub left_out: BTreeMap<Left, u64>,
    /// Pages, where the kind has them.
    pub pages: Option<u32>,
    /// Pages, counted from 1, that have no text: scanned, drawn or blank.
    pub textless: Vec<u32>,
    /// What it holds that was not read: names of attachments and why, to be said.
    pub unread: Vec<String>,
}

/// A piece of a document that stands for itself, as Markdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What it is.
    pub form: Form,
    /// Its text, marks of its form included, without a line break at its end.
    pub text: String,
    /// Where it came from.
    pub place: Place,
}

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A heading, of level 1 to 6.
    Heading(u8),
    /// Running text.
    Paragraph,
    /// An entry of a list, or a further paragraph of it.
    Item,
    /// Rows between bars; the first two lines are its head.
    Table,
    /// Lines between fences.
    Code,
}

/// Where in a file something stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The file within the file, or the sheet, or the number of the message.
    pub member: Option<Arc<str>>,
    /// The page, counted from 1.
    pub page: Option<u32>,
    /// From where to where.
    pub span: Option<Span>,
}

/// A stretch of a file, or of what [`Place::member`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// What is counted.
    pub unit: Unit,
    /// The first: bytes are counted from 0, all else from 1.
    pub start: u64,
    /// Bytes: the first that is not in it. All else: the last that is.
    pub end: u64,
}

/// What a span counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Lines.
    Lines,
    /// Rows of a sheet.
    Rows,
}

impl Unit {
    /// Its name in a row.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Lines => "lines",
            Self::Rows => "rows",
        }
    }
}

/// What of a file is not in its text, or is there otherwise than in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Left {
    /// Menus, heads, feet and bars of a web page.
    Navigation,
    /// Lines that every page repeats.
    RunningLine,
    /// Page numbers at the edge of a page.
    PageNumber,
    /// Words cut at the end of a line that are whole again.
    Hyphen,
    /// Scripts and styles.
    Script,
    /// Fields and buttons of forms.
    FormField,
    /// What a page keeps out of sight.
    Hidden,
    /// Pictures, drawings, sound and film.
    Picture,
    /// Where links lead, whose words are kept.
    Link,
    /// Remarks in the margin.
    Comment,
    /// Text that was struck out while changes were tracked.
    Deletion,
    /// Facts about a text at its head, for programs.
    FrontMatter,
    /// Attachments without a document in them.
    Attachment,
    /// Bytes that mean nothing in the file's encoding.
    Undecodable,
    /// Glyphs that no character belongs to.
    Glyph,
    /// Tables of contents and indexes that a program made of the document's own headings.
    Contents,
}

impl Left {
    /// The kind as a word for one and for several.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Navigation => ("piece of navigation", "pieces of navigation"),
            Self::RunningLine => ("running head or foot", "running heads and feet"),
            Self::PageNumber => ("page number", "page numbers"),
            Self::Hyphen => ("hyphen rejoined", "hyphens rejoined"),
            Self::Script => ("script or style", "scripts and styles"),
            Self::FormField => ("form field", "form fields"),
            Self::Hidden => ("hidden piece", "hidden pieces"),
            Self::Picture => ("picture", "pictures"),
            Self::Link => ("link's address", "links' addresses"),
            Self::Comment => ("comment", "comments"),
            Self::Deletion => ("deletion", "deletions"),
            Self::FrontMatter => ("front matter", "front matters"),
            Self::Attachment => ("attachment", "attachments"),
            Self::Undecodable => ("undecodable byte sequence", "undecodable byte sequences"),
            Self::Glyph => ("glyph without a character", "glyphs without a character"),
            Self::Contents => ("table of contents", "tables of contents"),
        }
    }
}

impl Document {
    /// The whole text as Markdown.
    pub fn markdown(&self) -> String {
        joined(&self.blocks)
    }
}

/// Blocks as one text: entries of a list on lines of their own, all else with a blank line between.
pub(crate) fn joined(blocks: &[Block]) -> String {
    let mut text = String::new();
    let mut before = None;
    for block in blocks {
        if let Some(before) = before {
            text.push_str(between(before, block.form));
        }
        text.push_str(&block.text);
        before = Some(block.form);
    }
    text
}

/// What stands between two blocks.
pub(crate) fn between(before: Form, after: Form) -> &'static str {
    if before == Form::Item && after == Form::Item { "\n" } else { "\n\n" }
}

impl fmt::Display for Left {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.words().0)
    }
}
