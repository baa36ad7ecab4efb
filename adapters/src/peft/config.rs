//! adapter_config.json: what is understood of what others wrote.
//!
//! Follows PEFT 0.21.2 (`tuners/lora/config.py`). Whatever changes what the adapter computes and is
//! not plain LoRA is refused by name, unknown keys that are set included.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use graft_model::Site;
use serde_json::{Map, Value};

use super::pattern::Pattern;
use super::targets::Targets;
use crate::lora::{Rank, Scaling, Size, TableName};

/// Keys that change neither the function of a saved adapter nor its shapes: where it came from and
/// how it began. `fan_in_fan_out` is for layers that hold their weight transposed; PEFT takes it
/// back for those of a Llama.
const WITHOUT_EFFECT: [&str; 19] = [
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "eva_config",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
    "modules_to_save",
    "ensure_weight_tying",
];

/// Keys that are read: here the numbers, in [`Targets`] the choice of modules.
const READ: [&str; 13] = [
    "peft_type",
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "trainable_token_indices",
];

/// Ways of starting that leave the base as it is. The others subtract from the base what they put
/// into the adapter, so the saved matrices belong to a base that no folder holds.
const PLAIN_STARTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// What adapter_config.json says.
pub(super) struct AsWritten {
    size: Size,
    ranks: Vec<(Pattern, Rank)>,
    alphas: Vec<(Pattern, f64)>,
    pub(super) scaling: Scaling,
    pub(super) dropout: f64,
    pub(super) dora: bool,
    pub(super) base: Option<String>,
    pub(super) targets: Targets,
    /// The tables that the adapter brings whole.
    pub(super) tables: BTreeSet<TableName>,
    /// The tokens whose rows of a table it brings.
    pub(super) rows: BTreeMap<TableName, Vec<u32>>,
}

impl AsWritten {
    /// How many steps it takes at most to match a module's name with every pattern, about.
    pub(super) fn steps(&self) -> u64 {
        let Self { ranks, alphas, targets, .. } = self;
        let patterns = ranks.iter().map(|(pattern, _)| pattern);
        let patterns = patterns.chain(alphas.iter().map(|(pattern, _)| pattern));
        patterns.map(Pattern::steps).sum::<u64>() + targets.steps()
    }

    /// The size of a projection's update, and the key that says its rank.
    pub(super) fn size(&self, site: Site) -> (Size, &'static str) {
        self.size_of(&site.module_name())
    }

    /// The size of the update of the module of this name, and the key that says its rank.
    pub(super) fn size_of(&self, name: &str) -> (Size, &'static str) {
        let rank = first(&self.ranks, name);
        let alpha = first(&self.alphas, name).unwrap_or(self.size.alpha);
        let key = if rank.is_some() { "rank_pattern" } else { "r" };
        (Size { rank: rank.unwrap_or(self.size.rank), alpha }, key)
    }
}

/// The value of the first pattern, in the order of the file, that the module's name ends with.
fn first<T: Copy>(patterns: &[(Pattern, T)], name: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.matches_end_of(name)).map(|(_, value)| *value)
}

