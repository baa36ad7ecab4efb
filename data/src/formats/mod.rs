//! The row formats people already have, read line by line.
//!
//! Nothing that would change the meaning of a row is dropped in silence: a field that is known but
//! not supported is refused by name. Other extra fields at the top of a row are metadata.

mod alpaca;
mod completion;
mod fields;
mod lines;
mod messages;
mod reader;
mod sharegpt;
mod source;
mod tools;

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use crate::conversation::Conversation;
use crate::error::{Error, RowProblem};
use fields::Object;

pub use reader::{RowReader, read_rows};
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

    /// Reads one line of a file of this format.
    ///
    /// # Errors
    /// The line is not JSON, or not a row of this format.
    pub fn parse_row(self, line: &str) -> Result<Row, RowProblem> {
        let expected = self.expected();
        let value: Value = serde_json::from_str(line).map_err(|error| RowProblem::Json {
            column: error.column(),
            message: json_message(&error),
        })?;
        let object = Object::new(&value, expected)?;
        match self {
            Self::Messages => messages::parse(&object).map(Row::Conversation),
            Self::ShareGpt => sharegpt::parse(&object).map(Row::Conversation),
            Self::Alpaca => alpaca::parse(&object).map(Row::Conversation),
            Self::Completion => completion::parse(&object),
            Self::Text => completion::parse_text(&object),
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

/// Where a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Index into the list of files.
    pub file: usize,
    /// Line, counted from 1.
    pub line: usize,
}

/// The parser's message without its own line and column: the line is known better here.
fn json_message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(&text[..], |(message, _)| message);
    // What the parser calls `\ud800` without its other half, depending on what follows.
    if message.contains("surrogate") || message == "unexpected end of hex escape" {
        return format!(
            "{message}: half of a surrogate pair (\\ud800 to \\udfff) is no character; remove it, or \
             write the pair"
        );
    }
    message.to_owned()
}

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
        insta::assert_snapshot!(problem(Messages, r#"[{"messages": []}]"#), @"expected a JSON object with `messages`, found a list; write one object a line (JSONL), not one list");
        insta::assert_snapshot!(problem(Messages, r#"{"conversations": []}"#), @"`messages` is missing (found: conversations)");
        insta::assert_snapshot!(problem(Completion, r#"{"prompt": "a", "completion": 3}"#), @"`completion` must be a text, found a number");
        insta::assert_snapshot!(problem(Text, r#"{"text": ""}"#), @"`text` is empty");
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
