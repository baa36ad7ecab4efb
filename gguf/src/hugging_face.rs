//! The files of a Hugging Face folder that a GGUF file of a Llama stands for: config.json, generation_config.json,
//! tokenizer_config.json. What is no Llama 3.x is written as it is, for whoever reads config.json to refuse by name.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use crate::File;
use crate::rope::Scaling;
use crate::tensor_type::TensorType;
use crate::tokenizer::{PREFIX, TokenKind, vocabulary};
use crate::value::Value;

/// The key of a chat template.
pub const CHAT_TEMPLATE: &str = "tokenizer.chat_template";
/// The names of the ones beside it, each behind the key and a dot: as `tool_use`, for conversations with tools.
pub const TEMPLATE_NAMES: &str = "tokenizer.chat_templates";
/// What transformers calls the usual one among several.
pub const USUAL: &str = "default";
/// What frequencies are divided by.
pub const ROPE_FREQS: &str = "rope_freqs.weight";
/// The embedding.
pub const EMBEDDING: &str = "token_embd.weight";
/// The output head, where it is not the embedding.
pub const HEAD: &str = "output.weight";
/// The norm before the head.
pub const LAST_NORM: &str = "output_norm.weight";
/// That before attention, behind `blk.N.`.
pub const ATTENTION_NORM: &str = "attn_norm.weight";
/// That before the feed-forward, behind `blk.N.`.
pub const FEED_FORWARD_NORM: &str = "ffn_norm.weight";

/// Spellings of tokens that end an answer wherever a vocabulary marks them as control tokens: of those that
/// `src/llama-vocab.cpp` takes for ends of generation.
const ENDS: [&str; 8] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<EOT>",
];

/// Why a file describes no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each field is")]
pub enum ModelProblem {
    #[error("`general.architecture` is {found}, but must be `llama`")]
    Architecture { found: String },
    #[error("it holds {found}, not a model: give it where that is asked for")]
    NoModel { found: String },
    #[error("`{key}` is {found}, but must be {allowed}")]
    Wrong { key: String, found: String, allowed: String },
    #[error(
        "tensor `{ROPE_FREQS}` stretches the rotary frequencies otherwise than Llama 3.x does (low_freq_factor 1, \
         high_freq_factor 4)"
    )]
    Stretched,
}

/// The model's config.json.
///
/// # Errors
/// It is another architecture, or lacks what a Llama needs.
pub fn config(file: &File) -> Result<Json, ModelProblem> {
    let text = |key: &str| file.value(key).and_then(Value::as_text);
    match text("general.type") {
        None | Some("model") => {}
        Some(other) => return Err(ModelProblem::NoModel { found: format!("an `{other}`") }),
    }
    match text("general.architecture") {
        Some("llama") => {}
        found => {
            let found = found.map_or("missing".to_owned(), |name| format!("`{name}`"));
            return Err(ModelProblem::Architecture { found });
        }
    }
    let keys = Keys(file);
    let heads = keys.whole("attention.head_count")?;
    let width = keys.whole("embedding_length")?;
    let theta = keys.number("rope.freq_base")?.unwrap_or(10_000.0);
    let mut config = Map::new();
    let mut put = |key: &str, value: Json| drop(config.insert(key.to_owned(), value));
    put("architectures", json!(["LlamaForCausalLM"]));
    put("attention_bias", json!(false));
    if let Some(id) = id(file, "bos_token_id") {
        put("bos_token_id", json!(id));
    }
    put("eos_token_id", json!(ends(file)));
    put("head_dim", json!(keys.head_dim(width, heads)?));
    put("hidden_act", json!("silu"));
    put("hidden_size", json!(width));
    put("intermediate_size", json!(keys.whole("feed_forward_length")?));
    put("max_position_embeddings", json!(keys.whole("context_length")?));
    put("mlp_bias", json!(false));
    put("model_type", json!("llama"));
    put("num_attention_heads", json!(heads));
    put("num_hidden_layers", json!(keys.whole("block_count")?));
    let kv_heads = keys.optional("attention.head_count_kv")?;
    put("num_key_value_heads", json!(kv_heads.unwrap_or(heads)));
    put("rms_norm_eps", json!(keys.needed("attention.layer_norm_rms_epsilon")?));
    put("rope_scaling", keys.scaling(theta)?);
    put("rope_theta", json!(theta));
    put("tie_word_embeddings", json!(!file.tensors().iter().any(|it| it.name == HEAD)));
    put("torch_dtype", json!(float_type(file)));
    put("vocab_size", json!(rows(file)?));
    Ok(Json::Object(config))
}

