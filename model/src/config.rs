//! What a model is: the `config.json` of a Hugging Face folder, read as meant.
//!
//! Follows transformers' `configuration_llama.py`, from release 4.43 (`rope_scaling`, `torch_dtype`)
//! to 5 (`rope_parameters`, `dtype`). Whatever changes the computation and is not Llama 3.x is
//! refused by name; every key that is not read here is kept for writing the file back.

mod quantization;
mod reader;
mod rope;

pub use quantization::{BnbConfig, FloatType, StorageType};
pub use reader::ConfigProblem;
pub use rope::Llama3Scaling;

use serde_json::{Map, Value, json};

use crate::error::Error;
use reader::Reader;

/// More blocks than any model has: a hostile file must not make the list of tensors endless.
const MAX_LAYERS: usize = 4_096;

/// Sizes and constants of a Llama 3.x model.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Width of the residual stream (`hidden_size`).
    pub d_model: usize,
    /// Width of the feed-forward (`intermediate_size`).
    pub d_ff: usize,
    /// Number of blocks (`num_hidden_layers`).
    pub layers: usize,
    /// Query heads (`num_attention_heads`).
    pub heads: usize,
    /// Key and value heads (`num_key_value_heads`); divides `heads`.
    pub kv_heads: usize,
    /// Width of one head, even.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Added to the mean square in every RMS norm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Stretching of the low rotary frequencies; `None` leaves them as `rope_theta` gives them.
    pub rope_scaling: Option<Llama3Scaling>,
    /// Longest sequence that the model was made for.
    pub max_position_embeddings: usize,
    /// The output head is the embedding (`tie_word_embeddings`).
    pub tied: bool,
    /// First token of every sequence; `None` where the file names none.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text; empty where the file names none.
    pub eos_token_ids: Vec<u32>,
    /// Number type that the release was saved in; the tensors say what they really hold.
    pub dtype: Option<FloatType>,
    /// Set for a folder whose projections are stored in bitsandbytes NF4.
    pub quantization: Option<BnbConfig>,
    /// The file as read, unknown keys and their order included.
    pub raw: Map<String, Value>,
}

/// Whether a name says where a model lay on somebody's machine; a hub's names are `NAME` or `OWNER/NAME`.
fn is_path(name: &str) -> bool {
    let parts = name.split(['/', '\\']).count();
    parts > 2 || name.starts_with(['/', '\\', '.', '~'])
}

impl LlamaConfig {
    /// Reads the text of a config.json; `file` is the name for errors.
    ///
    /// # Errors
    /// Not JSON, or [`Error::Config`] with every problem at once.
    pub fn from_json(text: &[u8], file: &str) -> Result<Self, Error> {
        let value: Value = serde_json::from_slice(text)
            .map_err(|source| Error::Json { file: file.to_owned(), source })?;
        let Value::Object(raw) = value else {
            let found = reader::shown(&value);
            let problem = ConfigProblem::new("config.json", found, "an object `{…}`");
            return Err(Error::Config { file: file.to_owned(), problems: vec![problem] });
        };
        let mut reader = Reader::new(&raw);
        let mut config = read(&mut reader);
        let problems = reader.into_problems();
        if !problems.is_empty() {
            return Err(Error::Config { file: file.to_owned(), problems });
        }
        config.raw = raw;
        Ok(config)
    }

    /// The config.json of a model written from this one with weights of type `dtype`, quantised or
    /// dense: the file as read with these two facts replaced.
    pub fn to_json(&self, dtype: FloatType, quantization: Option<&BnbConfig>) -> String {
        let mut raw = self.raw.clone();
        if let Some(name) = raw.get_mut("_name_or_path")
            && let Some(path) = name.as_str().filter(|name| is_path(name))
        {
            let last = path.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next();
            *name = Value::from(last.unwrap_or_default());
        }
        let key = if raw.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        raw.insert(key.to_owned(), Value::from(dtype.name()));
        match quantization {
            Some(bnb) => raw.insert("quantization_config".to_owned(), bnb.to_json()),
            None => raw.shift_remove("quantization_config"),
        };
        let text = serde_json::to_string_pretty(&raw).expect("a JSON tree always serialises");
        text + "\n"
    }

    /// This configuration with `raw` written afresh in transformers 4's spelling, for configurations
    /// that were built in code.
    #[must_use]
    pub fn with_fresh_raw(mut self) -> Self {
        let rope_scaling = self.rope_scaling.map_or(Value::Null, Llama3Scaling::to_json);
        let value = json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": false,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_ids,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.d_model,
            "intermediate_size": self.d_ff,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": rope_scaling,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tied,
            "torch_dtype": self.dtype.unwrap_or(FloatType::Bf16).name(),
            "vocab_size": self.vocab_size,
        });
        let Value::Object(mut raw) = value else { unreachable!("the macro above is an object") };
        if let Some(bnb) = &self.quantization {
            raw.insert("quantization_config".to_owned(), bnb.to_json());
        }
        self.raw = raw;
        self
    }

    /// Query heads that share one key and value head.
    pub fn queries_per_kv_head(&self) -> usize {
        self.heads / self.kv_heads
    }
}

