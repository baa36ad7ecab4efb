//! Tool definitions and tool calls, as the OpenAI API and LLaMA-Factory write them.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::fields::{Object, as_text, wrong_type};
use crate::conversation::{Content, Conversation, Message};
use crate::error::RowProblem;
use crate::formats::json;
use crate::python_text::strip;
use crate::shown::shown;
use crate::written;

/// The turns with whatever else the row says: tools, and a system prompt beside them.
pub(super) fn conversation(
    row: &Object<'_>,
    messages: Vec<Message>,
) -> Result<Conversation, RowProblem> {
    let tools_in_user_message = match row.optional("tools_in_user_message") {
        None => None,
        Some(Value::Bool(place)) => Some(*place),
        Some(other) => {
            let field = "tools_in_user_message".to_owned();
            return Err(wrong_type(field, "true or false", other));
        }
    };
    let (tools, builtin_tools) = (definitions(row)?, builtin(row)?);
    let conversation = Conversation { messages, tools, builtin_tools, tools_in_user_message };
    let system = row.optional_text("system")?.filter(|text| !strip(text).is_empty());
    match (system, conversation.system()) {
        (Some(field), Some(turn)) if strip(field) != strip(turn) => {
            Err(RowProblem::Unsupported(
                "`system` is given twice, as a field and as the first turn, and they differ; keep one, \
                 or leave the field out by `ignore_columns: [system]`"
                    .to_owned(),
            ))
        }
        (Some(field), _) => Ok(conversation.with_system_prompt(field)),
        (None, _) => Ok(conversation),
    }
}

/// The row's `builtin_tools`, a list of names. An empty list means none.
fn builtin(row: &Object<'_>) -> Result<Vec<String>, RowProblem> {
    let list = match row.optional("builtin_tools") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(other) => {
            return Err(wrong_type("builtin_tools".to_owned(), "a list of names", other));
        }
    };
    let name = |(index, value): (usize, &Value)| {
        as_text(value, || format!("builtin_tools[{index}]")).map(str::to_owned)
    };
    list.iter().enumerate().map(name).collect()
}

/// The row's `tools`: a list, or a text that holds a JSON list. An empty list means none.
fn definitions(row: &Object<'_>) -> Result<Vec<Value>, RowProblem> {
    let Some(value) = row.optional("tools") else { return Ok(Vec::new()) };
    let value = match value {
        Value::String(text) if text.trim().is_empty() => return Ok(Vec::new()),
        Value::String(text) => Cow::Owned(parse(text, "tools")?),
        other => Cow::Borrowed(other),
    };
    match value.into_owned() {
        Value::Array(tools) => {
            for (index, tool) in tools.iter().enumerate() {
                Object::inside(tool, format!("tools[{index}]"))?;
            }
            Ok(tools)
        }
        other => Err(wrong_type("tools".to_owned(), "a list of tool definitions", &other)),
    }
}

/// A turn's `tool_calls`; `None` where there are none.
pub(super) fn call(turn: &Object<'_>) -> Result<Option<Content>, RowProblem> {
    let path = turn.path("tool_calls");
    let calls = match turn.optional("tool_calls") {
        None => return Ok(None),
        Some(Value::Array(calls)) => calls,
        Some(other) => return Err(wrong_type(path, "a list", other)),
    };
    match &calls[..] {
        [] => Ok(None),
        [one] => {
            let one = Object::inside(one, format!("{path}[0]"))?;
            let known = ["id", "type", "index", "function"];
            one.only(&known, |_| "a tool call holds `id`, `type` and `function`".to_owned())?;
            if let Some(kind) = one.optional_text("type")?.filter(|kind| *kind != "function") {
                return Err(RowProblem::Unsupported(format!(
                    "`{}` is {:?}: only functions can be called",
                    one.path("type"),
                    shown(kind)
                )));
            }
            let function = Object::inside(one.required("function")?, one.path("function"))?;
            let holds = |_: &str| "a function holds `name` and `arguments`".to_owned();
            function.only(&["name", "arguments"], holds)?;
            named_call(&function).map(Some)
        }
        more => Err(RowProblem::Unsupported(format!(
            "`{path}` holds {} calls: Llama 3.1's template supports one call a turn; split the turn",
            more.len()
        ))),
    }
}

