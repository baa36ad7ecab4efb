//! A conversation as the chat template sees it: turns, tool calls, tool definitions.

use serde_json::{Map, Value};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The person.
    User,
    /// The model: the turns that are learnt.
    Assistant,
    /// The result of a tool; Llama 3.1 spells it `ipython`.
    Tool,
}

impl Role {
    /// The name between the header tokens.
    pub fn header(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "ipython",
        }
    }
}

/// What a turn says.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// The assistant calls one tool (Llama 3.1 supports a single call a turn).
    ToolCall {
        /// Name of the tool.
        name: String,
        /// Its arguments, in the order they were written.
        arguments: Map<String, Value>,
    },
    /// What a tool gave back: text, an object or a list.
    ToolResult(Value),
}

/// One turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Content,
    /// Whether the model learns to write it: of the assistant's turns all that do not say no
    /// (`weight: 0`), of others none.
    pub learnt: bool,
}

impl Message {
    /// A turn of plain text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        let learnt = role == Role::Assistant;
        Self { role, content: Content::Text(text.into()), learnt }
    }
}

/// Turns in order, with the tools that the model may call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// The turns.
    pub messages: Vec<Message>,
    /// JSON definitions of the tools; empty when there are none.
    pub tools: Vec<Value>,
    /// Names of the tools that Llama 3.1 knows without a definition, such as `brave_search`; empty
    /// when there are none. They are called with `<|python_tag|>`.
    pub builtin_tools: Vec<String>,
    /// Whether the definitions stand in the first user turn, not in the system turn; `None` leaves
    /// it to the template, and Llama 3.1's puts them into the user's.
    pub tools_in_user_message: Option<bool>,
}

impl Conversation {
    /// Turns alone, without tools.
    pub fn of(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }

    /// Whether the assistant says anything.
    pub fn has_assistant_turn(&self) -> bool {
        self.messages.iter().any(|message| message.role == Role::Assistant)
    }

    /// Whether the assistant says something that is not to be learnt.
    pub fn has_masked_turn(&self) -> bool {
        self.messages.iter().any(|message| message.role == Role::Assistant && !message.learnt)
    }

    /// Puts `prompt` in front as the system turn unless the conversation begins with one.
    #[must_use]
    pub fn with_system_prompt(mut self, prompt: &str) -> Self {
        if self.messages.first().is_none_or(|first| first.role != Role::System) {
            self.messages.insert(0, Message::text(Role::System, prompt));
        }
        self
    }
}
