//! A sample as text that shows what is learnt: coloured on a terminal, marked with ⟦ ⟧ elsewhere.

use std::ops::Range;

use crate::error::Error;
use crate::hygiene::personal::Personal;
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

/// A stretch of a sample that is shown in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// As it may be shown: control tokens are spelled out, the same characters in the data appear as `\<|`, and
    /// what must not reach a terminal as [`visible`] has it.
    pub text: String,
    /// Whether it is learnt.
    pub target: bool,
    /// Whether it is of control tokens.
    pub control: bool,
}

/// A sample to be shown, a long one without its middle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewParts {
    /// Its beginning; all of a short one.
    pub head: Vec<Stretch>,
    /// What is said of what stands between.
    pub between: Option<String>,
    /// Its end.
    pub tail: Vec<Stretch>,
}

/// How samples are shown.
#[derive(Debug, Clone, Copy)]
pub struct Preview<'a> {
    /// Makes text of ids.
    pub tokenizer: &'a Tokenizer,
    /// What is masked wherever a sample is shown, whatever the model learns.
    pub masked: Option<&'a Personal>,
}

impl Preview<'_> {
    /// The sample as text, so that data can neither pose as structure nor steer the terminal.
    ///
    /// # Errors
    /// The tokenizer does not know an id.
    pub fn whole(&self, sample: &Sample, style: PreviewStyle) -> Result<String, Error> {
        Ok(joined(&self.stretches(sample, 0..sample.tokens.len())?, style))
    }

    /// As [`Preview::whole`], but of a long sample beginning and end alone, with a line that says how much
    /// stands between them.
    ///
    /// # Errors
    /// The tokenizer does not know an id.
    pub fn cut(&self, sample: &Sample, style: PreviewStyle) -> Result<String, Error> {
        let PreviewParts { head, between, tail } = self.parts(sample)?;
        let Some(between) = between else { return Ok(joined(&head, style)) };
        let (head, tail) = (joined(&head, style), joined(&tail, style));
        Ok(format!("{head}\n{between}\n{tail}"))
    }

    /// The sample, a long one without its middle.
    ///
    /// # Errors
    /// The tokenizer does not know an id.
    pub fn parts(&self, sample: &Sample) -> Result<PreviewParts, Error> {
        let length = sample.tokens.len();
        // A cut that saves little is none.
        if length <= HEAD + TAIL + TAIL / 2 {
            let head = self.stretches(sample, 0..length)?;
            return Ok(PreviewParts { head, between: None, tail: Vec::new() });
        }
        let (head, tail) = (HEAD, length - TAIL);
        let targets = sample.labels[head..tail].iter().filter(|&&label| label != IGNORE).count();
        let between =
            format!("… {} tokens, {targets} of them targets, are left out here …", tail - head);
        Ok(PreviewParts {
            head: self.stretches(sample, 0..head)?,
            between: Some(between),
            tail: self.stretches(sample, tail..length)?,
        })
    }

    /// The stretches of a part of a sample.
    fn stretches(&self, sample: &Sample, part: Range<usize>) -> Result<Vec<Stretch>, Error> {
        let is_control = |at: usize| self.tokenizer.is_special(sample.tokens[at]);
        let is_target = |at: usize| sample.labels[at] != IGNORE;
        let is_same =
            |a: usize, b: usize| is_target(a) == is_target(b) && !is_control(a) && !is_control(b);
        let (mut stretches, mut start) = (Vec::new(), part.start);
        while start < part.end {
            let mut end = start + 1;
            while end < part.end && is_same(start, end) {
                end += 1;
            }
            let (target, control) = (is_target(start), is_control(start));
            let text = if control {
                self.tokenizer.decode(&sample.tokens[start..end], false)?
            } else {
                // All that it is part of: a value that the cut goes through is masked as a whole.
                let mut whole = start..end;
                while whole.start > 0 && is_same(start, whole.start - 1) {
                    whole.start -= 1;
                }
                while whole.end < sample.tokens.len() && is_same(start, whole.end) {
                    whole.end += 1;
                }
                self.of_data(&sample.tokens, start..end, whole)?
            };
            stretches.push(Stretch { text: visible(&text).into_owned(), target, control });
            start = end;
        }
        Ok(stretches)
    }

    /// The text of `part` of the tokens of `whole`, which are of data.
    fn of_data(
        &self,
        tokens: &[u32],
        part: Range<usize>,
        whole: Range<usize>,
    ) -> Result<String, Error> {
        let decode = |range: Range<usize>| self.tokenizer.decode(&tokens[range], false);
        // A character of several tokens may be cut in two.
        let own = decode(part.clone())?;
        let own = if part.end < whole.end { own.trim_end_matches('\u{fffd}') } else { &own };
        let own = if part.start > whole.start { own.trim_start_matches('\u{fffd}') } else { own };
        let Some(masked) = self.masked else { return Ok(escaped(own)) };
        if part == whole {
            return Ok(escaped(&masked.shown(own)));
        }
        let all = decode(whole.clone())?;
        let at = if part.start == whole.start {
            0
        } else if part.end == whole.end {
            all.len().saturating_sub(own.len())
        } else {
            decode(whole.start..part.start)?.trim_end_matches('\u{fffd}').len()
        };
        Ok(escaped(&masked.shown_within(&all, at..at + own.len())))
    }
}

