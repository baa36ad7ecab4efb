//! Bytes into tokens, by merges in their order: the pair of the lowest rank becomes one token, the
//! leftmost of equal ones first, until no pair can (Sennrich et al. 2016, section 3.2).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::tables::{Merges, NEVER};

/// From here on pairs wait in a heap: looking through all of them takes the square of the length.
const LONG: usize = 96;

/// Behind the last part.
const NONE: u32 = u32::MAX;

/// What merging works on, kept for the next piece.
#[derive(Debug, Default)]
pub(super) struct Parts {
    tokens: Vec<u32>,
    /// Rank of a part with the next one.
    ranks: Vec<u32>,
    previous: Vec<u32>,
    next: Vec<u32>,
    /// Rank and place of pairs; of each part at most one counts.
    waiting: BinaryHeap<Reverse<u64>>,
}

/// Pieces up to this many bytes leave their room for the next one.
const KEPT: usize = 64 << 10;

impl Parts {
    /// Adds the tokens of a piece, which is not empty, to `ids`.
    pub(super) fn merge(&mut self, piece: &[u8], merges: &Merges, ids: &mut Vec<u32>) {
        self.tokens.clear();
        self.tokens.extend(piece.iter().map(|&byte| merges.token(byte)));
        self.ranks.clear();
        self.ranks.extend(piece.windows(2).map(|pair| merges.rank_of_bytes(pair[0], pair[1])));
        self.ranks.push(NEVER);
        if piece.len() < LONG {
            self.merge_few(merges);
            ids.extend_from_slice(&self.tokens);
        } else {
            self.merge_many(merges);
            let mut at = 0;
            while at != NONE {
                ids.push(self.tokens[at as usize]);
                at = self.next[at as usize];
            }
        }
        if piece.len() > KEPT {
            *self = Self::default();
        }
    }

    fn merge_few(&mut self, merges: &Merges) {
        let Self { tokens, ranks, .. } = self;
        loop {
            let (mut least, mut at) = (NEVER, 0);
            for (place, &rank) in ranks.iter().enumerate() {
                if rank < least {
                    (least, at) = (rank, place);
                }
            }
            if least == NEVER {
                return;
            }
            tokens[at] = merges.made(least);
            tokens.remove(at + 1);
            ranks.remove(at);
            if let Some(&right) = tokens.get(at + 1) {
                ranks[at] = merges.rank(tokens[at], right);
            }
            if at > 0 {
                ranks[at - 1] = merges.rank(tokens[at - 1], tokens[at]);
            }
        }
    }

    fn merge_many(&mut self, merges: &Merges) {
        let Self { tokens, ranks, previous, next, waiting } = self;
        let length = tokens.len() as u32;
        previous.clear();
        previous.extend((0..length).map(|at| at.wrapping_sub(1)));
        next.clear();
        next.extend((1..length).chain([NONE]));
        let entry = |rank: u32, at: u32| Reverse(u64::from(rank) << 32 | u64::from(at));
        let mut pairs = std::mem::take(waiting).into_vec();
        pairs.clear();
        let known = ranks.iter().zip(0..length).filter(|(rank, _)| **rank != NEVER);
        pairs.extend(known.map(|(&rank, at)| entry(rank, at)));
        *waiting = pairs.into();
        while let Some(Reverse(first)) = waiting.pop() {
            let (rank, at) = ((first >> 32) as u32, first as u32);
            // A part that was merged since has another rank, or none.
            if ranks[at as usize] != rank {
                continue;
            }
            let joined = next[at as usize];
            let (before, behind) = (previous[at as usize], next[joined as usize]);
            tokens[at as usize] = merges.made(rank);
            next[at as usize] = behind;
            (ranks[at as usize], ranks[joined as usize]) = (NEVER, NEVER);
            let mut pair = |left: u32, right: u32| {
                let rank = merges.rank(tokens[left as usize], tokens[right as usize]);
                ranks[left as usize] = rank;
                if rank != NEVER {
                    waiting.push(entry(rank, left));
                }
            };
            if behind != NONE {
                pair(at, behind);
                previous[behind as usize] = at;
            }
            if before != NONE {
                pair(before, at);
            }
        }
    }
}
