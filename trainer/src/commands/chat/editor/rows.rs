//! A line on the screen, over as many rows as it takes.

use std::borrow::Cow;
use std::fmt::Write as _;

use graft_data::visible;
use unicode_width::UnicodeWidthChar as _;

/// Where the last drawing left the cursor.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Rows between the line's first one and the cursor.
    above: usize,
}

/// A place on the screen, relative to where the line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    row: usize,
    column: usize,
}

impl Cell {
    /// Behind a text of `columns` columns a row that begins here.
    fn behind(mut self, text: &str, columns: usize) -> Self {
        for character in text.chars() {
            let width = character.width().unwrap_or(0);
            if self.column + width > columns {
                self = Self { row: self.row + 1, column: 0 };
            }
            self.column += width;
        }
        self
    }
}

impl Rows {
    /// What draws the line in the place of what was drawn before, with the cursor behind its first
    /// `at` characters.
    pub(super) fn draw(&mut self, prompt: &str, line: &str, at: usize, columns: usize) -> String {
        let columns = columns.max(8);
        let split = line.char_indices().nth(at).map_or(line.len(), |(place, _)| place);
        let (before, behind) = line.split_at(split);
        let (before, behind) = (shown(before), shown(behind));
        let start = Cell { row: 0, column: 0 };
        let mut cursor = start.behind(prompt, columns).behind(&before, columns);
        let end = cursor.behind(&behind, columns);
        let up = |rows: usize| if rows > 0 { format!("\x1b[{rows}A") } else { String::new() };
        let mut text = format!("{}\r\x1b[J{prompt}{before}{behind}", up(self.above));
        let mut bottom = end.row;
        // Behind a full row terminals wait for the next character before they go on.
        if end.column == columns {
            text.push_str("\r\n");
            bottom += 1;
        }
        if cursor.column == columns {
            cursor = Cell { row: cursor.row + 1, column: 0 };
        }
        text.push_str(&up(bottom - cursor.row));
        text.push('\r');
        if cursor.column > 0 {
            let _ = write!(text, "\x1b[{}C", cursor.column);
        }
        self.above = cursor.row;
        text
    }

    /// What clears the screen; the line is to be drawn again.
    pub(super) fn clear_screen(&mut self) -> String {
        self.above = 0;
        "\x1b[H\x1b[2J".to_owned()
    }
}

/// The text on one line: nothing in it moves the cursor by itself.
fn shown(text: &str) -> Cow<'_, str> {
    match visible(text) {
        text if text.contains(['\n', '\t']) => text.replace('\n', "↵").replace('\t', "    ").into(),
        text => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(rows: &mut Rows, line: &str, at: usize) -> String {
        rows.draw("> ", line, at, 10).replace('\x1b', "␛").replace('\r', "␍").replace('\n', "␊")
    }

    #[test]
    fn the_cursor_stands_where_the_next_character_goes() {
        let mut rows = Rows::default();
        let steps = [
            drawn(&mut rows, "", 0),
            drawn(&mut rows, "abc", 3),
            drawn(&mut rows, "abc", 1),
            // A full row: ten columns with the prompt.
            drawn(&mut rows, "abcdefgh", 8),
            drawn(&mut rows, "abcdefghi", 9),
            drawn(&mut rows, "abcdefghi", 0),
            // Two columns each; the fifth does not fit into the first row.
            drawn(&mut rows, "a漢字漢字", 5),
        ];
        insta::assert_snapshot!(steps.join("\n"), @"
        ␍␛[J> ␍␛[2C
        ␍␛[J> abc␍␛[5C
        ␍␛[J> abc␍␛[3C
        ␍␛[J> abcdefgh␍␊␍
        ␛[1A␍␛[J> abcdefghi␍␛[1C
        ␛[1A␍␛[J> abcdefghi␛[1A␍␛[2C
        ␍␛[J> a漢字漢字␍␛[2C
        ");
    }

    #[test]
    fn a_pasted_text_steers_nothing() {
        let mut rows = Rows::default();
        let text = rows.draw("> ", "a\nb\t\x1b[2J\u{202e}c", 3, 80);
        assert!(text.contains("a↵b    \\u{1b}[2J\\u{202e}c"), "{text:?}");
    }
}
