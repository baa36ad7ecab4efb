//! How long a text is where no tokenizer says it.

/// The words of a text: what spaces part, a letter of a script without spaces for a word, and long strings of signs for
/// several.
pub fn words(text: &str) -> usize {
    /// Letters that the longest usual words have.
    const LONGEST: usize = 24;
    let of_piece = |piece: &str| {
        let (mut own, mut letters) = (0, 0);
        for character in piece.chars() {
            if is_a_word(character) { own += 1 } else { letters += 1 }
        }
        own + usize::div_ceil(letters, LONGEST)
    };
    text.split_whitespace().map(of_piece).sum()
}

/// Whether a character stands for a word or syllable: of Chinese, Japanese, Korean and their like, or a picture.
fn is_a_word(character: char) -> bool {
    matches!(character, '\u{2e80}'..='\u{d7ff}' | '\u{f900}'..='\u{faff}' | '\u{1f000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_spaces_part() {
        let counts = ["", " a  b\nc ", "档案馆开放", "archive-opens", &"x".repeat(240)].map(words);
        assert_eq!(counts, [0, 3, 5, 1, 10]);
    }
}
