//! Tokenizer and chat template of a model as the keys of a GGUF file.

use graft_data::Tokenizer;
use graft_gguf::hugging_face::{CHAT_TEMPLATE, TOOL_TEMPLATE};
use graft_gguf::tokenizer::{self, Ids, TokenizerProblem};
use graft_gguf::{Value, hugging_face};
use graft_model::LlamaConfig;
use graft_model::folder::{ModelFolder, TEMPLATES};
use serde_json::Value as Json;

use crate::plan::ModelFiles;

/// Why a model does not become a GGUF file.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file of the model.
    #[error(transparent)]
    Model(#[from] graft_model::Error),
    /// The file of the tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] graft_data::Error),
    /// The file does not answer as the model does.
    #[error(
        "the file does not answer as the model does: mean divergence {found:.2e} nats a token, more than {allowed:.1e}; \
         it was removed. Take a --type with more bits, or allow more with --tolerance"
    )]
    Apart {
        /// Mean Kullback–Leibler divergence, in nats a token.
        found: f64,
        /// The tolerance.
        allowed: f64,
    },
    /// What it says has no form in the keys.
    #[error("the tokenizer of `{origin}` has no form in a GGUF file: {problem}")]
    Keys {
        /// Its file.
        origin: String,
        /// What stands in the way.
        problem: TokenizerProblem,
    },
}

/// The keys of `files`; a base that is a GGUF file itself hands its own on.
///
/// # Errors
/// A file cannot be read, or the tokenizer has no form in the keys.
pub fn keys(files: &ModelFiles, config: &LlamaConfig) -> Result<Vec<(String, Value)>, ExportError> {
    let home = files.folder.tokenizer_home()?.unwrap_or_else(|| files.folder.clone());
    if let Some(gguf) = home.gguf() {
        let own = gguf.file().metadata().iter().filter(|(key, _)| key.starts_with("tokenizer."));
        return Ok(own.map(|(key, value)| (key.clone(), value.clone())).collect());
    }
    let tokenizer = &files.tokenizer;
    let text = match home.bytes("tokenizer.json")? {
        Some(text) => text,
        None => tokenizer.to_json()?.into(),
    };
    let origin = tokenizer.origin().to_owned();
    let json: Json = serde_json::from_slice(&text)
        .map_err(|source| graft_model::Error::Json { file: origin.clone(), source })?;
    let config_json = read_json(&home, "tokenizer_config.json")?;
    let ids = ids(tokenizer, config, &config_json);
    let mut keys = tokenizer::keys(&json, config.vocab_size, ids)
        .map_err(|problem| ExportError::Keys { origin, problem })?;
    keys.extend(templates(&home, &config_json)?);
    Ok(keys)
}

fn read_json(home: &ModelFolder, name: &str) -> Result<Json, ExportError> {
    let Some(text) = home.bytes(name)? else { return Ok(Json::Null) };
    let file = home.display_file(name);
    let read = serde_json::from_slice(&text);
    Ok(read.map_err(|source| graft_model::Error::Json { file, source })?)
}

/// Tokens with a meaning. The end of texts is the one that tokenizer_config.json names, where answers end by it.
fn ids(tokenizer: &Tokenizer, config: &LlamaConfig, config_json: &Json) -> Ids {
    let named = |key: &str| {
        let token = &config_json[key];
        let token = token.as_str().or_else(|| token["content"].as_str())?;
        tokenizer.id(token)
    };
    let stops = tokenizer.stop_ids();
    let ends = |id: &u32| stops.contains(id);
    let eos = named("eos_token").filter(ends);
    let eos = eos.or_else(|| config.eos_token_ids.iter().copied().find(ends));
    let stop = |token: &str| tokenizer.id(token).filter(ends);
    let front = tokenizer.opening().first().copied();
    Ids {
        bos: front.or(config.bos_token_id),
        eos: eos.or_else(|| stops.first().copied()),
        eot: stop("<|eot_id|>").or_else(|| stop("<|im_end|>")),
        eom: stop("<|eom_id|>"),
        pad: named("pad_token").or_else(|| tokenizer.id("<|finetune_right_pad_id|>")),
        begins: front.is_some(),
    }
}

/// The chat templates: the usual one, and that for conversations with tools.
fn templates(home: &ModelFolder, config_json: &Json) -> Result<Vec<(String, Value)>, ExportError> {
    let file = |name: &str| -> Result<Option<String>, ExportError> {
        let bytes = home.bytes(name)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    };
    let of_config = |wanted: &str| match &config_json["chat_template"] {
        Json::String(usual) if wanted == "default" => Some(usual.clone()),
        Json::Array(list) => {
            let found = list.iter().find(|entry| entry["name"] == wanted)?;
            found["template"].as_str().map(str::to_owned)
        }
        _ => None,
    };
    let usual = file("chat_template.jinja")?.or_else(|| of_config("default"));
    let tool_file = format!("{TEMPLATES}/tool_use.jinja");
    let beside = home.additional_templates()?.into_iter().find(|(name, _)| *name == tool_file);
    let beside = beside.map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned());
    let tools = beside.or_else(|| of_config("tool_use"));
    let both = [(CHAT_TEMPLATE, usual), (TOOL_TEMPLATE, tools)];
    let keys =
        both.into_iter().filter_map(|(key, text)| Some((key.to_owned(), Value::text(text?))));
    Ok(keys.collect())
}

/// Whether the keys bring a chat template.
pub fn has_template(keys: &[(String, Value)]) -> bool {
    keys.iter().any(|(key, _)| key == hugging_face::CHAT_TEMPLATE)
}
