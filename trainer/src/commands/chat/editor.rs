//! A line edited on a terminal: its keys, its text with what was written before, and its rows on the
//! screen. The terminal is raw only while a line is written.

mod keys;
mod rows;
mod terminal;
mod text;

use std::io::{self, Write as _};

use super::lines::Next;
use keys::Key;
use rows::Rows;
use terminal::{Bytes, Raw};
use text::Text;

/// Edits lines, and remembers them as long as it lives.
#[derive(Default)]
pub(super) struct Editor {
    bytes: Bytes,
    text: Text,
}

impl Editor {
    /// Whether this system's terminals can be edited on.
    pub(super) const IS_THERE: bool = cfg!(unix);

    /// The next line, behind a prompt.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn line(&mut self, prompt: &str) -> io::Result<Next> {
        let raw = Raw::begin()?;
        let mut rows = Rows::default();
        self.text.begin();
        let next = loop {
            // A pasted text is drawn once.
            if self.bytes.is_empty() {
                let (text, at) = self.text.shown();
                write(&rows.draw(prompt, &text, at, terminal::columns()))?;
            }
            match keys::next(&mut self.bytes)? {
                None => break Next::End,
                Some(Key::EndOfInput) if self.text.is_empty() => break Next::End,
                Some(Key::Interrupt) if self.text.is_empty() => break Next::Interrupted,
                Some(Key::Interrupt) => self.text.begin(),
                Some(Key::Enter) => break Next::Line(self.text.take()),
                Some(Key::ClearScreen) => write(&rows.clear_screen())?,
                Some(key) => self.text.press(key),
            }
        };
        let (text, _) = self.text.shown();
        let end = text.chars().count();
        write(&(rows.draw(prompt, &text, end, terminal::columns()) + "\r\n"))?;
        drop(raw);
        Ok(next)
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
