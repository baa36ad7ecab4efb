//! Cutting one block that is too long: a table between rows, each part with the head; code between lines; running
//! text between lines and sentences, then words; and characters where nothing else is left.

use crate::document::Form;

/// The block's text in parts of at most `max`; a part is longer only where a single character is.
pub(crate) fn cut(
    text: &str,
    form: Form,
    measure: &dyn Fn(&str) -> usize,
    max: usize,
) -> Vec<String> {
    match form {
        Form::Table => with_frame(text, 2, 0, measure, max),
        Form::Code => with_frame(text, 1, 1, measure, max),
        Form::Heading(_) | Form::Paragraph | Form::Item => pack(&sentences(text), measure, max),
    }
}

/// Lines in parts, each with the first lines before it and the last ones behind it.
fn with_frame(
    text: &str,
    before: usize,
    behind: usize,
    measure: &dyn Fn(&str) -> usize,
    max: usize,
) -> Vec<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    if lines.len() <= before + behind {
        return pack(&sentences(text), measure, max);
    }
    let (head, rest) = lines.split_at(before);
    let (body, foot) = rest.split_at(rest.len() - behind);
    let (head, foot) = (head.concat(), foot.concat());
    let frame = measure(&head) + measure(&foot);
    // A frame as long as its picture: the lines go without it. Fences say nothing, the head of a table does.
    let says_nothing = behind > 0;
    if frame * 2 > max {
        return pack(if says_nothing { body } else { &lines }, measure, max);
    }
    let line = if foot.is_empty() { "" } else { "\n" };
    let parts = pack(body, measure, max - frame);
    let mut fitting = Vec::with_capacity(parts.len());
    let mut has_head = says_nothing;
    for part in parts {
        let whole = format!("{head}{part}{line}{foot}");
        // What stands beside each other may measure more than each for itself.
        if measure(&whole) <= max {
            has_head = true;
            fitting.push(whole);
        } else {
            fitting.push(part);
        }
    }
    if !has_head {
        fitting.splice(0..0, pack(&sentences(&head), measure, max));
    }
    fitting
}

