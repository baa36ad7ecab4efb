//! Llama 3's split expression by hand: where each word, number, run of signs or of blanks ends.
//!
//! ```text
//! (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*
//!     |\s*[\r\n]+|\s+(?!\S)|\s+
//! ```
//!
//! Every character belongs to a piece, and a text of any kind takes time in proportion to its length.

use std::sync::LazyLock;

use super::ranges::{LETTERS, NUMBERS};

/// What the expression tells characters apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    /// `\r` and `\n`.
    LineEnd,
    /// White space that ends no line.
    Blank,
    /// All others, marks and control characters among them.
    Sign,
}

/// Code points of a block of the table.
const BLOCK: usize = 256;

/// Classes of all code points: blocks, of which most are equal, and the one of each 256 code points.
struct Classes {
    block_of: Vec<u16>,
    blocks: Vec<[Class; BLOCK]>,
}

static CLASSES: LazyLock<Classes> = LazyLock::new(Classes::new);

impl Classes {
    fn new() -> Self {
        let mut all = vec![Class::Sign; 0x11_0000];
        for (ranges, class) in [(LETTERS, Class::Letter), (NUMBERS, Class::Number)] {
            for range in ranges.chunks_exact(2) {
                all[range[0] as usize..range[1] as usize].fill(class);
            }
        }
        for blank in ('\0'..='\u{3000}').filter(|character| character.is_whitespace()) {
            all[blank as usize] = Class::Blank;
        }
        (all['\r' as usize], all['\n' as usize]) = (Class::LineEnd, Class::LineEnd);
        let (mut block_of, mut blocks) = (Vec::new(), Vec::<[Class; BLOCK]>::new());
        for block in all.chunks_exact(BLOCK) {
            let known = blocks.iter().position(|known| known == block);
            block_of.push(known.unwrap_or(blocks.len()) as u16);
            if known.is_none() {
                blocks.push(block.try_into().expect("chunks have the length of a block"));
            }
        }
        Self { block_of, blocks }
    }

    #[inline]
    fn of(&self, code: u32) -> Class {
        self.blocks[self.block_of[code as usize / BLOCK] as usize][code as usize % BLOCK]
    }
}

/// Takes a text apart.
pub(super) struct Splitter<'a> {
    text: &'a [u8],
    classes: &'static Classes,
    ascii: &'static [Class; BLOCK],
}

impl<'a> Splitter<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let classes = &*CLASSES;
        Self { text: text.as_bytes(), classes, ascii: &classes.blocks[0] }
    }

    /// The class of the character that begins at a place, and its length; `None` at the end.
    #[inline]
    fn at(&self, at: usize) -> Option<(Class, usize)> {
        let &first = self.text.get(at)?;
        if first < 0x80 {
            return Some((self.ascii[first as usize], 1));
        }
        Some(self.beyond_ascii(at, first))
    }

    /// The text is UTF-8, so what follows the first byte of a character is there.
    fn beyond_ascii(&self, at: usize, first: u8) -> (Class, usize) {
        let low = |offset: usize| u32::from(self.text[at + offset] & 0x3f);
        let first = u32::from(first);
        let (code, length) = match first {
            0..0xe0 => ((first & 0x1f) << 6 | low(1), 2),
            0xe0..0xf0 => ((first & 0x0f) << 12 | low(1) << 6 | low(2), 3),
            _ => ((first & 0x07) << 18 | low(1) << 12 | low(2) << 6 | low(3), 4),
        };
        (self.classes.of(code), length)
    }

    /// Behind a run of characters of a class that begins at a place.
    #[inline]
    fn run(&self, mut at: usize, class: Class) -> usize {
        while let Some((found, length)) = self.at(at)
            && found == class
        {
            at += length;
        }
        at
    }

    /// Behind the piece that begins at a place within the text.
    #[inline]
    pub(super) fn end_of_piece(&self, at: usize) -> usize {
        let Some((class, length)) = self.at(at) else { return at };
        let behind = at + length;
        match class {
            Class::Letter => self.run(behind, Class::Letter),
            Class::Number => self.number(behind),
            Class::LineEnd => self.blanks(at),
            Class::Blank => match self.at(behind) {
                Some((Class::Letter, length)) => self.run(behind + length, Class::Letter),
                Some((Class::Sign, length)) if self.text[at] == b' ' => self.signs(behind + length),
                _ => self.blanks(at),
            },
            Class::Sign => {
                if self.text[at] == b'\''
                    && let Some(length) = contraction(&self.text[behind..])
                {
                    return behind + length;
                }
                match self.at(behind) {
                    Some((Class::Letter, length)) => self.run(behind + length, Class::Letter),
                    _ => self.signs(behind),
                }
            }
        }
    }

    /// Behind up to three digits, the first of which ends at a place.
    fn number(&self, mut at: usize) -> usize {
        for _ in 1..3 {
            match self.at(at) {
                Some((Class::Number, length)) => at += length,
                _ => break,
            }
        }
        at
    }

    /// Behind signs and the line ends that follow them.
    fn signs(&self, at: usize) -> usize {
        let end = self.run(at, Class::Sign);
        self.run(end, Class::LineEnd)
    }

    /// White space: up to its last line end, or all at the end of the text, or all but the last one,
    /// which belongs to what follows.
    fn blanks(&self, at: usize) -> usize {
        let (mut end, mut last, mut behind_line_end) = (at, at, None);
        while let Some((class, length)) = self.at(end) {
            match class {
                Class::LineEnd => behind_line_end = Some(end + length),
                Class::Blank => {}
                _ => break,
            }
            (last, end) = (end, end + length);
        }
        match behind_line_end {
            Some(place) => place,
            None if end < self.text.len() && last > at => last,
            None => end,
        }
    }
}

