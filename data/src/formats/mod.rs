//! The rows of people's files.
//!
//! A container (rows of JSON, a plain text) gives values with the places that they come from; a row form
//! (`messages`, `alpaca`, …) reads a value. Neither knows the other, and [`RowReader`] joins them.
//!
//! Nothing that a row says is dropped in silence: a field is used, or a note about the row
//! ([`NOTES`]), or refused by name.

mod columns;
mod containers;
mod forms;
mod given;
mod json;
mod notes;
mod reader;
mod source;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::conversation::{Content, Conversation, Role};
use crate::error::{Error, RowPlace, RowProblem};
use crate::python_text::strip;

pub use columns::Columns;
pub use containers::FileDigest;
pub use forms::Format;
pub use given::{FileContent, FileReader, Measure};
pub use notes::NOTES;
pub use reader::{FileRows, ReadRows, RowReader, read_rows};
pub use source::SourceFile;

impl Format {
    /// The name in recipes and on the command line.
    pub fn name(self) -> &'static str {
        self.form().name
    }

    /// The fields that a row is made of.
    pub fn fields(self) -> &'static [&'static str] {
        self.form().fields
    }

    /// The fields of its turns that may be called otherwise; none where it is no list of turns.
    pub fn turn_fields(self) -> &'static [&'static str] {
        self.form().turns.map_or(&[], |turns| turns.fields)
    }

    /// Who may speak in its turns, as `roles` of a source names them; none where it is no list of turns.
    pub fn roles(self) -> impl Iterator<Item = &'static str> {
        let words = self.form().turns.map_or(&[][..], |turns| turns.words);
        words.iter().map(|(role, _)| *role)
    }

    /// A row of it, as JSON.
    pub fn example(self) -> &'static str {
        self.form().example
    }

    /// Reads one row of this format from its JSON.
    ///
    /// # Errors
    /// The text is not JSON, or not a row of this format.
    pub fn parse_row(self, text: &str) -> Result<Row, RowProblem> {
        let value = json::read(text)?;
        self.form().read(&value).map(|parsed| parsed.row)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|format| format.name() == name);
        known.ok_or_else(|| Error::UnknownFormat { found: name.to_owned() })
    }
}

/// One row, whatever its format.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// Goes through the chat template; the assistant's turns are learnt.
    Conversation(Conversation),
    /// The completion is learnt after the prompt.
    Completion {
        /// What is given.
        prompt: String,
        /// What is learnt.
        completion: String,
    },
    /// Everything is learnt.
    Text(String),
}

impl Row {
    /// What would be learnt from, but says nothing; `field` is what its form calls that.
    fn empty_answer(&self, field: &str) -> Option<String> {
        let is_empty = |text: &str| strip(text).is_empty();
        match self {
            Self::Conversation(conversation) => {
                let turn = conversation.messages.iter().position(|turn| {
                    turn.learnt && matches!(&turn.content, Content::Text(text) if is_empty(text))
                });
                turn.map(|turn| match conversation.messages[turn].role {
                    Role::Assistant => format!("the assistant's answer in turn {}", turn + 1),
                    role => format!("what the {} says in turn {}", role.name(), turn + 1),
                })
            }
            Self::Completion { completion: text, .. } | Self::Text(text) => {
                is_empty(text).then(|| format!("`{field}`"))
            }
        }
    }
}

/// Where a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Index into the list of files.
    pub file: usize,
    /// The line that it begins on, counted from 1; 0 in a file without lines.
    pub line: usize,
    /// Its number, counted from 1, where the file is one list or has no lines.
    pub item: Option<usize>,
}

impl Origin {
    /// The row's place as people read it: with the file's path for its index.
    pub fn place(&self, sources: &[SourceFile]) -> RowPlace {
        self.place_in(&sources[self.file].path)
    }

    /// [`Origin::place`] in the file at `path`.
    pub fn place_in(&self, path: &Path) -> RowPlace {
        RowPlace { path: path.to_owned(), line: self.line, item: self.item }
    }
}

