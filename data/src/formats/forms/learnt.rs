//! Whether a turn of the assistant is learnt, as people's files say it.

use serde_json::Value;

use super::fields::Object;
use crate::conversation::Role;
use crate::error::RowProblem;

/// `weight` of the OpenAI API, `train` and `training` of axolotl, `loss` of ms-swift: 0 or 1, or
/// true or false.
pub(super) const KEYS: [&str; 4] = ["weight", "train", "training", "loss"];

/// Whether the turn is learnt: those of the assistant are, unless they say no.
pub(super) fn learnt(turn: &Object<'_>, role: Role) -> Result<bool, RowProblem> {
    let mut said = None;
    for key in KEYS {
        let Some(value) = turn.optional(key) else { continue };
        let learnt = match (value, value.as_f64()) {
            (Value::Bool(learnt), _) => *learnt,
            (_, Some(0.0)) => false,
            (_, Some(1.0)) => true,
            _ => {
                return Err(RowProblem::Unsupported(format!(
                    "`{}` is neither 0 nor 1: a turn is learnt whole or not at all",
                    turn.path(key)
                )));
            }
        };
        if let Some((other, before)) = said.replace((key, learnt))
            && before != learnt
        {
            return Err(RowProblem::Unsupported(format!(
                "`{}` and `{}` disagree; keep one",
                turn.path(other),
                turn.path(key)
            )));
        }
    }
    match (role, said) {
        (Role::Assistant, said) => Ok(said.is_none_or(|(_, learnt)| learnt)),
        (_, Some((key, true))) => Err(RowProblem::Unsupported(format!(
            "`{}` asks for a turn to be learnt that is not the assistant's; remove it, or learn every \
             token with `data.train_on_inputs: true`",
            turn.path(key)
        ))),
        (_, _) => Ok(false),
    }
}

/// Why a field of a turn is refused, and the way out; `holds` says what a turn is made of.
pub(super) fn why(key: &str, holds: &'static str) -> &'static str {
    match key {
        "loss_mask" | "mask" | "train_detail" | "training_detail" | "weights" => {
            "write `\"weight\": 0` into a turn of the assistant that is not to be learnt"
        }
        "function_call" => "write the call as `tool_calls`",
        "reasoning" | "reasoning_content" | "thinking" => {
            "the template has no place for it; put it into the text of the turn, or remove it"
        }
        _ => holds,
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
        insta::assert_snapshot!(refused(r#", "train": true"#, ""), @"`messages[0].train` asks for a turn to be learnt that is not the assistant's; remove it, or learn every token with `data.train_on_inputs: true`");
        insta::assert_snapshot!(refused("", r#", "loss_mask": 0"#), @r#"`messages[1].loss_mask` is not supported: write `"weight": 0` into a turn of the assistant that is not to be learnt"#);
    }
}
