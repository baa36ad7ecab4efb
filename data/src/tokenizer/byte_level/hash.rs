//! A quick hash of short byte strings and pairs, with a seed of its own for each process: what a
//! file holds cannot be made to fall together.

use std::hash::{BuildHasher, RandomState};

/// Bytes that are compared and hashed as three words.
pub(super) const SHORT: usize = 24;

/// A byte string of at most [`SHORT`] bytes, filled up with zeros.
pub(super) type Words = [u64; SHORT / 8];

/// Multiplies with the halves of the product folded together, as wyhash does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seed([u64; 2]);

impl Seed {
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        Self([random.hash_one(1_u8), random.hash_one(2_u8)])
    }

    #[inline]
    fn fold(left: u64, right: u64) -> u64 {
        let product = u128::from(left) * u128::from(right);
        product as u64 ^ (product >> 64) as u64
    }

    /// Of one number.
    #[inline]
    pub(super) fn number(self, number: u64) -> u64 {
        Self::fold(number ^ self.0[0], self.0[1] | 1)
    }

    /// Of a string of at most [`SHORT`] bytes.
    #[inline]
    pub(super) fn words(self, [first, second, third]: Words, length: usize) -> u64 {
        let [a, b] = self.0;
        let pair = Self::fold(first ^ a, second ^ b);
        Self::fold(pair ^ third, b ^ 0x9e37_79b9_7f4a_7c15 ^ length as u64)
    }

    /// Of a string of any length.
    pub(super) fn bytes(self, bytes: &[u8]) -> u64 {
        if bytes.len() <= SHORT {
            return self.words(words(bytes, 0, bytes.len()), bytes.len());
        }
        let mut hash = bytes.len() as u64;
        for chunk in bytes.chunks(SHORT) {
            hash = Self::fold(hash ^ self.0[0], self.words(words(chunk, 0, chunk.len()), SHORT));
        }
        hash
    }
}

/// The bytes of a text from `at` to `end`, at most [`SHORT`] of them, as words.
#[inline]
pub(super) fn words(text: &[u8], at: usize, end: usize) -> Words {
    let length = end - at;
    if let Some(window) = text.get(at..at + SHORT) {
        // Whole words are read, and what lies behind the end is masked.
        let word = |index: usize| {
            let bytes = &window[8 * index..8 * index + 8];
            let whole = u64::from_le_bytes(bytes.try_into().expect("it has eight bytes"));
            match length.saturating_sub(8 * index) {
                0 => 0,
                left @ 1..8 => whole & (u64::MAX >> (64 - 8 * left)),
                _ => whole,
            }
        };
        return [word(0), word(1), word(2)];
    }
    let mut window = [0; SHORT];
    window[..length].copy_from_slice(&text[at..end]);
    words(&window, 0, SHORT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_are_the_bytes_wherever_they_stand(
            before in proptest::collection::vec(any::<u8>(), 0..9),
            bytes in proptest::collection::vec(any::<u8>(), 0..=SHORT),
            behind in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let text = [&before[..], &bytes, &behind].concat();
            let (at, end) = (before.len(), before.len() + bytes.len());
            let found: Vec<u8> = words(&text, at, end).iter().flat_map(|word| word.to_le_bytes()).collect();
            prop_assert_eq!(&found[..bytes.len()], &bytes[..]);
            prop_assert!(found[bytes.len()..].iter().all(|&byte| byte == 0));
            prop_assert_eq!(words(&text, at, end), words(&bytes, 0, bytes.len()));
        }
    }
}
