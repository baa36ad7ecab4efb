//! What a field of a row means beside those that its form is made of: a note about the row, or
//! something that would be lost, which is refused by name.

use serde_json::Value;

use super::fields::{Object, is_empty};
use super::{RowForm, learnt};
use crate::error::RowProblem;
use crate::formats::notes::is_note;
use crate::shown::shown;

/// Fields that ask for single turns or rows to be learnt or not.
const MASKS: [&str; 11] = [
    "loss",
    "loss_mask",
    "mask",
    "sample_weight",
    "train",
    "train_detail",
    "training",
    "training_detail",
    "train_on_input",
    "weight",
    "weights",
];

/// Fields of pictures and the like.
const MEDIA: [&str; 7] = ["audio", "audios", "documents", "image", "images", "video", "videos"];

/// Fields of preference data.
const PREFERENCES: [&str; 4] = ["chosen", "margin", "ranking", "rejected"];

/// Whether a field asks for something to be learnt or not.
pub(super) fn is_mask(key: &str) -> bool {
    MASKS.contains(&key)
}

/// The notes among a row's fields, where every other field is one that the form is made of.
pub(super) fn notes(row: &Object<'_>, form: &RowForm) -> Result<Vec<String>, RowProblem> {
    let mut notes = Vec::new();
    for (key, value) in row.fields() {
        let is_read =
            form.fields.contains(&key.as_str()) || learnt::KEYS_OF_ROWS.contains(&key.as_str());
        if is_read || value.is_null() || is_empty(value) {
            continue;
        }
        if is_note(key) {
            notes.push(key.clone());
        } else if !asks_for_what_is(key, value) {
            let why = why(key, form);
            let key = row.path(key);
            return Err(RowProblem::Unsupported(format!("`{key}` is not supported: {why}")));
        }
    }
    Ok(notes)
}

/// Whether the field asks for what is done anyway: one call a turn.
fn asks_for_what_is(key: &str, value: &Value) -> bool {
    match key {
        "parallel_tool_calls" => value.as_bool() == Some(false),
        _ => false,
    }
}

/// Why a field at the top of a row is refused, and the way out.
fn why(key: &str, form: &RowForm) -> String {
    let RowForm { name, fields, turns, .. } = *form;
    let of_turns = turns.is_some();
    match key {
        _ if MASKS.contains(&key) && of_turns => {
            "write `\"weight\": 0` into the row, or into those turns of it that are not to be learnt"
                .to_owned()
        }
        _ if MASKS.contains(&key) => {
            "write `\"weight\": 0` into rows that are not to be learnt".to_owned()
        }
        _ if PREFERENCES.contains(&key) => {
            "there is no preference training; keep the answer that is to be learnt, and remove the \
             field"
                .to_owned()
        }
        _ if MEDIA.contains(&key) => {
            "a row trained without it would mean something else; remove the field if that is what \
             you want"
                .to_owned()
        }
        "functions" if of_turns => "write the definitions as `tools`".to_owned(),
        "function_call" if of_turns => {
            "write the call as `tool_calls` into the assistant's turn".to_owned()
        }
        "parallel_tool_calls" => "a turn holds one call; write `false`, or remove it".to_owned(),
        "tools" | "builtin_tools" | "functions" => {
            "use `format: messages` or `format: sharegpt` for tools".to_owned()
        }
        "system_prompt" if fields.contains(&"system") => "write it as `system`".to_owned(),
        "system" | "system_prompt" => {
            format!("rows of `format: {name}` have no system turn; write it into the text")
        }
        "history" => format!(
            "only `format: alpaca` has it; write its turns as turns of `format: {}`",
            if of_turns { name } else { "messages" }
        ),
        _ => format!(
            "`format: {name}` is made of {}, and this is no known note about a row; leave it out by \
             `ignore_columns: [{}]`, or begin its name with `_`, if nothing is to be learnt from it",
            listed(fields),
            shown(key)
        ),
    }
}

