//! Words of a file in a message: one line, short, and nothing that steers a terminal.

use crate::visible::is_visible;

/// Characters that a quotation may have.
const LONGEST: usize = 60;

/// The text as a message quotes it: control and bidirectional characters as escapes, cut when long.
pub(crate) fn shown(text: &str) -> String {
    let mut characters = text.chars();
    let mut out = String::new();
    for character in characters.by_ref().take(LONGEST) {
        if is_visible(character) {
            out.push(character);
        } else {
            out.extend(character.escape_default());
        }
    }
    if characters.next().is_some() {
        out.push('…');
    }
    out
}

/// Some of many names: at most eight, and how many more there are.
pub(crate) fn some<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const MOST: usize = 8;
    let mut names = names.into_iter();
    let first: Vec<String> = names.by_ref().take(MOST).map(shown).collect();
    let more = names.count();
    let list = first.join(", ");
    if more == 0 { list } else { format!("{list} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal_and_nothing_is_long() {
        assert_eq!(shown("a\u{1b}[2J\u{202e}b\u{9b}é"), "a\\u{1b}[2J\\u{202e}b\\u{9b}é");
        let long = shown(&"x".repeat(1 << 20));
        assert_eq!(long.chars().count(), LONGEST + 1);
        let names: Vec<String> = (0..20).map(|i| i.to_string()).collect();
        assert_eq!(some(names.iter().map(String::as_str)), "0, 1, 2, 3, 4, 5, 6, 7 and 12 more");
    }
}
