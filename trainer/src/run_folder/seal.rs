//! JSON files that show whether they are as they were written: their last field is the SHA-256 of all
//! the text before it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use graft_files::sha256::sha256_hex;

/// Why a sealed file cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The seal is not where it belongs.
    #[error("it was cut short or changed: it does not end in the SHA-256 of its text")]
    NoSeal,
    /// The seal is another text's.
    #[error(
        "it was damaged or changed: the SHA-256 of its text is {found}, but {sealed} is what it ends in"
    )]
    Broken {
        /// The hash that the file ends in.
        sealed: String,
        /// The hash of its text.
        found: String,
    },
    /// The text is as it was written, but not by this program.
    #[error("{0}")]
    Content(serde_json::Error),
}

const BEFORE: &str = ",\n  \"sha256\": \"";
const BEHIND: &str = "\"\n}\n";
const DIGITS: usize = 64;

/// `content`, which serialises to an object with fields, as sealed text.
///
/// # Panics
/// It serialises to something else.
pub fn sealed(content: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_string_pretty(content).expect("keys are strings, values plain data");
    let fields = text.strip_suffix("\n}").expect("an object with fields ends so");
    let hash = sha256_hex(fields.as_bytes());
    [fields, BEFORE, &hash, BEHIND].concat().into_bytes()
}

/// The content of a sealed text.
///
/// # Errors
/// The text is not as it was written, or of another content.
pub fn opened<T: DeserializeOwned>(text: &[u8]) -> Result<T, Damage> {
    let fields = text.len().checked_sub(BEFORE.len() + DIGITS + BEHIND.len());
    let (fields, seal) =
        text.split_at_checked(fields.ok_or(Damage::NoSeal)?).ok_or(Damage::NoSeal)?;
    let seal =
        seal.strip_prefix(BEFORE.as_bytes()).and_then(|seal| seal.strip_suffix(BEHIND.as_bytes()));
    let sealed = seal.and_then(|seal| std::str::from_utf8(seal).ok()).ok_or(Damage::NoSeal)?;
    let found = sha256_hex(fields);
    if found != sealed {
        return Err(Damage::Broken { sealed: sealed.to_owned(), found });
    }
    serde_json::from_slice(&[fields, b"\n}"].concat()).map_err(Damage::Content)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_was_sealed_opens_and_whole_files_are_json() {
        let content = json!({"a": 1, "text": "}\n\"sha256\": \"", "deep": {"sha256": "x"}});
        let text = sealed(&content);
        assert_eq!(opened::<Value>(&text).unwrap(), content);
        let whole: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(whole["sha256"].as_str().unwrap().len(), DIGITS);
    }

    #[test]
    fn no_byte_can_change_or_go_unseen() {
        let text = sealed(&json!({"step": 4, "loss": 0.5}));
        for place in 0..text.len() {
            for bit in 0..8 {
                let mut other = text.clone();
                other[place] ^= 1 << bit;
                assert!(opened::<Value>(&other).is_err(), "bit {bit} of byte {place}");
            }
            assert!(opened::<Value>(&text[..place]).is_err(), "cut to {place} bytes");
        }
        assert!(opened::<Value>(&[text.as_slice(), b" "].concat()).is_err());
    }
}
