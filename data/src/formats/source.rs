//! A source of rows: a file on disk, or text that the program carries in itself.

use std::path::PathBuf;

use super::{Columns, Format};
use crate::quickstart;

/// What precedes the name of an embedded text.
const BUILTIN: &str = "builtin:";

/// The embedded texts; each is JSONL.
const EMBEDDED: [(&str, &str); 3] = [
    ("quickstart/train", quickstart::TRAIN),
    ("quickstart/held-out", quickstart::HELD_OUT),
    ("quickstart/general", quickstart::GENERAL),
];

/// A file or an embedded text, and how its rows are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The file, or `builtin:NAME`.
    pub path: PathBuf,
    /// How its rows are written.
    pub format: Format,
    /// What their fields are called.
    pub columns: Columns,
    embedded: Option<&'static str>,
}

impl SourceFile {
    /// A file on disk.
    pub fn new(path: impl Into<PathBuf>, format: Format) -> Self {
        Self { path: path.into(), format, columns: Columns::default(), embedded: None }
    }

    /// The same file, whose columns are called so.
    #[must_use]
    pub fn with_columns(self, columns: Columns) -> Self {
        Self { columns, ..self }
    }

    /// The embedded text of this name (`quickstart/train`); `None` where there is none.
    pub fn builtin(name: &str, format: Format) -> Option<Self> {
        let (name, text) = EMBEDDED.iter().find(|(known, _)| *known == name)?;
        let path = PathBuf::from(format!("{BUILTIN}{name}"));
        Some(Self { path, format, columns: Columns::default(), embedded: Some(text) })
    }

    /// A text that stands for a file.
    #[cfg(test)]
    pub(super) fn embedded(name: &str, format: Format, text: &'static str) -> Self {
        Self { path: name.into(), format, columns: Columns::default(), embedded: Some(text) }
    }

    /// The names of all embedded texts as recipes write them, `builtin:quickstart/train`.
    pub fn builtin_names() -> impl Iterator<Item = String> {
        EMBEDDED.iter().map(|(name, _)| format!("{BUILTIN}{name}"))
    }

    /// The text, where the program carries it.
    pub fn embedded_text(&self) -> Option<&'static str> {
        self.embedded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::read_rows;

    #[test]
    fn every_embedded_text_is_read_like_a_file() {
        for (name, text) in EMBEDDED {
            let format = if name.ends_with("general") { Format::Text } else { Format::Messages };
            let source = SourceFile::builtin(name, format).unwrap();
            let rows = read_rows(std::slice::from_ref(&source)).unwrap().rows;
            assert_eq!(rows.len(), text.lines().count(), "{name}");
        }
        assert_eq!(SourceFile::builtin("quickstart/other", Format::Text), None);
    }

    #[test]
    fn errors_in_an_embedded_text_name_it() {
        let source = SourceFile::builtin("quickstart/train", Format::Alpaca).unwrap();
        insta::assert_snapshot!(read_rows(&[source]).unwrap_err(), @"builtin:quickstart/train:1: `instruction` is missing (found: messages)");
    }
}
