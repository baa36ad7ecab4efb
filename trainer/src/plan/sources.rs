//! Section `data` and the sources of `evaluation`: which files, and how rows become samples.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use graft_data::{ChatTemplate, Format, ModelTemplate, SampleOptions, SourceFile};
use graft_model::LlamaConfig;
use graft_recipes::{Chat, Data, Losses, Overlong, Place, Preamble, Recipe, Source, SourceFormat};

use super::findings::Findings;

/// What the loss is measured on while training.
#[derive(Debug, Clone, PartialEq)]
pub enum Validation {
    /// Nothing.
    None,
    /// This share of the training rows.
    Fraction(f64),
    /// Rows of their own; never empty.
    Files(Vec<SourceFile>),
}

/// The data of a recipe, files found but not read.
#[derive(Debug)]
pub struct DataPlan {
    /// How rows become samples.
    pub sample: SampleOptions,
    /// Rows to train on.
    pub train: Vec<SourceFile>,
    /// What the loss is measured on.
    pub validation: Validation,
    /// Questions with answers.
    pub held_out: Vec<SourceFile>,
    /// Text of general ability.
    pub general: Vec<SourceFile>,
}

/// Finds the files; those that are missing or unreadable are recorded.
pub(super) fn resolve(
    recipe: &Recipe,
    config: Option<&LlamaConfig>,
    template: Option<&Arc<ModelTemplate>>,
    findings: &mut Findings<'_>,
) -> DataPlan {
    let (sample, train) = training(recipe, config, template, findings);
    let validation = match &recipe.data.validation {
        graft_recipes::Validation::None => Validation::None,
        graft_recipes::Validation::Fraction(fraction) => Validation::Fraction(*fraction),
        // An empty list measures nothing.
        graft_recipes::Validation::Sources(sources) if sources.is_empty() => Validation::None,
        graft_recipes::Validation::Sources(sources) => {
            Validation::Files(files("data.validation", sources, findings))
        }
    };
    let held_out = files("evaluation.held_out", &recipe.evaluation.held_out, findings);
    for (index, source) in recipe.evaluation.held_out.iter().enumerate() {
        if source.format == SourceFormat::Text {
            findings.problem(
                &format!("evaluation.held_out.{index}.format"),
                "found text, which has no questions; allowed: messages, sharegpt, alpaca, completion",
            );
        }
    }
    let general = files("evaluation.general", &recipe.evaluation.general, findings);
    let plan = DataPlan { sample, train, validation, held_out, general };
    warn_of_leaks(&plan, findings);
    plan
}

/// How rows become samples, and the files to train on.
pub(super) fn training(
    recipe: &Recipe,
    config: Option<&LlamaConfig>,
    template: Option<&Arc<ModelTemplate>>,
    findings: &mut Findings<'_>,
) -> (SampleOptions, Vec<SourceFile>) {
    // Validation is the caller's; packing and shuffling are for whoever deals out samples.
    let Data {
        train,
        validation: _,
        chat,
        system_prompt,
        max_seq_len,
        packing: _,
        overlong,
        train_on_inputs,
        shuffle: _,
        allow_empty_targets,
    } = &recipe.data;
    let sample = SampleOptions {
        chat: chat_template(chat).with_own(template),
        system_prompt: system_prompt.clone(),
        max_seq_len: max_seq_len.get(),
        overlong: overlong_policy(*overlong),
        train_on_inputs: *train_on_inputs,
        allow_empty_targets: *allow_empty_targets,
    };
    if sample.max_seq_len < 2 {
        findings.problem("data.max_seq_len", "found 1; a row needs 2 tokens for one prediction");
    }
    if let Some(longest) = config.map(|config| config.max_position_embeddings)
        && sample.max_seq_len > longest
    {
        let message = format!("found {max_seq_len}, but the model's longest sequence is {longest}");
        findings.problem("data.max_seq_len", message);
    }
    (sample, files("data.train", train, findings))
}

fn files(key: &str, sources: &[Source], findings: &mut Findings<'_>) -> Vec<SourceFile> {
    let mut files = Vec::with_capacity(sources.len());
    for (index, row) in sources.iter().enumerate() {
        let Source { path, format } = row;
        let (key, format) = (format!("{key}.{index}.path"), file_format(*format));
        match path {
            Place::Path(path) => {
                if let Err(error) = readable(path) {
                    findings.unreadable(&key, path, row, &error);
                }
                files.push(SourceFile::new(path, format));
            }
            Place::Builtin(name) => {
                let source = SourceFile::builtin(name, format);
                if source.is_none() {
                    let names: Vec<String> = SourceFile::builtin_names().collect();
                    let message =
                        format!("`{path}` is not in this program; built in: {}", names.join(", "));
                    findings.problem(&key, message);
                }
                files.extend(source);
            }
        }
    }
    files
}

fn readable(path: &Path) -> std::io::Result<()> {
    if File::open(path)?.metadata()?.is_dir() {
        return Err(std::io::Error::new(std::io::ErrorKind::IsADirectory, "it is a folder"));
    }
    Ok(())
}

/// A file that is trained on and measured, too, makes every score look better than it is.
fn warn_of_leaks(plan: &DataPlan, findings: &mut Findings<'_>) {
    let DataPlan { sample: _, train, validation, held_out, general } = plan;
    let train: BTreeSet<&Path> = train.iter().map(|source| source.path.as_path()).collect();
    let validation = match validation {
        Validation::Files(files) => files.as_slice(),
        Validation::None | Validation::Fraction(_) => &[],
    };
    for source in validation.iter().chain(held_out).chain(general) {
        if train.contains(source.path.as_path()) {
            let path = source.path.display();
            findings.warn(format!("`{path}` is both trained on and measured: scores will flatter"));
        }
    }
}

fn chat_template(chat: &Chat) -> ChatTemplate {
    let Chat { preamble, date, losses } = chat;
    let preamble = match preamble {
        Preamble::Official => graft_data::Preamble::Official { date: date.clone() },
        Preamble::None => graft_data::Preamble::None,
    };
    let losses = match losses {
        Losses::Error => graft_data::Losses::Refuse,
        Losses::Allow => graft_data::Losses::Allow,
    };
    ChatTemplate { losses, ..ChatTemplate::built_in(preamble) }
}

fn overlong_policy(policy: Overlong) -> graft_data::Overlong {
    match policy {
        Overlong::Error => graft_data::Overlong::Error,
        Overlong::Drop => graft_data::Overlong::Drop,
        Overlong::TruncateLeft => graft_data::Overlong::TruncateLeft,
        Overlong::TruncateRight => graft_data::Overlong::TruncateRight,
        Overlong::Split => graft_data::Overlong::Split,
    }
}

fn file_format(format: SourceFormat) -> Format {
    match format {
        SourceFormat::Messages => Format::Messages,
        SourceFormat::Sharegpt => Format::ShareGpt,
        SourceFormat::Alpaca => Format::Alpaca,
        SourceFormat::Completion => Format::Completion,
        SourceFormat::Text => Format::Text,
    }
}
