//! Pieces that were met lately, with their tokens: most of a text is made of few words.

use super::hash::{SHORT, Words};

/// As many as fit into a processor's second cache.
const SLOTS: usize = 1 << 14;
/// Tokens of a piece that is kept.
const MOST_TOKENS: usize = 8;

#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Slot {
    words: Words,
    /// In bytes; 0 for an empty slot.
    length: u8,
    count: u8,
    tokens: [u32; MOST_TOKENS],
}

/// Each piece has one place, and the last one stays there.
#[derive(Debug)]
pub(super) struct Known(Box<[Slot]>);

impl Default for Known {
    fn default() -> Self {
        Self(vec![Slot::default(); SLOTS].into())
    }
}

impl Known {
    fn place(hash: u64) -> usize {
        (hash >> 40) as usize % SLOTS
    }

    /// Tokens of a piece of 1 to [`SHORT`] bytes.
    #[inline]
    pub(super) fn get(&self, hash: u64, words: Words, length: usize) -> Option<&[u32]> {
        let slot = &self.0[Self::place(hash)];
        (slot.length as usize == length && slot.words == words)
            .then(|| &slot.tokens[..slot.count as usize])
    }

    pub(super) fn put(&mut self, hash: u64, words: Words, length: usize, tokens: &[u32]) {
        if length > SHORT || tokens.len() > MOST_TOKENS {
            return;
        }
        let slot = &mut self.0[Self::place(hash)];
        *slot = Slot { words, length: length as u8, count: tokens.len() as u8, ..Slot::default() };
        slot.tokens[..tokens.len()].copy_from_slice(tokens);
    }
}
