//! A document of the corpus and its line in a JSONL file.

use serde_json::json;

/// Who speaks in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Who sets the scene.
    System,
    /// Who asks.
    User,
    /// Who answers.
    Assistant,
}

impl Role {
    /// The name in a chat's `role` key.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said, without any special token.
    pub content: String,
}

impl Turn {
    pub(super) fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// One row of a data set, in one of the two forms that Graft reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Running text: a row of format `text`.
    Text(String),
    /// A conversation: a row of format `messages`.
    Messages(Vec<Turn>),
}

impl Document {
    /// The row's JSON object, without a line break.
    pub fn json(&self) -> String {
        match self {
            Self::Text(text) => json!({ "text": text }),
            Self::Messages(turns) => {
                let message = |turn: &Turn| {
                    let mut message = serde_json::Map::new();
                    message.insert("role".into(), turn.role.name().into());
                    message.insert("content".into(), turn.content.as_str().into());
                    message
                };
                json!({ "messages": turns.iter().map(message).collect::<Vec<_>>() })
            }
        }
        .to_string()
    }

    /// Every piece of text in the document: what a tokenizer learns from.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Text(text) => vec![text],
            Self::Messages(turns) => turns.iter().map(|turn| turn.content.as_str()).collect(),
        }
    }
}

/// The rows as a JSONL file, each line ended.
pub fn jsonl(documents: impl IntoIterator<Item = Document>) -> String {
    documents.into_iter().fold(String::new(), |mut file, document| {
        file.push_str(&document.json());
        file.push('\n');
        file
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_two_forms_that_graft_reads() {
        let turns =
            vec![Turn::new(Role::User, "Who?"), Turn::new(Role::Assistant, "The \"clerk\".")];
        assert_eq!(
            jsonl([Document::Text("a\nb".into()), Document::Messages(turns)]),
            concat!(
                "{\"text\":\"a\\nb\"}\n",
                "{\"messages\":[{\"role\":\"user\",\"content\":\"Who?\"},",
                "{\"role\":\"assistant\",\"content\":\"The \\\"clerk\\\".\"}]}\n",
            )
        );
    }
}
