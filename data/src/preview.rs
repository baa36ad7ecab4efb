//! A sample as text that shows what is learnt: coloured on a terminal, marked with ⟦ ⟧ elsewhere.

use crate::error::Error;
use crate::sample::{IGNORE, Sample};
use crate::tokenizer::Tokenizer;
use crate::visible::visible;

/// Tokens at the beginning of a long sample that [`preview_cut`] shows.
const HEAD: usize = 300;
/// Tokens at its end: answers stand there.
const TAIL: usize = 200;

/// How targets are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreviewStyle {
    /// ANSI colours: targets green, control tokens dim.
    Colour,
    /// Targets between ⟦ and ⟧.
    Plain,
}

/// The sample as text. Control tokens are spelled out; the same characters in the data appear as
/// `\<|`, and what must not reach a terminal as [`visible`] has it, so that data can neither pose as
/// structure nor steer the terminal.
///
/// # Errors
/// The tokenizer does not know an id.
pub fn preview(
    sample: &Sample,
    tokenizer: &Tokenizer,
    style: PreviewStyle,
) -> Result<String, Error> {
    tokens_as_text(&sample.tokens, &sample.labels, tokenizer, style)
}

/// As [`preview`], but of a long sample beginning and end alone, with a line that says how much
/// stands between them.
///
/// # Errors
/// The tokenizer does not know an id.
pub fn preview_cut(
    sample: &Sample,
    tokenizer: &Tokenizer,
    style: PreviewStyle,
) -> Result<String, Error> {
    let Sample { tokens, labels, .. } = sample;
    let length = tokens.len();
    // A cut that saves little is none.
    if length <= HEAD + TAIL + TAIL / 2 {
        return preview(sample, tokenizer, style);
    }
    let (head, tail) = (HEAD, length - TAIL);
    let part = |range: std::ops::Range<usize>| {
        tokens_as_text(&tokens[range.clone()], &labels[range], tokenizer, style)
    };
    let targets = labels[head..tail].iter().filter(|&&label| label != IGNORE).count();
    Ok(format!(
        "{}\n… {} tokens, {targets} of them targets, are left out here …\n{}",
        // A character of several tokens may be cut in two.
        part(0..head)?.trim_end_matches('\u{fffd}'),
        tail - head,
        part(tail..length)?.trim_start_matches('\u{fffd}')
    ))
}

fn tokens_as_text(
    tokens: &[u32],
    labels: &[i32],
    tokenizer: &Tokenizer,
    style: PreviewStyle,
) -> Result<String, Error> {
    let targets = labels.iter().map(|&label| label != IGNORE);
    let tokens: Vec<(u32, bool)> = tokens.iter().copied().zip(targets).collect();
    let mut out = String::new();
    for run in tokens.chunk_by(|a, b| a.1 == b.1) {
        let target = run[0].1;
        if target && style == PreviewStyle::Plain {
            out.push('⟦');
        }
        let ordinary = |id| !tokenizer.is_special(id);
        for part in run.chunk_by(|a, b| ordinary(a.0) && ordinary(b.0)) {
            let ids: Vec<u32> = part.iter().map(|&(id, _)| id).collect();
            let text = tokenizer.decode(&ids, false)?;
            let special = tokenizer.is_special(ids[0]);
            let text = if special { text } else { text.replace("<|", "\\<|") };
            let text = visible(&text);
            let colour = match (style, target, special) {
                (PreviewStyle::Plain, ..) | (_, false, false) => "",
                (_, true, false) => "\x1b[32m",
                (_, true, true) => "\x1b[2;32m",
                (_, false, true) => "\x1b[2m",
            };
            let reset = if colour.is_empty() { "" } else { "\x1b[0m" };
            out.extend([colour, &text, reset]);
        }
        if target && style == PreviewStyle::Plain {
            out.push('⟧');
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Origin;
    use crate::test_tokenizer::tokenizer;

    fn sample(length: usize) -> Sample {
        let one = tokenizer().encode("1 ").unwrap();
        let tokens: Vec<u32> = one.iter().copied().cycle().take(length).collect();
        let labels = tokens.iter().enumerate();
        let labels = labels.map(|(at, &id)| if at < 350 { IGNORE } else { id as i32 }).collect();
        Sample { tokens, labels, origin: Origin { file: 0, line: 1, item: None } }
    }

    #[test]
    fn a_long_sample_is_cut_with_a_word_about_it_and_a_short_one_is_not() {
        let show = |length| preview_cut(&sample(length), tokenizer(), PreviewStyle::Plain).unwrap();
        let short = sample(600);
        assert_eq!(show(600), preview(&short, tokenizer(), PreviewStyle::Plain).unwrap());
        let long = show(10_000);
        assert!(
            long.contains("\n… 9500 tokens, 9450 of them targets, are left out here …\n⟦"),
            "{long}"
        );
        assert!(long.chars().count() < 700, "{long}");
    }
}
