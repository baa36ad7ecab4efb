//! Trains a byte-level BPE tokenizer of Llama 3.1's shape: its split regex, its 256 special tokens in their order, after fewer merges.
//!
//! Source: `tokenizer.json` of the Llama 3.1 release, read by Hugging Face `tokenizers`.

use std::collections::HashSet;

use serde_json::json;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

/// Tokens in all: 1,792 of the BPE and 256 special ones.
pub const VOCABULARY: usize = 2_048;

/// How many special tokens Llama 3 has.
pub const SPECIAL_TOKENS: usize = 256;

/// Llama 3.1's split: contractions, words with one leading mark, up to three digits, punctuation, line ends, blanks.
const SPLIT: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Llama 3.1's special tokens, in the order of their ids, the first one being the first id after the BPE's.
pub fn special_tokens() -> Vec<String> {
    let named = [
        (0, "<|begin_of_text|>"),
        (1, "<|end_of_text|>"),
        (4, "<|finetune_right_pad_id|>"),
        (6, "<|start_header_id|>"),
        (7, "<|end_header_id|>"),
        (8, "<|eom_id|>"),
        (9, "<|eot_id|>"),
        (10, "<|python_tag|>"),
    ];
    let mut reserved = 0..;
    (0..SPECIAL_TOKENS)
        .map(|place| match named.iter().find(|(at, _)| *at == place) {
            Some((_, name)) => (*name).to_owned(),
            None => format!("<|reserved_special_token_{}|>", reserved.next().unwrap_or(place)),
        })
        .collect()
}

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

/// Llama 3.1's tokenizer.json without vocabulary; `<|begin_of_text|>` will be token `begin`.
fn skeleton(begin: usize) -> serde_json::Value {
    let token = "<|begin_of_text|>";
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]},
        "post_processor": {"type": "Sequence", "processors": [
            {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
            {"type": "TemplateProcessing",
             "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
             "pair": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                      {"SpecialToken": {"id": token, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
             "special_tokens": {token: {"id": token, "ids": [begin], "tokens": [token]}}},
        ]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
                  "vocab": {}, "merges": []},
    })
}

#[cfg(test)]
mod tests {
    use super::super::{CORPUS_SEED, corpus};
    use super::*;

    const COMMITTED: &str = include_str!("../../../model/builtin/quickstart/tokenizer.json");

    #[test]
    fn special_tokens_are_named_and_ordered_as_in_llama_3_1() {
        let names = special_tokens();
        assert_eq!(names.len(), SPECIAL_TOKENS);
        assert_eq!(names[2], "<|reserved_special_token_0|>");
        assert_eq!(names[5], "<|reserved_special_token_2|>");
        assert_eq!(names[11], "<|reserved_special_token_3|>");
        assert_eq!(names[255], "<|reserved_special_token_247|>");
    }

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
