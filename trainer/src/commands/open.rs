//! A model to be scored or asked: base, optional adapter, tokenizer.

use std::path::Path;

use graft_adapters::{Fresh, LoraConfig, LoraFactory, LoraLinear, PeftAdapter, Rank, Scaling};
use graft_model::checkpoint::Checkpoint;
use graft_model::{Llama, LlamaConfig};

use crate::plan::ModelFiles;
use crate::progress::{Progress, Unit};
use crate::run::Backend;

/// A model in memory.
pub type Model = Llama<Backend, LoraLinear<Backend>>;

/// Loads the weights of `files`, quantised to NF4 if asked, with an adapter beside them if given.
///
/// # Errors
/// The weights or the adapter are not those of the model that config.json describes.
pub fn load(
    files: &ModelFiles,
    nf4: Option<bool>,
    adapter: Option<&Path>,
) -> anyhow::Result<Model> {
    let checkpoint = Checkpoint::open(&files.folder)?;
    checkpoint.verify(&files.config)?;
    let adapter = adapter.map(PeftAdapter::open).transpose()?;
    if let Some(adapter) = &adapter {
        adapter.check_model(&files.config)?;
    }
    let config = &files.config;
    let model = if let Some(adapter) = &adapter {
        build(config, &checkpoint, adapter.config(), adapter, nf4)?
    } else {
        let start = Fresh(|_, len| vec![0.0; len]);
        build(config, &checkpoint, &nothing(), start, nf4)?
    };
    Ok(model)
}

fn build(
    config: &LlamaConfig,
    checkpoint: &Checkpoint,
    lora: &LoraConfig,
    start: impl graft_adapters::Start,
    nf4: Option<bool>,
) -> Result<Model, graft_model::Error> {
    let device = Default::default();
    let progress = Progress::new("load", config.layers as u64, Unit::Count("layers"));
    let mut factory = LoraFactory { config: lora, start, nf4, device: &device };
    let fields = Default::default();
    let model = Llama::load(config, checkpoint, &mut factory, &device, &mut |done| {
        progress.step(done as u64, &fields);
    })?;
    progress.finish(&format!("{} layers", config.layers));
    Ok(model)
}

/// A LoRA that adapts no projection.
fn nothing() -> LoraConfig {
    LoraConfig {
        rank: Rank(std::num::NonZeroUsize::MIN),
        alpha: 1.0,
        scaling: Scaling::Standard,
        dropout: 0.0,
        sites: std::collections::BTreeSet::new(),
    }
}
