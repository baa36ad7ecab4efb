//! What is written: the keys that old and new PEFT share, sorted, so that equal adapters have equal
//! bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::Path;

use graft_files::atomic;
use graft_model::checkpoint::{Dtype, TensorSpec, stream_safetensors};
use graft_model::{ProjectionKind, Site};
use serde_json::{Map, Value, json};

use super::names::{LoraMatrix, TableTensor, magnitude_name, tensor_name};
use super::{CONFIG_FILE, PREFIX, WEIGHTS_FILE};
use crate::error::Error;
use crate::lora::{LoraConfig, Rank, Scaling, Size, TableMethod, TableName, table_tensors};

/// Writes an adapter's folder, whole or not at all. The bytes are a function of the arguments.
///
/// - `layers`: blocks of the base, to tell "every layer" from a choice of layers
/// - `base`: `base_model_name_or_path`, for the tools that look for the base themselves
/// - `tensors`: name inside the model (`….q_proj.lora_A.weight`), shape, values; in any order
/// - `metadata`: goes into the header of the weights beside PEFT's own `format`
///
/// # Errors
/// The disk's.
///
/// # Panics
/// If the tensors are not those of `config`.
pub fn save(
    folder: &Path,
    config: &LoraConfig,
    layers: usize,
    base: &str,
    tensors: &[(String, Vec<usize>, Vec<f32>)],
    metadata: BTreeMap<String, String>,
) -> Result<(), Error> {
    let shapes: Vec<_> =
        tensors.iter().map(|(name, shape, _)| (name.clone(), shape.clone())).collect();
    let values: BTreeMap<&str, &[f32]> =
        tensors.iter().map(|(name, _, values)| (name.as_str(), values.as_slice())).collect();
    save_from(folder, config, layers, base, &shapes, &|name| values[name].to_vec(), metadata)
}

/// As [`save`], with the values of one tensor at a time: `values` gives them by the tensor's name.
///
/// # Errors
/// As [`save`].
///
/// # Panics
/// As [`save`].
pub fn save_from(
    folder: &Path,
    config: &LoraConfig,
    layers: usize,
    base: &str,
    tensors: &[(String, Vec<usize>)],
    values: &dyn Fn(&str) -> Vec<f32>,
    metadata: BTreeMap<String, String>,
) -> Result<(), Error> {
    let values = |name: &str| Ok(values(name));
    let fill = filling(config, layers, base, tensors, &values, metadata);
    atomic::replace_folder(folder, fill)
}

/// What fills a folder with an adapter.
pub(super) fn filling<'a>(
    config: &'a LoraConfig,
    layers: usize,
    base: &'a str,
    tensors: &'a [(String, Vec<usize>)],
    values: &'a dyn Fn(&str) -> Result<Vec<f32>, Error>,
    mut metadata: BTreeMap<String, String>,
) -> impl FnOnce(&Path) -> Result<(), Error> + 'a {
    assert_tensors(config, tensors);
    metadata.insert("format".to_owned(), "pt".to_owned());
    let shapes: BTreeMap<&str, &[usize]> =
        tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    let specs = tensors.iter().map(|(name, shape)| {
        let mut shape = shape.clone();
        if is_turned(name) {
            shape.reverse();
        }
        TensorSpec { name: format!("{PREFIX}{name}"), dtype: Dtype::F32, shape }
    });
    let specs: Vec<TensorSpec> = specs.collect();
    let text = description(config, layers, base);
    move |folder| {
        atomic::write_bytes(folder.join(CONFIG_FILE), text.as_bytes())?;
        let path = folder.join(WEIGHTS_FILE);
        stream_safetensors::<Error>(&path, specs, &metadata, |spec, file| {
            let name = spec.name.strip_prefix(PREFIX).expect("the prefix was put there above");
            let values = values(name)?;
            let values = if is_turned(name) { turned(&values, shapes[name]) } else { values };
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            Ok(file.write_all(&bytes)?)
        })
    }
}

/// Whether the file holds the tensor of this name inside a model transposed.
fn is_turned(name: &str) -> bool {
    TableTensor::from_name(name).is_some_and(|(table, tensor)| tensor.is_turned_in_file(table))
}

/// The transpose of a matrix `[rows, columns]`.
pub(super) fn turned(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let columns = shape.get(1).copied().unwrap_or(1).max(1);
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns).copied()).collect()
}

fn assert_tensors(config: &LoraConfig, tensors: &[(String, Vec<usize>)]) {
    let found: BTreeSet<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
    // How many dimensions each has, and which of them is the rank.
    let expected: BTreeMap<String, (usize, Option<(usize, usize)>)> = config
        .sites
        .iter()
        .flat_map(|(&site, size)| {
            let named =
                |matrix, side| (tensor_name(site, matrix), (2, Some((side, size.rank.get()))));
            let magnitude = config.dora.then(|| (magnitude_name(site), (1, None)));
            [named(LoraMatrix::A, 0), named(LoraMatrix::B, 1)].into_iter().chain(magnitude)
        })
        .chain(config.tables.iter().flat_map(|(&table, method)| {
            let tensors = table_tensors(method, [0, 0]).into_iter();
            tensors.map(move |(tensor, _)| {
                let side = usize::from(tensor == TableTensor::Wide);
                let rank = method.size().map(|size| (side, size.rank.get()));
                (tensor.name(table), (2, rank))
            })
        }))
        .collect();
    assert!(
        found.iter().copied().eq(expected.keys().map(String::as_str)) && !found.is_empty(),
        "tensors {found:?} of an adapter that has {expected:?}"
    );
    for (name, shape) in tensors {
        let (dimensions, rank) = expected[name];
        let fits = rank.is_none_or(|(side, rank)| shape.get(side) == Some(&rank));
        assert!(shape.len() == dimensions && fits, "{name} is {shape:?} in an update of {rank:?}");
    }
}

