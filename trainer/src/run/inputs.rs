//! What decides a run's result, as the manifest records it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use graft_model::checkpoint::{INDEX_FILE, SINGLE_FILE};
use graft_recipes::Init;

use super::RunError;
use crate::engine::Parameters;
use crate::plan::{LoadedData, Plan};
use crate::run_folder::manifest::{FileHash, Inputs, hash_weights, sha256_hex};

/// The inputs of a run of `plan` on `data` that trains `parameters`.
pub(super) fn inputs(
    plan: &Plan,
    data: &LoadedData,
    parameters: &Parameters,
) -> Result<Inputs, RunError> {
    let quantization = match plan.nf4 {
        None => "none",
        Some(false) => "nf4",
        Some(true) => "nf4, double",
    };
    let trained = parameters.slots().iter().fold(String::new(), |mut text, slot| {
        let _ = writeln!(text, "{} {:?}", slot.name, slot.shape);
        text
    });
    Ok(Inputs {
        run: plan.recipe.name.clone(),
        model: plan.recipe.model.path.to_string(),
        method: plan.adapter.name().to_owned(),
        quantization: quantization.to_owned(),
        optimizer: plan.optimizer.name().to_owned(),
        compute_dtype: plan.precision.name().to_owned(),
        device: plan.device.name(),
        seed: plan.seed,
        threads: plan.threads.get(),
        parameters: total_parameters(plan),
        trainable_parameters: plan.trainable_parameters(),
        trainable_sha256: sha256_hex(trained.as_bytes()),
        recipe_sha256: sha256_hex(plan.recipe.to_yaml().as_bytes()),
        versions: BTreeMap::from([("graft".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
        base: base_hashes(plan)?,
        data: data.files.clone(),
    })
}

/// Parameters of the base, and those of adapters beside it.
fn total_parameters(plan: &Plan) -> u64 {
    match plan.adapter {
        crate::plan::Adapter::Full => plan.parameters(),
        crate::plan::Adapter::Lora { .. } => plan.parameters() + plan.trainable_parameters(),
    }
}

/// Hashes of config, tokenizer, and weights where the run reads them.
fn base_hashes(plan: &Plan) -> Result<BTreeMap<String, FileHash>, RunError> {
    let folder = &plan.model_folder;
    let reads = |name: &str| {
        let is = |ending: &str| Path::new(name).extension().is_some_and(|found| found == ending);
        let weights = name == INDEX_FILE || is("safetensors");
        match plan.init {
            Init::Checkpoint => weights || is("json"),
            Init::Random => !weights && is("json"),
        }
    };
    let mut hashes = BTreeMap::new();
    for name in folder.names()?.into_iter().filter(|name| reads(name)) {
        debug_assert!(name != SINGLE_FILE || plan.init == Init::Checkpoint);
        let hash = if let Some(path) = folder.path() {
            hash_weights(&path.join(&name))?
        } else {
            FileHash::of(&folder.required(&name)?)
        };
        hashes.insert(name, hash);
    }
    Ok(hashes)
}
