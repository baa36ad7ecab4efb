//! A merged model as a Hugging Face folder: [`MergedWeights`] rounded once, to the types of the base.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use graft_model::checkpoint::{Checkpoint, Dtype, ShardedWriter, TensorSpec, TensorView};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::error::Error;
pub use crate::merged::{Merge, Onto};
use crate::merged::{MergedTensor, MergedWeights, Sum};
pub use crate::out_folder::Summary;
use crate::out_folder::{OutFolder, model_type};

/// What a merged model says of the training of its adapter, as one object of texts.
pub const TOLD_FILE: &str = "graft.json";

/// Nothing is said of a training.
pub static NOTHING_TOLD: BTreeMap<String, String> = BTreeMap::new();

/// Bytes of output that are computed before they are written: enough rows for every thread.
pub const BUFFER: usize = 8 << 20;

/// Writes the merged model as a Hugging Face folder, whole or not at all.
///
/// Memory holds some rows of a tensor at a time, its update, and its NF4 codes where it goes through those.
/// A new weight file begins at `max_shard_bytes`, by default [`ShardedWriter::MAX_SHARD_BYTES`]. `progress` is told
/// the bytes written and those in all.
///
/// # Errors
/// Before anything is written: `out` holds something or lies in the base; base, configuration and
/// adapter do not belong together; the base is in NF4 and [`Onto::Original`] is asked for; the disk
/// is too small. Later: a sum is not finite in the base's type; the disk refuses.
pub fn write(
    out: &Path,
    merge: &Merge<'_>,
    max_shard_bytes: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary, Error> {
    write_checked(out, merge, max_shard_bytes, progress, |_| Ok(()))
}

/// As [`write()`], and `check` is given the folder before it takes its place, and keeps it from there with an
/// error.
///
/// # Errors
/// As [`write()`], and those of `check`.
pub fn write_checked<E: From<Error>>(
    out: &Path,
    merge: &Merge<'_>,
    max_shard_bytes: u64,
    progress: &mut dyn FnMut(u64, u64),
    check: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<Summary, E> {
    let out = OutFolder::claim(out, merge.base)?.telling(merge.told);
    let checkpoint = Checkpoint::open(merge.base).map_err(Error::from)?;
    let merged = MergedWeights::of(merge, &checkpoint)?;
    let writer = ShardedWriter::new(merged.specs()?, max_shard_bytes).map_err(Error::from)?;
    let config_json = merged.config().to_json(model_type(merge.config, &checkpoint), None);
    let (mut done, total) = (0, writer.total_bytes());
    let tensor = |spec: &TensorSpec, file: &mut dyn Write| {
        match merged.tensor(&spec.name)? {
            MergedTensor::Stored(view) => copy(&merged, &view, file)?,
            MergedTensor::Sum(sum) => write_rows(spec, &sum, file)?,
        }
        merged.release(&spec.name);
        done += spec.byte_length()? as u64;
        progress(done, total);
        Ok(())
    };
    out.write(&config_json, &writer, merged.changed(), tensor, check)
}

fn write_rows(spec: &TensorSpec, sum: &Sum, file: &mut dyn Write) -> Result<(), Error> {
    let [out, inner] = sum.shape();
    let row_bytes = inner * spec.dtype.bitsize() / 8;
    let rows_at_once = (BUFFER / row_bytes).clamp(1, out);
    let mut buffer = vec![0; rows_at_once * row_bytes];
    for first in (0..out).step_by(rows_at_once) {
        let rows = rows_at_once.min(out - first);
        let bytes = &mut buffer[..rows * row_bytes];
        round_rows(sum, first, spec, bytes)?;
        file.write_all(bytes)?;
    }
    Ok(())
}

/// Writes a tensor of the base as it is, handing back the pages that were read behind it.
fn copy(merged: &MergedWeights<'_>, view: &TensorView, file: &mut dyn Write) -> Result<(), Error> {
    let pages = merged.pages(&view.name);
    for (index, piece) in view.bytes.chunks(BUFFER).enumerate() {
        file.write_all(piece)?;
        let start = index * BUFFER;
        // A dense tensor is one run of pages.
        if let [pages] = pages.as_slice() {
            pages.release_part(start..start + piece.len());
        }
    }
    Ok(())
}

/// Fills `bytes` with merged rows from `first` on. Each row is one task's work in a fixed order, so
/// the number of threads changes nothing.
fn round_rows(sum: &Sum, first: usize, spec: &TensorSpec, bytes: &mut [u8]) -> Result<(), Error> {
    let [_, inner] = sum.shape();
    let row_bytes = inner * spec.dtype.bitsize() / 8;
    let broken = bytes
        .par_chunks_mut(row_bytes)
        .enumerate()
        .map_init(
            || (vec![0.0; inner], vec![0.0; inner]),
            |(values, room), (offset, bytes)| {
                let row = first + offset;
                sum.row(row, values, room);
                let (column, value) = round(values, spec.dtype, bytes)?;
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
pub(crate) fn round(values: &[f32], dtype: Dtype, bytes: &mut [u8]) -> Option<(usize, f32)> {
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
