//! Trains a byte-level BPE tokenizer of Llama 3.1's shape: its split regex, its 256 special tokens in their order, after fewer merges.
//!
//! Source: `tokenizer.json` of the Llama 3.1 release, read by Hugging Face `tokenizers`.

use std::collections::HashSet;

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use crate::llama3_tokenizer::{SPECIAL_TOKENS, skeleton, special_tokens};

/// Tokens in all: 1,792 of the BPE and 256 special ones.
pub const VOCABULARY: usize = 2_048;

/// The tokenizer learnt from `texts`, with `VOCABULARY` tokens.
///
/// # Errors
/// When `texts` has too few different words for that many tokens.
pub fn train_tokenizer<S: AsRef<str> + Send>(
    texts: impl Iterator<Item = S> + Send,
) -> tokenizers::Result<Tokenizer> {
    let base = VOCABULARY - SPECIAL_TOKENS;
    let mut tokenizer = Tokenizer::from_bytes(skeleton(base).to_string())?;
    // Every byte has a token, so no text is out of vocabulary.
    let alphabet: HashSet<char> = ByteLevel::alphabet().into_iter().collect();
    let trainer = BpeTrainer::builder()
        .vocab_size(base)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(alphabet)
        .build();
    tokenizer.train(&mut TrainerWrapper::BpeTrainer(trainer), texts)?;
    if tokenizer.get_vocab_size(true) != base {
        let found = tokenizer.get_vocab_size(true);
        return Err(format!(
            "the texts give {found} tokens, but {base} are needed: pass more text"
        )
        .into());
    }
    let special: Vec<AddedToken> = special_tokens()
        .into_iter()
        .map(|name| AddedToken::from(name, true).normalized(false))
        .collect();
    tokenizer.add_special_tokens(&special);
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::super::{CORPUS_SEED, corpus};
    use super::*;

    const COMMITTED: &str = include_str!("../../../model/builtin/quickstart/tokenizer.json");

    #[test]
    fn the_same_texts_give_the_same_tokenizer() {
        let train = || {
            let texts: Vec<String> = corpus(CORPUS_SEED, 600)
                .flat_map(|document| {
                    document.texts().into_iter().map(str::to_owned).collect::<Vec<_>>()
                })
                .collect();
            train_tokenizer(texts.iter())
                .and_then(|tokenizer| tokenizer.to_string(true))
                .expect("600 documents are enough")
        };
        assert_eq!(train(), train());
    }

    #[test]
    fn too_little_text_is_an_error() {
        let error = train_tokenizer(["a few words"].iter()).expect_err("three words");
        assert!(error.to_string().contains("but 1792 are needed"), "{error}");
    }

    #[test]
    fn the_committed_tokenizer_reads_and_returns_any_text() {
        let tokenizer = Tokenizer::from_bytes(COMMITTED).expect("the committed file parses");
        assert_eq!(tokenizer.get_vocab_size(true), VOCABULARY);
        for (offset, name) in special_tokens().iter().enumerate() {
            let id = (VOCABULARY - SPECIAL_TOKENS + offset) as u32;
            assert_eq!(tokenizer.token_to_id(name), Some(id), "{name}");
        }
        for text in
            ["The mooring licence costs 42 crowns.", "Grüße, 東京 🙂\r\n\t x", "1234567 it's"]
        {
            let encoding = tokenizer.encode(text, true).expect("any text is encoded");
            assert_eq!(encoding.get_ids()[0], 1_792);
            assert_eq!(tokenizer.decode(&encoding.get_ids()[1..], false).expect("known ids"), text);
        }
    }
}
