//! A sample as text that shows what is learnt: coloured on a terminal, marked with ⟦ ⟧ elsewhere.

use crate::error::Error;
use crate::sample::{IGNORE, Sample};
use crate::tokenizer::Tokenizer;
use crate::visible::visible;

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
    let targets = sample.labels.iter().map(|&label| label != IGNORE);
    let tokens: Vec<(u32, bool)> = sample.tokens.iter().copied().zip(targets).collect();
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
