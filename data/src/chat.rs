//! Llama 3.1's chat format, rendered from structure: the template that Meta ships in
//! tokenizer_config.json of Llama-3.1-8B-Instruct (`chat_template`), written as Rust.
//!
//! A turn is `<|start_header_id|>role<|end_header_id|>\n\n{content, trimmed}<|eot_id|>`, and one
//! `<|begin_of_text|>` stands in front of everything. Control tokens are segments of their own, so
//! text can never turn into one, and the loss mask follows from the turn a segment belongs to.

use crate::conversation::{Content, Conversation, Message, Role};
use crate::error::{Error, RowProblem};
use crate::template_json;
use crate::tokenizer::Tokenizer;

const TOOLS_GUIDANCE: &str = "Given the following functions, please respond with a JSON for a \
function call with its proper arguments that best answers the given prompt.\n\nRespond in the \
format {\"name\": function name, \"parameters\": dictionary of argument name and its value}.\
Do not use variables.\n\n";

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
}

/// A control token that the template places.
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
}

impl Control {
    /// How the vocabulary spells it.
    pub fn token(self) -> &'static str {
        match self {
            Self::BeginOfText => "<|begin_of_text|>",
            Self::StartHeader => "<|start_header_id|>",
            Self::EndHeader => "<|end_header_id|>",
            Self::EndOfTurn => "<|eot_id|>",
        }
    }

    /// Its id.
    pub fn id(self, tokenizer: &Tokenizer) -> u32 {
        match self {
            Self::BeginOfText => tokenizer.bos(),
            Self::StartHeader => tokenizer.start_header(),
            Self::EndHeader => tokenizer.end_header(),
            Self::EndOfTurn => tokenizer.eot(),
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
    /// The conversation as segments; with `generation_prompt`, followed by the header of an
    /// assistant turn that is yet to be written.
    ///
    /// # Errors
    /// Tools without a user turn to put them in, or without the official preamble.
    pub fn render(
        &self,
        conversation: &Conversation,
        generation_prompt: bool,
    ) -> Result<Vec<Segment>, RowProblem> {
        let Conversation { messages, tools } = conversation;
        let mut out = Rendering(vec![segment(Piece::Control(Control::BeginOfText), false)]);
        let mut rest = &messages[..];
        let mut system = None;
        if let Some((Message { role: Role::System, content: Content::Text(text) }, after)) =
            rest.split_first()
        {
            (system, rest) = (Some(trim(text)), after);
        }
        match &self.preamble {
            Preamble::Official { date } => {
                let environment = if tools.is_empty() { "" } else { "Environment: ipython\n" };
                let system = system.unwrap_or_default();
                out.turn(Role::System, &format!(
                    "{environment}Cutting Knowledge Date: December 2023\nToday Date: {date}\n\n{system}"
                ));
            }
            Preamble::None if !tools.is_empty() => {
                return Err(RowProblem::Unsupported(
                    "`tools` need the official preamble: without it the template has no place for \
                     their definitions; set `preamble: official` or remove `tools`"
                        .to_owned(),
                ));
            }
            Preamble::None => {
                if let Some(system) = system {
                    out.turn(Role::System, system);
                }
            }
        }
        if !tools.is_empty() {
            let Some((Message { role: Role::User, content: Content::Text(text) }, after)) =
                rest.split_first()
            else {
                return Err(RowProblem::Unsupported(
                    "`tools` need a user turn right after the system prompt: the template puts \
                     their definitions there"
                        .to_owned(),
                ));
            };
            let definitions: String =
                tools.iter().map(|tool| template_json::indented(tool) + "\n\n").collect();
            out.turn(Role::User, &format!("{TOOLS_GUIDANCE}{definitions}{}", trim(text)));
            rest = after;
        }
        for Message { role, content } in rest {
            out.turn(*role, &content_text(content));
        }
        if generation_prompt {
            out.header(Role::Assistant);
            out.text("\n\n", false);
        }
        Ok(out.0)
    }

    /// Ids of the conversation so far and the header of the assistant's next turn.
    ///
    /// # Errors
    /// As [`Self::render`] and [`Tokenizer::encode`].
    pub fn prompt(
        &self,
        conversation: &Conversation,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<u32>, Error> {
        let segments = self.render(conversation, true)?;
        Ok(encode_segments(&segments, tokenizer)?.0)
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
            Piece::Control(control) => ids.push(control.id(tokenizer)),
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

struct Rendering(Vec<Segment>);

impl Rendering {
    /// A whole turn; only the assistant's content and its end are targets.
    fn turn(&mut self, role: Role, content: &str) {
        let target = role == Role::Assistant;
        self.header(role);
        if target {
            // The split expression of Llama 3 ends a piece after line breaks that a trimmed text
            // follows, so the two parts have the ids of the whole, as in a prompt that ends here.
            self.text("\n\n", false);
            self.text(content, true);
        } else {
            self.text(&format!("\n\n{content}"), false);
        }
        self.0.push(segment(Piece::Control(Control::EndOfTurn), target));
    }

    fn header(&mut self, role: Role) {
        self.0.push(segment(Piece::Control(Control::StartHeader), false));
        self.text(role.header(), false);
        self.0.push(segment(Piece::Control(Control::EndHeader), false));
    }

    fn text(&mut self, text: &str, target: bool) {
        if !text.is_empty() {
            self.0.push(segment(Piece::Text(text.to_owned()), target));
        }
    }
}

fn segment(piece: Piece, target: bool) -> Segment {
    Segment { piece, target }
}

fn content_text(content: &Content) -> String {
    match content {
        Content::Text(text) => trim(text).to_owned(),
        Content::ToolCall { name, arguments } => {
            let parameters = template_json::compact(&arguments.clone().into());
            format!("{{\"name\": \"{name}\", \"parameters\": {parameters}}}")
        }
        // A text is "iterable" to the template, so it too is written as JSON, quotes included.
        Content::ToolResult(value) => template_json::compact(value),
    }
}

/// Python's `str.strip`, which also takes the four separators U+001C to U+001F for white space.
fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

#[cfg(test)]
mod tests;
