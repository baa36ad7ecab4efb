//! What every Llama 3 tokenizer shares besides its vocabulary: the split expression, the 256 special tokens and the sections around them.
//!
//! Source: `tokenizer.json` of the Llama 3.1 release. Meta's own code (`llama_models/llama3/tokenizer.py`)
//! has the same ids and other names for two of the tokens behind the vocabulary: place 5 is
//! `<|step_id|>` there and place 11 `<|image|>`, so its reserved tokens are numbered differently from
//! there on. The names of the release's `tokenizer.json` are used, because chat templates and
//! adapters are written against that file; no token with two names is ever placed by Graft.

use serde_json::json;

/// How many special tokens Llama 3 has.
pub(crate) const SPECIAL_TOKENS: usize = 256;

/// Llama 3's split: contractions, words with one leading mark, up to three digits, punctuation, line ends, blanks.
pub(crate) const SPLIT: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Llama 3.1's special tokens, in the order of their ids, the first one being the first id after the BPE's.
pub(crate) fn special_tokens() -> Vec<String> {
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

/// Llama 3.1's tokenizer.json without vocabulary; `<|begin_of_text|>` will be token `begin`.
pub(crate) fn skeleton(begin: usize) -> serde_json::Value {
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
    use super::*;

    #[test]
    fn special_tokens_are_named_and_ordered_as_in_llama_3_1() {
        let names = special_tokens();
        assert_eq!(names.len(), SPECIAL_TOKENS);
        assert_eq!(names[2], "<|reserved_special_token_0|>");
        assert_eq!(names[5], "<|reserved_special_token_2|>");
        assert_eq!(names[11], "<|reserved_special_token_3|>");
        assert_eq!(names[255], "<|reserved_special_token_247|>");
    }
}