/// The text of adapter_config.json for a model of `layers` blocks.
fn description(config: &LoraConfig, layers: usize, base: &str) -> String {
    let LoraConfig { scaling, dropout, dora, b_rate: _, part: _, sites, tables } = config;
    // An adapter of tables alone has no update whose size counts.
    let one = Size { rank: Rank(NonZeroUsize::MIN), alpha: 1.0 };
    let usual = config.usual_size().unwrap_or(one);
    let Size { rank, alpha } = usual;
    let (mut target_modules, layers_to_transform) = targets(sites.keys().copied(), layers);
    let of_tables = |whole: bool| {
        let is_one = move |method: &TableMethod| match method {
            TableMethod::Whole => whole,
            TableMethod::LowRank(_) => !whole,
            TableMethod::Rows(_) => false,
        };
        tables.iter().filter(move |(_, method)| is_one(method)).map(|(name, _)| *name)
    };
    // By its whole name a module is chosen whatever is said of layers.
    target_modules.extend(of_tables(false).map(|table| table.module_name().to_owned()));
    let modules_to_save: Vec<&str> = of_tables(true).map(TableName::name).collect();
    // A whole name matches itself only: PEFT's patterns begin at the name's start or behind a dot.
    let pattern = |differs: &dyn Fn(&Size) -> Option<Value>| -> Map<String, Value> {
        let entry = |(site, size): (&Site, &Size)| Some((site.module_name(), differs(size)?));
        let of_table = |(table, method): (&TableName, &TableMethod)| {
            Some((table.module_name().to_owned(), differs(&method.size()?)?))
        };
        let of_tables = tables.iter().filter_map(of_table);
        let sorted: BTreeMap<String, Value> =
            sites.iter().filter_map(entry).chain(of_tables).collect();
        sorted.into_iter().collect()
    };
    let rank_pattern = pattern(&|size| (size.rank != rank).then(|| Value::from(size.rank.get())));
    let alpha_pattern =
        pattern(&|size| (size.alpha.to_bits() != alpha.to_bits()).then(|| number(size.alpha)));
    let mut object = json!({
        "alpha_pattern": alpha_pattern,
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
        "lora_alpha": number(alpha),
        "lora_bias": false,
        "lora_dropout": dropout,
        "megatron_config": null,
        "megatron_core": "megatron.core",
        "modules_to_save": (!modules_to_save.is_empty()).then_some(modules_to_save),
        "peft_type": "LORA",
        "r": Rank::get(rank),
        "rank_pattern": rank_pattern,
        "revision": null,
        "target_modules": target_modules,
        "task_type": "CAUSAL_LM",
        "use_dora": dora,
        "use_rslora": *scaling == Scaling::RankStabilised,
    });
    if let Some(rows) = rows(tables) {
        object["trainable_token_indices"] = rows;
    }
    format!("{object:#}\n")
}

/// `trainable_token_indices`, where rows are trained: those of the embedding alone are a list.
fn rows(tables: &BTreeMap<TableName, TableMethod>) -> Option<Value> {
    let rows = |(name, method): (&TableName, &TableMethod)| match method {
        TableMethod::Rows(ids) => Some((*name, Value::from(ids.clone()))),
        TableMethod::Whole | TableMethod::LowRank(_) => None,
    };
    let mut all: BTreeMap<TableName, Value> = tables.iter().filter_map(rows).collect();
    match all.len() {
        0 => None,
        1 if all.contains_key(&TableName::Embedding) => all.remove(&TableName::Embedding),
        _ => Some(all.into_iter().map(|(name, ids)| (name.name().to_owned(), ids)).collect()),
    }
}

/// `target_modules` and `layers_to_transform` that select exactly these sites.
fn targets(
    sites: impl Iterator<Item = Site> + Clone,
    layers: usize,
) -> (BTreeSet<String>, Option<BTreeSet<usize>>) {
    let kinds: BTreeSet<ProjectionKind> = sites.clone().map(|site| site.kind).collect();
    let chosen: BTreeSet<usize> = sites.clone().map(|site| site.layer).collect();
    if kinds.len() * chosen.len() != sites.clone().count() {
        // Not every kind in every layer: PEFT takes whole module names too.
        return (sites.map(Site::module_name).collect(), None);
    }
    let names = kinds.iter().map(|kind| kind.name().to_owned()).collect();
    (names, (!chosen.iter().copied().eq(0..layers)).then_some(chosen))
}

/// PEFT declares alpha whole, and strict readers (vLLM, mistral.rs) take it at its word.
fn number(alpha: f64) -> Value {
    let whole = alpha.fract() == 0.0 && (0.0..1e15).contains(&alpha);
    if whole { Value::from(alpha as u64) } else { Value::from(alpha) }
}
