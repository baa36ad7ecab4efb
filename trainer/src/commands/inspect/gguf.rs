//! A GGUF file: a model as a folder is described, with the keys of the file behind it; or an adapter by itself.

use std::collections::BTreeMap;

use graft_gguf::{File, Value};
use graft_model::folder::ModelFolder;
use serde_json::json;

use super::{Findings, model};
use crate::cli::failure::WrongUse;
use crate::cli::page::bytes;

/// Describes it.
pub(super) fn inspect(location: &str) -> anyhow::Result<Findings> {
    let folder = ModelFolder::open(location)?;
    let Some(gguf) = folder.gguf() else {
        return Err(WrongUse(format!("`{location}` is no GGUF file")).into());
    };
    let file = gguf.file();
    let text = |key: &str| file.value(key).and_then(Value::as_text);
    if text("general.type") == Some("adapter") {
        return Ok(adapter(&folder.display(), file));
    }
    let mut found = model::inspect(location)?;
    let path = gguf.path().display().to_string();
    found.rows.insert(1, ("file", format!("{path}, GGUF version {}", file.version())));
    if let Some(blocks) = blocks(file) {
        let quantized = found.rows.iter_mut().find(|(name, _)| *name == "quantized");
        if let Some((_, text)) = quantized {
            *text = format!("{blocks}, decoded to f16 where they are used");
        }
        found.json["quantized"] = json!(true);
        found.json["blocks"] = json!(blocks);
    }
    found.rows.push(("keys", keys(file)));
    found.json["gguf"] = json!({"version": file.version(), "keys": keys_json(file)});
    Ok(found)
}

/// The types of quantised tensors, the one with most bytes first; `None` where all are plain numbers.
fn blocks(file: &File) -> Option<String> {
    let mut bytes: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in file.tensors().iter().filter(|tensor| tensor.kind.block() > 1) {
        *bytes.entry(tensor.kind.name()).or_default() += tensor.bytes.len();
    }
    let mut kinds: Vec<(&str, usize)> = bytes.into_iter().collect();
    kinds.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let names: Vec<&str> = kinds.into_iter().map(|(name, _)| name).collect();
    (!names.is_empty()).then(|| format!("in blocks of {}", names.join(", ")))
}

/// The keys that say more than config.json does: lists by their lengths, long texts by their beginnings.
fn keys(file: &File) -> String {
    let lines = file.metadata().iter().map(|(key, value)| format!("{key} = {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

fn keys_json(file: &File) -> serde_json::Value {
    let one = |(key, value): (&String, &Value)| {
        let value = match value {
            Value::Text(text) => json!(text),
            Value::Bool(value) => json!(value),
            Value::Array(list) => json!({"length": list.len()}),
            number => number.as_u64().map_or_else(|| json!(number.as_f64()), |whole| json!(whole)),
        };
        (key.clone(), value)
    };
    serde_json::Value::Object(file.metadata().iter().map(one).collect())
}

fn adapter(path: &str, file: &File) -> Findings {
    let size: usize = file.tensors().iter().map(|tensor| tensor.bytes.len()).sum();
    let names = file
        .tensors()
        .iter()
        .map(|tensor| format!("{}  {} {:?}", tensor.name, tensor.kind, tensor.shape));
    let names: Vec<String> = names.collect();
    let rows = vec![
        ("adapter", format!("{path}, GGUF version {}", file.version())),
        ("keys", keys(file)),
        ("size", bytes(size as u64)),
        ("tensors", names.join("\n")),
    ];
    let json = json!({
        "kind": "gguf_adapter",
        "path": path,
        "keys": keys_json(file),
        "tensors": file.tensors().len(),
        "bytes": size,
    });
    Findings { rows, json, fault: None }
}