/// Reads the object, or lists everything that stands in the way.
pub(super) fn read(object: &Map<String, Value>) -> Result<AsWritten, Vec<String>> {
    let mut problems = refusals(object);
    let tables = tables(object, &mut problems);
    let rows = rows(object, &mut problems);
    let rank = value(object, "r", &mut problems, rank).unwrap_or(Rank(NonZeroUsize::MIN));
    let alpha = value(object, "lora_alpha", &mut problems, alpha).unwrap_or(1.0);
    let dropout = match object.get("lora_dropout") {
        None | Some(Value::Null) => 0.0,
        Some(_) => value(object, "lora_dropout", &mut problems, dropout).unwrap_or(0.0),
    };
    let ranks = patterns(object, "rank_pattern", &mut problems, rank_of);
    let alphas = patterns(object, "alpha_pattern", &mut problems, alpha_of);
    let targets = Targets::read(object, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let is_set = |key: &str| object.get(key).and_then(Value::as_bool).unwrap_or(false);
    let base = object.get("base_model_name_or_path").and_then(Value::as_str);
    Ok(AsWritten {
        size: Size { rank, alpha },
        ranks,
        alphas,
        scaling: if is_set("use_rslora") { Scaling::RankStabilised } else { Scaling::Standard },
        dropout,
        dora: is_set("use_dora"),
        base: base.map(str::to_owned),
        targets,
        tables,
        rows,
    })
}

/// A value that fits, or what it must be.
type Reading<T> = Result<T, &'static str>;

fn rank(value: &Value) -> Reading<Rank> {
    let whole = value.as_f64().filter(|v| *v >= 1.0 && v.fract() == 0.0 && *v <= u32::MAX.into());
    let rank = whole.and_then(|value| NonZeroUsize::new(value as usize)).map(Rank);
    rank.ok_or("a whole number above 0")
}

fn alpha(value: &Value) -> Reading<f64> {
    value.as_f64().filter(|&alpha| alpha > 0.0).ok_or("a number above 0")
}

fn dropout(value: &Value) -> Reading<f64> {
    value.as_f64().filter(|p| (0.0..1.0).contains(p)).ok_or("from 0 to below 1")
}

use {alpha as alpha_of, rank as rank_of};

fn value<T>(
    object: &Map<String, Value>,
    key: &str,
    problems: &mut Vec<String>,
    read: impl Fn(&Value) -> Reading<T>,
) -> Option<T> {
    let value = object.get(key);
    let read = read(value.unwrap_or(&Value::Null)).map_err(|expected| {
        let found = value.map_or("missing".to_owned(), shown);
        problems.push(format!("`{key}` is {found}, but must be {expected}"));
    });
    read.ok()
}

/// The patterns of `rank_pattern` or `alpha_pattern` in the order of the file.
fn patterns<T>(
    object: &Map<String, Value>,
    key: &str,
    problems: &mut Vec<String>,
    read: impl Fn(&Value) -> Reading<T>,
) -> Vec<(Pattern, T)> {
    let mut patterns = Vec::new();
    match object.get(key) {
        None | Some(Value::Null) => {}
        Some(Value::Object(entries)) => {
            for (pattern, value) in entries {
                let parsed = Pattern::parse(pattern).map_err(|part| {
                    format!(
                        "`{key}` has the pattern {pattern:?}, of which Graft does not read {part}"
                    )
                });
                let read = read(value).map_err(|expected| {
                    format!("`{key}` gives {pattern:?} {}, but must give {expected}", shown(value))
                });
                match (parsed, read) {
                    (Ok(pattern), Ok(value)) => patterns.push((pattern, value)),
                    (pattern, value) => {
                        problems.extend(pattern.err().into_iter().chain(value.err()));
                    }
                }
            }
        }
        Some(other) => {
            problems.push(format!("`{key}` is {}, but must be an object `{{…}}`", shown(other)));
        }
    }
    patterns
}

/// The tables that `modules_to_save` names. PEFT saves such a module whole, and puts it in place of
/// the base's.
fn tables(object: &Map<String, Value>, problems: &mut Vec<String>) -> BTreeSet<TableName> {
    const KEY: &str = "modules_to_save";
    let mut tables = BTreeSet::new();
    let value = object.get(KEY).unwrap_or(&Value::Null);
    let names = match value {
        Value::Array(names) => names.as_slice(),
        _ if is_unset(value) => &[],
        other => std::slice::from_ref(other),
    };
    for name in names {
        match name.as_str().and_then(TableName::from_list) {
            Some(table) => _ = tables.insert(table),
            None => problems.push(format!(
                "`{KEY}` names {}, but Graft takes over \"lm_head\" and \"embed_tokens\" only",
                shown(name)
            )),
        }
    }
    let tying = object.get("ensure_weight_tying").unwrap_or(&Value::Null);
    if !tables.is_empty() && !is_unset(tying) {
        problems.push(format!(
            "`ensure_weight_tying` is {}, but must be false beside `{KEY}`: each table is taken \
             over for itself",
            shown(tying)
        ));
    }
    tables
}

/// The rows that `trainable_token_indices` names: of the embedding, or of each table that it names.
fn rows(object: &Map<String, Value>, problems: &mut Vec<String>) -> BTreeMap<TableName, Vec<u32>> {
    const KEY: &str = "trainable_token_indices";
    let mut rows = BTreeMap::new();
    let mut add = |name: &str, value: &Value| {
        let ids = value.as_array().and_then(|list| {
            let ids = list.iter().map(|id| u32::try_from(id.as_u64()?).ok());
            let ids = ids.collect::<Option<Vec<u32>>>()?;
            let once = ids.iter().collect::<BTreeSet<_>>().len() == ids.len();
            (once && !ids.is_empty()).then_some(ids)
        });
        match (TableName::from_list(name), ids) {
            (Some(table), Some(ids)) => _ = rows.insert(table, ids),
            (None, _) => problems.push(format!(
                "`{KEY}` names {name:?}, but Graft trains rows of \"lm_head\" and \"embed_tokens\" only"
            )),
            (_, None) => problems.push(format!(
                "`{KEY}` gives {} for {name:?}, but must give numbers of tokens, each once",
                shown(value)
            )),
        }
    };
    match object.get(KEY).unwrap_or(&Value::Null) {
        value if is_unset(value) => {}
        Value::Object(tables) => tables.iter().for_each(|(name, ids)| add(name, ids)),
        list => add(TableName::Embedding.name(), list),
    }
    rows
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
            ("use_rslora" | "use_dora", value) if !value.is_boolean() && !value.is_null() => {
                refuse(key, value, "true or false");
            }
            (known, _) if WITHOUT_EFFECT.contains(&known) || READ.contains(&known) => {}
            (_, value) if !is_unset(value) => refuse(key, value, "unset: Graft runs LoRA and DoRA"),
            _ => {}
        }
    }
    problems
}

/// Null, false or empty: what PEFT writes for an option that is not used.
pub(super) fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Number(_) | Value::Bool(true) => false,
    }
}

/// A value as an error shows it: on one line, shortened.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
