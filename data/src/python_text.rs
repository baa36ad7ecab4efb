//! Texts as Python sees them: what its `str` methods, which chat templates use, take for white space.

/// `str.isspace` of one character: Unicode's white space and the separators U+001C to U+001F.
pub(crate) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// `str.strip` without an argument.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}
