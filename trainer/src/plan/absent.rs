//! What a plan can do without: the files of a release that are still to be fetched, and rows that are
//! still to be written. It then takes the release's shape, and rows as long as the recipe allows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use graft_data::{Lengths, Origin, Part, Sample, Samples, Statistics, Tokenizer};
use graft_model::checkpoint::SINGLE_FILE;
use graft_model::folder::ModelFolder;
use graft_model::presets::parameter_count;
use graft_model::{LlamaConfig, releases};
use graft_recipes::{Init, PathOrBuiltin, Preset, Recipe, Source};
use serde::Serialize;

use super::findings::Findings;
use super::model::{self, ModelPart, release};
use super::model_files::{ModelFiles, read_config};
use super::{HeldOut, LoadedData, Plan, Questions, Validation};

/// Bytes of a weight in a release's files.
const SAVED: u64 = 2;
/// Tokens that rows in place of others may have together; a step of the shipped recipes has 32,768.
const MOST_TOKENS: usize = 1 << 24;
/// Questions in place of others: as many as are answered together.
const QUESTIONS: usize = 48;

/// Something that is not there yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToFetch {
    /// The folder or file.
    pub path: PathBuf,
    /// The files of a folder.
    pub files: Vec<String>,
    /// What they take on disk, where that is known.
    pub bytes: Option<u64>,
    /// How it gets there.
    pub how: String,
}

/// What a plan does without.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Absent {
    /// What is to be fetched or written before a run.
    pub to_fetch: Vec<ToFetch>,
    /// Whether rows are in place of others.
    pub rows: bool,
}

impl Absent {
    /// Records a file of rows that is not there.
    pub(super) fn lacks_rows(&mut self, path: &Path, source: &Source) {
        self.rows = true;
        let to_fetch = ToFetch {
            path: path.to_owned(),
            files: Vec::new(),
            bytes: None,
            how: how_to_write(path)
                .unwrap_or_else(|| format!("your rows, of format {}", source.format)),
        };
        if !self.to_fetch.contains(&to_fetch) {
            self.to_fetch.push(to_fetch);
        }
    }
}

/// How rows come about that a shipped recipe makes itself.
pub(super) fn how_to_write(path: &Path) -> Option<String> {
    let folder = path.parent()?;
    folder.ends_with("quickstart-corpus").then(|| {
        format!(
            "`cargo run --release -p graft-data --example quickstart_corpus -- --out {}`, in Graft's \
             sources, writes it",
            folder.display()
        )
    })
}

/// The model of a recipe whose folder is not whole: the release's shape where it has no config.json, and
/// rows in place of all where it has no tokenizer. `None` where nothing is missing, nothing says what
/// the model is, or what is there is broken: then its errors are those of every command.
pub(super) fn model(recipe: &Recipe, findings: &mut Findings<'_>) -> Option<ModelPart> {
    findings.absent()?;
    let PathOrBuiltin::Path(path) = &recipe.model.path else { return None };
    if recipe.model.tokenizer.is_some() || path.is_file() {
        return None;
    }
    let folder = ModelFolder::open(&path.to_string_lossy());
    let folder = folder.unwrap_or_else(|_| ModelFolder::to_come(path));
    let has = |name: &str| folder.contains(name);
    let has_config = has("config.json");
    let has_tokenizer = has("tokenizer.json") || has("tokenizer.model");
    let draws = recipe.model.init == Init::Random;
    let has_weights = draws || folder.has_weights();
    let preset = recipe.model.preset;
    if has_config && has_tokenizer && has_weights || !has_config && preset.is_none() {
        return None;
    }
    let files = if has_config && has_tokenizer {
        ModelFiles::open(&path.to_string_lossy()).ok()?
    } else {
        // Nothing is asked of its tokenizer.
        let files = ModelFiles::open("builtin:quickstart").ok()?;
        let config = match preset {
            Some(preset) if !has_config => release(preset),
            _ => read_config(&folder).ok()?,
        };
        findings.absent()?.rows = true;
        ModelFiles { config, template: None, ..files }
    };
    model::check(recipe, &files.config, findings);
    let missing = to_fetch(path, preset, &files.config, &folder, draws);
    findings.absent()?.to_fetch.push(missing);
    Some(ModelPart::to_come(folder, files, recipe))
}

