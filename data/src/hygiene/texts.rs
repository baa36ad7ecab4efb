//! Every text of a row, to be looked at or changed: turns, arguments and results of tools, and their
//! definitions. A number of a tool's arguments is looked at as it is written, and becomes a text where it
//! is changed.

use serde_json::{Map, Value};

use crate::conversation::{Content, Conversation, Message};
use crate::formats::Row;
use crate::written;

/// Digits from which on a number may stand for somebody.
const FEWEST_DIGITS: usize = 7;

/// Shows every text of the row to `see`.
pub(super) fn each(row: &Row, see: &mut impl FnMut(&str)) {
    match row {
        Row::Text(text) => see(text),
        Row::Completion { prompt, completion } => {
            see(prompt);
            see(completion);
        }
        Row::Conversation(conversation) => {
            for Message { content, .. } in &conversation.messages {
                match content {
                    Content::Text(text) => see(text),
                    Content::ToolCall { name: _, arguments } => each_of_map(arguments, see),
                    Content::ToolResult(value) => each_of_value(value, see),
                }
            }
            for tool in &conversation.tools {
                each_of_value(tool, see);
            }
        }
    }
}

fn each_of_map(map: &Map<String, Value>, see: &mut impl FnMut(&str)) {
    for (key, value) in map {
        see(key);
        each_of_value(value, see);
    }
}

// Depth is bounded by the JSON parser.
fn each_of_value(value: &Value, see: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => see(text),
        Value::Number(number) => {
            let digits = number.to_string();
            if digits.len() >= FEWEST_DIGITS {
                see(&digits);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| each_of_value(item, see)),
        Value::Object(map) => match written::text_in(map) {
            Some(number) if number.len() < FEWEST_DIGITS => {}
            Some(number) => see(number),
            None => each_of_map(map, see),
        },
        Value::Null | Value::Bool(_) => {}
    }
}

/// Changes every text of the row for which `other` has another.
pub(super) fn change(row: &mut Row, other: &mut impl FnMut(&str) -> Option<String>) {
    match row {
        Row::Text(text) => change_text(text, other),
        Row::Completion { prompt, completion } => {
            change_text(prompt, other);
            change_text(completion, other);
        }
        Row::Conversation(Conversation { messages, tools, .. }) => {
            for Message { content, .. } in messages {
                match content {
                    Content::Text(text) => change_text(text, other),
                    Content::ToolCall { name: _, arguments } => change_map(arguments, other),
                    Content::ToolResult(value) => change_value(value, other),
                }
            }
            for tool in tools {
                change_value(tool, other);
            }
        }
    }
}

fn change_text(text: &mut String, other: &mut impl FnMut(&str) -> Option<String>) {
    if let Some(changed) = other(text) {
        *text = changed;
    }
}

fn change_map(map: &mut Map<String, Value>, other: &mut impl FnMut(&str) -> Option<String>) {
    let entries = std::mem::take(map).into_iter();
    *map = entries
        .map(|(mut key, mut value)| {
            change_text(&mut key, other);
            change_value(&mut value, other);
            (key, value)
        })
        .collect();
}

fn change_value(value: &mut Value, other: &mut impl FnMut(&str) -> Option<String>) {
    match value {
        Value::String(text) => change_text(text, other),
        Value::Number(number) => {
            let digits = number.to_string();
            if digits.len() >= FEWEST_DIGITS
                && let Some(changed) = other(&digits)
            {
                *value = Value::String(changed);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| change_value(item, other)),
        Value::Object(map) => match written::text_in(map).map(str::to_owned) {
            Some(number) => {
                if number.len() >= FEWEST_DIGITS
                    && let Some(changed) = other(&number)
                {
                    *value = Value::String(changed);
                }
            }
            None => change_map(map, other),
        },
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Format;

    #[test]
    fn what_is_seen_is_what_can_be_changed() {
        let chat = r#"{"messages": [{"role": "system", "content": "t1"}, {"role": "user", "content": "t2"},
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"t3": ["t4", 12345678, 7, true]}}}]},
            {"role": "tool", "content": "t5"}, {"role": "assistant", "content": "t6"}],
            "tools": [{"t7": {"description": "t8"}}]}"#;
        for (format, text) in [
            (Format::Messages, chat),
            (Format::Completion, r#"{"prompt": "t1", "completion": "t2"}"#),
            (Format::Text, r#"{"text": "t1"}"#),
        ] {
            let mut row = format.parse_row(text).unwrap();
            let mut seen = Vec::new();
            each(&row, &mut |text| seen.push(text.to_owned()));
            assert!((1..=seen.len().min(8)).all(|t| seen.contains(&format!("t{t}"))), "{seen:?}");
            change(&mut row, &mut |text| Some(format!("<{text}>")));
            let mut changed = Vec::new();
            each(&row, &mut |text| changed.push(text.to_owned()));
            let expected: Vec<String> = seen.iter().map(|text| format!("<{text}>")).collect();
            assert_eq!(changed, expected);
        }
    }
}
