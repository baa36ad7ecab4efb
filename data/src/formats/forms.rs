//! What a row says: its form reads a value, wherever that came from.
//!
//! A form is a file with its [`Form`], an entry of [`Format`] and one of [`Format::form`]; recipes and the
//! command line know it by its name.

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

use super::{Format, Row};
use crate::error::RowProblem;
use fields::Object;

/// A row form.
pub(super) struct Form {
    /// In recipes and on the command line.
    pub(super) name: &'static str,
    /// The fields that a row is made of.
    pub(super) fields: &'static [&'static str],
    /// Those without which none is a row, for messages.
    expected: &'static str,
    /// Whether a row is a list of turns, each with fields of its own.
    of_turns: bool,
    /// Whether a row is one text, so that a file of plain text can be one.
    pub(super) of_text: bool,
    read: fn(&Object<'_>) -> Result<Row, RowProblem>,
}

/// A row, and the names of its fields that are notes.
#[derive(Debug)]
pub(super) struct ParsedRow {
    pub(super) row: Row,
    pub(super) notes: Vec<String>,
}

impl Form {
    /// Reads one row, and says which of its fields are notes.
    pub(super) fn read(&self, value: &Value) -> Result<ParsedRow, RowProblem> {
        let object = Object::new(value, self.expected)?;
        let row = (self.read)(&object)?;
        let notes = keys::notes(&object, self)?;
        Ok(ParsedRow { row, notes })
    }
}

impl Format {
    pub(super) fn form(self) -> &'static Form {
        match self {
            Self::Messages => &messages::FORM,
            Self::ShareGpt => &sharegpt::FORM,
            Self::Alpaca => &alpaca::FORM,
            Self::Completion => &completion::FORM,
            Self::Text => &text::FORM,
        }
    }
}
