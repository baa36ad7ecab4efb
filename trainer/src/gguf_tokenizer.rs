//! Tokenizer and chat template of a model as the keys of a GGUF file.

use std::collections::BTreeMap;

use graft_adapters::PeftAdapter;
use graft_data::Tokenizer;
use graft_gguf::hugging_face::{CHAT_TEMPLATE, TEMPLATE_NAMES, USUAL};
use graft_gguf::tokenizer::{self, Ids, TokenizerProblem};
use graft_gguf::{Array, Value, hugging_face};
use graft_model::LlamaConfig;
use graft_model::folder::{ModelFolder, TEMPLATES};
use serde_json::Value as Json;

use crate::plan::ModelFiles;
use crate::trained_with::TrainedWith;

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

/// The chat templates: the usual one, and each other by its name, with the list of these.
fn templates(home: &ModelFolder, config_json: &Json) -> Result<Vec<(String, Value)>, ExportError> {
    let file = |name: &str| -> Result<Option<String>, ExportError> {
        let bytes = home.bytes(name)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    };
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    match &config_json["chat_template"] {
        Json::String(usual) => _ = named.insert(USUAL.to_owned(), usual.clone()),
        Json::Array(list) => named.extend(list.iter().filter_map(|entry| {
            Some((entry["name"].as_str()?.to_owned(), entry["template"].as_str()?.to_owned()))
        })),
        _ => {}
    }
    named.extend(file("chat_template.jinja")?.map(|text| (USUAL.to_owned(), text)));
    for (path, bytes) in home.additional_templates()? {
        let name = path.strip_prefix(&format!("{TEMPLATES}/")).unwrap_or(&path);
        let name = name.strip_suffix(".jinja").unwrap_or(name).to_owned();
        named.insert(name, String::from_utf8_lossy(&bytes).into_owned());
    }
    let others: Vec<&str> =
        named.keys().map(String::as_str).filter(|name| *name != USUAL).collect();
    let list = (!others.is_empty())
        .then(|| (TEMPLATE_NAMES.to_owned(), Value::Array(Array::of_texts(others))));
    let key = |name: &str| match name {
        USUAL => CHAT_TEMPLATE.to_owned(),
        other => format!("{CHAT_TEMPLATE}.{other}"),
    };
    let keys = named.iter().map(|(name, text)| (key(name), Value::text(text)));
    Ok(keys.chain(list).collect())
}

/// What the file says of the training of the adapter that is in it.
pub fn told(adapter: Option<&PeftAdapter>) -> Vec<(String, Value)> {
    let told = adapter.map(TrainedWith::of_models).unwrap_or_default();
    told.into_iter().map(|(key, said)| (key, Value::text(said))).collect()
}

/// Whether the keys bring a chat template.
pub fn has_template(keys: &[(String, Value)]) -> bool {
    keys.iter().any(|(key, _)| key == hugging_face::CHAT_TEMPLATE)
}
