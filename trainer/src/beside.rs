//! Two adapters beside one base: how far their answers are from each other. Of both models memory holds one block
//! at a time.

use burn_flex::{Flex, FlexDevice};
use graft_adapters::{LoraConfig, LoraFactory, Start};
use graft_engine::by_blocks::HeardByBlocks;
use graft_engine::probe::{Divergence, Probe};
use graft_kernels::nf4::AbsmaxFormat;
use graft_kernels::{Home, Precision};
use graft_model::LlamaConfig;
use graft_model::checkpoint::Checkpoint;
use graft_model::folder::ModelFolder;
use graft_model::load::{Weights, left_to_quantise};

pub(crate) const DEVICE: FlexDevice = FlexDevice;

/// Updates, and the form that the base beside them has.
pub struct Beside<'a, S> {
    /// Their sizes.
    pub lora: &'a LoraConfig,
    /// Their values.
    pub start: S,
    /// How NF4 keeps the base's scales; `None` for the base as it is stored.
    pub nf4: Option<AbsmaxFormat>,
}

/// How far the answers of base and `found` are from those of base and `expected`.
///
/// # Errors
/// The base's weights are unusable; the process was asked to stop.
pub fn compare(
    base: &ModelFolder,
    config: &LlamaConfig,
    expected: Beside<'_, impl Start>,
    found: Beside<'_, impl Start>,
) -> Result<Divergence, graft_model::Error> {
    let checkpoint = Checkpoint::open(base)?;
    checkpoint.verify(config)?;
    let probe = Probe::spread(config.vocab_size);
    let expected = hear(&probe, config, &checkpoint, expected)?;
    let found = hear(&probe, config, &checkpoint, found)?;
    Ok(Divergence::between(&expected, &found))
}

/// What a base with updates beside it makes of a probe.
///
/// # Errors
/// As [`compare`].
pub fn hear<'a, W: Weights>(
    probe: &Probe,
    config: &LlamaConfig,
    weights: &'a W,
    Beside { lora, start, nf4 }: Beside<'_, impl Start>,
) -> Result<HeardByBlocks<'a, Flex, W>, graft_model::Error> {
    let nf4 = left_to_quantise(config, nf4);
    let mut factory = LoraFactory { config: lora, start, nf4, home: Home::Device, device: &DEVICE };
    probe.hear_by_blocks::<Flex, _, _>(config, weights, &mut factory, &DEVICE, Precision::F32)
}
