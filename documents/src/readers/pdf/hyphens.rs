//! Words cut at the end of a line. Whether the hyphen belongs to the word, the rest of the document says: where it has
//! the word with its hyphen, that stays.

use std::collections::BTreeSet;

use super::Page;

/// The words of a document with hyphens within.
pub(super) struct Hyphenated(BTreeSet<String>);

impl Hyphenated {
    pub(super) fn of(pages: &[Page]) -> Self {
        let lines = pages.iter().flat_map(|page| &page.lines);
        let words = lines.flat_map(|line| line.text.split_whitespace());
        let within = words.map(plain).filter(|word| word.contains('-') && !word.ends_with('-'));
        Self(within.map(str::to_lowercase).collect())
    }

    /// Adds a line to the text before it. Whether a word was put together again.
    pub(super) fn join(&self, text: &mut String, line: &str) -> bool {
        let first = line.split_whitespace().next().unwrap_or_default();
        let last = text.split_whitespace().next_back().unwrap_or_default();
        let cut = last.strip_suffix('-').filter(|cut| {
            let is_word = cut.chars().next_back().is_some_and(char::is_alphabetic);
            is_word && first.chars().next().is_some_and(char::is_lowercase)
        });
        let Some(cut) = cut else {
            // Scripts that have no spaces between words have none between lines.
            let parts = |c: char| !matches!(c, '\u{2e80}'..='\u{d7ff}' | '\u{f900}'..='\u{ffef}');
            let needs = text.chars().next_back().is_some_and(parts)
                || line.chars().next().is_some_and(parts);
            // A path or a compound goes on behind its hyphen.
            if needs
                && !(last.len() > 1
                    && last.ends_with('-')
                    && first.starts_with(char::is_alphanumeric))
            {
                text.push(' ');
            }
            text.push_str(line);
            return false;
        };
        let with = format!("{}-{}", plain(cut), plain(first)).to_lowercase();
        let is_whole = cut.contains('-') || self.0.contains(&with);
        if !is_whole {
            text.pop();
        }
        text.push_str(line);
        !is_whole
    }
}

/// A word without signs around it.
fn plain(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_alphanumeric() && c != '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hyphen_stays_where_the_document_has_the_word_with_it() {
        let known = Hyphenated(["long-term".to_owned()].into());
        let join = |text: &str, line: &str| {
            let mut text = text.to_owned();
            let rejoined = known.join(&mut text, line);
            (text, rejoined)
        };
        for (text, line, whole, rejoined) in [
            ("the docu-", "ment ends", "the document ends", true),
            ("a long-", "term, plan", "a long-term, plan", false),
            ("pages 3-", "4", "pages 3-4", false),
            ("Anti-", "Monopoly", "Anti-Monopoly", false),
            ("a -", "b", "a - b", false),
            ("one", "two", "one two", false),
            ("档案", "馆", "档案馆", false),
        ] {
            assert_eq!(join(text, line), (whole.to_owned(), rejoined), "{text} {line}");
        }
    }
}
