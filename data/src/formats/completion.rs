//! `{"prompt","completion"}` and `{"text"}`: rows that see no chat template.

use super::Row;
use super::fields::{Object, UNSUPPORTED_IN_ROWS, UNSUPPORTED_WHY};
use crate::error::RowProblem;

pub(super) fn parse(row: &Object<'_>) -> Result<Row, RowProblem> {
    row.refuse(&UNSUPPORTED_IN_ROWS, UNSUPPORTED_WHY)?;
    let prompt = row.text("prompt")?.to_owned();
    let completion = row.text("completion")?.to_owned();
    if completion.is_empty() {
        return Err(RowProblem::Empty { field: "completion".to_owned() });
    }
    Ok(Row::Completion { prompt, completion })
}

pub(super) fn parse_text(row: &Object<'_>) -> Result<Row, RowProblem> {
    row.refuse(&UNSUPPORTED_IN_ROWS, UNSUPPORTED_WHY)?;
    match row.text("text")? {
        "" => Err(RowProblem::Empty { field: "text".to_owned() }),
        text => Ok(Row::Text(text.to_owned())),
    }
}