/// The `id` of a turn's only call.
pub(super) fn id<'a>(turn: &Object<'a>) -> Result<Option<&'a str>, RowProblem> {
    let path = turn.path("tool_calls");
    match turn.optional("tool_calls") {
        Some(Value::Array(calls)) if !calls.is_empty() => {
            Object::inside(&calls[0], format!("{path}[0]"))?.optional_text("id")
        }
        _ => Ok(None),
    }
}

/// A text that holds `{"name": …, "arguments": …}`.
pub(super) fn call_in_text(text: &str, path: String) -> Result<Content, RowProblem> {
    let value = parse(text, &path)?;
    let object = Object::inside(&value, path)?;
    object.only(&["name", "arguments"], |_| "a call holds `name` and `arguments`".to_owned())?;
    named_call(&object)
}

fn named_call(function: &Object<'_>) -> Result<Content, RowProblem> {
    let name = function.text("name")?.to_owned();
    let arguments = arguments(function)?;
    Ok(Content::ToolCall { name, arguments })
}

/// `arguments` as an object, or as a text that holds one (as the OpenAI API sends them).
fn arguments(function: &Object<'_>) -> Result<Map<String, Value>, RowProblem> {
    let path = function.path("arguments");
    let value = match function.required("arguments")? {
        Value::String(text) => Cow::Owned(parse(text, &path)?),
        other => Cow::Borrowed(other),
    };
    match value.into_owned() {
        Value::Object(map) if written::text_in(&map).is_none() => Ok(map),
        other => Err(wrong_type(path, "an object, or a text that holds one as JSON", &other)),
    }
}

/// JSON in a text; what is wrong with it is said with the path of both.
fn parse(text: &str, path: &str) -> Result<Value, RowProblem> {
    let inside = |field: String| {
        if field.starts_with('[') { format!("{path}{field}") } else { format!("{path}.{field}") }
    };
    json::read(text).map_err(|problem| match problem {
        RowProblem::Json { line, column, message } => RowProblem::Unsupported(format!(
            "`{path}` is a text that does not hold JSON: {message} at line {line} column {column}"
        )),
        RowProblem::Twice { field } => RowProblem::Twice { field: inside(field) },
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use crate::formats::{Format, Row};

    fn read(rest: &str) -> Result<(Vec<String>, Option<bool>), String> {
        let turns = r#"{"role": "user", "content": "hi"}"#;
        match Format::Messages.parse_row(&format!(r#"{{"messages": [{turns}]{rest}}}"#)) {
            Ok(Row::Conversation(row)) => Ok((row.builtin_tools, row.tools_in_user_message)),
            Ok(other) => panic!("{other:?} is no conversation"),
            Err(problem) => Err(problem.to_string()),
        }
    }

    #[test]
    fn builtin_tools_and_the_place_of_definitions_are_read() {
        let row = r#", "builtin_tools": ["brave_search"], "tools_in_user_message": false"#;
        assert_eq!(read(row), Ok((vec!["brave_search".to_owned()], Some(false))));
        for none in ["", r#", "builtin_tools": null"#, r#", "builtin_tools": []"#] {
            assert_eq!(read(none), Ok((Vec::new(), None)));
        }
    }

    #[test]
    fn what_is_no_list_of_names_is_refused() {
        insta::assert_snapshot!(read(r#", "builtin_tools": "brave_search""#).unwrap_err(), @"`builtin_tools` must be a list of names, found a text");
        insta::assert_snapshot!(read(r#", "builtin_tools": [1]"#).unwrap_err(), @"`builtin_tools[0]` must be a text, found the number 1");
        insta::assert_snapshot!(read(r#", "tools_in_user_message": "no""#).unwrap_err(), @"`tools_in_user_message` must be true or false, found a text");
    }
}
