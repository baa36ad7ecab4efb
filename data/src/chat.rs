//! How conversations become tokens, and which of them are learnt: Llama 3.1's format, built in
//! (`llama3_1`), or the model's own Jinja template ([`ModelTemplate`]).
//!
//! Either way text never turns into a control token, and the loss counts the assistant's turns with
//! the token that closes each.

mod llama3_1;

use std::sync::Arc;

use crate::conversation::Conversation;
use crate::error::{Error, RowProblem};
use crate::jinja::{Losses, ModelTemplate};
use crate::tokenizer::Tokenizer;

/// What stands in the system turn before the system prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preamble {
    /// As the official template: every conversation has a system turn, with this date in it.
    Official {
        /// "Today Date", pinned so that the same data gives the same tokens every day.
        date: String,
    },
    /// No preamble, and no system turn unless the conversation has one (as torchtune's tokenizer,
    /// LLaMA-Factory's `llama3` and Meta's own code do).
    None,
}

impl Default for Preamble {
    /// The official preamble with the template's own default date.
    fn default() -> Self {
        Self::Official { date: "26 Jul 2024".to_owned() }
    }
}

/// Renders conversations; see the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatTemplate {
    /// What stands before the system prompt.
    pub preamble: Preamble,
    /// The model's own template, which is used under the official preamble; without it the built-in
    /// format is.
    pub own: Option<Arc<ModelTemplate>>,
    /// Whether it may leave out parts of a conversation.
    pub losses: Losses,
}

/// A control token that the built-in format places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// `<|begin_of_text|>`
    BeginOfText,
    /// `<|start_header_id|>`
    StartHeader,
    /// `<|end_header_id|>`
    EndHeader,
    /// `<|eot_id|>`
    EndOfTurn,
    /// `<|eom_id|>`: ends a call where built-in tools are at hand.
    EndOfMessage,
    /// `<|python_tag|>`: opens a call of a built-in tool.
    PythonTag,
}

impl Control {
    /// How the vocabulary spells it.
    pub fn token(self) -> &'static str {
        match self {
            Self::BeginOfText => "<|begin_of_text|>",
            Self::StartHeader => "<|start_header_id|>",
            Self::EndHeader => "<|end_header_id|>",
            Self::EndOfTurn => "<|eot_id|>",
            Self::EndOfMessage => "<|eom_id|>",
            Self::PythonTag => "<|python_tag|>",
        }
    }

    /// The token's id.
    ///
    /// # Errors
    /// The tokenizer is not Llama 3's, or is Llama 3.0's, which has none of the two that built-in tools
    /// need.
    pub fn id(self, tokenizer: &Tokenizer) -> Result<u32, Error> {
        let optional = |id: Option<u32>| {
            let (origin, tokens) = (tokenizer.origin().to_owned(), format!("`{}`", self.token()));
            id.ok_or(Error::MissingSpecial { origin, tokens })
        };
        match self {
            Self::BeginOfText => tokenizer.begin_of_text(),
            Self::StartHeader => tokenizer.start_header(),
            Self::EndHeader => tokenizer.end_header(),
            Self::EndOfTurn => tokenizer.eot(),
            Self::EndOfMessage => optional(tokenizer.eom()?),
            Self::PythonTag => optional(tokenizer.special(self.token())),
        }
    }
}

/// A stretch of a rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// What it holds.
    pub piece: Piece,
    /// Whether the model learns to write it.
    pub target: bool,
}

/// What a segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A control token.
    Control(Control),
    /// Text, encoded without control tokens.
    Text(String),
}

impl ChatTemplate {
    /// The built-in format, Llama 3.1's.
    pub fn built_in(preamble: Preamble) -> Self {
        Self { preamble, own: None, losses: Losses::Refuse }
    }

    /// With the model's own template instead of the built-in format, where it has one. The preamble
    /// is part of the template then; one that was left out on purpose keeps the built-in format.
    #[must_use]
    pub fn with_own(mut self, own: Option<&Arc<ModelTemplate>>) -> Self {
        self.own = own.filter(|_| self.preamble != Preamble::None).cloned();
        self
    }

    /// The conversation in the built-in format as segments; with `generation_prompt`, followed by
    /// the header of an assistant turn that is yet to be written.
    ///
    /// # Errors
    /// Tools without a user turn to put them in, or without the official preamble; an argument of
    /// a built-in tool that is not text.
    pub fn render(
        &self,
        conversation: &Conversation,
        generation_prompt: bool,
    ) -> Result<Vec<Segment>, RowProblem> {
        llama3_1::render(&self.preamble, conversation, generation_prompt)
    }

    /// Ids of the conversation and, for each, whether it is a target: two lists of one length.
    ///
    /// # Errors
    /// As [`Self::render`], [`ModelTemplate::encode`] and [`Tokenizer::encode`].
    pub fn encode(
        &self,
        conversation: &Conversation,
        tokenizer: &Tokenizer,
    ) -> Result<(Vec<u32>, Vec<bool>), Error> {
        match (&self.own, &self.preamble) {
            (Some(own), Preamble::Official { date }) => {
                own.encode(conversation, date, self.losses, tokenizer)
            }
            _ => encode_segments(&self.render(conversation, false)?, tokenizer),
        }
    }

    /// Ids of the conversation so far and the header of the assistant's next turn.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn prompt(
        &self,
        conversation: &Conversation,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<u32>, Error> {
        match (&self.own, &self.preamble) {
            (Some(own), Preamble::Official { date }) => {
                own.prompt(conversation, date, self.losses, tokenizer)
            }
            _ => Ok(encode_segments(&self.render(conversation, true)?, tokenizer)?.0),
        }
    }
}

/// Ids of the segments and, for each, whether it is a target: two lists of one length.
///
/// # Errors
/// As [`Tokenizer::encode`].
pub fn encode_segments(
    segments: &[Segment],
    tokenizer: &Tokenizer,
) -> Result<(Vec<u32>, Vec<bool>), Error> {
    let (mut ids, mut targets) = (Vec::new(), Vec::new());
    for Segment { piece, target } in segments {
        match piece {
            Piece::Control(control) => ids.push(control.id(tokenizer)?),
            Piece::Text(text) => ids.extend(tokenizer.encode(text)?),
        }
        targets.resize(ids.len(), *target);
    }
    Ok((ids, targets))
}

/// The segments as one text, as the reference template would write it.
pub fn segments_text(segments: &[Segment]) -> String {
    let text = |segment: &'_ Segment| match &segment.piece {
        Piece::Control(control) => control.token().to_owned(),
        Piece::Text(text) => text.clone(),
    };
    segments.iter().map(text).collect()
}

#[cfg(test)]
mod tests;
