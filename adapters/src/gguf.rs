//! A model as a GGUF file, merged with its adapter on the way, or the adapter by itself.
//!
//! Follows llama.cpp's `convert_hf_to_gguf.py` (`LlamaModel`) for names, keys and the order of rows, and
//! `src/llama-quant.cpp` for the types of [`Mixture::Q4KM`]. Memory holds a few rows of a tensor at a time.

mod adapter;
mod keys;
mod rows;

use std::io::Write;
use std::path::{Path, PathBuf};

use graft_files::{atomic, disk, place};
use graft_gguf::blocks::{NotFinite, encode_rows};
use graft_gguf::hugging_face::{
    ATTENTION_NORM, EMBEDDING, FEED_FORWARD_NORM, HEAD, LAST_NORM, ROPE_FREQS,
};
use graft_gguf::mixture::{Depth, Mixture, Part};
use graft_gguf::rope::row_in_checkpoint;
use graft_gguf::{TensorSpec, TensorType, Value, Writer};
use graft_model::checkpoint::Checkpoint;
use graft_model::folder::ModelFolder;
use graft_model::{LlamaConfig, ProjectionKind, Site, site, stop};

use crate::error::Error;
use crate::merge::{BUFFER, NOTHING_TOLD};
use crate::merged::{Merge, MergedWeights, Onto};
use crate::peft::PeftAdapter;
pub use adapter::{write_adapter, write_folded};
use rows::Rows;

/// What to export.
#[derive(Debug)]
pub struct Export<'a> {
    /// The base.
    pub base: &'a ModelFolder,
    /// Its configuration.
    pub config: &'a LlamaConfig,
    /// The adapter, and the weights that it is added to.
    pub adapter: Option<(&'a PeftAdapter, Onto)>,
    /// The types of the tensors.
    pub mixture: Mixture,
    /// What the file calls the model.
    pub name: String,
    /// The keys of tokenizer and chat template.
    pub tokenizer: Vec<(String, Value)>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The file, links resolved.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Types, and how many tensors have them.
    pub kinds: Vec<(TensorType, usize)>,
}

impl Written {
    fn of(path: PathBuf, writer: &Writer) -> Self {
        let count = |kind| writer.tensors().iter().filter(|tensor| tensor.kind == kind).count();
        let kinds = TensorType::ALL.map(|kind| (kind, count(kind)));
        let kinds = kinds.into_iter().filter(|(_, count)| *count > 0).collect();
        Self { path, bytes: writer.file_bytes(), kinds }
    }
}

/// A tensor of the file and what it is made of.
struct Planned {
    spec: TensorSpec,
    from: From,
}

enum From {
    /// A tensor of the model, whose heads of so many rows stand in another order.
    Tensor { name: String, head: Option<usize> },
    /// What frequencies are divided by.
    Divisors(Vec<f32>),
}

