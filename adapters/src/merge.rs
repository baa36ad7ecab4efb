//! One model out of a base and an adapter: `W' = W + scale · B·A`, Hu et al. 2021, section 4.1.
//!
//! An adapter that was trained over NF4 weights has learnt to correct *those*: merged onto the
//! original weights it gives another model than the one that was trained. [`Onto`] says which `W` is
//! meant. The sum is computed in f32 and rounded once, to the type of the base. A table that the
//! adapter brings whole takes the place of the base's, in the base's type.

use std::io::Write;
use std::path::Path;

use graft_kernels::FrozenMatrix;
use graft_model::checkpoint::{
    Checkpoint, Dtype, Expected, ShardedWriter, TensorSpec, TensorView, expected,
};
use graft_model::config::FloatType;
use graft_model::folder::ModelFolder;
use graft_model::load::{Weights, left_to_quantise, quantise};
use graft_model::{LlamaConfig, Site};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::error::Error;
pub use crate::out_folder::Summary;
use crate::out_folder::{OutFolder, model_type};
use crate::peft::{PeftAdapter, WithTables};

/// Bytes of output that are computed before they are written: enough rows for every thread.
pub const BUFFER: usize = 8 << 20;

/// Which weights the update is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// What the model computed with in training over NF4: every projection, adapted or not, is
    /// quantised and decoded again. Of a folder that is in NF4 they are decoded as they are.
    Dequantised {
        /// Double quantisation, for projections that are stored dense.
        double: bool,
    },
    /// The weights as stored, which must not be in NF4.
    Original,
}

/// What to merge.
#[derive(Clone, Copy, Debug)]
pub struct Merge<'a> {
    /// The base's folder.
    pub base: &'a ModelFolder,
    /// Its configuration.
    pub config: &'a LlamaConfig,
    /// The adapter.
    pub adapter: &'a PeftAdapter,
    /// Which weights of the base are meant.
    pub onto: Onto,
    /// Size at which a new weight file begins, [`ShardedWriter::MAX_SHARD_BYTES`] by default.
    pub max_shard_bytes: u64,
}

/// Writes the merged model as a Hugging Face folder, whole or not at all.
///
/// Memory holds some rows of a tensor at a time, its update, and its NF4 codes where it goes through those.
/// `progress` is told the bytes written and those in all.
///
/// # Errors
/// Before anything is written: `out` holds something or lies in the base; base, configuration and
/// adapter do not belong together; the base is in NF4 and [`Onto::Original`] is asked for; the disk
/// is too small. Later: a sum is not finite in the base's type; the disk refuses.
pub fn write(
    out: &Path,
    merge: &Merge<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary, Error> {
    write_checked(out, merge, progress, |_| Ok(()))
}

/// As [`write()`], and `check` is given the folder before it takes its place, and keeps it from there with an
/// error.
///
/// # Errors
/// As [`write()`], and those of `check`.
pub fn write_checked<E: From<Error>>(
    out: &Path,
    merge: &Merge<'_>,
    progress: &mut dyn FnMut(u64, u64),
    check: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<Summary, E> {
    let Merge { base, config, adapter, onto, max_shard_bytes } = *merge;
    let out = OutFolder::claim(out, base)?;
    let opened = || -> Result<Checkpoint, Error> {
        let checkpoint = Checkpoint::open(base)?;
        checkpoint.verify(config)?;
        adapter.check_model(config)?;
        Ok(checkpoint)
    };
    let checkpoint = opened()?;
    let base = Base { checkpoint: &checkpoint, weights: adapter.weights(&checkpoint, config) };
    let merged_config = adapter.model_config(config);
    let tensors = expected(&merged_config);
    let mut specs = Vec::with_capacity(tensors.len());
    for tensor in &tensors {
        specs.push(spec(tensor, &base, merge)?);
    }
    let writer = ShardedWriter::new(specs, max_shard_bytes).map_err(Error::from)?;
    let projections = match onto {
        Onto::Dequantised { .. } => Site::all(config).count(),
        Onto::Original => adapter.config().sites.len(),
    };
    let changed = projections + adapter.table_names().count();
    let config_json = merged_config.to_json(model_type(config, &checkpoint), None);
    let (mut done, total) = (0, writer.total_bytes());
    let tensor = |spec: &TensorSpec, file: &mut dyn Write| {
        write_tensor(spec, &base, merge, file)?;
        base.checkpoint.release(base.weights.base_name(&spec.name));
        done += spec.byte_length()? as u64;
        progress(done, total);
        Ok(())
    };
    out.write(&config_json, &writer, changed, tensor, check)
}

/// The base as stored, and with the adapter's tables in the place of its own.
struct Base<'a> {
    checkpoint: &'a Checkpoint,
    weights: WithTables<'a, Checkpoint>,
}

impl Base<'_> {
    /// The base's tensor that stands for this one.
    fn stored(&self, name: &str) -> Result<TensorView, Error> {
        let name = self.weights.base_name(name);
        let missing = || graft_model::Error::NoTensor { tensor: name.to_owned() };
        Ok(self.checkpoint.tensor(name).ok_or_else(missing)?)
    }
}