/// The model's generation_config.json.
pub fn generation_config(file: &File) -> Json {
    json!({"bos_token_id": id(file, "bos_token_id"), "eos_token_id": ends(file)})
}

/// The model's tokenizer_config.json: how tokens with a meaning are called, and the chat template.
pub fn tokenizer_config(file: &File) -> Json {
    let tokens =
        vocabulary(file.metadata()).map(|vocabulary| vocabulary.tokens).unwrap_or_default();
    let mut config = Map::new();
    for (key, name) in [
        ("bos_token_id", "bos_token"),
        ("eos_token_id", "eos_token"),
        ("unknown_token_id", "unk_token"),
        ("padding_token_id", "pad_token"),
    ] {
        let token = id(file, key).and_then(|id| tokens.get(id as usize));
        config.extend(token.map(|token| (name.to_owned(), json!(token))));
    }
    let usual = file.value(CHAT_TEMPLATE).and_then(Value::as_text);
    let others = file.metadata().iter().filter_map(|(key, value)| {
        let name = key.strip_prefix(CHAT_TEMPLATE)?.strip_prefix('.')?;
        Some((name, value.as_text()?))
    });
    let others: Vec<(&str, &str)> = others.collect();
    let template = match usual {
        Some(usual) if !others.is_empty() => {
            let all = std::iter::once((USUAL, usual)).chain(others);
            let named = |(name, template)| json!({"name": name, "template": template});
            Json::Array(all.map(named).collect())
        }
        usual => json!(usual),
    };
    if !template.is_null() {
        config.insert("chat_template".to_owned(), template);
    }
    Json::Object(config)
}

fn id(file: &File, key: &str) -> Option<u64> {
    file.value(&format!("{PREFIX}{key}"))?.as_u64()
}

/// Ids that end an answer: those that the file names, and control tokens of a known spelling.
fn ends(file: &File) -> BTreeSet<u64> {
    let named = ["eos_token_id", "eot_token_id", "eom_token_id"]
        .into_iter()
        .filter_map(|key| id(file, key));
    let mut ends: BTreeSet<u64> = named.collect();
    if let Ok(vocabulary) = vocabulary(file.metadata()) {
        let tokens = vocabulary.tokens.iter().zip(&vocabulary.kinds).enumerate();
        let known = tokens
            .filter(|(_, (token, kind))| **kind == TokenKind::Control && ENDS.contains(*token));
        ends.extend(known.map(|(id, _)| id as u64));
    }
    ends
}

/// Rows of the embedding.
fn rows(file: &File) -> Result<usize, ModelProblem> {
    let embedding = file.tensors().iter().find(|it| it.name == EMBEDDING);
    match embedding.map(|it| it.shape.as_slice()) {
        Some([rows, _]) => match Keys(file).optional("vocab_size")? {
            Some(said) if said != *rows as u64 => Err(ModelProblem::Wrong {
                key: "llama.vocab_size".to_owned(),
                found: said.to_string(),
                allowed: format!("{rows}, the rows of `{EMBEDDING}`"),
            }),
            _ => Ok(*rows),
        },
        found => Err(ModelProblem::Wrong {
            key: EMBEDDING.to_owned(),
            found: found.map_or("missing".to_owned(), |shape| format!("{shape:?}")),
            allowed: "a matrix".to_owned(),
        }),
    }
}

