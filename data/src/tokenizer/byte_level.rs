//! Byte-level BPE of Llama 3's kind, encoded here: the ids of the reference crate at many times its speed.
//!
//! A text is split by Llama 3's expression ([`split`]), a piece that is a token whole becomes that
//! token (`ignore_merges`), and all others are merged from their bytes. Tables take 13 MB for Llama 3's
//! 128,000 tokens, and pieces met lately 1 MB for each thread. Every other kind of tokenizer is left to
//! the reference crate; `examples/same_ids.rs` compares the two on any text.

mod alphabet;
mod hash;
mod known;
mod merging;
mod ranges;
mod split;
mod tables;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

pub(crate) use alphabet::Alphabet;
use hash::{SHORT, words};
use known::Known;
use merging::Parts;
use split::Splitter;
use tables::{Merge, Merges, Vocabulary};

/// A text in tokens is seldom longer than this share of its bytes.
const BYTES_OF_A_TOKEN: usize = 3;

/// Encodes texts; what its threads work with is kept for the next text.
#[derive(Debug)]
pub(crate) struct ByteLevel {
    vocabulary: Vocabulary,
    merges: Merges,
    /// A piece that is a token whole is not merged.
    ignores_merges: bool,
    desks: Mutex<Vec<Desk>>,
}

/// What one thread works with.
#[derive(Debug, Default)]
struct Desk {
    known: Known,
    parts: Parts,
}

/// Tokens and merges as a tokenizer.json spells them, in the byte-level alphabet.
#[derive(Debug)]
pub(crate) struct Spelled<'a> {
    pub(crate) tokens: Vec<(Cow<'a, str>, u32)>,
    /// Pairs of tokens that become one, in their order.
    pub(crate) merges: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub(crate) ignores_merges: bool,
}

impl ByteLevel {
    /// Tokens by their ids, and pairs of ids that become one token, in their order. `None` where a byte
    /// has no token of its own, so that texts would lose it, or a pair makes no token.
    pub(crate) fn of_ranks(tokens: &[&[u8]], merges: &[(usize, usize)]) -> Option<Self> {
        let ids = tokens.iter().enumerate().map(|(id, bytes)| (bytes, id as u32));
        let pairs = merges.iter().map(|&(left, right)| Some((left as u32, right as u32)));
        Self::new(Vocabulary::new(ids), pairs, true)
    }

    /// As [`Self::of_ranks`].
    pub(crate) fn of_spelled(spelled: &Spelled<'_>) -> Option<Self> {
        let Spelled { tokens, merges, ignores_merges } = spelled;
        let alphabet = Alphabet::new();
        // What the alphabet does not spell no text can be made of.
        let bytes = tokens.iter().filter_map(|(token, id)| Some((alphabet.bytes(token)?, *id)));
        let vocabulary = Vocabulary::new(bytes.collect::<Vec<_>>().into_iter());
        let id = |token: &str| alphabet.bytes(token).map(|bytes| vocabulary.id(&bytes));
        let pair = |(left, right): &(Cow<'_, str>, Cow<'_, str>)| Some((id(left)?, id(right)?));
        let pairs = merges.iter().filter_map(pair).map(|(left, right)| left.zip(right));
        let pairs: Vec<Option<(u32, u32)>> = pairs.collect();
        Self::new(vocabulary, pairs.into_iter(), *ignores_merges)
    }

    fn new(
        vocabulary: Vocabulary,
        pairs: impl Iterator<Item = Option<(u32, u32)>>,
        ignores_merges: bool,
    ) -> Option<Self> {
        let mut of_byte = [0; 256];
        for (byte, id) in (0..=u8::MAX).zip(&mut of_byte) {
            *id = vocabulary.id(&[byte])?;
        }
        let merge = |pair: Option<(u32, u32)>| {
            let (left, right) = pair?;
            let made = vocabulary.id(&[vocabulary.bytes(left), vocabulary.bytes(right)].concat())?;
            Some(Merge { left, right, made })
        };
        let merges = Merges::new(&of_byte, &pairs.map(merge).collect::<Option<Vec<_>>>()?);
        Some(Self { vocabulary, merges, ignores_merges, desks: Mutex::default() })
    }

    /// The ids of a text.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / BYTES_OF_A_TOKEN + 1);
        self.at_desk(|desk| {
            let (splitter, bytes, mut at) = (Splitter::new(text), text.as_bytes(), 0);
            while at < bytes.len() {
                let end = splitter.end_of_piece(at);
                self.piece(bytes, at..end, desk, &mut ids);
                at = end;
            }
        });
        ids
    }

    /// The ids of a text, each with the bytes of the characters that it stands for, or for parts of.
    pub(super) fn encode_with_offsets(&self, text: &str) -> Vec<(u32, Range<usize>)> {
        let (mut found, mut ids) = (Vec::new(), Vec::new());
        self.at_desk(|desk| {
            let (splitter, bytes, mut at) = (Splitter::new(text), text.as_bytes(), 0);
            while at < bytes.len() {
                let end = splitter.end_of_piece(at);
                ids.clear();
                self.piece(bytes, at..end, desk, &mut ids);
                for &id in &ids {
                    let behind = at + self.vocabulary.bytes(id).len();
                    found.push((id, text.floor_char_boundary(at)..text.ceil_char_boundary(behind)));
                    at = behind;
                }
            }
        });
        found
    }

    /// Works with what no other thread works with.
    fn at_desk(&self, work: impl FnOnce(&mut Desk)) {
        // A panic elsewhere leaves no half-written list: it is pushed to and popped from.
        let desks = || self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut desk = desks().pop().unwrap_or_default();
        work(&mut desk);
        desks().push(desk);
    }

    /// Adds the ids of a piece of a text.
    #[inline]
    fn piece(&self, text: &[u8], at: Range<usize>, desk: &mut Desk, ids: &mut Vec<u32>) {
        let (seed, length) = (self.vocabulary.seed(), at.len());
        if length > SHORT {
            let piece = &text[at];
            self.unknown(piece, seed.bytes(piece), &mut desk.parts, ids);
            return;
        }
        let words = words(text, at.start, at.end);
        let hash = seed.words(words, length);
        if let Some(tokens) = desk.known.get(hash, words, length) {
            match tokens {
                [token] => ids.push(*token),
                _ => ids.extend_from_slice(tokens),
            }
            return;
        }
        let first = ids.len();
        self.unknown(&text[at], hash, &mut desk.parts, ids);
        desk.known.put(hash, words, length, &ids[first..]);
    }

    fn unknown(&self, piece: &[u8], hash: u64, parts: &mut Parts, ids: &mut Vec<u32>) {
        let whole =
            if self.ignores_merges { self.vocabulary.id_of_hash(piece, hash) } else { None };
        match whole {
            Some(id) => ids.push(id),
            None => parts.merge(piece, &self.merges, ids),
        }
    }

    /// What the tables take of memory.
    pub(crate) fn size(&self) -> usize {
        self.vocabulary.size() + self.merges.size()
    }
}

#[cfg(test)]
mod tests;
