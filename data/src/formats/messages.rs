//! `{"messages":[{"role","content"}],"tools":[…]}`, the OpenAI API's shape.

use serde_json::Value;

use super::fields::{Object, UNSUPPORTED_IN_ROWS, UNSUPPORTED_WHY, as_text, element, wrong_type};
use super::tools;
use crate::conversation::{Content, Conversation, Message, Role};
use crate::error::RowProblem;

const ROLES: &str = "system, user, assistant, tool, ipython";

pub(super) fn parse(row: &Object<'_>) -> Result<Conversation, RowProblem> {
    row.refuse(&UNSUPPORTED_IN_ROWS, UNSUPPORTED_WHY)?;
    row.refuse(&["functions"], "write the definitions as `tools`")?;
    let list = row.list("messages")?;
    let messages = (0..list.len())
        .map(|index| message(&element(list, index, "messages")?))
        .collect::<Result<_, _>>()?;
    tools::conversation(row, messages)
}

fn message(turn: &Object<'_>) -> Result<Message, RowProblem> {
    // The template reads none of the last three: they only tie a result to its call.
    let known = ["role", "content", "tool_calls", "name", "id", "tool_call_id"];
    turn.only(&known, "a turn holds `role`, `content` and `tool_calls`")?;
    let role = match turn.text("role")? {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" | "ipython" => Role::Tool,
        other => {
            let (field, found) = (turn.path("role"), other.to_owned());
            return Err(RowProblem::UnknownRole { field, found, expected: ROLES });
        }
    };
    let content = match (role, tools::call(turn)?) {
        (Role::Assistant, Some(call)) => {
            let why = "Llama 3.1's template renders a turn with `tool_calls` without its content; \
                       keep one of the two";
            turn.refuse(&["content"], why)?;
            call
        }
        (_, Some(_)) => {
            return Err(RowProblem::Unsupported(format!(
                "`{}` stands in a turn that is not the assistant's",
                turn.path("tool_calls")
            )));
        }
        (Role::Tool, None) => Content::ToolResult(result(turn)?),
        (_, None) => {
            let content = turn.required("content")?;
            Content::Text(as_text(content, || turn.path("content"))?.to_owned())
        }
    };
    Ok(Message { role, content })
}

fn result(turn: &Object<'_>) -> Result<Value, RowProblem> {
    match turn.required("content")? {
        value @ (Value::String(_) | Value::Object(_) | Value::Array(_)) => Ok(value.clone()),
        other => Err(wrong_type(turn.path("content"), "a text, an object or a list", other)),
    }
}

#[cfg(test)]
mod tests {
    use crate::conversation::{Content, Role};
    use crate::formats::{Format, Row};

    fn problem(line: &str) -> String {
        Format::Messages.parse_row(line).unwrap_err().to_string()
    }

    #[test]
    fn turns_calls_and_results_are_read_in_order() {
        let line = r#"{"messages": [{"role": "user", "content": "hi", "name": "Ana"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",
              "function": {"name": "fee", "arguments": "{\"b\": 1, \"a\": 2}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": {"eur": 12}}],
            "tools": "[{\"type\": \"function\"}]", "id": 7}"#;
        let Row::Conversation(conversation) = Format::Messages.parse_row(line).unwrap() else {
            panic!("a conversation")
        };
        let roles: Vec<Role> = conversation.messages.iter().map(|m| m.role).collect();
        assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool]);
        let Content::ToolCall { name, arguments } = &conversation.messages[1].content else {
            panic!("a call")
        };
        assert_eq!(
            (name.as_str(), arguments.keys().map(String::as_str).collect::<Vec<_>>()),
            ("fee", vec!["b", "a"])
        );
        assert_eq!(conversation.tools.len(), 1);
    }

    #[test]
    fn what_would_be_dropped_is_refused_by_name() {
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "bot", "content": "a"}]}"#), @r#"`messages[0].role` is the unknown role "bot", expected one of: system, user, assistant, tool, ipython"#);
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "user", "content": null}]}"#), @"`messages[0].content` must be a text, found null");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "user", "content": [{"type": "text"}]}]}"#), @"`messages[0].content` must be a text, found a list");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "assistant", "content": "a", "weight": 0}]}"#), @"`messages[0].weight` is not supported: a turn holds `role`, `content` and `tool_calls`");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "user"}]}"#), @"`messages[0].content` is missing (found: role)");
        insta::assert_snapshot!(problem(r#"{"messages": []}"#), @"`messages` is empty");
        insta::assert_snapshot!(problem(r#"{"messages": ["a"]}"#), @"`messages[0]` must be an object, found a text");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "assistant", "content": "a", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}]}"#), @"`messages[0].content` is not supported: Llama 3.1's template renders a turn with `tool_calls` without its content; keep one of the two");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "assistant", "tool_calls": [1, 2]}]}"#), @"`messages[0].tool_calls` holds 2 calls: Llama 3.1's template supports one call a turn; split the turn");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "user", "content": "a"}], "images": ["x.png"]}"#), @"`images` is not supported: a row trained without it would mean something else; remove the field if that is what you want");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "no"}}]}]}"#), @"`messages[0].tool_calls[0].function.arguments` is a text that does not hold JSON: expected ident at line 1 column 2");
    }
}
