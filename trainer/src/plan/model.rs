//! Sections `model` and `quantization` against the model folder.

use std::sync::Arc;

use graft_data::{ModelTemplate, Tokenizer};
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::checkpoint::Checkpoint;
use graft_model::folder::ModelFolder;
use graft_model::{LlamaConfig, presets};
use graft_recipes::{Init, MergeOnto, Model, Preset, Quantization, Recipe};

use super::findings::Findings;
use super::model_files::{
    ModelFiles, check_vocabulary, read_config, read_template, read_tokenizer,
};

/// What could be read of the model; `None` where a problem says why not.
pub(super) struct ModelPart {
    pub(super) folder: Option<ModelFolder>,
    pub(super) config: Option<LlamaConfig>,
    pub(super) tokenizer: Option<Tokenizer>,
    /// The chat template that stands beside the tokenizer, unless it is the built-in one.
    pub(super) template: Option<Arc<ModelTemplate>>,
    pub(super) nf4: Option<AbsmaxFormat>,
}

impl ModelPart {
    /// A model that is planned before its folder is whole.
    pub(super) fn to_come(folder: ModelFolder, files: ModelFiles, recipe: &Recipe) -> Self {
        let ModelFiles { folder: _, config, tokenizer, template } = files;
        let (config, tokenizer) = (Some(config), Some(tokenizer));
        Self { folder: Some(folder), config, tokenizer, template, nf4: nf4(recipe) }
    }
}

/// How NF4 keeps scales, where the recipe asks for it.
fn nf4(recipe: &Recipe) -> Option<AbsmaxFormat> {
    match recipe.quantization {
        Quantization::None => None,
        Quantization::Nf4 { double } => Some(AbsmaxFormat::of(double)),
    }
}

/// Opens the folder and reads config.json and the tokenizer.
pub(super) fn open(recipe: &Recipe, findings: &mut Findings<'_>) -> ModelPart {
    let Model { path, tokenizer, preset, init: _ } = &recipe.model;
    let folder = ModelFolder::open(&path.to_string())
        .map_err(|error| error.of_preset(preset.map(Preset::name)))
        .map_err(|error| findings.problem("model.path", error))
        .ok();
    let config = folder.as_ref().and_then(|folder| {
        read_config(folder).map_err(|error| findings.problem("model.path", error)).ok()
    });
    let (key, home) = match tokenizer {
        Some(path) => {
            let key = "model.tokenizer";
            (key, ModelFolder::at(path).map_err(|error| findings.problem(key, error)).ok())
        }
        None => ("model.path", folder.clone()),
    };
    let folder = match (folder, &home) {
        (Some(folder), Some(home)) if tokenizer.is_some() => Some(folder.with_tokenizer_of(home)),
        (folder, _) => folder,
    };
    let template = home.as_ref().and_then(|home| {
        read_template(home).map_err(|error| findings.problem(key, error)).ok().flatten()
    });
    let tokenizer = home.and_then(|home| {
        let model = folder.as_ref().unwrap_or(&home);
        read_tokenizer(&home, model, config.as_ref(), template.as_deref())
            .map_err(|error| findings.problem(key, error))
            .ok()
    });
    if let (Some(tokenizer), Some(config)) = (&tokenizer, &config)
        && let Err(error) = check_vocabulary(tokenizer, config)
    {
        findings.problem(key, error);
    }
    let nf4 = nf4(recipe);
    ModelPart { folder, config, tokenizer, template, nf4 }
}

/// Opens the folder and holds it against what the recipe says about it.
pub(super) fn resolve(recipe: &Recipe, findings: &mut Findings<'_>) -> ModelPart {
    let part = open(recipe, findings);
    let Some(config) = &part.config else { return part };
    check(recipe, config, findings);
    if let (Some(folder), Init::Checkpoint) = (&part.folder, recipe.model.init) {
        check_weights(folder, config, findings);
    }
    part
}

/// Holds a configuration against the recipe's preset and quantisation.
pub(super) fn check(recipe: &Recipe, config: &LlamaConfig, findings: &mut Findings<'_>) {
    if let Some(preset) = recipe.model.preset {
        let differences = config.check_against(&release(preset));
        if !differences.is_empty() {
            let lines: Vec<String> = differences.iter().map(ToString::to_string).collect();
            let message = format!("the folder is no {preset}:\n  {}", lines.join("\n  "));
            findings.problem("model.preset", message);
        }
    }
    check_quantization(recipe, config, findings);
}

/// The configuration that a release has.
pub(super) fn release(preset: Preset) -> LlamaConfig {
    match preset {
        Preset::Llama31_8b => presets::llama3_1_8b(),
        Preset::Llama31_70b => presets::llama3_1_70b(),
        Preset::Llama31_405b => presets::llama3_1_405b(),
        Preset::Llama32_1b => presets::llama3_2_1b(),
        Preset::Llama32_3b => presets::llama3_2_3b(),
        Preset::Llama33_70b => presets::llama3_3_70b(),
    }
}

/// A quantised folder is what it is: nothing makes its weights whole again.
fn check_quantization(recipe: &Recipe, config: &LlamaConfig, findings: &mut Findings<'_>) {
    let Some(stored) = &config.quantization else { return };
    if recipe.finish.merge && recipe.finish.onto == MergeOnto::Original {
        let message = format!(
            "found `original`, but the weights of `{}` are stored in NF4, so that their original values are \
             not there: take `dequantised`, or the unquantised release",
            recipe.model.path
        );
        findings.problem("finish.onto", message);
    }
    let stored = stored.double;
    match recipe.quantization {
        _ if recipe.adapter.learns_a_model() => findings.problem_with_hint(
            "adapter.method",
            "found full, but the model folder holds NF4 weights, which cannot be trained",
            "take the release's bf16 folder, or train adapters with `adapter.method: lora`",
        ),
        Quantization::None => findings.problem_with_hint(
            "quantization",
            format_args!("found none, but the model folder holds NF4 weights (double: {stored})"),
            &format!(
                "write `quantization: {{format: nf4, double: {stored}}}`, or take the release's \
                 bf16 folder"
            ),
        ),
        Quantization::Nf4 { double } if double != stored => findings.problem(
            "quantization.double",
            format_args!("found {double}, but the model folder was quantised with {stored}"),
        ),
        Quantization::Nf4 { .. } => {}
    }
}

/// The headers of the weights: whole, and of the tensors that config.json describes.
fn check_weights(folder: &ModelFolder, config: &LlamaConfig, findings: &mut Findings<'_>) {
    let has_weights = folder.has_weights();
    // A model inside the program is checked by whoever builds the program.
    if folder.path().is_none() && !has_weights {
        return;
    }
    if let Err(error) = Checkpoint::open(folder).and_then(|weights| weights.verify(config)) {
        findings.problem("model.path", error);
    }
}
