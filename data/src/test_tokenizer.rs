//! A small tokenizer for tests, made as Llama 3's is: its split expression, byte-level BPE, merges
//! ignored for whole words, and 256 control tokens behind the base vocabulary.

use std::sync::OnceLock;

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use crate::llama3_tokenizer::SPLIT;
use crate::tokenizer::Tokenizer;

const CORPUS: &str = "The office answers questions about fees, deadlines and forms. How much is the \
fee for a residence certificate? The fee is 12 euros.\n\nWhen is the deadline? The deadline is the \
last working day of the month.\n\nsystem user assistant ipython Cutting Knowledge Date: December \
2023\nToday Date: 26 Jul 2024\n\nEnvironment: ipython\nRespond in the format with parameters.\n\n";

/// The text of the tokenizer.json.
pub(crate) fn json() -> &'static str {
    static JSON: OnceLock<String> = OnceLock::new();
    JSON.get_or_init(|| build().to_string(false).expect("a tokenizer serialises"))
}

/// The tokenizer, built once.
pub(crate) fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        Tokenizer::from_bytes(json().as_bytes(), "test/tokenizer.json").expect("it is complete")
    })
}

fn build() -> tokenizers::Tokenizer {
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    let split =
        Split::new(SplitPattern::Regex(SPLIT.to_owned()), SplitDelimiterBehavior::Isolated, false)
            .expect("the expression compiles");
    let bytes = ByteLevel::new(false, true, false);
    tokenizer.with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(Sequence::new(vec![
        PreTokenizerWrapper::Split(split),
        PreTokenizerWrapper::ByteLevel(bytes),
    ]))));
    tokenizer.with_decoder(Some(bytes));
    let trainer = BpeTrainer::builder()
        .vocab_size(400)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut trainer = tokenizers::models::TrainerWrapper::from(trainer);
    tokenizer.train(&mut trainer, std::iter::once(CORPUS.to_owned())).expect("training succeeds");
    let mut value: serde_json::Value =
        serde_json::from_str(&tokenizer.to_string(false).expect("it serialises")).expect("JSON");
    value["model"]["ignore_merges"] = true.into();
    let mut tokenizer =
        tokenizers::Tokenizer::from_bytes(value.to_string()).expect("it reads back");
    tokenizer.add_special_tokens(&control_tokens());
    tokenizer
}

fn control_tokens() -> Vec<AddedToken> {
    let mut names: Vec<String> = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|reserved_special_token_0|>",
        "<|reserved_special_token_1|>",
        "<|finetune_right_pad_id|>",
        "<|reserved_special_token_2|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|python_tag|>",
    ]
    .map(str::to_owned)
    .to_vec();
    names.extend((3..248).map(|n| format!("<|reserved_special_token_{n}|>")));
    assert_eq!(names.len(), 256);
    names.into_iter().map(|name| AddedToken::from(name, true)).collect()
}
