//! A conversation as the chat template sees it: turns, tool calls, tool definitions.

use serde_json::{Map, Value};

use crate::python_text::strip;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
    /// The name in rows and recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

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
    /// Whether the model learns to write it: by default all turns of the assistant that do not say no
    /// (`weight: 0`), and no others.
    pub learnt: bool,
    /// What the row itself says about that, where it says something.
    pub mark: Option<bool>,
}

impl Message {
    /// A turn of plain text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        let learnt = role == Role::Assistant;
        Self { role, content: Content::Text(text.into()), learnt, mark: None }
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

    /// Whether the row says of a turn that it is not to be learnt.
    pub fn has_masked_turn(&self) -> bool {
        self.messages.iter().any(|message| message.mark == Some(false))
    }

    /// What the system turn that the conversation begins with says; `None` where there is none, or it
    /// says nothing.
    pub fn system(&self) -> Option<&str> {
        let Message { role: Role::System, content: Content::Text(text), .. } =
            self.messages.first()?
        else {
            return None;
        };
        Some(text.as_str()).filter(|text| !strip(text).is_empty())
    }

    /// Puts `prompt` in front as the system turn unless the conversation begins with one that says
    /// something.
    #[must_use]
    pub fn with_system_prompt(mut self, prompt: &str) -> Self {
        if self.system().is_some() {
            return self;
        }
        match self.messages.first_mut() {
            Some(Message { role: Role::System, content, .. }) => {
                *content = Content::Text(prompt.to_owned());
            }
            _ => self.messages.insert(0, Message::text(Role::System, prompt)),
        }
        self
    }
}
