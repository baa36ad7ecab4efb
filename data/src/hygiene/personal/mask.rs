//! What stands in the place of a value: `<MAIL_3f9a2c81>`, the kind and 32 bits of a keyed hash.
//!
//! A hash, because one value has to have one mask in all files, whoever reads them in which order and on how
//! many threads; numbers that count from 1 would change with every file that is added before. Keyed, because
//! whoever knows a mask could otherwise try all telephone numbers. The key is the run's seed unless the
//! recipe names a file with a secret one: who has the recipe and a guess can test the guess against a seed.

use std::ops::Range;

use sha2::{Digest, Sha256};

/// What masks depend on beside the values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MaskKey([u8; 32]);

impl std::fmt::Debug for MaskKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MaskKey(…)")
    }
}

impl MaskKey {
    /// Of a run's seed.
    pub fn of_seed(seed: u64) -> Self {
        Self(Sha256::new().chain_update(b"seed").chain_update(seed.to_le_bytes()).finalize().into())
    }

    /// Of a secret.
    pub fn of_secret(secret: &[u8]) -> Self {
        Self(Sha256::new().chain_update(b"secret").chain_update(secret).finalize().into())
    }

    /// The mask of a value.
    pub(super) fn mask(&self, kind: &str, value: &str) -> String {
        let hash = Sha256::new().chain_update(self.0).chain_update(kind).chain_update([0]);
        let hash = hash.chain_update(value).finalize();
        let kind = kind.to_uppercase();
        format!("<{kind}_{:02x}{:02x}{:02x}{:02x}>", hash[0], hash[1], hash[2], hash[3])
    }
}

/// Whether a stretch of a text lies within a mask.
pub(super) fn holds(text: &str, at: &Range<usize>) -> bool {
    /// Digits of the hash.
    const DIGITS: usize = 8;
    let begun = text[..at.end].rfind('<').filter(|begun| *begun <= at.start);
    let Some(begun) = begun else { return false };
    let Some(inside) = text[begun + 1..].find('>').map(|end| &text[begun + 1..begun + 1 + end])
    else {
        return false;
    };
    let is_hash = |hash: &str| {
        hash.len() == DIGITS && hash.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_kind = |kind: &str| !kind.is_empty() && !kind.chars().any(char::is_lowercase);
    let is_mask =
        inside.rsplit_once('_').is_some_and(|(kind, hash)| is_kind(kind) && is_hash(hash));
    is_mask && at.end <= begun + 2 + inside.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_mask_is_no_value() {
        let text = "a <MAIL_e68ce725> b <MAIL> 4111 <x_e68ce725>";
        let holds = |value: &str| {
            let start = text.find(value).unwrap();
            holds(text, &(start..start + value.len()))
        };
        assert!(holds("e68ce725") && holds("68") && holds("<MAIL_e68ce725>") && holds("MAIL"));
        assert!(!holds("b") && !holds("4111") && !holds("x_") && !holds("25> b"));
    }
}