/// A tensor of the merged model: that of the base, or in the type it had before quantisation.
fn spec(tensor: &Expected, base: &Base<'_>, merge: &Merge<'_>) -> Result<TensorSpec, Error> {
    let Expected { name, shape, site } = tensor.clone();
    let nf4 = if site.is_some() { base.checkpoint.nf4(&name)? } else { None };
    let dtype = match nf4 {
        Some(_) if merge.onto == Onto::Original => {
            return Err(Error::NoOriginal { base: merge.base.display(), tensor: name });
        }
        Some(nf4) => match nf4.dtype {
            FloatType::F32 => Dtype::F32,
            FloatType::F16 => Dtype::F16,
            FloatType::Bf16 => Dtype::BF16,
        },
        None => base.stored(&name)?.dtype,
    };
    Ok(TensorSpec { name, dtype, shape })
}

fn write_tensor(
    spec: &TensorSpec,
    base: &Base<'_>,
    merge: &Merge<'_>,
    file: &mut dyn Write,
) -> Result<(), Error> {
    let Merge { config, adapter, onto, .. } = *merge;
    let name = spec.name.as_str();
    let site = Site::from_checkpoint_name(name);
    let update = site.and_then(|site| Update::of(adapter, site));
    let weight = match (site, onto) {
        (Some(site), Onto::Dequantised { double }) => {
            let weight = base.weights.matrix(name, site.weight_shape(config))?;
            match left_to_quantise(config, Some(double)) {
                Some(double) => quantise(name, weight, double)?,
                None => weight,
            }
        }
        (Some(site), Onto::Original) if update.is_some() => {
            base.weights.matrix(name, site.weight_shape(config))?
        }
        (None, _) if adapter.table(name).is_some() => {
            base.weights.matrix(name, [config.vocab_size, config.d_model])?
        }
        _ => return copy(base, name, file),
    };
    let [out, inner] = weight.shape();
    let row_bytes = inner * spec.dtype.bitsize() / 8;
    let rows_at_once = (BUFFER / row_bytes).clamp(1, out);
    let mut buffer = vec![0; rows_at_once * row_bytes];
    for first in (0..out).step_by(rows_at_once) {
        let rows = rows_at_once.min(out - first);
        let bytes = &mut buffer[..rows * row_bytes];
        sum_rows(&weight, update.as_ref(), first, spec, bytes)?;
        file.write_all(bytes)?;
    }
    Ok(())
}

