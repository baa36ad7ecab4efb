//! `{"conversations":[{"from","value"}]}`, ShareGPT's shape with LLaMA-Factory's additions
//! (`system`, `tools`, `function_call` and `observation` turns).

use serde_json::Value;

use super::fields::{Object, element};
use super::{RowForm, TurnForm, learnt, tools};
use crate::conversation::{Content, Conversation, Message, Role};
use crate::error::RowProblem;
use crate::formats::Row;

const ROLES: &str = "system, human, user, gpt, assistant, function_call, observation, tool";

pub(super) static FORM: RowForm = RowForm {
    name: "sharegpt",
    fields: &["conversations", "system", "tools", "builtin_tools", "tools_in_user_message"],
    lists: &["conversations", "tools", "builtin_tools"],
    expected: "`conversations`",
    turns: Some(TurnForm {
        list: "conversations",
        role: "from",
        fields: &["from", "value", "weight"],
        words: &[
            ("system", "system"),
            ("user", "human"),
            ("assistant", "gpt"),
            ("tool", "observation"),
            ("function_call", "function_call"),
        ],
    }),
    of_text: false,
    learnt: "",
    example: r#"{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}"#,
    read: |row| parse(row).map(Row::Conversation),
};

fn parse(row: &Object<'_>) -> Result<Conversation, RowProblem> {
    let list = row.list("conversations")?;
    let messages = (0..list.len())
        .map(|index| message(&element(list, index, "conversations")?))
        .collect::<Result<_, _>>()?;
    tools::conversation(row, messages)
}

fn message(turn: &Object<'_>) -> Result<Message, RowProblem> {
    let known = [&["from", "value"], &learnt::KEYS[..]].concat();
    let holds = "a turn holds `from` and `value`, and may have `weight`";
    turn.only(&known, |key| learnt::why(key, holds, "conversations"))?;
    let (from, value) = (turn.text("from")?, turn.text("value")?);
    let role = match from {
        "system" => Role::System,
        "human" | "user" => Role::User,
        "gpt" | "assistant" | "function_call" => Role::Assistant,
        "observation" | "tool" => Role::Tool,
        other => {
            let (field, found) = (turn.path("from"), other.chars().take(60).collect());
            return Err(RowProblem::UnknownRole { field, found, expected: ROLES });
        }
    };
    let content = match role {
        Role::Tool => Content::ToolResult(Value::String(value.to_owned())),
        Role::Assistant if from == "function_call" => {
            tools::call_in_text(value, turn.path("value"))?
        }
        _ => Content::Text(value.to_owned()),
    };
    let mark = learnt::of_turn(turn)?;
    Ok(Message { role, content, learnt: role == Role::Assistant && mark != Some(false), mark })
}

#[cfg(test)]
mod tests {
    use crate::conversation::{Content, Role};
    use crate::formats::{Format, Row};

    #[test]
    fn speakers_map_to_roles_and_the_system_field_comes_first() {
        let line = r#"{"system": "Be brief.", "conversations": [{"from": "human", "value": "hi"},
            {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"a\": 1}}"},
            {"from": "observation", "value": "12"}, {"from": "gpt", "value": "twelve"}]}"#;
        let Row::Conversation(conversation) = Format::ShareGpt.parse_row(line).unwrap() else {
            panic!("a conversation")
        };
        let roles: Vec<Role> = conversation.messages.iter().map(|m| m.role).collect();
        assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::Tool, Role::Assistant]);
        assert!(
            matches!(&conversation.messages[2].content, Content::ToolCall { name, .. } if name == "f")
        );
    }

    #[test]
    fn unknown_speakers_and_fields_are_named() {
        let problem = |line| Format::ShareGpt.parse_row(line).unwrap_err().to_string();
        insta::assert_snapshot!(problem(r#"{"conversations": [{"from": "narrator", "value": ""}]}"#), @r#"`conversations[0].from` is the unknown role "narrator", expected one of: system, human, user, gpt, assistant, function_call, observation, tool; say whose it is by `roles: {user: [WORD]}` beside the source's `path`"#);
        insta::assert_snapshot!(problem(r#"{"conversations": [{"from": "gpt", "value": "", "emotion": "glad"}]}"#), @"`conversations[0].emotion` is not supported: a turn holds `from` and `value`, and may have `weight`; name another by `turn_fields`, or leave it out by `ignore_columns: [conversations.emotion]`, if nothing is to be learnt from it");
        insta::assert_snapshot!(problem(r#"{"conversations": [{"from": "function_call", "value": "f(1)"}]}"#), @"`conversations[0].value` is a text that does not hold JSON: expected ident at line 1 column 2");
    }
}
