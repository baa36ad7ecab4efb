//! `{"messages":[{"role","content"}],"tools":[…]}`, the OpenAI API's shape.

use serde_json::Value;

use super::fields::{Object, as_text, element, wrong_type};
use super::{RowForm, TurnForm, learnt, tools};
use crate::conversation::{Content, Conversation, Message, Role};
use crate::error::RowProblem;
use crate::formats::Row;
use crate::shown::shown;

const ROLES: &str = "system, user, assistant, tool, ipython";

pub(super) static FORM: RowForm = RowForm {
    name: "messages",
    fields: &["messages", "system", "tools", "builtin_tools", "tools_in_user_message"],
    lists: &["messages", "tools", "builtin_tools"],
    expected: "`messages`",
    turns: Some(TurnForm {
        list: "messages",
        role: "role",
        fields: &["role", "content", "tool_calls", "name", "tool_call_id", "weight"],
        words: &[
            ("system", "system"),
            ("user", "user"),
            ("assistant", "assistant"),
            ("tool", "tool"),
        ],
    }),
    of_text: false,
    learnt: "",
    example: r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#,
    read: |row| parse(row).map(Row::Conversation),
};

fn parse(row: &Object<'_>) -> Result<Conversation, RowProblem> {
    let list = row.list("messages")?;
    let (mut messages, mut calls) = (Vec::with_capacity(list.len()), Vec::new());
    for index in 0..list.len() {
        let turn = element(list, index, "messages")?;
        let message = message(&turn)?;
        check_ties(&turn, &message, &mut calls)?;
        messages.push(message);
    }
    tools::conversation(row, messages)
}

/// A call that a result may belong to.
struct Call {
    id: Option<String>,
    name: String,
}

/// The template writes neither names nor ids: a result follows its call. So they are held against
/// the calls before, and a name that says something else is refused.
fn check_ties(
    turn: &Object<'_>,
    message: &Message,
    calls: &mut Vec<Call>,
) -> Result<(), RowProblem> {
    if let Content::ToolCall { name, .. } = &message.content {
        let id = tools::id(turn)?.map(str::to_owned);
        calls.push(Call { id, name: name.clone() });
    }
    for key in ["name", "tool_call_id"] {
        let Some(said) = turn.optional_text(key)?.filter(|said| !said.is_empty()) else { continue };
        let fits = |call: &Call| match key {
            "name" => call.name == said,
            _ => call.id.as_deref().is_none_or(|id| id == said),
        };
        let problem = if message.role != Role::Tool {
            "stands in a turn that is no tool's, and the template has no place for it; put it into \
             `content`, or remove it"
                .to_owned()
        } else if calls.is_empty() {
            format!("is {:?}, but no call stands before this result; remove it", shown(said))
        } else if !calls.iter().any(fits) {
            format!(
                "is {:?}, which no call before this result is; mend one of the two",
                shown(said)
            )
        } else {
            continue;
        };
        return Err(RowProblem::Unsupported(format!("`{}` {problem}", turn.path(key))));
    }
    Ok(())
}

fn message(turn: &Object<'_>) -> Result<Message, RowProblem> {
    // An `id` names the turn for people.
    let own = ["role", "content", "tool_calls", "name", "id", "tool_call_id"];
    let known = [&own[..], &learnt::KEYS].concat();
    let holds = "a turn holds `role`, `content` and `tool_calls`, and may have `weight`";
    turn.only(&known, |key| learnt::why(key, holds, "messages"))?;
    let role = match turn.text("role")? {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" | "ipython" => Role::Tool,
        other => {
            let (field, found) = (turn.path("role"), other.chars().take(60).collect());
            return Err(RowProblem::UnknownRole { field, found, expected: ROLES });
        }
    };
    let content = match (role, tools::call(turn)?) {
        (Role::Assistant, Some(call)) => {
            let why = "Llama 3.1's template renders a turn with `tool_calls` without its content; \
                       keep one of the two";
            if turn.optional_text("content")?.is_some_and(|text| !text.is_empty()) {
                let content = turn.path("content");
                return Err(RowProblem::Unsupported(format!(
                    "`{content}` is not supported: {why}"
                )));
            }
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
    let mark = learnt::of_turn(turn)?;
    Ok(Message { role, content, learnt: role == Role::Assistant && mark != Some(false), mark })
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
        let line = r#"{"messages": [{"role": "user", "content": "hi"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",
              "function": {"name": "fee", "arguments": "{\"b\": 1, \"a\": 2}"}}]},
            {"role": "tool", "tool_call_id": "1", "name": "fee", "content": {"eur": 12}}],
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
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "bot", "content": "a"}]}"#), @r#"`messages[0].role` is the unknown role "bot", expected one of: system, user, assistant, tool, ipython; say whose it is by `roles: {user: [WORD]}` beside the source's `path`"#);
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "user", "content": null}]}"#), @"`messages[0].content` must be a text, found null");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "user", "content": [{"type": "text"}]}]}"#), @"`messages[0].content` must be a text, found a list");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "assistant", "content": "a", "weights": 0}]}"#), @r#"`messages[0].weights` is not supported: write `"weight": 0` into a turn that is not to be learnt"#);
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "assistant", "content": "a", "emotion": 1}]}"#), @"`messages[0].emotion` is not supported: a turn holds `role`, `content` and `tool_calls`, and may have `weight`; name another by `turn_fields`, or leave it out by `ignore_columns: [messages.emotion]`, if nothing is to be learnt from it");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "assistant", "content": "a", "reasoning_content": "because"}]}"#), @"`messages[0].reasoning_content` is not supported: the template has no place for it; put it into the text of the turn, or remove it");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "user", "content": "a", "name": "Ana"}]}"#), @"`messages[0].name` stands in a turn that is no tool's, and the template has no place for it; put it into `content`, or remove it");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "tool", "content": "a", "name": "fee"}]}"#), @r#"`messages[0].name` is "fee", but no call stands before this result; remove it"#);
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "fee", "arguments": {}}}]}, {"role": "tool", "content": "a", "tool_call_id": "2"}]}"#), @r#"`messages[1].tool_call_id` is "2", which no call before this result is; mend one of the two"#);
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "user", "content": "a"}], "functions": [{"name": "f"}]}"#), @"`functions` is not supported: write the definitions as `tools`");
        insta::assert_snapshot!(problem(r#"{"system": "s", "messages": [{"role": "system", "content": "a"}]}"#), @"`system` is given twice, as a field and as the first turn, and they differ; keep one, or leave the field out by `ignore_columns: [system]`");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{\"n\": 1, \"n\": 2}"}}]}]}"#), @"`messages[0].tool_calls[0].function.arguments.n` stands twice; keep one of the two");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "user"}]}"#), @"`messages[0].content` is missing (found: role)");
        insta::assert_snapshot!(problem(r#"{"messages": []}"#), @"`messages` is empty");
        insta::assert_snapshot!(problem(r#"{"messages": ["a"]}"#), @"`messages[0]` must be an object, found a text");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "assistant", "content": "a", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}]}"#), @"`messages[0].content` is not supported: Llama 3.1's template renders a turn with `tool_calls` without its content; keep one of the two");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "assistant", "tool_calls": [1, 2]}]}"#), @"`messages[0].tool_calls` holds 2 calls: Llama 3.1's template supports one call a turn; split the turn");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "user", "content": "a"}], "images": ["x.png"]}"#), @"`images` is not supported: a row trained without it would mean something else; remove the field if that is what you want");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "no"}}]}]}"#), @"`messages[0].tool_calls[0].function.arguments` is a text that does not hold JSON: expected ident at line 1 column 2");
    }
}
