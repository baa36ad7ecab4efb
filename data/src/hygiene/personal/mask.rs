//! What stands in the place of a value: `<MAIL_3f9a2c81>`, the kind and 32 bits of a keyed hash.
//!
//! A hash, because one value has to have one mask in all files, whoever reads them in which order and on how
//! many threads; numbers that count from 1 would change with every file that is added before. Keyed, because
//! whoever knows a mask could otherwise try all telephone numbers. The key is the run's seed unless the
//! recipe names a file with a secret one: who has the recipe and a guess can test the guess against a seed.

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
