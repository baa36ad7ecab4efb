//! Small tokenizers and templates of several makes, as model folders hold them.
#![allow(dead_code, reason = "each file of tests takes what it needs")]

use graft_data::{ModelTemplate, NamedFile, TemplateFiles, Tokenizer, TokenizerFiles};
use serde_json::{Map, Value, json};

/// What a folder of this make holds.
pub(crate) struct Make {
    pub(crate) name: &'static str,
    pub(crate) tokenizer: Value,
    pub(crate) config: Value,
    pub(crate) generation: Value,
    /// A conversation as the template writes it; `true` with the header of an answer behind it.
    pub(crate) written: fn(&[(&str, &str)], bool) -> String,
}

fn file<'a>(bytes: &'a [u8], origin: &'a str) -> NamedFile<'a> {
    NamedFile { bytes, origin }
}

impl Make {
    pub(crate) fn template(&self) -> ModelTemplate {
        let config = self.config.to_string();
        let tokenizer_config = Some(file(config.as_bytes(), "m/tokenizer_config.json"));
        ModelTemplate::from_files(TemplateFiles { tokenizer_config, ..TemplateFiles::default() })
            .unwrap()
            .unwrap()
    }

    pub(crate) fn open(&self) -> (Tokenizer, ModelTemplate) {
        let (config, generation) = (self.config.to_string(), self.generation.to_string());
        let template = self.template();
        let tokenizer =
            Tokenizer::from_bytes(self.tokenizer.to_string().as_bytes(), "m/tokenizer.json")
                .unwrap()
                .with_files(TokenizerFiles {
                    tokenizer_config: Some(file(config.as_bytes(), "m/tokenizer_config.json")),
                    generation_config: Some(file(
                        generation.as_bytes(),
                        "m/generation_config.json",
                    )),
                    ..TokenizerFiles::default()
                })
                .unwrap()
                .with_template(&template);
        (tokenizer, template)
    }
}

/// The characters that stand for bytes in a byte-level vocabulary.
fn byte_alphabet() -> Vec<char> {
    let mut others = '\u{100}'..;
    (0..=u8::MAX)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => others.next().unwrap(),
        })
        .collect()
}

fn added(id: usize, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": false, "special": special})
}

/// Byte-level BPE: the given tokens first, then the bytes, then a few merges.
pub(crate) fn byte_level(tokens: &[(&str, bool)]) -> Value {
    let mut vocab = Map::new();
    let mut name = |token: String| {
        let id = vocab.len();
        vocab.insert(token, json!(id));
    };
    for (token, _) in tokens {
        name((*token).to_owned());
    }
    for byte in byte_alphabet() {
        name(byte.to_string());
    }
    let merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("a", "n"), ("e", "r")];
    for (a, b) in merges {
        name(format!("{a}{b}"));
    }
    let merges: Vec<String> = merges.iter().map(|(a, b)| format!("{a} {b}")).collect();
    let added: Vec<Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, (token, special))| added(id, token, *special))
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<|endoftext|>",
                  "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                  "byte_fallback": false, "vocab": vocab, "merges": merges},
    })
}

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
    message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// `ChatML` over byte-level BPE, as SmolLM2 has it.
pub(crate) fn chatml() -> Make {
    let tokens = [
        ("<|endoftext|>", true),
        ("<|im_start|>", true),
        ("<|im_end|>", true),
        ("<repo_name>", true),
    ];
    Make {
        name: "ChatML",
        tokenizer: byte_level(&tokens),
        config: json!({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
                       "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>",
                       "add_prefix_space": false, "chat_template": CHATML}),
        generation: json!({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}),
        written: |turns, prompt| {
            let turn =
                |(role, text): &(&str, &str)| format!("<|im_start|>{role}\n{text}<|im_end|>\n");
            let turns: String = turns.iter().map(turn).collect();
            turns + if prompt { "<|im_start|>assistant\n" } else { "" }
        },
    }
}

/// `ChatML` whose tokens are ordinary text to the tokenizer, and no first token at all.
pub(crate) fn unmarked() -> Make {
    let tokens = [
        ("<|endoftext|>", true),
        ("<|im_start|>", false),
        ("<|im_end|>", false),
        ("<word>", false),
    ];
    let mut make = Make { name: "ChatML, tokens not special", ..chatml() };
    make.tokenizer = byte_level(&tokens);
    make.config["bos_token"] = Value::Null;
    make.config["add_bos_token"] = json!(false);
    make.config["eos_token"] = json!("<|endoftext|>");
    make.generation = json!({"eos_token_id": [0]});
    make
}

/// BPE over marked blanks with bytes to fall back on, as Llama 2's is made of SentencePiece's.
pub(crate) fn sentencepiece(metaspace: bool) -> Make {
    let mut vocab = Map::new();
    let mut name = |token: String| {
        let id = vocab.len();
        vocab.entry(token).or_insert(json!(id));
    };
    for token in ["<unk>", "<s>", "</s>"] {
        name(token.to_owned());
    }
    (0..=u8::MAX).for_each(|byte| name(format!("<0x{byte:02X}>")));
    name("▁".to_owned());
    ('!'..='~').for_each(|character| name(character.to_string()));
    let merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "a"), ("e", "r")];
    for (a, b) in merges {
        name(format!("{a}{b}"));
    }
    let merges: Vec<Value> = merges.iter().map(|(a, b)| json!([a, b])).collect();
    let template = "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + \
        message['content'] + eos_token + '\\n' }}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}";
    let (normalizer, pre_tokenizer) = if metaspace {
        (
            Value::Null,
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first",
                             "split": false}),
        )
    } else {
        (
            json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}),
            Value::Null,
        )
    };
    Make {
        name: if metaspace { "SentencePiece, Metaspace" } else { "SentencePiece" },
        tokenizer: json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [added(0, "<unk>", true), added(1, "<s>", true), added(2, "</s>", true)],
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                           {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>",
                      "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
                      "byte_fallback": true, "vocab": vocab, "merges": merges},
        }),
        config: json!({"bos_token": {"content": "<s>"}, "eos_token": "</s>",
                       "chat_template": template}),
        generation: json!({"eos_token_id": 2}),
        written: |turns, prompt| {
            let turn = |(role, text): &(&str, &str)| format!("<|{role}|>\n{text}</s>\n");
            let turns: String = turns.iter().map(turn).collect();
            turns + if prompt { "<|assistant|>\n" } else { "" }
        },
    }
}

/// All of them.
pub(crate) fn makes() -> Vec<Make> {
    vec![chatml(), unmarked(), sentencepiece(false), sentencepiece(true)]
}