/// Writes the model, whole or not at all. `check` is given the file before it takes its place, and keeps it from there
/// with an error; `progress` is told the bytes written and those in all.
///
/// # Errors
/// Before anything is written: `out` is taken; base, configuration and adapter do not belong together; the base is in
/// NF4 and [`Onto::Original`] is asked for; the disk is too small. Later: a number is beyond its type; the disk
/// refuses; those of `check`.
pub fn write<E: std::convert::From<Error>>(
    out: &Path,
    export: &Export<'_>,
    progress: &mut dyn FnMut(u64, u64),
    check: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<Written, E> {
    let path = claim(out, export.base)?;
    let Export { base, config, adapter, .. } = export;
    let checkpoint = Checkpoint::open(base).map_err(Error::from)?;
    checkpoint.verify(config).map_err(Error::from)?;
    let told = &NOTHING_TOLD;
    let merge = adapter.map(|(adapter, onto)| Merge { base, config, adapter, onto, told });
    let merged = merge.as_ref().map(|merge| MergedWeights::of(merge, &checkpoint)).transpose()?;
    let config = merged.as_ref().map_or(*config, MergedWeights::config);
    let (specs, sources): (Vec<_>, Vec<_>) =
        plan(config, export.mixture).into_iter().map(|Planned { spec, from }| (spec, from)).unzip();
    let writer = Writer::new(&keys::model(export, config), specs);
    disk::require_free(&path, writer.file_bytes()).map_err(Error::from)?;
    let (mut done, total, mut next) = (0, writer.tensor_bytes(), sources.iter());
    let tensor = |spec: &TensorSpec, file: &mut dyn Write| -> Result<(), Failure<E>> {
        match next.next().expect("a source for each tensor") {
            From::Divisors(divisors) => {
                let bytes: Vec<u8> = divisors.iter().flat_map(|it| it.to_le_bytes()).collect();
                file.write_all(&bytes).map_err(Error::from)?;
            }
            From::Tensor { name, head } => {
                let rows = Rows::of(name, config, &checkpoint, merged.as_ref())?;
                write_rows(spec, *head, file, |row, values, room| rows.row(row, values, room))?;
                checkpoint.release(rows.stored_name().unwrap_or(name));
            }
        }
        done += spec.bytes() as u64;
        progress(done, total);
        Ok(())
    };
    let fill = |file: &mut dyn Write| writer.write(file, tensor);
    let checked = |path: &Path| check(path).map_err(Failure::Checking);
    atomic::create_file_checked(&path, fill, checked).map_err(|failure| match failure {
        Failure::Writing(error) => error.into(),
        Failure::Checking(error) => error,
    })?;
    Ok(Written::of(path, &writer))
}

/// Refuses a place that is taken, and one in the base.
fn claim(out: &Path, base: &ModelFolder) -> Result<PathBuf, Error> {
    base.check_outside(out)?;
    Ok(place::new_file(out).map_err(graft_model::Error::from)?)
}

/// Why a file did not take its place.
enum Failure<E> {
    Writing(Error),
    Checking(E),
}

impl<E> std::convert::From<Error> for Failure<E> {
    fn from(error: Error) -> Self {
        Self::Writing(error)
    }
}

impl<E> std::convert::From<std::io::Error> for Failure<E> {
    fn from(error: std::io::Error) -> Self {
        Self::Writing(error.into())
    }
}

/// Every tensor of the file, in its order.
fn plan(config: &LlamaConfig, mixture: Mixture) -> Vec<Planned> {
    let LlamaConfig { d_model, vocab_size, layers, heads, kv_heads, head_dim, tied, .. } = *config;
    let depth = Depth { layers, grouped: heads != kv_heads };
    let matrix = |name: &str, from: String, [out, inner]: [usize; 2], part: Part, head| Planned {
        spec: TensorSpec {
            name: name.to_owned(),
            kind: mixture.of(part, inner, depth),
            shape: vec![out, inner],
        },
        from: From::Tensor { name: from, head },
    };
    let vector = |name: String, from: From, length: usize| Planned {
        spec: TensorSpec { name, kind: TensorType::F32, shape: vec![length] },
        from,
    };
    let norm =
        |name: String, from: String| vector(name, From::Tensor { name: from, head: None }, d_model);
    let table = [vocab_size, d_model];
    let embedding = site::EMBED_TOKENS.to_owned();
    let mut tensors = vec![matrix(EMBEDDING, embedding, table, Part::Embedding { tied }, None)];
    for layer in 0..layers {
        let of_block = |name: &str| format!("blk.{layer}.{name}");
        tensors.push(norm(of_block(ATTENTION_NORM), site::input_layernorm(layer)));
        let feed_forward = site::post_attention_layernorm(layer);
        tensors.push(norm(of_block(FEED_FORWARD_NORM), feed_forward));
        for kind in ProjectionKind::ALL {
            let site = Site { layer, kind };
            let part = match kind {
                ProjectionKind::V => Part::Value { layer },
                ProjectionKind::Down => Part::Down { layer },
                _ => Part::Other,
            };
            let (name, from) = (site.gguf_name(), site.checkpoint_name());
            let head = turned(kind, head_dim);
            tensors.push(matrix(&name, from, site.weight_shape(config), part, head));
        }
    }
    tensors.push(norm(LAST_NORM.to_owned(), site::NORM.to_owned()));
    if !tied {
        tensors.push(matrix(HEAD, site::LM_HEAD.to_owned(), table, Part::Head, None));
    }
    if let Some(divisors) = keys::divisors(config) {
        let length = divisors.len();
        tensors.push(vector(ROPE_FREQS.to_owned(), From::Divisors(divisors), length));
    }
    tensors
}

/// Rows of a head of a projection whose rows stand in another order in the file.
fn turned(kind: ProjectionKind, head_dim: usize) -> Option<usize> {
    kind.is_turned_in_gguf().then_some(head_dim)
}

/// Writes a tensor, some rows at a time; `row` gives the numbers of one as a checkpoint counts them, with room for as many.
fn write_rows(
    spec: &TensorSpec,
    head: Option<usize>,
    file: &mut dyn Write,
    row: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) -> Result<(), Error> {
    let (inner, outer) = spec.shape.split_last().expect("every tensor has a shape");
    let (inner, count) = (*inner, outer.iter().product());
    let row_bytes = spec.kind.row_bytes(inner).expect("the mixture fits the rows");
    let at_once = (BUFFER / row_bytes).clamp(1, count);
    let mut buffer = vec![0; at_once * row_bytes];
    for first in (0..count).step_by(at_once) {
        stop::check().map_err(graft_model::Error::from)?;
        let bytes = &mut buffer[..at_once.min(count - first) * row_bytes];
        let fill = |at: usize, values: &mut [f32], room: &mut [f32]| {
            row(head.map_or(at, |head| row_in_checkpoint(at, head)), values, room);
        };
        encode_rows(spec.kind, inner, first, bytes, fill).map_err(|failed| {
            let NotFinite { index, value } = failed;
            Error::NotHeld { tensor: spec.name.clone(), index, value, kind: spec.kind }
        })?;
        file.write_all(bytes)?;
    }
    Ok(())
}
