//! A conversation as a template sees it: the dicts and lists that transformers passes, with texts that
//! spell control tokens broken up.

use std::collections::BTreeMap;

use minijinja::Value;
use serde_json::{Map, Value as Json, json};

use super::environment::DATE;
use super::numbers;
use crate::conversation::{Content, Conversation, Message, Role};
use crate::error::RowProblem;
use crate::tokenizer::{Speaker, Tokenizer};
use crate::written;

/// Unicode sets these aside for the inner use of programs; no text should hold one.
const NONCHARACTERS: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// The values of a conversation.
pub(super) struct Wording {
    messages: Vec<Json>,
    tools: Vec<Json>,
    builtin_tools: Vec<Json>,
    tools_in_user_message: Option<bool>,
    /// Stands behind the first character of whatever could become a control token.
    pub breaker: char,
    /// Stands around what a template marks as the model's.
    pub mark: char,
    /// Of all texts.
    pub bytes: usize,
}

impl Wording {
    /// # Errors
    /// The texts use up the characters that are needed as signs.
    pub(super) fn of<'a>(
        conversation: &Conversation,
        tokenizer: Option<&Tokenizer>,
        templates: impl Iterator<Item = &'a str>,
    ) -> Result<Self, RowProblem> {
        let Conversation { messages, tools, builtin_tools, tools_in_user_message } = conversation;
        let messages: Vec<Json> = messages.iter().map(message).collect();
        let builtin_tools: Vec<Json> = builtin_tools.iter().cloned().map(Json::String).collect();
        let (mut used, mut bytes) = (String::new(), 0);
        for value in messages.iter().chain(tools).chain(&builtin_tools) {
            note_signs(value, &mut used);
            bytes += length(value);
        }
        used.extend(templates.flat_map(str::chars).filter(|c| NONCHARACTERS.contains(c)));
        let mut free = NONCHARACTERS.filter(|sign| !used.contains(*sign));
        let (Some(breaker), Some(mark)) = (free.next(), free.next()) else {
            return Err(RowProblem::Unsupported(
                "the texts hold nearly all of the characters U+FDD0 to U+FDEF, which stand for no \
                 text; remove them"
                    .to_owned(),
            ));
        };
        let break_up = |value: &Json, speaker| match tokenizer {
            Some(tokenizer) => broken(value, breaker, speaker, tokenizer),
            None => value.clone(),
        };
        let turn = |(value, message): (&Json, &Message)| match message.role {
            Role::Assistant => break_up(value, Speaker::Model),
            Role::System | Role::User | Role::Tool => break_up(value, Speaker::Others),
        };
        let others = |values: &[Json]| -> Vec<Json> {
            values.iter().map(|value| break_up(value, Speaker::Others)).collect()
        };
        Ok(Self {
            messages: messages.iter().zip(&conversation.messages).map(turn).collect(),
            tools: others(tools),
            builtin_tools: others(&builtin_tools),
            tools_in_user_message: *tools_in_user_message,
            breaker,
            mark,
            bytes,
        })
    }

    /// The turns, in order.
    pub(super) fn messages(&self) -> &[Json] {
        &self.messages
    }

    /// Definitions of the tools.
    pub(super) fn tools(&self) -> &[Json] {
        &self.tools
    }

    /// The variables that transformers sets, with some of the turns.
    pub(super) fn context(
        &self,
        messages: &[Json],
        tools: &[Json],
        date: &str,
        generation_prompt: bool,
        tokens: &BTreeMap<String, String>,
    ) -> Value {
        let list = |list: &[Json]| numbers::values(list);
        let mut variables: BTreeMap<&str, Value> = tokens
            .iter()
            .map(|(name, token)| (name.as_str(), Value::from(token.as_str())))
            .collect();
        let none = || Value::from(());
        variables.extend([
            ("messages", list(messages)),
            ("tools", if tools.is_empty() { none() } else { list(tools) }),
            ("documents", none()),
            ("add_generation_prompt", Value::from(generation_prompt)),
            (DATE, Value::from(date)),
            (super::mask::SIGN, Value::from(self.mark)),
        ]);
        if !self.builtin_tools.is_empty() {
            variables.insert("builtin_tools", list(&self.builtin_tools));
        }
        if let Some(place) = self.tools_in_user_message {
            variables.insert("tools_in_user_message", Value::from(place));
        }
        Value::from(variables)
    }
}

/// A turn as the OpenAI API writes it.
fn message(Message { role, content, learnt: _, mark: _ }: &Message) -> Json {
    let role = role.name();
    match content {
        Content::Text(text) => json!({"role": role, "content": text}),
        Content::ToolResult(value) => json!({"role": role, "content": value}),
        Content::ToolCall { name, arguments } => {
            let function = json!({"name": name, "arguments": arguments});
            json!({"role": role, "tool_calls": [{"type": "function", "function": function}]})
        }
    }
}

fn length(value: &Json) -> usize {
    match value {
        number if written::text_of(number).is_some() => 8,
        Json::String(text) => text.len(),
        Json::Array(list) => list.iter().map(length).sum(),
        Json::Object(map) => map.iter().map(|(key, value)| key.len() + length(value)).sum(),
        Json::Null | Json::Bool(_) | Json::Number(_) => 8,
    }
}

fn note_signs(value: &Json, used: &mut String) {
    let mut note = |text: &str| used.extend(text.chars().filter(|c| NONCHARACTERS.contains(c)));
    match value {
        Json::String(text) => note(text),
        Json::Array(list) => list.iter().for_each(|value| note_signs(value, used)),
        Json::Object(map) => {
            map.keys().for_each(|key| note(key));
            map.values().for_each(|value| note_signs(value, used));
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

/// The value with the breaker in every text that spells a control token.
fn broken(value: &Json, breaker: char, speaker: Speaker, tokenizer: &Tokenizer) -> Json {
    let text = |text: &str| broken_text(text, breaker, speaker, tokenizer);
    let part = |value: &Json| broken(value, breaker, speaker, tokenizer);
    match value {
        number if written::text_of(number).is_some() => value.clone(),
        Json::String(string) => Json::String(text(string)),
        Json::Array(list) => list.iter().map(part).collect(),
        Json::Object(map) => {
            let field = |(key, value): (&String, &Json)| (text(key), part(value));
            Json::Object(map.iter().map(field).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

/// The text with the breaker in each control token that it spells, and behind what it ends with where the text
/// that follows could complete one.
fn broken_text(text: &str, breaker: char, speaker: Speaker, tokenizer: &Tokenizer) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        out.push(character);
        if tokenizer.marks().threatens(&text[at..], speaker) {
            out.push(breaker);
        }
    }
    out
}
