//! Tokenizers there and back.

use graft_gguf::tokenizer::{Ids, Split, keys, tokenizer_json};
use graft_gguf::{Value, tokenizer};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

const BUILT_IN: &str = include_str!("../../model/builtin/quickstart/tokenizer.json");

fn built_in() -> Json {
    serde_json::from_str(BUILT_IN).expect("the built-in file")
}

fn there(file: &Json, vocab_size: usize, ids: Ids) -> BTreeMap<String, Value> {
    keys(file, vocab_size, ids).expect("every key has a form").into_iter().collect()
}

#[test]
fn llama_3_s_file_comes_back_as_it_was() {
    let ids = Ids { bos: Some(1_792), eos: Some(1_801), begins: true, ..Ids::default() };
    let metadata = there(&built_in(), 2_048, ids);
    let again: Json = serde_json::from_str(&tokenizer_json(&metadata).unwrap()).unwrap();
    let was = built_in();
    for section in ["added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder"] {
        assert_eq!(again[section], was[section], "{section}");
    }
    for part in ["type", "ignore_merges", "vocab", "merges"] {
        assert_eq!(again["model"][part], was["model"][part], "{part}");
    }
}

#[test]
fn rows_without_a_token_and_control_tokens_among_others_keep_their_ids() {
    let mut file = built_in();
    let vocabulary = file["model"]["vocab"].as_object().unwrap();
    let (first, _) = vocabulary.iter().find(|(_, id)| **id == 0).unwrap();
    file["added_tokens"] = json!([
        {"id": 0, "content": first, "special": true},
        {"id": 1_795, "content": "<own>", "special": false},
    ]);
    let metadata = there(&file, 1_800, Ids::default());
    let vocabulary = tokenizer::vocabulary(&metadata).unwrap();
    assert_eq!(
        vocabulary.tokens[1_792..1_797],
        ["[PAD1792]", "[PAD1793]", "[PAD1794]", "<own>", "[PAD1796]"]
    );
    let again: Json = serde_json::from_str(&tokenizer_json(&metadata).unwrap()).unwrap();
    assert_eq!(again["model"]["vocab"].as_object().map(serde_json::Map::len), Some(1_792));
    assert_eq!(again["added_tokens"][0]["special"], json!(true));
    assert_eq!(again["added_tokens"][1]["id"], json!(1_795));
}

