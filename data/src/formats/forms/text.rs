//! `{"text"}`: all of it is learnt, without a chat template.

use super::RowForm;
use super::fields::Object;
use crate::error::RowProblem;
use crate::formats::Row;

pub(super) static FORM: RowForm = RowForm {
    name: "text",
    fields: &["text"],
    lists: &[],
    expected: "`text`",
    turns: None,
    of_text: true,
    learnt: "text",
    example: r#"{"text": "a"}"#,
    read: parse,
};

fn parse(row: &Object<'_>) -> Result<Row, RowProblem> {
    Ok(Row::Text(row.text("text")?.to_owned()))
}