/// Length of the ending behind an apostrophe, in any case; `ſ` is an `s` in another case.
fn contraction(text: &[u8]) -> Option<usize> {
    let lower = |at: usize| text.get(at).map(u8::to_ascii_lowercase);
    match (lower(0)?, lower(1)) {
        (b's' | b't' | b'm' | b'd', _) => Some(1),
        (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) | (0xc5, Some(0xbf)) => Some(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};
    use tokenizers::{SplitDelimiterBehavior, pre_tokenizers};

    use super::*;
    use crate::llama3_tokenizer::SPLIT;

    fn reference() -> &'static pre_tokenizers::split::Split {
        static REFERENCE: LazyLock<Split> = LazyLock::new(|| {
            let pattern = SplitPattern::Regex(SPLIT.to_owned());
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap()
        });
        &REFERENCE
    }

    fn ends_of_reference(text: &str) -> Vec<usize> {
        let mut pieces = PreTokenizedString::from(text);
        reference().pre_tokenize(&mut pieces).unwrap();
        let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        pieces.into_iter().map(|(_, (_, end), _)| end).collect()
    }

    fn ends(text: &str) -> Vec<usize> {
        let splitter = Splitter::new(text);
        let (mut ends, mut at) = (Vec::new(), 0);
        while at < text.len() {
            at = splitter.end_of_piece(at);
            ends.push(at);
        }
        ends
    }

    #[test]
    fn every_character_is_of_the_class_that_the_reference_engine_says() {
        // Each stands before, between and behind what tells the classes apart.
        for block in 0..0x1100_u32 {
            let characters = (block * 256..(block + 1) * 256).filter_map(char::from_u32);
            let text: String = characters
                .flat_map(|found| [found, 'a', found, '1', found, ' ', found, '\n'])
                .collect();
            assert_eq!(ends(&text), ends_of_reference(&text), "block {block:#x}");
        }
    }

    #[test]
    fn contractions_end_where_the_reference_engine_says() {
        let all = (0..0x11_0000).filter_map(char::from_u32).filter(|found| found.is_alphabetic());
        for chunk in all.collect::<Vec<_>>().chunks(4_096) {
            for behind in ["", "e", "l", "E", "ſ"] {
                let text: Vec<String> =
                    chunk.iter().map(|found| format!("x'{found}{behind}b ")).collect();
                let text = text.concat();
                assert_eq!(ends(&text), ends_of_reference(&text), "{:?} and {behind:?}", chunk[0]);
            }
        }
    }

    proptest! {
        #[test]
        fn texts_are_split_as_the_reference_engine_splits_them(
            text in r"([ \n\r\t'’sStTrRvVeElLmMdDſ7a.!_€é中🙂\u{a0}\u{3000}\u{301}]|\PC|\p{Any}){0,40}",
        ) {
            prop_assert_eq!(ends(&text), ends_of_reference(&text));
        }
    }
}
