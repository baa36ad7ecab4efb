//! The row formats people already have, read line by line.
//!
//! Nothing that a row says is dropped in silence: a field is used, or a note about the row
//! ([`NOTES`]), or refused by name.

mod alpaca;
mod completion;
mod container;
mod fields;
mod input;
mod json;
mod keys;
mod learnt;
mod messages;
mod reader;
mod sharegpt;
mod source;
mod texts;
mod tools;

use std::fmt;
use std::str::FromStr;

use crate::conversation::{Content, Conversation};
use crate::error::{Error, Place, RowProblem};
use crate::python_text::strip;
use fields::Object;

pub use input::FileDigest;
pub use keys::NOTES;
pub use reader::{FileRows, ReadRows, RowReader, read_rows};
pub use source::SourceFile;

/// How the rows of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// `{"messages":[{"role","content"}],"tools":[…]}`, as in the OpenAI API.
    Messages,
    /// `{"conversations":[{"from","value"}]}`, as in ShareGPT and LLaMA-Factory.
    ShareGpt,
    /// `{"instruction","input","output"}`, as in Stanford Alpaca.
    Alpaca,
    /// `{"prompt","completion"}`, without a chat template.
    Completion,
    /// `{"text"}`, or a plain .txt or .md file as one document.
    Text,
}

impl Format {
    /// Every format, in the order of the documentation.
    pub const ALL: [Self; 5] =
        [Self::Messages, Self::ShareGpt, Self::Alpaca, Self::Completion, Self::Text];

    /// The name in recipes and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::ShareGpt => "sharegpt",
            Self::Alpaca => "alpaca",
            Self::Completion => "completion",
            Self::Text => "text",
        }
    }

    /// Reads one row of this format.
    ///
    /// # Errors
    /// The text is not JSON, or not a row of this format.
    pub fn parse_row(self, text: &str) -> Result<Row, RowProblem> {
        self.read_row(text).map(|parsed| parsed.row)
    }

    /// Reads one row, and says which of its fields are notes.
    fn read_row(self, text: &str) -> Result<ParsedRow, RowProblem> {
        let value = json::read(text, keys::is_note)?;
        let object = Object::new(&value, self.expected())?;
        let row = match self {
            Self::Messages => messages::parse(&object).map(Row::Conversation),
            Self::ShareGpt => sharegpt::parse(&object).map(Row::Conversation),
            Self::Alpaca => alpaca::parse(&object).map(Row::Conversation),
            Self::Completion => completion::parse(&object),
            Self::Text => completion::parse_text(&object),
        }?;
        let notes = keys::notes(&object, self)?;
        Ok(ParsedRow { row, notes })
    }

    /// The fields that a row is made of.
    fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Messages => {
                &["messages", "system", "tools", "builtin_tools", "tools_in_user_message"]
            }
            Self::ShareGpt => {
                &["conversations", "system", "tools", "builtin_tools", "tools_in_user_message"]
            }
            Self::Alpaca => &["instruction", "input", "output", "system", "history"],
            Self::Completion => &["prompt", "completion"],
            Self::Text => &["text"],
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Messages => "`messages`",
            Self::ShareGpt => "`conversations`",
            Self::Alpaca => "`instruction`, `input` and `output`",
            Self::Completion => "`prompt` and `completion`",
            Self::Text => "`text`",
        }
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
    /// What would be learnt from, but says nothing.
    pub(crate) fn empty_answer(&self) -> Option<String> {
        let is_empty = |text: &str| strip(text).is_empty();
        match self {
            Self::Conversation(conversation) => {
                let turn = conversation.messages.iter().position(|turn| {
                    turn.learnt && matches!(&turn.content, Content::Text(text) if is_empty(text))
                });
                turn.map(|turn| format!("the assistant's answer in turn {}", turn + 1))
            }
            Self::Completion { completion, .. } => {
                is_empty(completion).then(|| "`completion`".to_owned())
            }
            Self::Text(text) => is_empty(text).then(|| "`text`".to_owned()),
        }
    }
}

/// A row, and the names of its fields that are notes.
#[derive(Debug)]
struct ParsedRow {
    row: Row,
    notes: Vec<String>,
}

/// Where a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Index into the list of files.
    pub file: usize,
    /// The line that it begins on, counted from 1.
    pub line: usize,
    /// Its number, counted from 1, where the file is one list.
    pub item: Option<usize>,
}

impl Origin {
    /// The same for people.
    pub fn place(&self, sources: &[SourceFile]) -> Place {
        Place { path: sources[self.file].path.clone(), line: self.line, item: self.item }
    }
}

/// The most bytes that a row, or a document of plain text, may have: while its tokens are found they take
/// some 150 times as much memory, and up to 250 times.
pub const MOST_BYTES_OF_A_ROW: usize = 4 << 20;

#[cfg(test)]
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
        insta::assert_snapshot!(problem(Completion, r#"{"prompt": "a", "completion": 3}"#), @"`completion` must be a text, found a number");
        insta::assert_snapshot!(problem(Text, "{}"), @"`text` is missing (the object is empty)");
        insta::assert_snapshot!(problem(Alpaca, r#"{"instruction": "a"}"#), @"`output` is missing (found: instruction)");
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
