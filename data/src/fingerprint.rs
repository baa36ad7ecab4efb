//! What a row says, as one hash: equal rows are found again in other files, whatever their format.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::conversation::{Content, Conversation, Message};
use crate::formats::{Origin, Row};
use crate::samples::{RowRecord, number};
use crate::template_json::compact;

/// The first 128 bits of SHA-256 over what a row says. Which of its turns are learnt, and where it
/// stands, does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowDigest([u8; 16]);

impl RowDigest {
    pub(crate) fn bytes(self) -> [u8; 16] {
        self.0
    }

    pub(crate) fn of_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl Row {
    /// What is known of a row that is not trained on.
    pub fn record(&self, origin: Origin) -> RowRecord {
        RowRecord { origin, digest: self.digest(), seen: 0, samples: 0 }
    }

    /// A hash of which of its turns are learnt, and of their kinds: beside [`Row::digest`], what decides its samples.
    pub(crate) fn way(&self) -> u64 {
        let Self::Conversation(conversation) = self else { return 0 };
        let mut hash = Sha256::new();
        for Message { learnt, mark, role: _, content } in &conversation.messages {
            let content = match content {
                Content::Text(_) => 0,
                Content::ToolCall { .. } => 1,
                Content::ToolResult(_) => 2,
            };
            hash.update([u8::from(*learnt), mark.map_or(2, u8::from), content]);
        }
        number(&hash.finalize()[..8])
    }

    /// The hash of what the row says.
    pub fn digest(&self) -> RowDigest {
        let mut parts = Parts(Sha256::new());
        match self {
            Self::Conversation(conversation) => parts.conversation(conversation),
            Self::Completion { prompt, completion } => {
                parts.add("completion", prompt);
                parts.add("", completion);
            }
            Self::Text(text) => parts.add("text", text),
        }
        let hash: [u8; 32] = parts.0.finalize().into();
        let mut first = [0; 16];
        first.copy_from_slice(&hash[..16]);
        RowDigest(first)
    }
}

/// Named texts, each behind its length, so that no two lists of them are the same bytes.
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, name: &str, text: &str) {
        for part in [name, text] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    fn conversation(&mut self, conversation: &Conversation) {
        let Conversation { messages, tools, builtin_tools, tools_in_user_message } = conversation;
        for Message { role, content, learnt: _, mark: _ } in messages {
            match content {
                Content::Text(text) => self.add(role.header(), text),
                Content::ToolCall { name, arguments } => {
                    self.add(role.header(), name);
                    self.add("arguments", &compact(&Value::Object(arguments.clone())));
                }
                Content::ToolResult(value) => self.add(role.header(), &compact(value)),
            }
        }
        for tool in tools {
            self.add("tool", &compact(tool));
        }
        for name in builtin_tools {
            self.add("builtin", name);
        }
        if let Some(place) = tools_in_user_message {
            self.add("place", &place.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::formats::Format;

    #[test]
    fn rows_that_say_the_same_are_equal_in_every_format_and_others_are_not() {
        let digest = |format: Format, row: &str| format.parse_row(row).unwrap().digest();
        let messages = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#;
        let same = [
            digest(Format::Messages, messages),
            digest(
                Format::Messages,
                &messages
                    .replace("\"a\"", "\"a\", \"weight\": 0")
                    .replace("{\"mess", "{\"id\": 7, \"mess"),
            ),
            digest(
                Format::ShareGpt,
                r#"{"conversations": [{"from": "human", "value": "q"}, {"value": "a", "from": "gpt"}]}"#,
            ),
            digest(Format::Alpaca, r#"{"instruction": "q", "output": "a"}"#),
        ];
        assert!(same.iter().all(|digest| *digest == same[0]));
        let others = [
            same[0],
            digest(Format::Messages, &messages.replace("\"a\"", "\"a \"")),
            digest(Format::Messages, &messages.replace("{\"mess", "{\"system\": \"s\", \"mess")),
            digest(Format::Messages, &messages.replace("{\"mess", "{\"tools\": [{}], \"mess")),
            digest(Format::Messages, &messages.replace("user", "system")),
            digest(Format::Completion, r#"{"prompt": "q", "completion": "a"}"#),
            digest(Format::Completion, r#"{"prompt": "qa", "completion": ""}"#),
            digest(Format::Text, r#"{"text": "qa"}"#),
        ];
        assert_eq!(others.iter().collect::<BTreeSet<_>>().len(), others.len());
    }
}