fn escaped(text: &str) -> String {
    text.replace("<|", "\\<|")
}

fn joined(stretches: &[Stretch], style: PreviewStyle) -> String {
    let mut out = String::new();
    for run in stretches.chunk_by(|a, b| a.target == b.target) {
        let is_marked = run[0].target && style == PreviewStyle::Plain;
        out.push_str(if is_marked { "⟦" } else { "" });
        for Stretch { text, target, control } in run {
            let colour = match (style, target, control) {
                (PreviewStyle::Plain, ..) | (_, false, false) => "",
                (_, true, false) => "\x1b[32m",
                (_, true, true) => "\x1b[2;32m",
                (_, false, true) => "\x1b[2m",
            };
            let reset = if colour.is_empty() { "" } else { "\x1b[0m" };
            out.extend([colour, text, reset]);
        }
        out.push_str(if is_marked { "⟧" } else { "" });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Origin;
    use crate::hygiene::personal::MaskKey;
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
        let preview = Preview { tokenizer: tokenizer(), masked: None };
        let show = |length| preview.cut(&sample(length), PreviewStyle::Plain).unwrap();
        let short = sample(600);
        assert_eq!(show(600), preview.whole(&short, PreviewStyle::Plain).unwrap());
        let long = show(10_000);
        assert!(
            long.contains("\n… 9500 tokens, 9450 of them targets, are left out here …\n⟦"),
            "{long}"
        );
        assert!(long.chars().count() < 700, "{long}");
    }

    #[test]
    fn what_is_masked_is_masked_also_where_a_cut_goes_through_it() {
        let personal = Personal::that_reports(MaskKey::of_seed(7));
        let preview = Preview { tokenizer: tokenizer(), masked: Some(&personal) };
        let of = |text: &str| {
            let tokens = tokenizer().encode(text).unwrap();
            let labels = vec![IGNORE; tokens.len()];
            Sample { tokens, labels, origin: Origin { file: 0, line: 1, item: None } }
        };
        let value = "4111 1111 1111 1111";
        for before in 260..310 {
            let filler = |length: usize| "a ".repeat(length);
            let sample = of(&format!("{}{value} {}", filler(before / 2), filler(600)));
            let shown = preview.cut(&sample, PreviewStyle::Plain).unwrap();
            assert!(!shown.contains("1111"), "{before}: {shown}");
        }
        let whole = preview.whole(&of(&format!("pay {value} now")), PreviewStyle::Plain).unwrap();
        assert!(whole.starts_with("pay <CARD_") && whole.ends_with("> now"), "{whole}");
    }
}
