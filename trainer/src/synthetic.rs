//! Models of random weights with the shape of a release, for measurements: what costs time, memory
//! and disk is as in the release, only the numbers are not learnt.
//!
//! The folder is what `graft quantize` would make of random bf16 weights, tensor by tensor, written
//! without quantising: see `pool` for where the numbers come from.

mod pool;
pub mod shapes;
mod tensors;
mod tokenizer;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use graft_adapters::quantize::unsplit;
use graft_files::{atomic, disk, place};
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::LlamaConfig;
use graft_model::checkpoint::{Checkpoint, ShardedWriter, TensorSpec, expected};
use graft_model::config::{BnbConfig, FloatType};
use graft_model::folder::ModelFolder;

use crate::plan::read_config;
use crate::quantity;
use crate::wrong_use::WrongUse;
use pool::Pool;
use tensors::{Maker, dense, f32_bytes, quantised};
use tokenizer::Growth;

/// Files taken over from the built-in model, whose tokenizer every synthetic model has, grown.
const BESIDE: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "generation_config.json"];

/// How projections are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// bitsandbytes NF4, a block's scale in f32.
    Nf4,
    /// bitsandbytes NF4 with quantised scales.
    Nf4Double,
    /// As the releases are.
    Bf16,
}

impl Format {
    /// Every format by its name.
    pub const ALL: &'static [(&'static str, Self)] =
        &[("nf4", Self::Nf4), ("nf4-double", Self::Nf4Double), ("bf16", Self::Bf16)];

    /// How NF4 keeps scales; `None` where weights are not quantised.
    fn nf4(self) -> Option<AbsmaxFormat> {
        match self {
            Self::Nf4 => Some(AbsmaxFormat::Plain),
            Self::Nf4Double => Some(AbsmaxFormat::Double),
            Self::Bf16 => None,
        }
    }
}

/// What the weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Normal, standard deviation 0.02.
    Random {
        /// The root of the draws.
        seed: u64,
    },
    /// Zeros that take no disk. Norms and tables of codes are there.
    Holes,
}

/// A model that can be written.
pub struct Synthetic {
    config: LlamaConfig,
    config_json: String,
    growth: Growth,
    contents: Contents,
    pool: Pool,
    writer: ShardedWriter,
    makers: BTreeMap<String, Maker>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The folder.
    pub folder: PathBuf,
    /// How many weight files.
    pub files: usize,
    /// Bytes that the folder takes on the disk: holes take none.
    pub disk_bytes: u64,
}

impl Synthetic {
    /// Lays the model out; nothing is written yet. `layers` replaces the number of blocks.
    ///
    /// # Errors
    /// The built-in tokenizer cannot be read, or two tensors have one name: faults of the program.
    pub fn new(
        mut config: LlamaConfig,
        layers: Option<usize>,
        format: Format,
        contents: Contents,
    ) -> anyhow::Result<Self> {
        let builtin = read_config(&builtin()?)?;
        let first = builtin.bos_token_id.context("the built-in model begins every text")?;
        let growth = Growth::new(first, config.vocab_size);
        config.bos_token_id = Some(growth.moved(first));
        config.eos_token_ids = builtin.eos_token_ids.iter().map(|id| growth.moved(*id)).collect();
        config.layers = layers.unwrap_or(config.layers);
        let config = config.with_fresh_raw();
        let bnb = format.nf4().map(|scales| BnbConfig::nf4(scales.is_double()));
        let config_json = config.to_json(FloatType::Bf16, bnb.as_ref());
        let seed = match contents {
            Contents::Random { seed } => seed,
            Contents::Holes => 0,
        };
        let pool = Pool::new(seed);
        let offset = match contents {
            Contents::Random { .. } => pool.offset(),
            Contents::Holes => 0.0,
        };
        let mut groups = Vec::new();
        let mut makers = BTreeMap::new();
        for tensor in expected(&config) {
            let parts = match format.nf4() {
                Some(scales) if tensor.site.is_some() => quantised(&tensor, scales, &pool, offset),
                _ => vec![dense(&tensor)],
            };
            groups.push(parts.iter().map(|(spec, _)| spec.clone()).collect());
            makers.extend(parts.into_iter().map(|(spec, maker)| (spec.name, maker)));
        }
        let writer = unsplit(&groups, ShardedWriter::MAX_SHARD_BYTES)?;
        Ok(Self { config, config_json, growth, contents, pool, writer, makers })
    }

    /// The model's configuration.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Bytes of all tensors, holes included.
    pub fn tensor_bytes(&self) -> u64 {
        self.writer.total_bytes()
    }