fn to_fetch(
    path: &Path,
    preset: Option<Preset>,
    config: &LlamaConfig,
    folder: &ModelFolder,
    draws: bool,
) -> ToFetch {
    let known = releases::of_folder(path)
        .or_else(|| preset.and_then(|preset| releases::of_preset(preset.name())));
    let files = known.map_or_else(
        || ["config.json", "tokenizer.json", SINGLE_FILE].map(str::to_owned).to_vec(),
        releases::Release::files,
    );
    let is_weights = |name: &String| name.contains(".safetensors");
    let files = files.into_iter().filter(|name| !folder.contains(name));
    let files: Vec<String> = files.filter(|name| !(draws && is_weights(name))).collect();
    let weights = files.iter().any(is_weights);
    let bytes = weights.then(|| SAVED * parameter_count(config));
    let how = format!("`{}`", releases::fetch(known, path));
    ToFetch { path: path.to_owned(), files, bytes, how }
}

impl Plan {
    /// Rows in place of those that are not there: as long as the recipe allows, all of them targets, as
    /// many as a step takes.
    pub(super) fn rows_in_place(&self, tokenizer: Tokenizer) -> Option<LoadedData> {
        let length = self.sample.max_seq_len;
        let batches = &self.batches;
        let step = batches.micro_batch_size.saturating_mul(batches.accumulation).get();
        let measured = step.min(8);
        if step.saturating_add(2 * measured).saturating_mul(length) > MOST_TOKENS {
            return None;
        }
        let row = |line| Sample {
            tokens: vec![0; length],
            labels: vec![0; length],
            origin: Origin { file: 0, line, item: None },
        };
        let rows = |count: usize| (1..=count).map(row).collect::<Samples>();
        let when = |is_measured: bool| rows(if is_measured { measured } else { 0 });
        let train = rows(step);
        let question =
            HeldOut { prompt: vec![0; length], question: String::new(), expected: String::new() };
        let asked = if self.held_out.is_empty() { 0 } else { QUESTIONS };
        let prompts = vec![vec![0; length]; self.finish.prompts.len().min(QUESTIONS)];
        // Tokens that a release knows have a row in its embedding each.
        let vocabulary = self.config.vocab_size;
        let questions = (asked + prompts.len() > 0).then(|| Questions {
            tokenizer,
            held_out: vec![question; asked],
            prompts,
        });
        Some(LoadedData {
            statistics: statistics(&train),
            mixture: vec![Part { samples: train.len(), times: 1.0 }],
            schedule: OnceLock::new(),
            train,
            is_split: false,
            validation: when(self.validation != Validation::None),
            questions,
            vocabulary,
            general: when(!self.general.is_empty()),
            files: BTreeMap::new(),
            counts: BTreeMap::new(),
            warnings: Vec::new(),
            hygiene: BTreeMap::new(),
            cleaned_sha256: None,
        })
    }
}

fn statistics(rows: &Samples) -> Statistics {
    let lengths = rows.lengths();
    Statistics {
        rows: rows.len(),
        samples: rows.len(),
        tokens: lengths.iter().sum(),
        targets: (0..rows.len()).map(|at| rows.targets_of(at)).sum(),
        lengths: Lengths::of(&lengths),
        dropped_overlong: 0,
        dropped_without_targets: 0,
        dropped_empty: 0,
        left_out_by_themselves: 0,
        cleaned: BTreeMap::new(),
        truncated: 0,
        split: 0,
        parts_without_targets: 0,
        answers_without_end: 0,
        files: Vec::new(),
    }
}
