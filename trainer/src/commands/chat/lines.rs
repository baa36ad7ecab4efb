//! Lines of a conversation: edited on a terminal, plain from files and pipes.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use super::editor::Editor;
use crate::cli::failure::WrongUse;

/// Bytes of a line: far beyond what any model reads.
const LONGEST: u64 = 16 << 20;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A line without its end.
    Line(String),
    /// Ctrl-C where a line is written.
    Interrupted,
    /// Nothing comes any more.
    End,
}

/// Where lines come from.
pub(super) enum Lines {
    /// A person at a terminal. What was written is remembered in memory and nowhere else.
    Edited(Box<Editor>),
    /// A file or a pipe, and how many lines it gave.
    Plain(io::StdinLock<'static>, u64),
}

impl Lines {
    /// Lines of stdin: edited where a person sits at both ends.
    pub(super) fn new() -> Self {
        let is_person = io::stdin().is_terminal() && io::stdout().is_terminal();
        if is_person && Editor::IS_THERE { Self::Edited(Box::default()) } else { Self::plain() }
    }

    fn plain() -> Self {
        Self::Plain(io::stdin().lock(), 0)
    }

    /// Whether a person writes them.
    pub(super) fn are_edited(&self) -> bool {
        matches!(self, Self::Edited(_))
    }

    /// The next line.
    pub(super) fn next(&mut self) -> anyhow::Result<Next> {
        match self {
            Self::Edited(editor) => Ok(editor.line("> ")?),
            Self::Plain(input, count) => {
                *count += 1;
                let mut line = Vec::new();
                let read = input.by_ref().take(LONGEST + 1).read_until(b'\n', &mut line)?;
                if read as u64 > LONGEST {
                    let message = format!("line {count} of stdin is longer than {LONGEST} bytes");
                    return Err(WrongUse(message).into());
                }
                if read == 0 {
                    return Ok(Next::End);
                }
                while line.last().is_some_and(|byte| b"\r\n".contains(byte)) {
                    line.pop();
                }
                let not_text =
                    |_| WrongUse(format!("line {count} of stdin is not UTF-8: convert it"));
                Ok(Next::Line(String::from_utf8(line).map_err(not_text)?))
            }
        }
    }
}
