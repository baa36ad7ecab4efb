//! A merged model is compared with base and adapter before it takes its place: what nothing vouches for is
//! nobody's to find there, also where the process is killed.

use std::path::Path;

use burn_flex::Flex;
use graft_adapters::Summary;
use graft_adapters::merge::{self, Merge};
use graft_engine::probe::{Divergence, Heard, Probe};
use graft_kernels::{Home, Precision};
use graft_model::checkpoint::Checkpoint;
use graft_model::folder::ModelFolder;
use graft_model::load::Frozen;
use graft_model::{FrozenLinear, Llama, LlamaConfig, stop};

use crate::device::Backend;
use crate::memory::give_freed_memory_back;
use crate::progress::{Progress, Unit, Voice};
use crate::run::RunError;

/// How a merged model is written and compared.
pub struct Merging<'a> {
    /// What both are asked.
    pub probe: &'a Probe,
    /// The precision of their products.
    pub precision: Precision,
    /// Size at which a new weight file begins.
    pub max_shard_bytes: u64,
    /// The mean divergence beyond which it is refused, in nats a token.
    pub allowed: f64,
    /// How the merge says how far it is.
    pub voice: Voice,
}

/// Writes base and adapter as one model to `out`; `expected` runs base and adapter, side by side, over the
/// probe.
///
/// # Errors
/// Those of [`merge::write`] and of `expected`; the merged model answers otherwise than base and adapter do;
/// the process was asked to stop.
pub fn write<B, E>(
    out: &Path,
    request: &Merge<'_>,
    how: &Merging<'_>,
    expected: impl FnOnce(&Probe) -> Result<Heard<B>, E>,
) -> Result<(Summary, Divergence), E>
where
    B: Backend,
    E: From<graft_adapters::Error> + From<RunError>,
{
    let Merging { probe, precision, max_shard_bytes, allowed, voice } = *how;
    let progress = Progress::new(voice, "merge", None, Unit::Bytes);
    let mut found = None;
    let check = |folder: &Path| -> Result<(), E> {
        give_freed_memory_back();
        is_wanted()?;
        let expected = expected(probe)?;
        let merged = open_frozen(folder, &request.adapter.model_config(request.config));
        is_wanted()?;
        let merged = probe.hear(&merged.map_err(RunError::from)?, precision);
        is_wanted()?;
        let divergence = Divergence::between(&expected, &merged);
        if !divergence.is_within(allowed) {
            return Err(RunError::Merge { found: divergence.mean, allowed }.into());
        }
        found = Some(divergence);
        Ok(())
    };
    let mut step = |done, _| progress.step(done, &Default::default());
    let summary = merge::write_checked(out, request, max_shard_bytes, &mut step, check)?;
    let divergence = found.expect("it was checked");
    progress.finish(&format!(
        "mean divergence {:.1e} nats a token over {} tokens, same likeliest token at {:.1} %",
        divergence.mean,
        divergence.tokens,
        100.0 * divergence.agreement
    ));
    Ok((summary, divergence))
}

/// How far a model is from another, for people.
pub fn in_words(divergence: &Divergence, from: &str) -> String {
    let Divergence { mean, max, agreement, tokens } = divergence;
    format!(
        "mean {mean:.1e}, largest {max:.1e} nats a token from {from} over {tokens} tokens; same likeliest token at \
         {:.1} %",
        100.0 * agreement
    )
}

/// Whether the process may go on.
fn is_wanted() -> Result<(), RunError> {
    Ok(stop::check().map_err(graft_model::Error::from)?)
}

/// A folder's weights as they are stored, on the CPU: there they are mapped, while a GPU would have to
/// hold them beside the model that was trained.
fn open_frozen(
    path: &Path,
    config: &LlamaConfig,
) -> Result<Llama<Flex, FrozenLinear<Flex>>, graft_model::Error> {
    let device = Default::default();
    let checkpoint = Checkpoint::open(&ModelFolder::at(path)?)?;
    let mut factory = Frozen { nf4: None, home: Home::Device, device: &device };
    let model = Llama::load(config, &checkpoint, &mut factory, &device, &mut |_| ())?;
    model.residency.keep_nothing();
    Ok(model)
}