#[test]
fn every_split_is_known_again_in_both_forms() {
    for split in [Split::Llama3, Split::Digits, Split::Gpt2, Split::Qwen2] {
        assert_eq!(Split::from_name(split.name()), Some(split));
        let metadata: BTreeMap<String, Value> = [
            ("tokenizer.ggml.model", Value::text("gpt2")),
            ("tokenizer.ggml.pre", Value::text(split.name())),
            ("tokenizer.ggml.tokens", Value::Array(graft_gguf::Array::of_texts(["a", "b", "ab"]))),
            ("tokenizer.ggml.token_type", Value::Array(graft_gguf::Array::of_i32(&[1, 1, 1]))),
            ("tokenizer.ggml.merges", Value::Array(graft_gguf::Array::of_texts(["a b"]))),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        let file: Json = serde_json::from_str(&tokenizer_json(&metadata).unwrap()).unwrap();
        let again = there(&file, 3, Ids::default());
        assert_eq!(again["tokenizer.ggml.pre"], Value::text(split.name()));
    }
}

#[test]
fn what_one_form_cannot_say_is_refused_by_name() {
    let changed = |change: fn(&mut Json)| {
        let mut file = built_in();
        change(&mut file);
        keys(&file, 2_048, Ids::default()).unwrap_err().to_string()
    };
    let lost = [
        changed(|file| file["model"]["type"] = json!("Unigram")),
        changed(|file| file["model"]["dropout"] = json!(0.1)),
        changed(|file| file["pre_tokenizer"] = json!({"type": "Whitespace"})),
        changed(|file| file["normalizer"] = json!({"type": "NFC"})),
        changed(|file| file["model"]["merges"][0] = json!(["a b", "c"])),
        changed(|file| file["added_tokens"][0]["id"] = json!(9_000)),
        changed(|file| file["added_tokens"][0]["id"] = json!(7)),
    ];
    insta::assert_snapshot!(lost.join("\n"), @r#"
    `tokenizer.json: model.type` is "Unigram", but must be "BPE": others have no form in a GGUF file here
    `tokenizer.json: model.dropout` is 0.1, but must be null: a GGUF file does not say it
    it splits texts by a rule that llama.cpp has no name for: `pre_tokenizer` is {"type":"Whitespace"}; known are those of llama-bpe, llama3, llama-v3, smollm, starcoder, refact, codeshell, gpt-2, phi-2, qwen2, deepseek-r1-qwen
    `tokenizer.json: normalizer` is {"type":"NFC"}, but must be null, as of `llama-bpe`
    `tokenizer.json: model.merges` is ["a b","c"], but must be pairs of tokens without blanks
    `tokenizer.json` gives ids up to 9000, but the model's vocab_size is 2048
    two tokens have the id 7: "(" and "<|begin_of_text|>"
    "#);
    let metadata = there(&built_in(), 2_048, Ids::default());
    let with = |key: &str, value: Option<Value>| {
        let mut metadata = metadata.clone();
        if key.ends_with("tokens") {
            let two = Value::Array(graft_gguf::Array::of_i32(&[1, 1]));
            metadata.insert("tokenizer.ggml.token_type".to_owned(), two);
        }
        metadata.remove(key);
        metadata.extend(value.map(|value| (key.to_owned(), value)));
        tokenizer_json(&metadata).unwrap_err().to_string()
    };
    let texts = |texts: &[&str]| Some(Value::Array(graft_gguf::Array::of_texts(texts)));
    let unknown = [
        with("tokenizer.ggml.model", Some(Value::text("llama"))),
        with("tokenizer.ggml.pre", None),
        with("tokenizer.ggml.pre", Some(Value::text("tekken"))),
        with("tokenizer.ggml.tokens", None),
        with("tokenizer.ggml.tokens", texts(&["a", "a"])),
        with("tokenizer.ggml.token_type", None),
        with("tokenizer.ggml.token_type", Some(Value::Array(graft_gguf::Array::of_i32(&[1])))),
        with("tokenizer.ggml.merges", None),
        with("tokenizer.ggml.merges", texts(&["ab"])),
        with("tokenizer.ggml.merges", texts(&["a b c"])),
    ];
    insta::assert_snapshot!(unknown.join("\n"), @r#"
    `tokenizer.ggml.model` is `llama`, but must be `gpt2`, a byte-level BPE; take the model's own folder
    `tokenizer.ggml.pre` is missing, but must be one of llama-bpe, llama3, llama-v3, smollm, starcoder, refact, codeshell, gpt-2, phi-2, qwen2, deepseek-r1-qwen
    `tokenizer.ggml.pre` is `tekken`, but must be one of llama-bpe, llama3, llama-v3, smollm, starcoder, refact, codeshell, gpt-2, phi-2, qwen2, deepseek-r1-qwen
    `tokenizer.ggml.tokens` is missing, or no list of texts, but must be the vocabulary
    the token "a" stands at id 0 and at id 1
    `tokenizer.ggml.token_type` is missing, but must be a list that says which tokens are control tokens: without it they would be text
    `tokenizer.ggml.token_type` is a list of 1, but must be as long as the list of 2048 tokens
    `tokenizer.ggml.merges` is missing, but must be the list of merges
    `tokenizer.ggml.merges` is "ab" for one, but must be two tokens with a blank between
    `tokenizer.ggml.merges` is "a b c" for one, but must be two tokens with a blank between
    "#);
}
