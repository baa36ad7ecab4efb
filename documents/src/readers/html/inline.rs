//! Running text of a page: spaces run together, lines break where the page says so.

use super::lines;
use crate::document::Span;

/// Text that is collected, and the lines that it came from.
#[derive(Default)]
pub(super) struct Inline {
    text: String,
    /// A space stands before what comes next.
    space: bool,
    lines: Option<(u32, u32)>,
}

impl Inline {
    /// Adds text that begins on a line of the page.
    pub(super) fn push(&mut self, text: &str, line: u32) {
        let mut at = line;
        for character in text.chars() {
            if character == '\n' {
                at = at.saturating_add(1);
            }
            // Not a fixed space, which parts no words.
            if matches!(character, ' ' | '\n' | '\t' | '\r' | '\x0c') {
                self.space = true;
                continue;
            }
            // Places where a long word may break, and marks of direction that say nothing.
            if matches!(character, '\u{ad}' | '\u{200b}' | '\u{feff}') {
                continue;
            }
            if self.space && !self.text.is_empty() && !self.text.ends_with('\n') {
                self.text.push(' ');
            }
            self.space = false;
            self.text.push(if character == '\u{a0}' { ' ' } else { character });
            let (first, _) = self.lines.unwrap_or((at, at));
            self.lines = Some((first, at));
        }
    }

    pub(super) fn line_break(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.space = false;
    }

    /// Where code begins.
    pub(super) fn begin_code(&mut self) -> usize {
        if self.space && !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push(' ');
        }
        self.space = false;
        self.text.len()
    }

    /// Marks what was added since.
    pub(super) fn end_code(&mut self, begins: usize) {
        let Some(code) = self.text.get(begins..) else { return };
        if code.trim().is_empty() || code.contains(['`', '\n']) {
            return;
        }
        self.text.insert(begins, '`');
        self.text.push('`');
    }

    /// What was collected, if it is anything.
    pub(super) fn take(&mut self) -> Option<(String, Option<Span>)> {
        self.space = false;
        let text = std::mem::take(&mut self.text);
        let (first, last) = self.lines.take()?;
        (!text.trim().is_empty()).then(|| (text, Some(lines(first, last))))
    }

    /// The same, but for its lines, which stay.
    pub(super) fn take_text(&mut self) -> String {
        self.space = false;
        std::mem::take(&mut self.text)
    }

    /// The lines since text was last taken with them.
    pub(super) fn take_lines(&mut self) -> Option<Span> {
        let (first, last) = self.lines.take()?;
        Some(lines(first, last))
    }
}
