//! Section `data` and the sources of `evaluation`: which files, and how rows become samples.

use std::sync::Arc;

use graft_data::{ChatTemplate, Columns, Error, Format, ModelTemplate, SampleOptions, SourceFile};
use graft_model::LlamaConfig;
use graft_recipes::{
    Chat, Data, Losses, Overlong, PathOrBuiltin, Preamble, Recipe, Source, SourceFormat,
};

use super::findings::Findings;
use super::leaks;

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
    let with_questions: Vec<&str> = SourceFormat::ALL
        .iter()
        .filter(|(_, format)| *format != SourceFormat::Text)
        .map(|(name, _)| *name)
        .collect();
    for (index, source) in recipe.evaluation.held_out.iter().enumerate() {
        if source.format == SourceFormat::Text {
            findings.problem(
                &format!("evaluation.held_out.{index}.format"),
                format!(
                    "found text, which has no questions; allowed: {}",
                    with_questions.join(", ")
                ),
            );
        }
    }
    let general = files("evaluation.general", &recipe.evaluation.general, findings);
    let validated = match &validation {
        Validation::Files(files) => files.as_slice(),
        Validation::None | Validation::Fraction(_) => &[],
    };
    for warning in leaks::of_files(&train, &[validated, &held_out, &general]) {
        findings.warn(warning);
    }
    DataPlan { sample, train, validation, held_out, general }
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
        let Source { path, format, .. } = row;
        let format = file_format(*format);
        let columns = columns(&format!("{key}.{index}"), row, format, findings);
        let key = format!("{key}.{index}.path");
        match path {
            PathOrBuiltin::Path(path) => {
                let source = SourceFile::new(path, format).with_columns(columns);
                match source.check() {
                    Err(Error::Read { source: error, .. }) => {
                        findings.unreadable(&key, path, row, &error);
                    }
                    Err(error) => findings.problem(&key, error),
                    Ok(()) => {}
                }
                files.push(source);
            }
            PathOrBuiltin::Builtin(name) => {
                let source =
                    SourceFile::builtin(name, format).map(|source| source.with_columns(columns));
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

/// What a source's columns are called; a field that its form does not have is recorded, and so is a column
/// that is asked for twice.
fn columns(key: &str, row: &Source, format: Format, findings: &mut Findings<'_>) -> Columns {
    let Source { columns: fields, ignore_columns, .. } = row;
    for (field, column) in fields {
        let at = format!("{key}.columns.{field}");
        let known = format.fields();
        if !known.contains(&field.as_str()) {
            let message = format!(
                "`{field}` is no field of `format: {format}`; allowed: {}",
                known.join(", ")
            );
            findings.problem(&at, message);
        } else if ignore_columns.contains(column) {
            findings.problem(&at, format!("found `{column}`, which `ignore_columns` leaves out"));
        } else if let Some((other, _)) =
            fields.iter().find(|(other, from)| *other < field && *from == column)
        {
            findings.problem(&at, format!("found `{column}`, which `{other}` is read from"));
        }
    }
    Columns { fields: fields.clone(), ignored: ignore_columns.iter().cloned().collect() }
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
    format.name().parse().expect("the forms of rows have the same names in recipes and data")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_and_data_name_the_same_forms_of_rows() {
        let named = SourceFormat::ALL.iter().map(|(name, _)| *name);
        assert!(named.eq(Format::ALL.into_iter().map(Format::name)));
        for (name, format) in SourceFormat::ALL {
            assert_eq!(file_format(*format).name(), *name);
        }
    }
}