/// Writes a tensor of the base as it is, handing back the pages that were read behind it.
fn copy(base: &Base<'_>, name: &str, file: &mut dyn Write) -> Result<(), Error> {
    let bytes = base.stored(name)?.bytes;
    let pages = base.checkpoint.pages(base.weights.base_name(name));
    for (index, piece) in bytes.chunks(BUFFER).enumerate() {
        file.write_all(piece)?;
        let start = index * BUFFER;
        // A dense tensor is one run of pages.
        if let [pages] = pages.as_slice() {
            pages.release_part(start..start + piece.len());
        }
    }
    Ok(())
}

/// The two matrices of a projection and their factor.
struct Update {
    a: Vec<f32>,
    b: Vec<f32>,
    rank: usize,
    scale: f32,
}

impl Update {
    fn of(adapter: &PeftAdapter, site: Site) -> Option<Self> {
        let [a, b] = adapter.values(site)?;
        let config = adapter.config();
        let size = *config.sites.get(&site)?;
        Some(Self { a, b, rank: size.rank.get(), scale: config.scaling.factor(size) as f32 })
    }

    /// Adds row `row` of `scale · B·A` to `sum`; `delta` is room for it.
    fn add(&self, row: usize, sum: &mut [f32], delta: &mut [f32]) {
        delta.fill(0.0);
        let factors = &self.b[row * self.rank..(row + 1) * self.rank];
        for (factor, a) in factors.iter().zip(self.a.chunks_exact(sum.len())) {
            for (delta, a) in delta.iter_mut().zip(a) {
                *delta += factor * a;
            }
        }
        for (sum, delta) in sum.iter_mut().zip(delta) {
            let delta = self.scale * *delta;
            // Adding a zero would turn a weight of -0 into +0.
            *sum = if delta == 0.0 { *sum } else { *sum + delta };
        }
    }
}

/// Fills `bytes` with merged rows from `first` on. Each row is one task's work in a fixed order, so
/// the number of threads changes nothing.
fn sum_rows(
    weight: &FrozenMatrix,
    update: Option<&Update>,
    first: usize,
    spec: &TensorSpec,
    bytes: &mut [u8],
) -> Result<(), Error> {
    let [_, inner] = weight.shape();
    let row_bytes = inner * spec.dtype.bitsize() / 8;
    let broken = bytes
        .par_chunks_mut(row_bytes)
        .enumerate()
        .map_init(
            || (vec![0.0; inner], vec![0.0; inner]),
            |(sum, delta), (offset, bytes)| {
                let row = first + offset;
                weight.decode(row, 0, sum);
                if let Some(update) = update {
                    update.add(row, sum, delta);
                }
                let (column, value) = round(sum, spec.dtype, bytes)?;
                Some((row * inner + column, value))
            },
        )
        .find_first(Option::is_some)
        .flatten();
    match broken {
        None => Ok(()),
        Some((index, value)) => {
            let (tensor, dtype) = (spec.name.clone(), spec.dtype);
            Err(Error::NotFinite { tensor, index, value, dtype })
        }
    }
}

/// Writes values as `dtype`, to the nearest, ties to even; the first one that is not finite there.
fn round(values: &[f32], dtype: Dtype, bytes: &mut [u8]) -> Option<(usize, f32)> {
    match dtype {
        Dtype::F32 => {
            for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = value.to_le_bytes();
            }
            first_not_finite(values.iter().copied())
        }
        Dtype::F16 => {
            for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = f16::from_f32(*value).to_le_bytes();
            }
            first_not_finite(values.iter().map(|&value| f16::from_f32(value).to_f32()))
        }
        Dtype::BF16 => {
            for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = bf16::from_f32(*value).to_le_bytes();
            }
            first_not_finite(values.iter().map(|&value| bf16::from_f32(value).to_f32()))
        }
        other => unreachable!("`verify` lets float tensors through only, not {other}"),
    }
}

fn first_not_finite(values: impl Iterator<Item = f32>) -> Option<(usize, f32)> {
    values.enumerate().find(|(_, value)| !value.is_finite())
}