    /// Writes the folder, whole or not at all. Memory holds a few MiB. `progress` is told the bytes
    /// that are written.
    ///
    /// # Errors
    /// Before anything is written: `out` holds something, or the disk has too little room. Later:
    /// the disk refuses.
    pub fn write(&self, out: &Path, progress: &mut dyn FnMut(u64)) -> anyhow::Result<Written> {
        place::new_folder(out)?;
        let builtin = builtin()?;
        let mut beside = Vec::new();
        for name in BESIDE {
            beside.push((name, self.growth.file(&builtin.required(name)?)?));
        }
        let small: usize = beside.iter().map(|(_, bytes)| bytes.len()).sum();
        self.require_room(out, (small + self.config_json.len()) as u64)?;
        if let Some(parent) = out.parent() {
            fs::create_dir_all(parent)?;
        }
        atomic::create_folder(out, |folder| -> anyhow::Result<()> {
            atomic::write_bytes(folder.join("config.json"), self.config_json.as_bytes())?;
            for (name, bytes) in &beside {
                atomic::write_bytes(folder.join(name), bytes)?;
            }
            self.write_weights(folder, progress)?;
            let written = LlamaConfig::from_json(self.config_json.as_bytes(), "config.json")?;
            Ok(Checkpoint::open(&ModelFolder::at(folder)?)?.verify(&written)?)
        })?;
        let disk_bytes = disk_bytes(out)?;
        Ok(Written { folder: out.to_owned(), files: self.writer.file_names().count(), disk_bytes })
    }

    fn write_weights(&self, folder: &Path, progress: &mut dyn FnMut(u64)) -> anyhow::Result<()> {
        if self.contents == Contents::Holes {
            return Ok(self.writer.write_sparse(folder, |spec| {
                match &self.makers[&spec.name] {
                    Maker::Fixed(bytes) => Some(bytes.clone()),
                    Maker::Weight { .. } | Maker::Scales(_) => None,
                }
            })?);
        }
        let mut done = 0;
        self.writer.write(folder, |spec, file| -> anyhow::Result<()> {
            match &self.makers[&spec.name] {
                Maker::Weight { weight, form, blocks } => {
                    self.pool.write(weight, *form, *blocks, file)?;
                }
                Maker::Scales(values) => file.write_all(&f32_bytes(values))?,
                Maker::Fixed(bytes) => file.write_all(bytes)?,
            }
            done += spec.byte_length()? as u64;
            progress(done);
            Ok(())
        })
    }

    /// Refuses what does not fit on the disk, with the arithmetic.
    fn require_room(&self, out: &Path, small: u64) -> anyhow::Result<()> {
        let free = disk::free_bytes(out)?;
        let files = self.writer.file_bytes() + small;
        let needed = match self.contents {
            Contents::Random { .. } => files,
            Contents::Holes => files.saturating_sub(self.hollow_bytes()),
        };
        if needed <= free {
            return Ok(());
        }
        let first = "model.layers.0.";
        let in_first = |spec: &&TensorSpec| spec.name.starts_with(first);
        let block: u64 = self.bytes_of(in_first);
        let layers = self.config.layers;
        let rest = needed.saturating_sub(block * layers as u64);
        let fit = free.saturating_sub(rest) / block.max(1);
        let fewer = if fit > 0 { format!("`--layers {fit}`, ") } else { String::new() };
        Err(WrongUse(format!(
            "`{}` needs {needed} bytes ({layers} blocks of {}, {} of tables and headers), but its \
             disk has {free} bytes left ({}): take {fewer}`--sparse`, or another disk",
            out.display(),
            quantity::bytes(block),
            quantity::bytes(rest),
            quantity::bytes(free),
        ))
        .into())
    }

    fn hollow_bytes(&self) -> u64 {
        self.bytes_of(|spec| !matches!(self.makers[&spec.name], Maker::Fixed(_)))
    }

    fn bytes_of(&self, wanted: impl Fn(&&TensorSpec) -> bool) -> u64 {
        let length = |spec: &TensorSpec| spec.byte_length().map_or(0, |length| length as u64);
        self.writer.tensors().filter(wanted).map(length).sum()
    }
}

fn builtin() -> Result<ModelFolder, graft_model::Error> {
    ModelFolder::open("builtin:quickstart")
}

/// Bytes that a folder's files take on the disk.
fn disk_bytes(folder: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        // The unit of `blocks` is 512 bytes on every system.
        total += entry?.metadata()?.blocks() * 512;
    }
    Ok(total)
}

#[cfg(test)]
mod tests;