fn read(reader: &mut Reader<'_>) -> LlamaConfig {
    refuse_other_models(reader);
    let d_model = reader.size("hidden_size", None);
    let heads = reader.size("num_attention_heads", None);
    let kv_heads = reader.size("num_key_value_heads", Some(heads));
    let unknown = reader.is_wrong("hidden_size") || reader.is_wrong("num_attention_heads");
    let implied_head_dim = match d_model.is_multiple_of(heads) {
        _ if unknown => Some(2),
        divides => divides.then_some(d_model / heads),
    };
    let head_dim = reader.size("head_dim", implied_head_dim);
    let vocab_size = reader.size("vocab_size", None);
    let layers = reader.size("num_hidden_layers", None);
    let of_heads = ["num_attention_heads", "num_key_value_heads"];
    if !heads.is_multiple_of(kv_heads) && !of_heads.iter().any(|key| reader.is_wrong(key)) {
        let expected = format!("a divisor of num_attention_heads = {heads}");
        reader.problem("num_key_value_heads", kv_heads, expected);
    }
    if !head_dim.is_multiple_of(2) && !reader.is_wrong("head_dim") {
        reader.problem("head_dim", head_dim, "an even number (rotary positions turn pairs)");
    }
    if layers > MAX_LAYERS {
        reader.problem("num_hidden_layers", layers, format!("at most {MAX_LAYERS}"));
    }
    let rope = rope::read(reader);
    LlamaConfig {
        d_model,
        d_ff: reader.size("intermediate_size", None),
        layers,
        heads,
        kv_heads,
        head_dim,
        vocab_size,
        rms_norm_eps: reader.positive("rms_norm_eps"),
        rope_theta: rope.theta,
        rope_scaling: rope.scaling,
        max_position_embeddings: reader.size("max_position_embeddings", None),
        tied: reader.flag("tie_word_embeddings"),
        bos_token_id: bos_token_id(reader, vocab_size),
        eos_token_ids: eos_token_ids(reader, vocab_size),
        dtype: quantization::read_dtype(reader),
        quantization: quantization::read(reader),
        raw: Map::new(),
    }
}

fn refuse_other_models(reader: &mut Reader<'_>) {
    let architectures = reader.value("architectures").cloned();
    let model_type = reader.value("model_type").cloned();
    if architectures.is_none() && model_type.is_none() {
        reader.problem("model_type", "missing", "\"llama\"");
    }
    if let Some(found) = architectures
        && found != json!(["LlamaForCausalLM"])
    {
        reader.problem("architectures", reader::shown(&found), "[\"LlamaForCausalLM\"]");
    }
    if let Some(found) = model_type
        && found != "llama"
    {
        reader.problem("model_type", reader::shown(&found), "\"llama\"");
    }
    if let Some(found) = reader.value("hidden_act").cloned()
        && found != "silu"
    {
        reader.problem("hidden_act", reader::shown(&found), "\"silu\"");
    }
    if let Some(found) = reader.value("partial_rotary_factor").cloned()
        && found.as_f64() != Some(1.0)
    {
        reader.problem(
            "partial_rotary_factor",
            reader::shown(&found),
            "1: whole heads are rotated",
        );
    }
    for key in ["attention_bias", "mlp_bias"] {
        if reader.flag(key) {
            reader.problem(key, "true", "false: Llama 3.x has no biases");
        }
    }
}

fn bos_token_id(reader: &mut Reader<'_>, vocab_size: usize) -> Option<u32> {
    let found = reader.value("bos_token_id").cloned()?;
    Some(token(reader, "bos_token_id", &found, vocab_size))
}

fn eos_token_ids(reader: &mut Reader<'_>, vocab_size: usize) -> Vec<u32> {
    match reader.value("eos_token_id").cloned() {
        None => Vec::new(),
        Some(Value::Array(list)) => {
            list.iter().map(|found| token(reader, "eos_token_id", found, vocab_size)).collect()
        }
        Some(found) => vec![token(reader, "eos_token_id", &found, vocab_size)],
    }
}

fn token(reader: &mut Reader<'_>, key: &str, found: &Value, vocab_size: usize) -> u32 {
    let id = found.as_u64().and_then(|id| u32::try_from(id).ok());
    // A vocabulary of 1 stands for one already reported as a problem.
    if let Some(id) = id.filter(|&id| (id as usize) < vocab_size || vocab_size == 1) {
        return id;
    }
    let expected = format!("a whole number below vocab_size = {vocab_size}");
    reader.problem(key, reader::shown(found), expected);
    0
}

#[cfg(test)]
mod tests;
