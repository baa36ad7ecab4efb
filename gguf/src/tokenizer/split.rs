//! How texts are split before bytes are merged.

use serde_json::{Value as Json, json};

/// A way to split that Hugging Face's tokenizers and llama.cpp mean alike: `llm_tokenizer_bpe` of `src/llama-vocab.cpp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Llama 3: up to three digits; whole pieces that are tokens are not merged.
    Llama3,
    /// SmolLM and StarCoder: single digits, then as GPT-2.
    Digits,
    /// GPT-2.
    Gpt2,
    /// Qwen 2: single digits, after NFC.
    Qwen2,
}

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

impl Split {
    const ALL: [Self; 4] = [Self::Llama3, Self::Digits, Self::Gpt2, Self::Qwen2];

    /// What `tokenizer.ggml.pre` calls it; the first is written.
    fn known_as(self) -> &'static [&'static str] {
        match self {
            Self::Llama3 => &["llama-bpe", "llama3", "llama-v3"],
            Self::Digits => &["smollm", "starcoder", "refact", "codeshell"],
            Self::Gpt2 => &["gpt-2", "phi-2"],
            Self::Qwen2 => &["qwen2", "deepseek-r1-qwen"],
        }
    }

    /// What is written as `tokenizer.ggml.pre`.
    pub fn name(self) -> &'static str {
        self.known_as()[0]
    }

    /// By a name of `tokenizer.ggml.pre`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|split| split.known_as().contains(&name))
    }

    /// All names, for messages.
    pub fn names() -> String {
        Self::ALL.map(|split| split.known_as().join(", ")).join(", ")
    }

    /// Whether a piece that is a token is taken as it is.
    pub fn ignores_merges(self) -> bool {
        self == Self::Llama3
    }

    /// The section `pre_tokenizer` of a tokenizer.json.
    pub(super) fn pre_tokenizer(self) -> Json {
        let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        let sequence =
            |first: Json, bytes: Json| json!({"type": "Sequence", "pretokenizers": [first, bytes]});
        let expression = |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        match self {
            Self::Llama3 => sequence(expression(LLAMA3), bytes(false)),
            Self::Qwen2 => sequence(expression(QWEN2), bytes(false)),
            Self::Digits => {
                sequence(json!({"type": "Digits", "individual_digits": true}), bytes(true))
            }
            Self::Gpt2 => bytes(true),
        }
    }

    /// The section `normalizer`.
    pub(super) fn normalizer(self) -> Json {
        if self == Self::Qwen2 { json!({"type": "NFC"}) } else { Json::Null }
    }

    /// By the section `pre_tokenizer` of a tokenizer.json.
    pub(super) fn of(pre_tokenizer: &Json) -> Option<Self> {
        let found = essence(pre_tokenizer);
        Self::ALL.into_iter().find(|split| essence(&split.pre_tokenizer()) == found)
    }
}

/// What of a pre-tokenizer changes ids: offsets do not, and what is left out is as by default.
fn essence(part: &Json) -> Json {
    match part["type"].as_str() {
        Some("Sequence") => {
            part["pretokenizers"].as_array().into_iter().flatten().map(essence).collect()
        }
        Some("ByteLevel") => {
            let flag = |key: &str| part[key].as_bool().unwrap_or(true);
            json!(["ByteLevel", flag("add_prefix_space"), flag("use_regex")])
        }
        _ => part.clone(),
    }
}
