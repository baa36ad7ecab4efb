//! adapter_config.json: what is written, and what is understood of what others wrote.
//!
//! Follows PEFT 0.21.2 (`tuners/lora/config.py`). Whatever changes what the adapter computes and is
//! not plain LoRA is refused by name, unknown keys that are set included.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use graft_model::{ProjectionKind, Site};
use serde_json::{Map, Value, json};

use crate::lora::{LoraConfig, Rank, Scaling};

/// Keys that change neither the function of a saved adapter nor its shapes: where it came from, how
/// it began, and which modules it was put on, which the tensors say themselves.
const WITHOUT_EFFECT: [&str; 21] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "bias",
    "init_lora_weights",
];

/// Keys that are read below.
const READ: [&str; 5] = ["peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora"];

/// Ways of starting that leave the base as it is. The others subtract from the base what they put
/// into the adapter, so the saved matrices belong to a base that no folder holds.
const PLAIN_STARTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// What adapter_config.json says.
pub(super) struct AsWritten {
    pub(super) rank: Rank,
    pub(super) alpha: f64,
    pub(super) scaling: Scaling,
    pub(super) dropout: f64,
    pub(super) base: Option<String>,
}

/// Reads the object, or lists everything that stands in the way.
pub(super) fn read(object: &Map<String, Value>) -> Result<AsWritten, Vec<String>> {
    let mut problems = refusals(object);
    let mut number = |key: &str, expected: &str, fits: &dyn Fn(f64) -> bool| {
        let value = object.get(key).and_then(Value::as_f64);
        value.filter(|&value| fits(value)).unwrap_or_else(|| {
            let found = object.get(key).map_or("missing".to_owned(), shown);
            problems.push(format!("`{key}` is {found}, but must be {expected}"));
            1.0
        })
    };
    let whole = |value: f64| value >= 1.0 && value.fract() == 0.0 && value <= f64::from(u32::MAX);
    let rank = number("r", "a whole number above 0", &whole) as usize;
    let alpha = number("lora_alpha", "a number above 0", &|value| value > 0.0);
    let dropout = match object.get("lora_dropout") {
        None | Some(Value::Null) => 0.0,
        Some(_) => number("lora_dropout", "from 0 to below 1", &|p| (0.0..1.0).contains(&p)),
    };
    if !problems.is_empty() {
        return Err(problems);
    }
    let stable = object.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
    let base = object.get("base_model_name_or_path").and_then(Value::as_str);
    Ok(AsWritten {
        rank: Rank(NonZeroUsize::new(rank).unwrap_or(NonZeroUsize::MIN)),
        alpha,
        scaling: if stable { Scaling::RankStabilised } else { Scaling::Standard },
        dropout,
        base: base.map(str::to_owned),
    })
}

fn refusals(object: &Map<String, Value>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut refuse = |key: &str, value: &Value, expected: &str| {
        problems.push(format!("`{key}` is {}, but must be {expected}", shown(value)));
    };
    let kind = object.get("peft_type").unwrap_or(&Value::Null);
    if kind != "LORA" {
        refuse("peft_type", kind, "\"LORA\"");
    }
    for (key, value) in object {
        match (key.as_str(), value) {
            ("bias", value) if !is_unset(value) && value != "none" => {
                refuse(key, value, "\"none\"");
            }
            ("init_lora_weights", Value::String(start))
                if !PLAIN_STARTS.contains(&start.to_lowercase().as_str()) =>
            {
                let expected = "true: such a start changes the base too; convert the adapter when \
                                saving (PEFT: `path_initial_model_for_weight_conversion`)";
                refuse(key, value, expected);
            }
            ("use_rslora", value) if !value.is_boolean() && !value.is_null() => {
                refuse(key, value, "true or false");
            }
            (known, _) if WITHOUT_EFFECT.contains(&known) || READ.contains(&known) => {}
            ("rank_pattern" | "alpha_pattern", value) if !is_unset(value) => {
                refuse(key, value, "{}: one rank and one alpha for all projections");
            }
            (_, value) if !is_unset(value) => refuse(key, value, "unset: Graft runs plain LoRA"),
            _ => {}
        }
    }
    problems
}

/// Null, false or empty: what PEFT writes for an option that is not used.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    }
}

/// A value as an error shows it: on one line, shortened.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The text of adapter_config.json for a model of `layers` blocks: the keys that old and new PEFT
/// share, sorted, so that equal adapters have equal bytes.
pub(super) fn write(config: &LoraConfig, layers: usize, base: &str) -> String {
    let LoraConfig { rank, alpha, scaling, dropout, sites } = config;
    let (target_modules, layers_to_transform) = targets(sites, layers);
    let object = json!({
        "alpha_pattern": {},
        "auto_mapping": null,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layer_replication": null,
        "layers_pattern": null,
        "layers_to_transform": layers_to_transform,
        "loftq_config": {},
        "lora_alpha": number(*alpha),
        "lora_bias": false,
        "lora_dropout": dropout,
        "megatron_config": null,
        "megatron_core": "megatron.core",
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": rank.get(),
        "rank_pattern": {},
        "revision": null,
        "target_modules": target_modules,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": *scaling == Scaling::RankStabilised,
    });
    format!("{object:#}\n")
}

/// `target_modules` and `layers_to_transform` that select exactly these sites.
fn targets(sites: &BTreeSet<Site>, layers: usize) -> (BTreeSet<String>, Option<BTreeSet<usize>>) {
    let kinds: BTreeSet<ProjectionKind> = sites.iter().map(|site| site.kind).collect();
    let chosen: BTreeSet<usize> = sites.iter().map(|site| site.layer).collect();
    if kinds.len() * chosen.len() != sites.len() {
        // Not every kind in every layer: PEFT takes whole module names too.
        return (sites.iter().map(|site| site.module_name()).collect(), None);
    }
    let names = kinds.iter().map(|kind| kind.name().to_owned()).collect();
    (names, (!chosen.iter().copied().eq(0..layers)).then_some(chosen))
}

/// PEFT declares alpha whole, and strict readers (vLLM, mistral.rs) take it at its word.
fn number(alpha: f64) -> Value {
    let whole = alpha.fract() == 0.0 && (0.0..1e15).contains(&alpha);
    if whole { Value::from(alpha as u64) } else { Value::from(alpha) }
}
