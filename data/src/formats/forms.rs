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
pub(super) use fields::is_empty;

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
    /// The turns of forms that are a list of them.
    pub(super) turns: Option<TurnForm>,
    /// Whether a row is one text, so that a file of plain text can be one.
    pub(super) of_text: bool,
    /// The field that is learnt, of forms without turns.
    pub(super) learnt: &'static str,
    /// A row of it, as JSON; the tests of all forms read it.
    pub(super) example: &'static str,
    read: fn(&Object<'_>) -> Result<Row, RowProblem>,
}

/// How the turns of a row are written.
#[derive(Clone, Copy)]
pub(super) struct TurnForm {
    /// The field that they stand in.
    pub(super) list: &'static str,
    /// The field that says who speaks.
    pub(super) role: &'static str,
    /// The fields of a turn that may be called otherwise.
    pub(super) fields: &'static [&'static str],
    /// Who may speak, and the form's word for it.
    pub(super) words: &'static [(&'static str, &'static str)],
}

/// Whether a field is a number, or one of the words true and false, in whatever form.
pub(super) fn is_of_words(field: &str) -> bool {
    matches!(field, "tools_in_user_message" | "parallel_tool_calls") || keys::is_mask(field)
}

/// A row, and what it says beside what is learnt.
#[derive(Debug)]
pub(super) struct ParsedRow {
    pub(super) row: Row,
    /// Names of its fields that are notes.
    pub(super) notes: Vec<String>,
    /// Whether it is learnt from: it says no by `weight: 0`.
    pub(super) learnt: bool,
}

impl RowForm {
    /// Reads one row, and says which of its fields are notes.
    pub(super) fn read(&self, value: &Value) -> Result<ParsedRow, RowProblem> {
        let object = Object::new(value, self.expected)?;
        let row = (self.read)(&object)?;
        let notes = keys::notes(&object, self)?;
        let learnt = learnt::of_row(&object, &row)?;
        Ok(ParsedRow { row, notes, learnt })
    }
}
