//! How rows are kept in a file: a container gives values with the places that they come from.
//!
//! A container is a file with its [`Records`], and an entry of [`CONTAINERS`], which are found by the endings
//! of files' names. What a value means is a row form's to say.

mod columnar;
mod delimited;
mod document;
mod foreign;
mod input;
mod json_rows;

use std::fmt;
use std::path::Path;

use graft_files::plain_file;
use serde_json::Value;

use super::given::{Given, Measure};
use super::{Format, SourceFile};
use crate::error::Error;
use crate::shown::shown;
use foreign::{Foreign, foreign};
pub(super) use input::Bytes;
pub use input::FileDigest;
use input::{Input, Packing};

/// The values of an open file, one after the other; memory holds one, and never the file.
pub(super) trait Records: fmt::Debug + Send {
    /// The next one; `None` at the end of the file.
    fn next(&mut self) -> Result<Option<Record>, Error>;

    /// What is to be said of the file, once there is no value left. One without a value is empty by mistake,
    /// unless there is something to be said.
    fn remarks(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Size and hash of the bytes that all values were made of, once there is none left.
    fn digest(self: Box<Self>) -> Result<FileDigest, Error>;
}

/// A value, and the place that it comes from.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) value: Value,
    /// The line that it begins on, counted from 1.
    pub(super) line: usize,
    /// Its number, counted from 1, where the file is one list.
    pub(super) item: Option<usize>,
    /// How many bytes it was made of.
    pub(super) bytes: usize,
    /// Whether its fields are texts whatever they hold: lists and numbers stand in them as JSON.
    pub(super) of_texts: bool,
}

/// A way to keep rows in a file.
struct Container {
    /// How the names of its files end, in lower case.
    endings: &'static [&'static str],
    /// Whether a file is one text without fields: for row forms that are one text, and no others.
    of_text: bool,
    /// Whether a file that begins so is one, whatever it is called.
    begins: fn(&[u8]) -> bool,
    /// What a file is that is none of these, by its first bytes.
    foreign: fn(&[u8]) -> Option<Foreign>,
    open: fn(Input) -> Result<Box<dyn Records>, Error>,
}

/// All of them.
static CONTAINERS: &[&Container] = &[
    &json_rows::CONTAINER,
    &delimited::CONTAINER,
    &columnar::PARQUET,
    &columnar::ARROW,
    &document::CONTAINER,
];

impl Format {
    /// How the names of files end that rows may be in, in lower case.
    pub fn endings() -> impl Iterator<Item = &'static str> {
        CONTAINERS.iter().flat_map(|container| container.endings).copied()
    }

    /// Those of files that are one text, or of all others, for people.
    pub(crate) fn listed_endings(of_text: bool) -> String {
        let containers = CONTAINERS.iter().filter(|container| container.of_text == of_text);
        let endings: Vec<String> = containers
            .flat_map(|container| container.endings)
            .map(|end| format!(".{end}"))
            .collect();
        match endings.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} and {last}", others.join(", ")),
            None => String::new(),
        }
    }
}

impl SourceFile {
    /// Whether its name ends as those of files do that rows of its format are kept in.
    pub fn ends_as_rows_do(&self) -> bool {
        let (ending, of_text) = (ending(&self.path), self.format.form().of_text);
        let mut kept = CONTAINERS.iter().filter(|container| of_text || !container.of_text);
        kept.any(|container| container.endings.contains(&ending.as_str()))
    }

    /// Looks at the beginning of the file: whether it can be read, and may hold rows of the format.
    ///
    /// # Errors
    /// It is missing, no plain file, or of another kind.
    pub fn check(&self) -> Result<(), Error> {
        match self.reader() {
            Some(_) => plain_file::open(&self.path)
                .map(|_| ())
                .map_err(|why| Error::unreadable(&self.path, why)),
            None => begin(self).map(|_| ()),
        }
    }

    /// Opens the file in the container that it is, or gives it to its reader with the measure.
    pub(super) fn open(&self, measure: Option<Measure<'_>>) -> Result<Box<dyn Records>, Error> {
        if let Some(reader) = self.reader() {
            return Ok(Box::new(Given::new(reader.read(&self.path, measure)?)));
        }
        let (input, container) = begin(self)?;
        (container.open)(input)
    }
}

/// Opens a file that does not say that it is of another kind.
fn begin(source: &SourceFile) -> Result<(Input, &'static Container), Error> {
    let path = || source.path.clone();
    let mut input = Input::open(source)?;
    let container = container(source, input.ahead()?);
    let is_other = container.map_or(foreign as fn(&[u8]) -> _, |container| container.foreign);
    if let Some(what) = is_other(input.ahead()?) {
        return Err(Error::NotRows { path: path(), what: what.to_string() });
    }
    let unknown = || {
        let extension = shown(&ending(&source.path));
        Error::UnknownExtension { path: path(), extension }
    };
    Ok((input, container.ok_or_else(unknown)?))
}

/// The container of a file, by what it begins with and, where that is text, by its name; `None` where neither
/// tells whether it is one text.
fn container(source: &SourceFile, head: &[u8]) -> Option<&'static Container> {
    let of_text = source.format.form().of_text;
    let ending = ending(&source.path);
    let by_name = |of_text: bool| {
        let is_so = |container: &&&Container| {
            container.of_text == of_text && container.endings.contains(&ending.as_str())
        };
        CONTAINERS.iter().find(is_so).copied()
    };
    let by_content = CONTAINERS.iter().find(|container| (container.begins)(head)).copied();
    if source.embedded_text().is_some() {
        return Some(&json_rows::CONTAINER);
    }
    by_content
        .or_else(|| by_name(true).filter(|_| of_text))
        .or_else(|| json_rows::is_json(head).then_some(&json_rows::CONTAINER))
        .or_else(|| delimited::is_table(head).then_some(&delimited::CONTAINER))
        .or_else(|| by_name(false))
        .or((!of_text).then_some(&json_rows::CONTAINER))
}

/// How a file's name ends, in lower case; behind what says that it is packed.
fn ending(path: &Path) -> String {
    let of = |path: &Path| path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let ending = of(path);
    if Packing::is_ending(&ending) {
        of(Path::new(path.file_stem().unwrap_or_default()))
    } else {
        ending
    }
}

/// Line ends among the bytes.
fn line_ends(bytes: &[u8]) -> usize {
    bytes.iter().map(|&byte| usize::from(byte == b'\n')).sum()
}

/// What a text in UTF-8 may begin with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The first bytes of a text, without its mark and what is blank.
fn text_of(head: &[u8]) -> &[u8] {
    head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(head).trim_ascii_start()
}
