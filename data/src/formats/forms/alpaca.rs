//! `{"instruction","input","output"}`, through the chat template: the user says the instruction
//! and, on the next line, the input (as LLaMA-Factory does), the assistant the output.
//! `system`, `history` (pairs of question and answer) and `tools` are LLaMA-Factory's additions.

use serde_json::Value;

use super::fields::{Object, as_text, wrong_type};
use super::{RowForm, tools};
use crate::conversation::{Conversation, Message, Role};
use crate::error::RowProblem;
use crate::formats::Row;

pub(super) static FORM: RowForm = RowForm {
    name: "alpaca",
    fields: &[
        "instruction",
        "input",
        "output",
        "system",
        "history",
        "tools",
        "builtin_tools",
        "tools_in_user_message",
    ],
    lists: &["history", "tools", "builtin_tools"],
    expected: "`instruction`, `input` and `output`",
    turns: None,
    of_text: false,
    learnt: "output",
    example: r#"{"instruction": "q", "output": "a"}"#,
    read: |row| parse(row).map(Row::Conversation),
};

fn parse(row: &Object<'_>) -> Result<Conversation, RowProblem> {
    let instruction = row.text("instruction")?;
    let input = row.optional_text("input")?.unwrap_or_default();
    let output = row.text("output")?;

    let mut messages = Vec::new();
    for (index, pair) in history(row)?.iter().enumerate() {
        let path = format!("history[{index}]");
        let Value::Array(pair) = pair else {
            return Err(wrong_type(path, "a pair of question and answer", pair));
        };
        let [question, answer] = &pair[..] else {
            return Err(RowProblem::Unsupported(format!(
                "`{path}` holds {} texts, expected a pair of question and answer",
                pair.len()
            )));
        };
        messages.push(Message::text(Role::User, as_text(question, || format!("{path}[0]"))?));
        messages.push(Message::text(Role::Assistant, as_text(answer, || format!("{path}[1]"))?));
    }
    let question = match (instruction, input) {
        ("", "") => return Err(RowProblem::Empty { field: "instruction".to_owned() }),
        (instruction, "") => instruction.to_owned(),
        ("", input) => input.to_owned(),
        (instruction, input) => format!("{instruction}\n{input}"),
    };
    messages.push(Message::text(Role::User, question));
    messages.push(Message::text(Role::Assistant, output));
    tools::conversation(row, messages)
}

fn history<'a>(row: &Object<'a>) -> Result<&'a [Value], RowProblem> {
    match row.optional("history") {
        None => Ok(&[]),
        Some(Value::Array(pairs)) => Ok(pairs),
        Some(other) => Err(wrong_type("history".to_owned(), "a list of pairs", other)),
    }
}

#[cfg(test)]
mod tests {
    use crate::conversation::{Content, Conversation};
    use crate::formats::{Format, Row};

    fn texts(line: &str) -> Vec<String> {
        let Row::Conversation(Conversation { messages, .. }) =
            Format::Alpaca.parse_row(line).unwrap()
        else {
            panic!("a conversation")
        };
        let text = |content| match content {
            Content::Text(text) => text,
            other => panic!("{other:?} is not text"),
        };
        messages.into_iter().map(|m| format!("{}: {}", m.role.header(), text(m.content))).collect()
    }

    #[test]
    fn the_input_follows_the_instruction_on_the_next_line() {
        let line = r#"{"instruction": "Add.", "input": "1 2", "output": "3"}"#;
        assert_eq!(texts(line), ["user: Add.\n1 2", "assistant: 3"]);
        let line = r#"{"instruction": "Hi", "input": "", "output": "Hello"}"#;
        assert_eq!(texts(line), ["user: Hi", "assistant: Hello"]);
    }

    #[test]
    fn system_and_history_come_first() {
        let line = r#"{"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]]}"#;
        let expected = ["system: s", "user: a", "assistant: b", "user: c", "assistant: d"];
        assert_eq!(texts(line), expected);
    }
}