/// The type that matrices have once they are decoded.
fn float_type(file: &File) -> &'static str {
    let matrices = file.tensors().iter().filter(|tensor| tensor.shape.len() > 1);
    let mut bytes: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in matrices {
        let name = match tensor.kind {
            TensorType::F32 => "float32",
            TensorType::Bf16 => "bfloat16",
            _ => "float16",
        };
        *bytes.entry(name).or_default() += tensor.bytes.len();
    }
    bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map_or("float16", |(name, _)| name)
}

/// The keys of the architecture.
struct Keys<'a>(&'a File);

impl Keys<'_> {
    fn value(&self, key: &str) -> Option<&Value> {
        self.0.value(&format!("llama.{key}"))
    }

    fn wrong(key: &str, found: impl ToString, allowed: &str) -> ModelProblem {
        let (found, allowed) = (found.to_string(), allowed.to_owned());
        ModelProblem::Wrong { key: format!("llama.{key}"), found, allowed }
    }

    /// A count that may be left out. A list of one count for each block has to say the same of all.
    fn optional(&self, key: &str) -> Result<Option<u64>, ModelProblem> {
        let Some(value) = self.value(key) else { return Ok(None) };
        if let Some(number) = value.as_u64() {
            return Ok(Some(number));
        }
        let mut counts = value.as_array().and_then(|list| list.numbers()).into_iter().flatten();
        let first =
            counts.next().filter(|first| *first >= 0 && counts.all(|other| other == *first));
        match first {
            Some(number) => Ok(Some(number as u64)),
            None => Err(Self::wrong(key, value, "a whole number, the same for every block")),
        }
    }

    fn whole(&self, key: &str) -> Result<u64, ModelProblem> {
        self.optional(key)?.ok_or_else(|| Self::wrong(key, "missing", "a whole number"))
    }

    fn number(&self, key: &str) -> Result<Option<f64>, ModelProblem> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(Self::wrong(key, value, "a number")),
        }
    }

    fn needed(&self, key: &str) -> Result<f64, ModelProblem> {
        self.number(key)?.ok_or_else(|| Self::wrong(key, "missing", "a number"))
    }

    /// Keys, values and rotated parts are of one width.
    fn head_dim(&self, width: u64, heads: u64) -> Result<u64, ModelProblem> {
        let own = width.checked_div(heads).unwrap_or(0);
        let head_dim = self.optional("attention.key_length")?.unwrap_or(own);
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(found) = self.optional(key)?.filter(|found| *found != head_dim) {
                return Err(Self::wrong(key, found, &format!("{head_dim}, the width of a key")));
            }
        }
        for key in ["expert_count", "attention.sliding_window"] {
            if let Some(found) = self.optional(key)?.filter(|found| *found != 0) {
                return Err(Self::wrong(key, found, "absent or 0: Llama 3.x has none"));
            }
        }
        Ok(head_dim)
    }

    /// `rope_scaling`: Llama 3's where the file brings its divisors.
    fn scaling(&self, theta: f64) -> Result<Json, ModelProblem> {
        let kind = self.value("rope.scaling.type").and_then(Value::as_text);
        if let Some(kind) = kind.filter(|kind| *kind != "none") {
            return Ok(json!({"rope_type": kind}));
        }
        let Some(tensor) = self.0.tensors().iter().find(|it| it.name == ROPE_FREQS) else {
            return Ok(Json::Null);
        };
        let plain = tensor.kind == TensorType::F32 && tensor.shape.len() == 1;
        let divisors: Vec<f32> =
            tensor.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let scaling = Scaling::of_divisors(&divisors, theta).filter(|_| plain);
        let Scaling { factor, low, high, original } = scaling.ok_or(ModelProblem::Stretched)?;
        Ok(json!({
            "factor": factor,
            "high_freq_factor": high,
            "low_freq_factor": low,
            "original_max_position_embeddings": original as u64,
            "rope_type": "llama3",
        }))
    }
}