/// As many pieces together as fit; a piece that does not is cut further.
fn pack(pieces: &[&str], measure: &dyn Fn(&str) -> usize, max: usize) -> Vec<String> {
    let lengths: Vec<usize> = pieces.iter().map(|piece| measure(piece)).collect();
    let mut parts = Vec::new();
    let mut start = 0;
    while start < pieces.len() {
        let (mut end, mut sum) = (start + 1, lengths[start]);
        while end < pieces.len() && sum + lengths[end] <= max {
            sum += lengths[end];
            end += 1;
        }
        let mut part = pieces[start..end].concat();
        while end > start + 1 && measure(&part) > max {
            end -= 1;
            part = pieces[start..end].concat();
        }
        if measure(&part) > max {
            parts.extend(smaller(&part, measure, max));
        } else {
            parts.push(part.trim_end().to_owned());
        }
        start = end;
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// A sentence in words, a word in characters; blanks alone are no text.
fn smaller(text: &str, measure: &dyn Fn(&str) -> usize, max: usize) -> Vec<String> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    let words: Vec<&str> = text.split_inclusive(char::is_whitespace).collect();
    if words.len() > 1 {
        return pack(&words, measure, max);
    }
    let count = text.chars().count();
    if count <= 1 {
        return vec![text.to_owned()];
    }
    let half = text.char_indices().nth(count / 2).map_or(text.len(), |(at, _)| at);
    let mut parts = Vec::new();
    for part in [&text[..half], &text[half..]] {
        if measure(part) > max {
            parts.extend(smaller(part, measure, max));
        } else if !part.trim().is_empty() {
            parts.push(part.to_owned());
        }
    }
    parts
}

/// The last of a text that measures at most `max`, from the beginning of a sentence, line or word on.
pub(crate) fn tail(text: &str, form: Form, measure: &dyn Fn(&str) -> usize, max: usize) -> String {
    // Half a table or program explains nothing, and a heading is said in the row's place.
    if !matches!(form, Form::Paragraph | Form::Item) {
        return String::new();
    }
    let best = |pieces: &[&str]| {
        let mut start = pieces.len();
        let mut sum = 0;
        while start > 0 && sum + measure(pieces[start - 1]) <= max {
            start -= 1;
            sum += measure(pieces[start]);
        }
        while start < pieces.len() && measure(&pieces[start..].concat()) > max {
            start += 1;
        }
        pieces[start..].concat()
    };
    let of_sentences = best(&sentences(text));
    if !of_sentences.is_empty() {
        return of_sentences;
    }
    best(&text.split_inclusive(char::is_whitespace).collect::<Vec<_>>()).trim_start().to_owned()
}

/// Lines and sentences, each with what follows it up to the next.
fn sentences(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut ended) = (0, false);
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        let next = characters.peek().map(|(_, next)| *next);
        let breaks = match character {
            '\n' | '。' | '！' | '？' => true,
            ' ' | '\t' => {
                ended && next.is_some_and(|next| !next.is_whitespace() && !next.is_lowercase())
            }
            _ => false,
        };
        ended = matches!(character, '.' | '!' | '?' | '…')
            || ended && matches!(character, ')' | '"' | '\'' | '”' | '’' | '»' | '“');
        if breaks {
            let end = at + character.len_utf8();
            pieces.push(&text[start..end]);
            start = end;
        }
    }
    if start < text.len() {
        pieces.push(&text[start..]);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_and_lines_lose_nothing() {
        let text = "It opens at 9. He said \"no.\" Then e.g. this. 第一。第二\nA line\nlast";
        let pieces = sentences(text);
        assert_eq!(pieces.concat(), text);
        assert_eq!(
            pieces,
            [
                "It opens at 9. ",
                "He said \"no.\" ",
                "Then e.g. this. ",
                "第一。",
                "第二\n",
                "A line\n",
                "last"
            ]
        );
    }

    #[test]
    fn a_long_table_repeats_its_head_and_code_its_fences() {
        let words = |text: &str| text.split_whitespace().count();
        let rows: String =
            (0..6).map(|row| format!("\n| a{row} | b{row} |")).collect::<Vec<_>>().concat();
        let parts = cut(&format!("| x | y |\n| --- | --- |{rows}"), Form::Table, &words, 22);
        assert_eq!(parts.len(), 3);
        for (number, part) in parts.iter().enumerate() {
            assert!(part.starts_with("| x | y |\n| --- | --- |\n| a"), "{part}");
            assert!(part.contains(&format!("| a{} |", 2 * number)) && words(part) <= 22, "{part}");
        }
        let parts = cut("```\na b c\nd e f\ng h i\n```", Form::Code, &words, 8);
        assert_eq!(parts, ["```\na b c\nd e f\n```", "```\ng h i\n```"]);
    }

    #[test]
    fn however_little_is_allowed_no_part_is_blank_and_nothing_is_lost() {
        let text = "It opens at 9.  He said\n| --- |\n \u{a0}\"no\". 第一。\n\n \tend ";
        let seen = |text: &str| text.split_whitespace().collect::<String>();
        // Blanks are tokens, too.
        let characters = |text: &str| text.chars().count();
        for form in [Form::Paragraph, Form::Table] {
            for max in 1..60 {
                let parts = cut(text, form, &characters, max);
                assert!(parts.iter().all(|part| !part.trim().is_empty()), "{max}: {parts:?}");
                let said = seen(&parts.concat());
                // The head of a table may stand in every part.
                assert!(
                    seen(text).starts_with(&said[..20]) && said.ends_with("第一。end"),
                    "{max}: {parts:?}"
                );
                assert!(said.len() >= seen(text).len(), "{max}: {parts:?}");
            }
        }
    }

    #[test]
    fn a_word_longer_than_allowed_is_cut_between_characters() {
        let characters = |text: &str| text.chars().count();
        let parts = cut(&"ß".repeat(25), Form::Paragraph, &characters, 10);
        assert!(parts.iter().all(|part| characters(part) <= 10), "{parts:?}");
        assert_eq!(parts.concat(), "ß".repeat(25));
    }
}
