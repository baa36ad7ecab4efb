//! An adapter by itself, for llama.cpp's `--lora`: as `convert_lora_to_gguf.py` writes it.
//!
//! llama.cpp multiplies an update with `adapter.lora.alpha` over the rank of its `B` (`llama_adapter_lora_weight::
//! get_scale` of `src/llama-adapter.h`). That is one alpha for all: where an update's own scale is another, its `B` takes
//! the difference.

use std::io::Write;
use std::path::Path;

use graft_files::{atomic, disk};
use graft_gguf::{TensorSpec, TensorType, Value, Writer};
use graft_model::folder::ModelFolder;
use graft_model::{LlamaConfig, Site};

use super::{Written, claim, turned, write_rows};
use crate::error::Error;
use crate::fold::Folded;
use crate::lora::{LoraConfig, Size};
use crate::peft::PeftAdapter;

/// One of the two matrices of an update.
struct Part {
    site: Site,
    /// 0 for `A`, 1 for `B`.
    side: usize,
}

/// Writes an adapter of a model as `kind`, one of the plain types.
///
/// # Errors
/// `out` is taken; the adapter is no model's of this shape, or brings what a GGUF adapter cannot say; a number is beyond
/// the type; the disk refuses.
pub fn write_adapter(
    out: &Path,
    base: &ModelFolder,
    config: &LlamaConfig,
    adapter: &PeftAdapter,
    name: &str,
    kind: TensorType,
) -> Result<Written, Error> {
    adapter.check_model(config)?;
    let refused = |reason: String| Error::NoGgufAdapter { file: adapter.file().to_owned(), reason };
    if let Some((table, _)) = adapter.config().tables.first_key_value() {
        return Err(refused(format!(
            "it trains `{table}`, which Graft writes into merged models only"
        )));
    }
    if adapter.config().dora {
        return Err(refused("it is DoRA, whose magnitudes llama.cpp does not know".to_owned()));
    }
    if adapter.config().sites.is_empty() {
        return Err(refused("it holds no update".to_owned()));
    }
    let values = |site| adapter.values(site).expect("the site is the adapter's own");
    write_updates(out, base, config, adapter.config(), &values, name, kind)
}

/// As [`write_adapter`], of one in its plainest form.
///
/// # Errors
/// As [`write_adapter`].
pub fn write_folded(
    out: &Path,
    base: &ModelFolder,
    config: &LlamaConfig,
    folded: &Folded,
    name: &str,
    kind: TensorType,
) -> Result<Written, Error> {
    let values = |site| folded.pair(site).expect("the site is its own").clone();
    write_updates(out, base, config, folded.config(), &values, name, kind)
}

fn write_updates(
    out: &Path,
    base: &ModelFolder,
    config: &LlamaConfig,
    lora: &LoraConfig,
    values: &dyn Fn(Site) -> [Vec<f32>; 2],
    name: &str,
    kind: TensorType,
) -> Result<Written, Error> {
    let path = claim(out, base)?;
    let LoraConfig { sites, scaling, .. } = lora;
    let alpha = |size: &Size| scaling.factor(*size) * size.rank.get() as f64;
    let shared = sites.values().next().map_or(1.0, alpha);
    let (specs, parts): (Vec<_>, Vec<_>) = sites
        .iter()
        .flat_map(|(&site, size)| {
            let ([out, inner], rank) = (site.weight_shape(config), size.rank.get());
            let spec = |side: &str, shape: [usize; 2]| TensorSpec {
                name: format!("{}.lora_{side}", site.gguf_name()),
                kind,
                shape: shape.to_vec(),
            };
            let (a, b) = (spec("a", [rank, inner]), spec("b", [out, rank]));
            [(a, Part { site, side: 0 }), (b, Part { site, side: 1 })]
        })
        .unzip();
    let writer = Writer::new(&keys(name, shared, kind), specs);
    disk::require_free(&path, writer.file_bytes())?;
    let mut next = parts.iter();
    let tensor = |spec: &TensorSpec, file: &mut dyn Write| -> Result<(), Error> {
        let Part { site, side } = next.next().expect("a part for each tensor");
        let factor = if *side == 1 { alpha(&sites[site]) / shared } else { 1.0 } as f32;
        let head = turned(site.kind, config.head_dim).filter(|_| *side == 1);
        let matrix = &values(*site)[*side];
        write_rows(spec, head, file, |row, values, _| {
            let from = &matrix[row * values.len()..];
            for (value, from) in values.iter_mut().zip(from) {
                *value = from * factor;
            }
        })
    };
    atomic::create_file(&path, |file| writer.write(file, tensor))?;
    Ok(Written::of(path, &writer))
}

fn keys(name: &str, alpha: f64, kind: TensorType) -> Vec<(String, Value)> {
    let file_type = graft_gguf::mixture::Mixture::All(kind).file_type();
    let keys = [
        ("general.architecture", Value::text("llama")),
        ("general.type", Value::text("adapter")),
        ("adapter.type", Value::text("lora")),
        ("general.name", Value::text(name)),
        ("general.file_type", Value::u32(file_type)),
        ("adapter.lora.alpha", Value::F32(alpha as f32)),
    ];
    keys.map(|(key, value)| (key.to_owned(), value)).into()
}
