//! The tokens that structure is made of, and where a rendered text holds them.
//!
//! Special tokens are marks in every text. Added tokens that are ordinary text to the tokenizer, but
//! which the model's template writes, are marks in what others say: only the model itself may write
//! its `<think>`. The one that closes a turn closes it for everybody.

use std::ops::Range;

use tokenizers::AddedToken;

/// Whose words a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// The model's own turns.
    Model,
    /// Everybody else: people, the system, tools.
    Others,
}

/// A token that must not arise from text.
#[expect(clippy::struct_excessive_bools, reason = "each is a property that tokenizer.json gives")]
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    pub id: u32,
    /// Special in the tokenizer's own file.
    pub special: bool,
    text: String,
    /// Takes the blanks before it.
    lstrip: bool,
    /// Takes the blanks behind it.
    rstrip: bool,
    /// Is none within a word.
    single_word: bool,
    /// Closes a turn.
    closes: bool,
}

impl Mark {
    pub(super) fn of(id: u32, token: &AddedToken) -> Self {
        let AddedToken { content, single_word, lstrip, rstrip, normalized: _, special } = token;
        Self {
            id,
            special: *special,
            text: content.clone(),
            lstrip: *lstrip,
            rstrip: *rstrip,
            single_word: *single_word,
            closes: false,
        }
    }

    fn is_forged_by(&self, speaker: Speaker) -> bool {
        self.special || self.closes || speaker == Speaker::Others
    }
}

/// All of them, the longest first.
#[derive(Debug)]
pub(crate) struct Marks {
    all: Vec<Mark>,
    /// The bytes that one begins with.
    starts: [bool; 256],
}

impl Marks {
    /// Of the added tokens that are special, or of those that are not.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer, special: bool) -> Self {
        let mut marks = Self { all: Vec::new(), starts: [false; 256] };
        let tokens = tokenizer.get_added_tokens_decoder();
        let mut chosen: Vec<Mark> = tokens
            .iter()
            .filter(|(_, token)| token.special == special && !token.content.is_empty())
            .map(|(id, token)| Mark::of(*id, token))
            .collect();
        chosen.sort_unstable_by_key(|mark| mark.id);
        for mark in chosen {
            marks.add(mark);
        }
        marks
    }

    /// Whether a text holds the characters of one.
    pub(super) fn occur_in(&self, text: &str) -> bool {
        let begins = |at: usize| {
            let rest = &text.as_bytes()[at..];
            self.all.iter().any(|mark| rest.starts_with(mark.text.as_bytes()))
        };
        let starts = |(at, byte): (usize, u8)| self.starts[byte as usize].then_some(at);
        !self.all.is_empty() && text.bytes().enumerate().filter_map(starts).any(begins)
    }

    pub(super) fn add(&mut self, mark: Mark) {
        let Some(&first) = mark.text.as_bytes().first() else { return };
        self.starts[first as usize] = true;
        let longer = |other: &Mark| {
            (mark.text.len(), &other.text).cmp(&(other.text.len(), &mark.text)).is_lt()
        };
        let at = self.all.partition_point(longer);
        self.all.insert(at, mark);
    }

    pub(super) fn close(&mut self, id: Option<u32>) {
        for mark in &mut self.all {
            mark.closes |= Some(mark.id) == id;
        }
    }

    pub(crate) fn contain(&self, id: u32) -> bool {
        self.all.iter().any(|mark| mark.id == id)
    }

    pub(super) fn are_all_special(&self) -> bool {
        self.all.iter().all(|mark| mark.special)
    }

    /// Whether the speaker's text begins with a mark, or with the beginning of one that another text
    /// could complete.
    pub(crate) fn threatens(&self, text: &str, speaker: Speaker) -> bool {
        let one = |mark: &Mark| {
            mark.is_forged_by(speaker)
                && (text.starts_with(mark.text.as_str()) || mark.text.starts_with(text))
        };
        self.could_begin(text) && self.all.iter().any(one)
    }

    fn could_begin(&self, text: &str) -> bool {
        text.as_bytes().first().is_some_and(|&byte| self.starts[byte as usize])
    }

    /// The marks of a text of which `counts` is true, with the blanks that they take, and the texts
    /// between them.
    pub(crate) fn pieces(
        &self,
        text: &str,
        counts: impl Fn(&Mark) -> bool,
    ) -> Vec<(Range<usize>, Option<&Mark>)> {
        let (mut pieces, mut start, mut at) = (Vec::new(), 0, 0);
        while let Some(character) = text[at..].chars().next() {
            let Some(mark) = self.at(text, at, &counts) else {
                at += character.len_utf8();
                continue;
            };
            let (mut from, mut to) = (at, at + mark.text.len());
            if mark.lstrip {
                from = text[start..at].trim_end().len() + start;
            }
            if mark.rstrip {
                to += text[to..].len() - text[to..].trim_start().len();
            }
            if start < from {
                pieces.push((start..from, None));
            }
            pieces.push((from..to, Some(mark)));
            (at, start) = (to, to);
        }
        if start < text.len() {
            pieces.push((start..text.len(), None));
        }
        pieces
    }

    /// The mark that stands at a place, the longest if there are more.
    fn at(&self, text: &str, at: usize, counts: &impl Fn(&Mark) -> bool) -> Option<&Mark> {
        let rest = &text[at..];
        if !self.could_begin(rest) {
            return None;
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        self.all.iter().find(|mark| {
            let Some(behind) = rest.strip_prefix(mark.text.as_str()) else { return false };
            let alone = !text[..at].ends_with(is_word) && !behind.starts_with(is_word);
            counts(mark) && (alone || !mark.single_word)
        })
    }
}
