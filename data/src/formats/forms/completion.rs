//! `{"prompt","completion"}`: the completion is learnt after the prompt, without a chat template.

use super::RowForm;
use super::fields::Object;
use crate::error::RowProblem;
use crate::formats::Row;

pub(super) static FORM: RowForm = RowForm {
    name: "completion",
    fields: &["prompt", "completion"],
    lists: &[],
    expected: "`prompt` and `completion`",
    turns: None,
    of_text: false,
    learnt: "completion",
    example: r#"{"prompt": "q", "completion": "a"}"#,
    read: parse,
};

fn parse(row: &Object<'_>) -> Result<Row, RowProblem> {
    let prompt = row.text("prompt")?.to_owned();
    let completion = row.text("completion")?.to_owned();
    Ok(Row::Completion { prompt, completion })
}
