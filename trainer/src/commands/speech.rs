//! What a model says, as it says it: whole characters, for a terminal or for a file, and a mark where an
//! answer was cut short.

use std::io::{self, IsTerminal as _, Write};

use graft_data::{Conversation, DecodeStream, Message, Tokenizer, Visible};

use crate::cli::failure::WrongUse;
use crate::cli::page::{self, grouped};
use crate::progress::{Progress, Unit, Voice};
use graft_engine::generate::{Answer, End};

/// Writes an answer token by token.
pub(super) struct Speech<'a> {
    stream: DecodeStream<'a>,
    /// `None` where the text goes out exactly as it is.
    escapes: Option<Visible>,
    out: io::StdoutLock<'static>,
}

impl<'a> Speech<'a> {
    /// An answer to stdout: escaped for a terminal, exact for whatever else.
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        let out = io::stdout().lock();
        let escapes = out.is_terminal().then(Visible::default);
        Self { stream: tokenizer.decode_stream(true), escapes, out }
    }

    /// Says a token; false where nobody listens any more.
    pub(super) fn token(&mut self, id: u32) -> bool {
        let text = self.stream.push(id).ok().flatten().unwrap_or_default();
        self.write(&text).is_ok()
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        let text = match &mut self.escapes {
            Some(escapes) => escapes.next(text),
            None => text.into(),
        };
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        written.map_err(page::at_stdout)
    }

    /// Ends the answer and its line.
    ///
    /// # Errors
    /// stdout is closed or full.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        let rest = self.stream.finish()?;
        Ok(self.write(&(rest + "\n"))?)
    }
}

/// Says how far a long prompt is read, before its answer begins.
pub(super) struct Reading {
    voice: Voice,
    said: Option<Progress>,
}

impl Reading {
    /// Prompts of fewer tokens are read before anybody wonders.
    const TOLD: usize = 512;

    /// Of a prompt that is about to be read.
    pub(super) fn new(voice: Voice) -> Self {
        Self { voice, said: None }
    }

    /// `read` of the prompt's `of` tokens are read.
    pub(super) fn heard(&mut self, read: usize, of: usize) {
        if of < Self::TOLD {
            return;
        }
        let begin =
            || Progress::new(self.voice, "read the prompt", of as u64, Unit::Count("tokens"));
        self.said.get_or_insert_with(begin).step(read as u64, &Default::default());
        if let Some(progress) = self.said.take_if(|_| read == of) {
            progress.finish(&format!("{} tokens", grouped(of as u64)));
        }
    }
}

/// What an answer's reader should know of its end: `None` where the model came to one. `most` is the
/// number of tokens that it was allowed, `longest` the model's positions.
pub(super) fn cut_short(answer: &Answer, most: usize, longest: usize) -> Option<String> {
    let Answer { tokens, end } = answer;
    let count = grouped(tokens.len() as u64);
    match end {
        End::Stop if tokens.is_empty() => {
            Some("[the model ended before its first word]".to_owned())
        }
        End::Stop => None,
        End::Interrupted => Some(format!("[interrupted after {count} tokens]")),
        End::Length if tokens.len() >= most => {
            Some(format!("[cut short after {count} tokens: --max-new-tokens allows no more]"))
        }
        End::Length => Some(format!(
            "[cut short after {count} tokens: the model's longest sequence is {}, prompt included]",
            grouped(longest as u64)
        )),
    }
}

/// Says on stderr that an answer was cut short, also where notes are not wanted: it belongs to the answer.
pub(super) fn mark(answer: &Answer, most: usize, longest: usize) {
    if let Some(mark) = cut_short(answer, most, longest) {
        let _ = writeln!(io::stderr(), "{mark}");
    }
}

/// Refuses a prompt that leaves the model no position for an answer.
///
/// # Errors
/// It does.
pub(super) fn check_room(tokens: usize, longest: usize) -> Result<(), WrongUse> {
    if tokens < longest {
        return Ok(());
    }
    Err(WrongUse(format!(
        "the prompt has {} tokens, but the model's longest sequence is {} \
         (max_position_embeddings of config.json), answer included: shorten the prompt",
        grouped(tokens as u64),
        grouped(longest as u64)
    )))
}

/// Turns with the system prompt in front, where there is one.
pub(super) fn conversation(messages: Vec<Message>, system: Option<&str>) -> Conversation {
    let conversation = Conversation::of(messages);
    match system {
        Some(system) => conversation.with_system_prompt(system),
        None => conversation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_cut_short_is_marked_with_the_reason() {
        let mark = |tokens: usize, end| {
            let answer = Answer { tokens: vec![1; tokens], end };
            cut_short(&answer, 256, 4_096).unwrap_or_default()
        };
        assert_eq!(mark(3, End::Stop), "");
        let marks = [
            mark(0, End::Stop),
            mark(12, End::Interrupted),
            mark(256, End::Length),
            mark(96, End::Length),
        ];
        insta::assert_snapshot!(marks.join("\n"), @r"
        [the model ended before its first word]
        [interrupted after 12 tokens]
        [cut short after 256 tokens: --max-new-tokens allows no more]
        [cut short after 96 tokens: the model's longest sequence is 4,096, prompt included]
        ");
    }

    #[test]
    fn a_prompt_leaves_room_for_an_answer_or_is_refused() {
        assert!(check_room(4_095, 4_096).is_ok());
        insta::assert_snapshot!(check_room(4_096, 4_096).unwrap_err(), @"the prompt has 4,096 tokens, but the model's longest sequence is 4,096 (max_position_embeddings of config.json), answer included: shorten the prompt");
    }
}
