//! What of a row is compared with others: its words, whatever their case and what stands between them.
//!
//! A word is a run of letters and digits; scripts that are written without blanks have one character each.
//! Neither a system prompt nor the definitions of tools count: many rows share them, and are no copies of
//! each other for it.

use serde_json::Value;

use crate::conversation::{Content, Message, Role};
use crate::formats::Row;
use crate::template_json::compact;

/// Factor of the rolling hash of several words; odd, so that no word is lost.
const BASE: u64 = 0x9E37_79B9_7F4A_7C15;

/// The hash of each word of a row, in order.
pub(super) fn words(row: &Row) -> Vec<u64> {
    let mut words = Words::default();
    match row {
        Row::Text(text) => words.add(text),
        Row::Completion { prompt, completion } => {
            words.add(prompt);
            words.add(completion);
        }
        Row::Conversation(conversation) => {
            let turns = conversation.messages.iter().filter(|turn| turn.role != Role::System);
            for Message { content, .. } in turns {
                match content {
                    Content::Text(text) => words.add(text),
                    Content::ToolCall { name, arguments } => {
                        words.add(name);
                        words.add(&compact(&Value::Object(arguments.clone())));
                    }
                    Content::ToolResult(value) => words.add(&compact(value)),
                }
            }
        }
    }
    words.hashes
}

#[derive(Default)]
struct Words {
    hashes: Vec<u64>,
}

impl Words {
    fn add(&mut self, text: &str) {
        let mut word = None;
        let mut rest = text;
        while let Some(&byte) = rest.as_bytes().first() {
            if byte.is_ascii() {
                if byte.is_ascii_alphanumeric() {
                    word = Some(with(word, byte.to_ascii_lowercase()));
                } else {
                    self.end(&mut word);
                }
                rest = &rest[1..];
                continue;
            }
            let Some(character) = rest.chars().next() else { break };
            rest = &rest[character.len_utf8()..];
            self.other(character, &mut word);
        }
        self.end(&mut word);
    }

    /// A character beyond ASCII.
    fn other(&mut self, character: char, word: &mut Option<u64>) {
        // Accents that stand behind their letter.
        if matches!(character, '\u{300}'..='\u{36f}' | '\u{200c}' | '\u{200d}' | '\u{ad}') {
            return;
        }
        if !character.is_alphanumeric() {
            return self.end(word);
        }
        let alone = is_alone(character);
        if alone {
            self.end(word);
        }
        for lower in character.to_lowercase() {
            for byte in lower.encode_utf8(&mut [0; 4]).bytes() {
                *word = Some(with(*word, byte));
            }
        }
        if alone {
            self.end(word);
        }
    }

    fn end(&mut self, word: &mut Option<u64>) {
        self.hashes.extend(word.take().map(mixed));
    }
}

/// A word with another byte: FNV-1a.
fn with(word: Option<u64>, byte: u8) -> u64 {
    (word.unwrap_or(0xcbf2_9ce4_8422_2325) ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
}

/// Whether the character is of a script without blanks between words.
fn is_alone(character: char) -> bool {
    matches!(
        character,
        '\u{e00}'..='\u{eff}' // Thai, Lao
            | '\u{1000}'..='\u{109f}' // Myanmar
            | '\u{1780}'..='\u{17ff}' // Khmer
            | '\u{3040}'..='\u{30ff}' // kana
            | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' // Han
            | '\u{20000}'..='\u{3ffff}'
    )
}

/// Every bit of the result depends on every bit of the value: the last step of `MurmurHash3`.
pub(super) fn mixed(mut value: u64) -> u64 {
    value = (value ^ (value >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    value = (value ^ (value >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

/// The hash of every stretch of `length` words; of fewer words than that, of all of them.
pub(super) fn shingles(words: &[u64], length: usize, mut each: impl FnMut(u64)) {
    let length = length.min(words.len());
    if length == 0 {
        return;
    }
    let top = BASE.wrapping_pow(length as u32 - 1);
    let mut sum = 0_u64;
    for (at, &word) in words.iter().enumerate() {
        if at >= length {
            sum = sum.wrapping_sub(words[at - length].wrapping_mul(top));
        }
        sum = sum.wrapping_mul(BASE).wrapping_add(word);
        if at + 1 >= length {
            each(mixed(sum));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Format;

    fn of(text: &str) -> Vec<u64> {
        words(&Row::Text(text.to_owned()))
    }

    #[test]
    fn case_blanks_and_marks_between_words_do_not_count_and_words_do() {
        assert_eq!(of("The fee, in ÉCUS: 12!"), of(" the  FEE in écus — 12"));
        assert_eq!(of("e\u{301}te").len(), 1);
        assert_ne!(of("the fee"), of("the fees"));
        assert_ne!(of("the fee"), of("fee the"));
        assert_eq!(of("a 日本語 b").len(), 5);
        assert_eq!(of(" — … "), Vec::<u64>::new());
    }

    #[test]
    fn what_many_rows_share_is_not_compared() {
        let read = |row: &str| words(&Format::Messages.parse_row(row).unwrap());
        let plain = r#"{"messages": [{"role": "user", "content": "q w"}, {"role": "assistant", "content": "a"}]}"#;
        let with_system =
            plain.replace(": [{", r#": [{"role": "system", "content": "Be brief."}, {"#);
        assert_eq!(read(plain), read(&with_system));
        assert_eq!(read(plain).len(), 3);
    }

    #[test]
    fn a_stretch_of_words_has_one_hash_wherever_it_stands() {
        let stretches = |text: &str, length| {
            let mut all = Vec::new();
            shingles(&of(text), length, |hash| all.push(hash));
            all
        };
        let (long, short) = (stretches("a b c d e f", 3), stretches("x c d e", 3));
        assert_eq!((long.len(), short.len()), (4, 2));
        assert_eq!(long[2], short[1]);
        assert_eq!(stretches("a b", 3).len(), 1);
        assert_eq!(stretches("a b", 3), stretches("a b", 2));
        assert!(stretches("", 3).is_empty());
    }
}