/// `a`, `b` and `c`.
fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [first @ .., last] => format!("`{}` and `{last}`", first.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::notes::NOTES;
    use crate::formats::{Format, json};

    /// An example of every form, without its braces.
    fn rows() -> impl Iterator<Item = (Format, &'static str)> {
        Format::ALL.into_iter().map(|format| {
            let example = format.example();
            (format, &example[1..example.len() - 1])
        })
    }

    fn read(format: Format, row: &str, more: &str) -> Result<Vec<String>, String> {
        let value = json::read(&format!("{{{row}{more}}}"));
        let parsed = value.and_then(|value| format.form().read(&value));
        parsed.map(|parsed| parsed.notes).map_err(|problem| problem.to_string())
    }

    #[test]
    fn every_field_beside_a_rows_own_is_a_note_or_refused_by_its_name() {
        let lost: Vec<&str> = [
            "functions",
            "function_call",
            "history",
            "system_prompt",
            "prompt",
            "completion",
            "messages",
            "conversations",
            "instruction",
            "input",
            "output",
            "response",
            "question",
            "answer",
            "text",
            "tools",
            "builtin_tools",
            "tools_in_user_message",
            "system",
            "context",
            "thinking",
            "whatever",
            "parallel_tool_calls",
        ]
        .into_iter()
        .chain(MASKS)
        .chain(MEDIA)
        .chain(PREFERENCES)
        .collect();
        for (format, row) in rows() {
            for key in &lost {
                if format.form().fields.contains(key) {
                    continue;
                }
                let refused = read(format, row, &format!(r#", "{key}": "x""#)).unwrap_err();
                let is_mark = learnt::KEYS_OF_ROWS.contains(key);
                let why = if is_mark { "neither 0 nor 1" } else { "not supported" };
                let is_said = format!("`{key}` is {why}: ");
                assert!(refused.starts_with(&is_said), "{format}: {refused}");
                // What says nothing loses nothing.
                for nothing in ["null", "\"\"", "[]", "{}"] {
                    assert_eq!(
                        read(format, row, &format!(r#", "{key}": {nothing}"#)),
                        Ok(Vec::new())
                    );
                }
            }
            for note in NOTES.into_iter().chain(["_mine"]) {
                let found =
                    read(format, row, &format!(r#", "{note}": {{"a": 99999999999999999999999}}"#));
                assert_eq!(found, Ok(vec![note.to_owned()]), "{format}");
            }
            for same in [
                r#""weight": 1"#,
                r#""weight": 0"#,
                r#""train": true"#,
                r#""parallel_tool_calls": false"#,
            ] {
                assert_eq!(read(format, row, &format!(", {same}")), Ok(Vec::new()), "{format}");
            }
        }
    }

    #[test]
    fn the_way_out_is_said() {
        let refused = |place: usize, more: &str| {
            let (format, row) = rows().nth(place).unwrap();
            read(format, row, more).unwrap_err()
        };
        insta::assert_snapshot!(refused(0, r#", "loss_mask": 0"#), @r#"`loss_mask` is not supported: write `"weight": 0` into the row, or into those turns of it that are not to be learnt"#);
        insta::assert_snapshot!(refused(2, r#", "loss_mask": 0"#), @r#"`loss_mask` is not supported: write `"weight": 0` into rows that are not to be learnt"#);
        insta::assert_snapshot!(refused(2, r#", "weight": 0.5"#), @"`weight` is neither 0 nor 1: a row is learnt whole or not at all");
        insta::assert_snapshot!(refused(0, r#", "functions": [{}]"#.replace("{}", "1").as_str()), @"`functions` is not supported: write the definitions as `tools`");
        insta::assert_snapshot!(refused(0, r#", "prompt": "again""#), @r#"`prompt` is not supported: `format: messages` is made of `messages`, `system`, `tools`, `builtin_tools` and `tools_in_user_message`, and this is no known note about a row; leave it out by `ignore_columns: [prompt]`, or begin its name with `_`, if nothing is to be learnt from it"#);
        insta::assert_snapshot!(refused(1, r#", "history": [1]"#), @"`history` is not supported: only `format: alpaca` has it; write its turns as turns of `format: sharegpt`");
        insta::assert_snapshot!(refused(3, r#", "system": "Be brief.""#), @"`system` is not supported: rows of `format: completion` have no system turn; write it into the text");
        insta::assert_snapshot!(refused(4, r#", "rejected": "b""#), @"`rejected` is not supported: there is no preference training; keep the answer that is to be learnt, and remove the field");
        insta::assert_snapshot!(refused(4, r#", "\u001b[2J": 1"#), @r#"`\u{1b}[2J` is not supported: `format: text` is made of `text`, and this is no known note about a row; leave it out by `ignore_columns: [\u{1b}[2J]`, or begin its name with `_`, if nothing is to be learnt from it"#);
    }
}
