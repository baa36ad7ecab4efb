//! What an encoder looks up: tokens by their bytes, and merges by the pair of tokens that they join.

use super::hash::Seed;

/// No merge: behind all of them in their order.
pub(super) const NEVER: u32 = u32::MAX;

/// Slots of a table of so many entries, of which at least one is empty.
fn slots(entries: usize) -> usize {
    (entries + entries / 3 + 1).next_power_of_two()
}

/// Tokens by their bytes. Open addressing, at most three quarters full.
#[derive(Debug)]
pub(super) struct Vocabulary {
    seed: Seed,
    /// The upper half of a hash, and the place of its token among all, counted from 1; 0 for none.
    slots: Vec<(u32, u32)>,
    tokens: Vec<Token>,
    bytes: Vec<u8>,
    /// Where each id has its bytes.
    by_id: Vec<(u32, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Token {
    start: u32,
    end: u32,
    id: u32,
}

impl Vocabulary {
    /// Where a string stands twice, its last id counts, as in JSON.
    pub(super) fn new<B: AsRef<[u8]>>(entries: impl ExactSizeIterator<Item = (B, u32)>) -> Self {
        let mut vocabulary = Self {
            seed: Seed::new(),
            slots: vec![(0, 0); slots(entries.len())],
            tokens: Vec::with_capacity(entries.len()),
            bytes: Vec::new(),
            by_id: Vec::new(),
        };
        for (bytes, id) in entries {
            vocabulary.insert(bytes.as_ref(), id);
        }
        let Self { tokens, by_id, .. } = &mut vocabulary;
        let size = tokens.iter().map(|token| token.id as usize + 1).max().unwrap_or(0);
        by_id.resize(size, (0, 0));
        for Token { start, end, id } in tokens {
            by_id[*id as usize] = (*start, *end);
        }
        vocabulary.bytes.shrink_to_fit();
        vocabulary
    }

    fn insert(&mut self, bytes: &[u8], id: u32) {
        let hash = self.seed.bytes(bytes);
        let slot = self.slot(bytes, hash);
        if let Some(token) = self.token_at(slot) {
            self.tokens[token].id = id;
            return;
        }
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        self.tokens.push(Token { start, end: self.bytes.len() as u32, id });
        self.slots[slot] = ((hash >> 32) as u32, self.tokens.len() as u32);
    }

    fn token_at(&self, slot: usize) -> Option<usize> {
        (self.slots[slot].1 as usize).checked_sub(1)
    }

    /// Where a token is, or would be.
    #[inline]
    fn slot(&self, bytes: &[u8], hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while let Some(token) = self.token_at(slot) {
            let Token { start, end, .. } = self.tokens[token];
            let tag = self.slots[slot].0;
            if tag == (hash >> 32) as u32 && &self.bytes[start as usize..end as usize] == bytes {
                break;
            }
            slot = (slot + 1) & mask;
        }
        slot
    }

    pub(super) fn seed(&self) -> Seed {
        self.seed
    }

    pub(super) fn id(&self, bytes: &[u8]) -> Option<u32> {
        self.id_of_hash(bytes, self.seed.bytes(bytes))
    }

    /// The token of these bytes, whose hash is known.
    #[inline]
    pub(super) fn id_of_hash(&self, bytes: &[u8], hash: u64) -> Option<u32> {
        self.token_at(self.slot(bytes, hash)).map(|token| self.tokens[token].id)
    }

    /// The bytes of a token.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        let (start, end) = self.by_id[id as usize];
        &self.bytes[start as usize..end as usize]
    }

    /// What it takes of memory.
    pub(super) fn size(&self) -> usize {
        let Self { seed: _, slots, tokens, bytes, by_id } = self;
        size_of_val(&slots[..]) + size_of_val(&tokens[..]) + bytes.len() + size_of_val(&by_id[..])
    }
}

/// Merges by pairs of ids. Open addressing, at most three quarters full.
#[derive(Debug)]
pub(super) struct Merges {
    seed: Seed,
    pairs: Vec<u64>,
    /// Place of the merge in their order, beside its pair.
    ranks: Vec<u32>,
    /// The token that the merge of a rank makes.
    made: Vec<u32>,
    /// The token of each byte.
    of_byte: [u32; 256],
    /// Ranks of the pairs of single bytes.
    of_bytes: Vec<u32>,
}

/// Two tokens that become one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Merge {
    pub(super) left: u32,
    pub(super) right: u32,
    pub(super) made: u32,
}

/// No pair: ids stay below it.
const NO_PAIR: u64 = u64::MAX;

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl Merges {
    /// In their order; where a pair stands twice, its last place counts.
    pub(super) fn new(of_byte: &[u32; 256], merges: &[Merge]) -> Self {
        let size = slots(merges.len());
        let mut table = Self {
            seed: Seed::new(),
            pairs: vec![NO_PAIR; size],
            ranks: vec![NEVER; size],
            made: merges.iter().map(|merge| merge.made).collect(),
            of_byte: *of_byte,
            of_bytes: vec![NEVER; 1 << 16],
        };
        for (rank, Merge { left, right, .. }) in merges.iter().enumerate() {
            let slot = table.slot(key(*left, *right));
            (table.pairs[slot], table.ranks[slot]) = (key(*left, *right), rank as u32);
        }
        for left in 0..256 {
            for right in 0..256 {
                table.of_bytes[left << 8 | right] = table.rank(of_byte[left], of_byte[right]);
            }
        }
        table
    }

    /// Where a pair is, or would be.
    #[inline]
    fn slot(&self, key: u64) -> usize {
        let mask = self.pairs.len() - 1;
        let mut slot = self.seed.number(key) as usize & mask;
        while self.pairs[slot] != key && self.pairs[slot] != NO_PAIR {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Place in the order of merges; [`NEVER`] for a pair that stays two tokens.
    #[inline]
    pub(super) fn rank(&self, left: u32, right: u32) -> u32 {
        self.ranks[self.slot(key(left, right))]
    }

    /// [`Self::rank`] of the tokens of two bytes.
    #[inline]
    pub(super) fn rank_of_bytes(&self, left: u8, right: u8) -> u32 {
        self.of_bytes[usize::from(left) << 8 | usize::from(right)]
    }

    #[inline]
    pub(super) fn token(&self, byte: u8) -> u32 {
        self.of_byte[usize::from(byte)]
    }

    /// The token that the merge of a rank makes.
    #[inline]
    pub(super) fn made(&self, rank: u32) -> u32 {
        self.made[rank as usize]
    }

    /// What it takes of memory.
    pub(super) fn size(&self) -> usize {
        size_of_val(&self.pairs[..])
            + size_of_val(&self.ranks[..])
            + size_of_val(&self.made[..])
            + size_of_val(&self.of_byte)
            + size_of_val(&self.of_bytes[..])
    }
}
