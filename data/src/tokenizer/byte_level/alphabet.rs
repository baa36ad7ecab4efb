//! The characters that stand for bytes in a byte-level vocabulary: printable Latin-1 for itself, the others
//! counted up from U+0100 (`bytes_to_unicode` of GPT-2's encoder.py).

/// Both ways.
pub(crate) struct Alphabet {
    characters: [char; 256],
    /// By code point.
    bytes: Vec<Option<u8>>,
}

impl Alphabet {
    pub(crate) fn new() -> Self {
        let mut unprintable = '\u{100}'..;
        let characters = std::array::from_fn(|byte| match byte as u8 {
            byte @ (b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) => char::from(byte),
            _ => unprintable.next().expect("188 bytes are printable, 68 characters are taken"),
        });
        let mut bytes = vec![None; 0x144];
        for (byte, character) in (0..=u8::MAX).zip(characters) {
            bytes[character as usize] = Some(byte);
        }
        Self { characters, bytes }
    }

    /// How a vocabulary writes these bytes.
    pub(crate) fn spell(&self, bytes: &[u8]) -> String {
        bytes.iter().map(|&byte| self.characters[byte as usize]).collect()
    }

    /// The bytes of what a vocabulary writes; `None` where a character stands for none.
    pub(crate) fn bytes(&self, spelled: &str) -> Option<Vec<u8>> {
        let byte = |character: char| self.bytes.get(character as usize).copied().flatten();
        spelled.chars().map(byte).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_spelled_and_read_again_as_the_reference_crate_spells_it() {
        let alphabet = Alphabet::new();
        let all: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!(alphabet.bytes(&alphabet.spell(&all)).unwrap(), all);
        let known = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        assert!(known.iter().all(|&found| alphabet.characters.contains(&found)));
        assert_eq!(alphabet.bytes("\u{120}a").unwrap(), b" a");
        assert_eq!(alphabet.bytes("a b"), None);
        assert_eq!(alphabet.bytes("a\u{144}"), None);
    }
}