/// The most bytes that a row, or a document of plain text, may have: while its tokens are found they take
/// some 150 times as much memory, and up to 250 times.
pub const MOST_BYTES_OF_A_ROW: usize = 4 << 20;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write their own input files")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem(format: Format, line: &str) -> String {
        format.parse_row(line).unwrap_err().to_string()
    }

    #[test]
    fn every_format_is_found_by_its_name_and_no_other_name_is() {
        for format in Format::ALL {
            assert_eq!(format.name().parse::<Format>().unwrap(), format);
        }
        insta::assert_snapshot!("chatml".parse::<Format>().unwrap_err(), @"unknown data format `chatml`, expected one of: messages, sharegpt, alpaca, completion, text");
    }

    #[test]
    fn malformed_rows_say_what_is_wrong() {
        use Format::*;
        insta::assert_snapshot!(problem(Messages, r#"{"messages": [}"#), @"malformed JSON at column 15: expected value");
        insta::assert_snapshot!(problem(Messages, r#"[{"messages": []}]"#), @"expected a JSON object with `messages`, found a list; write one object a line (JSONL), or one list of objects");
        insta::assert_snapshot!(problem(Messages, r#"{"conversations": []}"#), @"`messages` is missing (found: conversations)");
        insta::assert_snapshot!(problem(Completion, r#"{"prompt": "a", "completion": 3}"#), @"`completion` must be a text, found the number 3");
        insta::assert_snapshot!(problem(Text, "{}"), @"`text` is missing (the object is empty)");
        insta::assert_snapshot!(problem(Alpaca, r#"{"instruction": "a"}"#), @"`output` is missing (found: instruction)");
    }

    #[test]
    fn every_row_form_reads_the_values_of_every_container() {
        let one = Format::example;
        for format in Format::ALL {
            let row = format.parse_row(one(format)).unwrap();
            let value: serde_json::Value = serde_json::from_str(one(format)).unwrap();
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            for (text, items) in [
                (format!("{value}\n{value}"), [None; 2]),
                (format!("{pretty}\n{pretty}"), [None; 2]),
                (format!("[{value}, {value}]"), [Some(1), Some(2)]),
                (format!("[{pretty},\n{pretty}]"), [Some(1), Some(2)]),
            ] {
                // Leaked: an embedded text lives as long as the program.
                let source = SourceFile::embedded("x", format, text.leak());
                let read = read_rows(&[source]).unwrap().rows;
                let found: Vec<_> = read.iter().map(|(row, origin)| (row, origin.item)).collect();
                assert_eq!(found, items.map(|item| (&row, item)), "{format}");
            }
        }
        // A plain text is one value, for the form that is a text; to all others its name says nothing.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        for format in Format::ALL {
            let is_text = format == Format::Text;
            std::fs::write(&path, if is_text { "a" } else { one(format) }).unwrap();
            let read = read_rows(&[SourceFile::new(&path, format)]).unwrap().rows;
            assert_eq!(read.len(), 1, "{format}");
            assert_eq!(read[0].0, format.parse_row(one(format)).unwrap(), "{format}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "\\PC*") {
            for format in Format::ALL {
                let _ = format.parse_row(&line);
            }
        }

        #[test]
        fn no_object_of_the_known_fields_panics(
            key in "messages|conversations|tools|text|prompt|instruction|output|completion|history",
            role in "system|user|assistant|tool|gpt|human|function_call|x",
            content in "\\PC{0,20}|\\{\"name\": \"f\", \"arguments\": \\{\\}\\}",
        ) {
            let row = serde_json::json!({ key: [{
                "role": role, "content": content, "from": role, "value": content,
                "tool_calls": [{"function": {"name": content, "arguments": content}}],
            }]});
            for format in Format::ALL {
                let _ = format.parse_row(&row.to_string());
            }
        }
    }
}
