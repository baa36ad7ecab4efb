//! A GGUF file is compared with the model that it was made of before it takes its place, as merged folders are
//! ([`crate::merging`]): what is read back is what other programs will read. Of both models memory holds one block
//! at a time.

use std::path::Path;

use burn_flex::Flex;
use graft_adapters::PeftAdapter;
use graft_adapters::gguf::{self, Export, Written};
use graft_adapters::merge::Onto;
use graft_engine::probe::{Divergence, Probe, Says};
use graft_gguf::mixture::Mixture;
use graft_kernels::nf4::AbsmaxFormat;
use graft_kernels::{Home, Precision};
use graft_model::LlamaConfig;
use graft_model::checkpoint::Checkpoint;
use graft_model::folder::ModelFolder;
use graft_model::load::Frozen;

use crate::beside::{Beside, DEVICE, hear};
use crate::gguf_tokenizer::{self, ExportError};
use crate::plan::{ModelFiles, read_config};
use crate::progress::{Progress, Unit, Voice};

/// How a file is compared.
#[derive(Clone, Copy, Debug)]
pub struct Comparing {
    /// How training kept the base.
    pub nf4: Option<AbsmaxFormat>,
    /// The mean divergence beyond which the file is refused, in nats a token.
    pub allowed: f64,
    /// How it is said how far it is.
    pub voice: Voice,
}

/// What a file holds of a model, with its adapter where it has one.
///
/// # Errors
/// A file of the tokenizer cannot be read, or has no form in the keys.
pub fn export_of<'a>(
    files: &'a ModelFiles,
    adapter: Option<(&'a PeftAdapter, Onto)>,
    mixture: Mixture,
    name: String,
) -> Result<Export<'a>, ExportError> {
    let config =
        adapter.map_or_else(|| files.config.clone(), |(it, _)| it.model_config(&files.config));
    let mut tokenizer = gguf_tokenizer::keys(files, &config)?;
    tokenizer.extend(gguf_tokenizer::told(adapter.map(|(adapter, _)| adapter)));
    Ok(Export { base: &files.folder, config: &files.config, adapter, mixture, name, tokenizer })
}

/// Writes the file, and gives how far it is from base and adapter.
///
/// # Errors
/// Those of [`gguf::write`]; the file answers otherwise than base and adapter do, or cannot be read back.
pub fn write(
    out: &Path,
    export: &Export<'_>,
    how: Comparing,
) -> anyhow::Result<(Written, Divergence)> {
    let Comparing { nf4, allowed, voice } = how;
    let progress = Progress::new(voice, "export", None, Unit::Bytes);
    let mut found = None;
    let check = |path: &Path| -> anyhow::Result<()> {
        let probe = Probe::spread(export.config.vocab_size);
        let base = Checkpoint::open(export.base)?;
        let adapter = export.adapter.map(|(adapter, _)| adapter);
        let written = ModelFolder::at(path)?;
        let config = read_config(&written)?;
        let checkpoint = Checkpoint::open(&written)?;
        checkpoint.verify(&config)?;
        let mut factory = Frozen { nf4: None, home: Home::Device, device: &DEVICE };
        let heard = probe.hear_by_blocks::<Flex, _, _>(
            &config,
            &checkpoint,
            &mut factory,
            &DEVICE,
            Precision::F32,
        )?;
        let divergence = between(&probe, export.config, &base, adapter, nf4, &heard)?;
        if !divergence.is_within(allowed) {
            return Err(ExportError::Apart { found: divergence.mean, allowed }.into());
        }
        found = Some(divergence);
        Ok(())
    };
    let mut step = |done, _| progress.step(done, &Default::default());
    let written = gguf::write(out, export, &mut step, check)?;
    let divergence = found.expect("it was checked");
    progress.finish(&format!("mean divergence {:.1e} nats a token", divergence.mean));
    Ok((written, divergence))
}

/// How far a model is from base and adapter, side by side.
fn between(
    probe: &Probe,
    config: &LlamaConfig,
    base: &Checkpoint,
    adapter: Option<&PeftAdapter>,
    nf4: Option<AbsmaxFormat>,
    heard: &impl Says,
) -> Result<Divergence, graft_model::Error> {
    let precision = Precision::F32;
    let Some(adapter) = adapter else {
        let mut factory = Frozen { nf4: None, home: Home::Device, device: &DEVICE };
        let expected =
            probe.hear_by_blocks::<Flex, _, _>(config, base, &mut factory, &DEVICE, precision)?;
        return Ok(Divergence::between(&expected, heard));
    };
    let weights = adapter.weights_with_tables(base, config);
    let beside = Beside { lora: &adapter.config().without_tables(), start: adapter, nf4 };
    let expected = hear(probe, &adapter.model_config(config), &weights, beside)?;
    Ok(Divergence::between(&expected, heard))
}
