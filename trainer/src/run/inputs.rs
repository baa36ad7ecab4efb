//! What decides a run's result, as the manifest records it.

use std::collections::BTreeMap;

use graft_files::sha256::sha256_hex;
use graft_kernels::flex::isa::Isa;
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::checkpoint::Checkpoint;
use graft_model::folder::ModelFolder;
use graft_recipes::{Init, Source, Validation};
use serde_json::{Value, json};

use super::RunError;
use crate::plan::{LoadedData, Plan, text_files};
use crate::run_folder::contract::{self, Rule};
use crate::run_folder::manifest::{FileHash, Inputs, hash_weights};

/// The inputs of a run of `plan` on `data`. Weights are hashed, and not loaded.
pub(super) fn inputs(plan: &Plan, data: &LoadedData) -> Result<Inputs, RunError> {
    let quantization = match plan.nf4 {
        None => "none",
        Some(AbsmaxFormat::Plain) => "nf4",
        Some(AbsmaxFormat::Double) => "nf4, double",
    };
    let mut versions = BTreeMap::from([("graft".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    let driver = plan.device.found().driver.clone();
    versions.extend(driver.map(|driver| ("driver".to_owned(), driver)));
    Ok(Inputs {
        run: plan.recipe.name.clone(),
        model: plan.recipe.model.path.to_string(),
        method: plan.method.name().to_owned(),
        quantization: quantization.to_owned(),
        optimizer: plan.optimizer.name().to_owned(),
        compute_dtype: plan.precision.name().to_owned(),
        device: plan.device.model(),
        kernels: if plan.device.is_cpu() { Some(kernels(plan)?) } else { None },
        seed: plan.seed,
        threads: plan.threads.get(),
        parameters: plan.parameters(),
        trainable_parameters: plan.trainable_parameters(),
        recipe_sha256: sha256_hex(plan.recipe.to_yaml().as_bytes()),
        versions,
        base: base_hashes(plan)?,
        tokenizer: tokenizer_hashes(plan)?,
        init_from: start_hashes(plan)?,
        data: data.files.clone(),
        rows: data.counts.clone(),
        hygiene: data.hygiene.clone(),
        cleaned_sha256: data.cleaned_sha256.clone(),
        recipe: plan.recipe.to_value(),
    })
}

/// SHA-256 over everything that base and tuned model are asked, so that answers to other questions are
/// not taken for answers to these.
pub(super) fn asked_sha256(plan: &Plan, inputs: &Inputs) -> String {
    let is_measured = |key: &str| contract::rule(key) == Rule::Free;
    let files = inputs.data.iter().filter(|(key, _)| is_measured(key));
    let files: Vec<_> = files.map(|(key, file)| (key, &file.hash.sha256)).collect();
    let recipe = &plan.recipe;
    // How rows are read, wherever their files lie.
    let formats = |sources: &[Source]| -> Vec<Value> {
        let form = |source: &Source| {
            let mut told = source.to_value();
            told.as_object_mut().expect("a source is a section").remove("path");
            if told.as_object().is_some_and(|told| told.len() == 1) {
                return told["format"].clone();
            }
            told
        };
        sources.iter().map(form).collect()
    };
    let validation = match &recipe.data.validation {
        Validation::None => json!(null),
        Validation::Fraction(fraction) => json!(fraction),
        Validation::Sources(sources) => json!(formats(sources)),
    };
    let asked = json!({
        "files": files,
        "held_out": formats(&recipe.evaluation.held_out),
        "general": formats(&recipe.evaluation.general),
        "validation": validation,
        "max_new_tokens": recipe.evaluation.max_new_tokens,
        "samples": recipe.evaluation.samples,
        "prompts": recipe.finish.prompts,
    });
    sha256_hex(asked.to_string().as_bytes())
}

/// The processor's kernels, by the architecture and the arithmetic.
fn kernels(plan: &Plan) -> Result<String, RunError> {
    Ok(format!("{} {}", std::env::consts::ARCH, Isa::arithmetic(plan.precision)?))
}

/// Refuses to write a model where files of the base are no longer those that the run went by.
pub(super) fn check_base(plan: &Plan, inputs: &Inputs) -> Result<(), RunError> {
    check_same(&inputs.base, &contract::under_its_name(&inputs.base, base_hashes(plan)?))?;
    check_same(&inputs.tokenizer, &tokenizer_hashes(plan)?)
}

fn check_same(
    was: &BTreeMap<String, FileHash>,
    now: &BTreeMap<String, FileHash>,
) -> Result<(), RunError> {
    let Some(file) = was.keys().chain(now.keys()).find(|name| was.get(*name) != now.get(*name))
    else {
        return Ok(());
    };
    let said = |hash: Option<&FileHash>| {
        hash.map_or("no such file".to_owned(), |hash| format!("{}…", &hash.sha256[..12]))
    };
    let (file, was, now) = (file.clone(), said(was.get(file)), said(now.get(file)));
    Err(RunError::BaseChanged { file, was, now })
}

/// Hashes of the configuration, and of the weights where the run reads them. What else lies in the folder
/// is nobody's business.
fn base_hashes(plan: &Plan) -> Result<BTreeMap<String, FileHash>, RunError> {
    let folder = &plan.model_folder;
    let mut hashes = BTreeMap::new();
    for name in ["config.json", "generation_config.json"] {
        let bytes = folder.bytes(name)?;
        hashes.extend(bytes.map(|bytes| (name.to_owned(), FileHash::of(&bytes))));
    }
    if plan.init == Init::Checkpoint {
        for name in Checkpoint::files(folder)? {
            let hash = match folder.path_of(&name) {
                Some(path) => hash_weights(&path)?,
                None => FileHash::of(&folder.required(&name)?),
            };
            hashes.insert(name, hash);
        }
    }
    Ok(hashes)
}

/// Hashes of what decides the tokens, from the folder that they are read from.
fn tokenizer_hashes(plan: &Plan) -> Result<BTreeMap<String, FileHash>, RunError> {
    let files = match &plan.recipe.model.tokenizer {
        Some(path) => text_files(&ModelFolder::at(path)?)?,
        None => text_files(&plan.model_folder)?,
    };
    let hashes = files.into_iter().map(|(name, bytes)| (name.to_owned(), FileHash::of(&bytes)));
    Ok(hashes.collect())
}

/// Hashes of the adapter that the run goes on from.
fn start_hashes(plan: &Plan) -> Result<BTreeMap<String, FileHash>, RunError> {
    let Some(path) = &plan.init_from else { return Ok(BTreeMap::new()) };
    let files = graft_adapters::peft::files(path)?;
    let hash = |path: std::path::PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok((name.unwrap_or_default(), hash_weights(&path)?))
    };
    files.into_iter().map(hash).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_that_changed_while_the_run_went_on_is_named_by_its_file() {
        let files = |files: &[(&str, &str)]| -> BTreeMap<String, FileHash> {
            let hash =
                |&(name, text): &(&str, &str)| (name.to_owned(), FileHash::of(text.as_bytes()));
            files.iter().map(hash).collect()
        };
        let was = files(&[("config.json", "a"), ("tokenizer.json", "b")]);
        check_same(&was, &was).unwrap();
        let said = |now: &[(&str, &str)]| check_same(&was, &files(now)).unwrap_err().to_string();
        insta::assert_snapshot!(said(&[("config.json", "a"), ("tokenizer.json", "c")]), @"`tokenizer.json` of the base has changed while the run went on: its SHA-256 was 3e23e8160039…, and is 2e7d2c03a950…. Put it back, then go on with `--resume`");
        insta::assert_snapshot!(said(&[("config.json", "a")]), @"`tokenizer.json` of the base has changed while the run went on: its SHA-256 was 3e23e8160039…, and is no such file. Put it back, then go on with `--resume`");
        let more = [("config.json", "a"), ("tokenizer.json", "b"), ("tokenizer.model", "m")];
        insta::assert_snapshot!(said(&more), @"`tokenizer.model` of the base has changed while the run went on: its SHA-256 was no such file, and is 62c66a7a5dd7…. Put it back, then go on with `--resume`");
    }
}
