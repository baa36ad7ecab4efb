//! What a row says: its form reads a value, wherever that came from.
//!
//! A form is a file with its [`RowForm`] and an entry of [`Format`], by which the rest knows it; a recipe's
//! `format` names the same ones.

mod alpaca;
mod completion;
mod fields;
mod keys;
mod learnt;
mod messages;
mod sharegpt;
mod text;
mod tools;

use serde_json::Value;

use super::Row;
use crate::error::RowProblem;
use fields::Object;

/// The forms by name, and each by the file that reads it.
macro_rules! formats {
    ($($(#[$doc:meta])* $format:ident = $file:ident,)+) => {
        /// How the rows of a file are written.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Format { $($(#[$doc])* $format,)+ }

        impl Format {
            /// Every format, in the order of the documentation.
            pub const ALL: [Self; [$(stringify!($format)),+].len()] = [$(Self::$format),+];

            pub(super) fn form(self) -> &'static RowForm {
                match self { $(Self::$format => &$file::FORM,)+ }
            }
        }
    };
}

formats! {
    /// `{"messages":[{"role","content"}],"tools":[…]}`, as in the OpenAI API.
    Messages = messages,
    /// `{"conversations":[{"from","value"}]}`, as in ShareGPT and LLaMA-Factory.
    ShareGpt = sharegpt,
    /// `{"instruction","input","output"}`, as in Stanford Alpaca.
    Alpaca = alpaca,
    /// `{"prompt","completion"}`, without a chat template.
    Completion = completion,
    /// `{"text"}`, or a plain .txt or .md file as one document.
    Text = text,
}

/// A row form.
pub(super) struct RowForm {
    /// In recipes and on the command line.
    pub(super) name: &'static str,
    /// The fields that a row is made of.
    pub(super) fields: &'static [&'static str],
    /// Those of them that are lists, and may be written as a text that holds one as JSON.
    pub(super) lists: &'static [&'static str],
    /// Those without which none is a row, for messages.
    expected: &'static str,
    /// Whether a row is a list of turns, each with fields of its own.
    of_turns: bool,
    /// Whether a row is one text, so that a file of plain text can be one.
    pub(super) of_text: bool,
    /// The field that is learnt, of forms without turns.
    pub(super) learnt: &'static str,
    /// A row of it, as JSON; the tests of all forms read it.
    pub(super) example: &'static str,
    read: fn(&Object<'_>) -> Result<Row, RowProblem>,
}

/// Whether a field is a number, or one of the words true and false, in whatever form.
pub(super) fn is_of_words(field: &str) -> bool {
    matches!(field, "tools_in_user_message" | "parallel_tool_calls") || keys::is_mask(field)
}

/// A row, and the names of its fields that are notes.
#[derive(Debug)]
pub(super) struct ParsedRow {
    pub(super) row: Row,
    pub(super) notes: Vec<String>,
}

impl RowForm {
    /// Reads one row, and says which of its fields are notes.
    pub(super) fn read(&self, value: &Value) -> Result<ParsedRow, RowProblem> {
        let object = Object::new(value, self.expected)?;
        let row = (self.read)(&object)?;
        let notes = keys::notes(&object, self)?;
        Ok(ParsedRow { row, notes })
    }
}
