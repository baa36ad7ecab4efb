//! Whether a turn or a row is learnt, as people's files say it.

use serde_json::Value;

use super::fields::{Object, is_empty};
use crate::error::RowProblem;
use crate::formats::Row;
use crate::shown::shown;
use crate::written;

/// `weight` of the OpenAI API, `train` and `training` of axolotl, `loss` of ms-swift: 0 or 1, or
/// true or false.
pub(super) const KEYS: [&str; 4] = ["weight", "train", "training", "loss"];

/// Those of a row; `sample_weight` is pandas' and scikit-learn's word for it.
pub(super) const KEYS_OF_ROWS: [&str; 5] = ["weight", "train", "training", "loss", "sample_weight"];

/// What the turn says about being learnt.
pub(super) fn of_turn(turn: &Object<'_>) -> Result<Option<bool>, RowProblem> {
    Ok(said(turn, &KEYS, "turn")?.map(|(_, learnt)| learnt))
}

/// Whether the row is learnt from: it is, unless it says no.
pub(super) fn of_row(object: &Object<'_>, row: &Row) -> Result<bool, RowProblem> {
    let Some((key, false)) = said(object, &KEYS_OF_ROWS, "row")? else { return Ok(true) };
    let asking = match row {
        Row::Conversation(row) => row.messages.iter().position(|turn| turn.mark == Some(true)),
        Row::Completion { .. } | Row::Text(_) => None,
    };
    match asking {
        Some(turn) => Err(RowProblem::Unsupported(format!(
            "`{key}` leaves the row out, and turn {} asks to be learnt; give up one of the two",
            turn + 1
        ))),
        None => Ok(false),
    }
}

/// The key that says so, and what it says.
fn said(
    object: &Object<'_>,
    keys: &[&'static str],
    what: &str,
) -> Result<Option<(&'static str, bool)>, RowProblem> {
    let mut said = None;
    for &key in keys {
        let Some(value) = object.optional(key).filter(|value| !is_empty(value)) else { continue };
        let written = || written::text_of(value)?.parse().ok();
        let learnt = match (value, value.as_f64().or_else(written)) {
            (Value::Bool(learnt), _) => *learnt,
            (_, Some(0.0)) => false,
            (_, Some(1.0)) => true,
            _ => {
                return Err(RowProblem::Unsupported(format!(
                    "`{}` is neither 0 nor 1: a {what} is learnt whole or not at all",
                    object.path(key)
                )));
            }
        };
        if let Some((other, before)) = said.replace((key, learnt))
            && before != learnt
        {
            return Err(RowProblem::Unsupported(format!(
                "`{}` and `{}` disagree; keep one",
                object.path(other),
                object.path(key)
            )));
        }
    }
    Ok(said)
}

/// Why a field of a turn of `list` is refused, and the way out; `holds` says what a turn is made of.
pub(super) fn why(key: &str, holds: &str, list: &str) -> String {
    match key {
        "loss_mask" | "mask" | "train_detail" | "training_detail" | "weights" => {
            "write `\"weight\": 0` into a turn that is not to be learnt".to_owned()
        }
        "function_call" => "write the call as `tool_calls`".to_owned(),
        "reasoning" | "reasoning_content" | "thinking" => {
            "the template has no place for it; put it into the text of the turn, or remove it"
                .to_owned()
        }
        _ => format!(
            "{holds}; name another by `turn_fields`, or leave it out by `ignore_columns: [{list}.{}]`, if \
             nothing is to be learnt from it",
            shown(key)
        ),
    }
}

#[cfg(test)]
mod tests {
    use crate::formats::{Format, Row};

    fn learnt(user: &str, assistant: &str) -> Result<Vec<bool>, String> {
        let read = |format: Format, turns: String| match format.parse_row(&turns) {
            Ok(Row::Conversation(row)) => Ok(row.messages.iter().map(|turn| turn.learnt).collect()),
            Ok(other) => panic!("{other:?} is no conversation"),
            Err(problem) => Err(problem.to_string()),
        };
        let found = read(
            Format::Messages,
            format!(
                r#"{{"messages": [{{"role": "user", "content": "q"{user}}}, {{"role": "assistant", "content": "a"{assistant}}}]}}"#
            ),
        );
        let same = read(
            Format::ShareGpt,
            format!(
                r#"{{"conversations": [{{"from": "human", "value": "q"{user}}}, {{"from": "gpt", "value": "a"{assistant}}}]}}"#
            ),
        );
        let common = |text: String| text.replace("conversations[", "messages[");
        assert_eq!(found, same.map_err(common));
        found
    }

    #[test]
    fn a_turn_is_left_out_of_the_loss_in_every_spelling() {
        assert_eq!(learnt("", ""), Ok(vec![false, true]));
        for key in super::KEYS {
            for (value, expected) in [
                ("0", false),
                ("false", false),
                ("0.0", false),
                ("1", true),
                ("true", true),
                ("null", true),
            ] {
                let field = format!(r#", "{key}": {value}"#);
                assert_eq!(learnt("", &field), Ok(vec![false, expected]), "{field}");
            }
            assert_eq!(learnt(&format!(r#", "{key}": 0"#), ""), Ok(vec![false, true]));
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let refused = |user, assistant| learnt(user, assistant).unwrap_err();
        insta::assert_snapshot!(refused("", r#", "weight": 0.5"#), @"`messages[1].weight` is neither 0 nor 1: a turn is learnt whole or not at all");
        insta::assert_snapshot!(refused("", r#", "weight": "0""#), @"`messages[1].weight` is neither 0 nor 1: a turn is learnt whole or not at all");
        insta::assert_snapshot!(refused("", r#", "weight": 0, "train": true"#), @"`messages[1].weight` and `messages[1].train` disagree; keep one");
        insta::assert_snapshot!(refused("", r#", "loss_mask": 0"#), @r#"`messages[1].loss_mask` is not supported: write `"weight": 0` into a turn that is not to be learnt"#);
    }
}
