//! A model folder: its configuration, the release it is, and its tensors.

use graft_data::{ChatTemplate, Message, Role};
use graft_model::checkpoint::Checkpoint;
use graft_model::folder::ModelFolder;
use graft_model::{LlamaConfig, presets};
use serde_json::{Value, json};

use super::Findings;
use super::tensors::Sums;
use crate::cli::page::{bytes, grouped};
use crate::commands::speech::conversation;
use crate::plan::{ModelFiles, parameters, read_config};

/// Describes the folder; one without weights or tokenizer has a configuration all the same, and one whose
/// tokenizer or template cannot be used is described as far as it goes.
pub(super) fn inspect(location: &str) -> anyhow::Result<Findings> {
    let folder = ModelFolder::open(location)?;
    let config = read_config(&folder)?;
    let weights = if folder.has_weights() {
        let checkpoint = Checkpoint::open(&folder)?;
        checkpoint.verify(&config)?;
        Some(checkpoint)
    } else {
        None
    };
    let texts = texts(&folder, location);
    let release = presets::recognise(&config);
    let sums = weights.as_ref().map(Sums::of);
    let total = weights.as_ref().map(Checkpoint::total_bytes);
    let json = json!({
        "kind": "model",
        "path": folder.display(),
        "release": release.as_ref().map(|(name, _)| name),
        "differs_from_release": release.as_ref().map(|(_, differences)| {
            differences.iter().map(ToString::to_string).collect::<Vec<_>>()
        }),
        "parameters": parameters(&config),
        "quantized": config.quantization.is_some(),
        "config": config_json(&config),
        "tensors": sums.as_ref().map(Sums::json),
        "bytes": total,
        "tokenizer": texts.as_ref().ok().map(|texts| texts.as_ref().map(|[tokens, _]| tokens)),
        "chat_template": texts.as_ref().ok().map(|texts| texts.as_ref().map(|[_, template]| template)),
        "fault": texts.as_ref().err().map(ToString::to_string),
    });
    let mut rows = vec![
        ("model", folder.display()),
        ("release", release_text(release)),
        ("parameters", grouped(parameters(&config))),
        ("shape", shape(&config)),
        ("context", grouped(config.max_position_embeddings as u64) + " tokens"),
        ("quantized", quantization(&config)),
    ];
    match (sums, total) {
        (Some(sums), Some(total)) => {
            rows.push(("tensors", sums.text()));
            rows.push(("size", bytes(total)));
        }
        _ => rows.push(("tensors", "no weights in this folder".to_owned())),
    }
    let fault = match texts {
        Ok(Some([tokens, template])) => {
            rows.extend([("tokenizer", tokens), ("chat", template)]);
            None
        }
        Ok(None) => {
            rows.push(("tokenizer", "none in this folder".to_owned()));
            None
        }
        Err(error) => Some(error),
    };
    Ok(Findings { rows, json, fault })
}

/// The tokenizer and the chat template in words; `None` where there is no tokenizer.
fn texts(folder: &ModelFolder, location: &str) -> anyhow::Result<Option<[String; 2]>> {
    if !["tokenizer.json", "tokenizer.model"].iter().any(|name| folder.contains(name)) {
        return Ok(None);
    }
    let ModelFiles { tokenizer, template, .. } = ModelFiles::open(location)?;
    let question = conversation(vec![Message::text(Role::User, "?")], None);
    let built_in = ChatTemplate::built_in(graft_data::Preamble::default());
    let template = if template.is_some() {
        "a template of its own"
    } else if built_in.prompt(&question, &tokenizer).is_ok() {
        "Llama 3.1's"
    } else {
        "none: the folder brings no template, and its tokenizer lacks tokens of Llama 3.1's; rows of `text` and \
         `completion` can be used"
    };
    let tokens = format!("{} tokens", grouped(tokenizer.vocab_size() as u64));
    Ok(Some([tokens, template.to_owned()]))
}

fn release_text(release: Option<(&str, Vec<graft_model::config::ConfigProblem>)>) -> String {
    match release {
        None => "none that Graft knows; any Llama 3.x shape works".to_owned(),
        Some((name, differences)) if differences.is_empty() => name.to_owned(),
        Some((name, differences)) => {
            let lines: Vec<String> = differences.iter().map(ToString::to_string).collect();
            format!("like {name}, but\n{}", lines.join("\n"))
        }
    }
}

fn shape(config: &LlamaConfig) -> String {
    let LlamaConfig { d_model, d_ff, layers, heads, kv_heads, head_dim, vocab_size, tied, .. } =
        config;
    let head = if *tied { "the embedding is the head" } else { "a head of its own" };
    format!(
        "{layers} blocks of width {d_model} and {d_ff}, {heads} heads on {kv_heads} keys of \
         {head_dim}, {} tokens, {head}",
        grouped(*vocab_size as u64)
    )
}

fn quantization(config: &LlamaConfig) -> String {
    match &config.quantization {
        None => "no".to_owned(),
        Some(bnb) if bnb.double => "NF4 with quantised scales (bitsandbytes)".to_owned(),
        Some(_) => "NF4 (bitsandbytes)".to_owned(),
    }
}

fn config_json(config: &LlamaConfig) -> Value {
    let LlamaConfig {
        d_model,
        d_ff,
        layers,
        heads,
        kv_heads,
        head_dim,
        vocab_size,
        rms_norm_eps,
        rope_theta,
        rope_scaling: _,
        max_position_embeddings,
        tied,
        bos_token_id,
        eos_token_ids,
        dtype,
        quantization: _,
        raw: _,
    } = config;
    json!({
        "hidden_size": d_model,
        "intermediate_size": d_ff,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocab_size,
        "rms_norm_eps": rms_norm_eps,
        "rope_theta": rope_theta,
        "max_position_embeddings": max_position_embeddings,
        "tie_word_embeddings": tied,
        "bos_token_id": bos_token_id,
        "eos_token_id": eos_token_ids,
        "dtype": dtype.map(graft_model::config::FloatType::name),
    })
}
