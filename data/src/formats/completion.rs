//! `{"prompt","completion"}` and `{"text"}`: rows that see no chat template.

use super::Row;
use super::fields::Object;
use crate::error::RowProblem;

pub(super) fn parse(row: &Object<'_>) -> Result<Row, RowProblem> {
    let prompt = row.text("prompt")?.to_owned();
    let completion = row.text("completion")?.to_owned();
    Ok(Row::Completion { prompt, completion })
}

pub(super) fn parse_text(row: &Object<'_>) -> Result<Row, RowProblem> {
    Ok(Row::Text(row.text("text")?.to_owned()))
}
