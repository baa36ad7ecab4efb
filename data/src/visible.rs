//! Text from outside as a terminal may show it: characters that would steer the terminal, turn the
//! reading order around or not be seen at all stand as `\u{…}`.
//!
//! Line breaks and tabs stay. So do joiners and variation selectors behind a character that is written
//! with them: Persian and Hindi are spelled with joiners, and emoji are made of both.

use std::borrow::Cow;

/// The text with every character escaped that must not reach a terminal.
pub fn visible(text: &str) -> Cow<'_, str> {
    Visible::default().next(text)
}

/// Whether a terminal may show the character wherever it stands: no control, no change of the reading
/// order, nothing that is not seen.
pub fn is_visible(character: char) -> bool {
    !character.is_control() && !is_unseen(character)
}

/// Escapes text that comes piece by piece, as a model writes it.
#[derive(Debug, Clone, Copy)]
pub struct Visible {
    /// The character before the next piece.
    before: char,
}

impl Default for Visible {
    fn default() -> Self {
        Self { before: '\n' }
    }
}

impl Visible {
    /// The next piece, escaped.
    pub fn next<'a>(&mut self, piece: &'a str) -> Cow<'a, str> {
        let begun = *self;
        if !piece.chars().any(|character| self.hides(character)) {
            return Cow::Borrowed(piece);
        }
        *self = begun;
        let mut out = String::with_capacity(piece.len() + 16);
        for character in piece.chars() {
            if self.hides(character) {
                out.extend(character.escape_default());
            } else {
                out.push(character);
            }
        }
        Cow::Owned(out)
    }

    /// Whether the character must be escaped where it stands, which counts as said from now on.
    fn hides(&mut self, character: char) -> bool {
        let hides = match character {
            '\n' | '\t' => false,
            // U+200C and U+200D join or part letters; U+FE00 to U+FE0F choose between two pictures.
            '\u{200c}' | '\u{200d}' => self.before.is_ascii() || is_unseen(self.before),
            '\u{fe00}'..='\u{fe0f}' => {
                let keycap = matches!(self.before, '0'..='9' | '#' | '*');
                (self.before.is_ascii() && !keycap) || is_unseen(self.before)
            }
            other => other.is_control() || is_unseen(other),
        };
        // A joiner behind a selector is still behind its letter; two joiners in a row are not.
        if !matches!(character, '\u{fe00}'..='\u{fe0f}') || hides {
            self.before = character;
        }
        hides
    }
}

/// Characters that change the reading order, or that no font draws.
fn is_unseen(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' // soft hyphen
            | '\u{34f}' // combining grapheme joiner
            | '\u{61c}' // Arabic letter mark
            | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' // Hangul fillers
            | '\u{17b4}' | '\u{17b5}' // Khmer inherent vowels
            | '\u{180b}'..='\u{180f}' // Mongolian selectors
            | '\u{200b}'..='\u{200f}' // spaces without width, joiners, marks of direction
            | '\u{2028}'..='\u{202e}' // line and paragraph separators, embeddings and overrides
            | '\u{2060}'..='\u{206f}' // word joiner, isolates, deprecated controls
            | '\u{fe00}'..='\u{fe0f}' // variation selectors
            | '\u{feff}' // byte order mark
            | '\u{fff0}'..='\u{fffb}' // interlinear annotation
            | '\u{1bca0}'..='\u{1bca3}' // shorthand controls
            | '\u{1d173}'..='\u{1d17a}' // musical controls
            | '\u{e0000}'..='\u{e0fff}' // tags, more selectors
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_or_deceives_a_terminal_is_spelled_out() {
        let hostile = [
            ("\u{1b}[31mred", r"\u{1b}[31mred"),
            ("\u{1b}]8;;file:///\u{7}link\u{1b}\\", r"\u{1b}]8;;file:///\u{7}link\u{1b}\"),
            ("\u{9b}2J\u{9d}0;title\u{9c}", r"\u{9b}2J\u{9d}0;title\u{9c}"),
            ("50%\r100%\u{8}\u{7f}\0", r"50%\r100%\u{8}\u{7f}\u{0}"),
            ("a\u{202e}txt.exe\u{2066}\u{200f}", r"a\u{202e}txt.exe\u{2066}\u{200f}"),
            ("role\u{200b}\u{200d}\u{feff}\u{ad}", r"role\u{200b}\u{200d}\u{feff}\u{ad}"),
            ("a\u{fe0f}\u{e0041}\u{3164}\u{2028}", r"a\u{fe0f}\u{e0041}\u{3164}\u{2028}"),
        ];
        for (raw, shown) in hostile {
            assert_eq!(visible(raw), shown);
        }
    }

    #[test]
    fn what_people_write_stays_as_it_is() {
        for text in [
            "one\n\ttwo €  ",
            "Größe 日本語 עברית العربية",
            "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}", // Persian: I want
            "\u{915}\u{94d}\u{200d}\u{937}",                             // Hindi
            "👩\u{200d}❤\u{fe0f}\u{200d}👨 👍🏽 1\u{fe0f}\u{20e3}",
        ] {
            assert!(matches!(visible(text), Cow::Borrowed(_)), "{text:?}: {}", visible(text));
        }
    }

    #[test]
    fn pieces_are_escaped_as_the_whole_is() {
        let text = "a\u{200d}👩\u{200d}❤\u{fe0f}\u{200d}👨\u{1b}[0m\u{645}\u{200c}\u{200c}x\r\n";
        let mut pieces = Visible::default();
        let joined: String =
            text.chars().map(|c| pieces.next(c.encode_utf8(&mut [0; 4])).into_owned()).collect();
        assert_eq!(joined, visible(text));
    }

    #[test]
    fn no_character_that_is_left_steers_anything() {
        let all: String = ('\0'..=char::MAX).collect();
        let shown = visible(&all);
        // Every one of these stands behind a letter here.
        let selects = |c: char| matches!(c, '\u{fe00}'..='\u{fe0f}');
        let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
        let left = shown.chars().find(|&c| steers(c) || (is_unseen(c) && !selects(c)));
        assert_eq!(left, None);
        assert_eq!(visible(&shown), shown);
    }
}
