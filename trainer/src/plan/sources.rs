//! Section `data` and the sources of `evaluation`: which files, and how rows become samples.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use graft_data::{ChatTemplate, Error, Format, ModelTemplate, SampleOptions, SourceFile};
use graft_documents::Found;
use graft_files::plain_file;
use graft_model::LlamaConfig;
use graft_recipes::{
    Chat, Data, Documents, DocumentsAllow, Losses, Overlong, PathOrBuiltin, Preamble, Recipe,
    Source, SourceFormat,
};

use super::findings::Findings;
use super::hygiene::{self, HygienePlan};
use super::leaks;
use super::row_forms::{columns, train_on};
use crate::document_rows::DocumentRows;
use crate::row_files::{self, RowFiles};
use crate::wrong_use::some_of;

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

impl Validation {
    /// The rows of their own; none where it is something else.
    pub fn files(&self) -> &[SourceFile] {
        match self {
            Self::Files(files) => files,
            Self::None | Self::Fraction(_) => &[],
        }
    }
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
    /// Which rows are left out.
    pub hygiene: HygienePlan,
}

/// What the loss, or the model, is measured on; files found but not read.
pub(super) struct Measured {
    pub(super) validation: Validation,
    pub(super) held_out: Vec<SourceFile>,
    pub(super) general: Vec<SourceFile>,
}

/// Finds the files; those that are missing or unreadable are recorded.
pub(super) fn resolve(
    recipe: &Recipe,
    config: Option<&LlamaConfig>,
    template: Option<&Arc<ModelTemplate>>,
    findings: &mut Findings<'_>,
) -> DataPlan {
    let hygiene = hygiene::resolve(recipe, findings);
    let (sample, train) = training(recipe, config, template, &hygiene, findings);
    let Measured { validation, held_out, general } = measured(recipe, &sample, &hygiene, findings);
    for warning in leaks::of_files(&train, &[validation.files(), &held_out, &general]) {
        findings.warn(warning);
    }
    DataPlan { sample, train, validation, held_out, general, hygiene }
}

/// The files that are measured.
pub(super) fn measured(
    recipe: &Recipe,
    sample: &SampleOptions,
    hygiene: &HygienePlan,
    findings: &mut Findings<'_>,
) -> Measured {
    let mut finding = Finding { sample, hygiene, findings };
    let validation = match &recipe.data.validation {
        graft_recipes::Validation::None => Validation::None,
        graft_recipes::Validation::Fraction(fraction) => Validation::Fraction(*fraction),
        // An empty list measures nothing.
        graft_recipes::Validation::Sources(sources) if sources.is_empty() => Validation::None,
        graft_recipes::Validation::Sources(sources) => {
            let files = finding.files("data.validation", sources);
            Validation::Files(with_train_on(files, sources, &recipe.data))
        }
    };
    let held_out = finding.files("evaluation.held_out", &recipe.evaluation.held_out);
    let with_questions: Vec<&str> = SourceFormat::ALL
        .iter()
        .filter(|(_, format)| !format.is_text())
        .map(|(name, _)| *name)
        .collect();
    for (index, source) in recipe.evaluation.held_out.iter().enumerate() {
        if source.format.is_text() {
            finding.findings.problem(
                &format!("evaluation.held_out.{index}.format"),
                format!(
                    "found {}, which has no questions; allowed: {}",
                    source.format,
                    with_questions.join(", ")
                ),
            );
        }
    }
    let general = finding.files("evaluation.general", &recipe.evaluation.general);
    Measured {
        validation,
        held_out,
        general: with_train_on(general, &recipe.evaluation.general, &recipe.data),
    }
}

/// How rows become samples, and the files to train on.
pub(super) fn training(
    recipe: &Recipe,
    config: Option<&LlamaConfig>,
    template: Option<&Arc<ModelTemplate>>,
    hygiene: &HygienePlan,
    findings: &mut Findings<'_>,
) -> (SampleOptions, Vec<SourceFile>) {
    // Validation and hygiene are the caller's; packing and shuffling are for whoever deals out samples.
    let Data {
        train,
        validation: _,
        chat,
        system_prompt,
        train_on: _,
        max_seq_len,
        packing: _,
        overlong,
        train_on_inputs,
        shuffle: _,
        allow_empty_targets,
        cache: _,
        hygiene: _,
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
    let files = Finding { sample: &sample, hygiene, findings }.files("data.train", train);
    (sample, with_train_on(files, train, &recipe.data))
}

/// The files of these sources, of whose turns those are learnt that the recipe says.
fn with_train_on(files: Vec<SourceFile>, sources: &[Source], data: &Data) -> Vec<SourceFile> {
    let of = |file: &SourceFile| {
        let own = sources.get(file.entry).and_then(|source| source.train_on.as_ref());
        train_on(own.unwrap_or(&data.train_on))
    };
    let learnt = |file: SourceFile| {
        let train_on = of(&file);
        file.with_train_on(train_on)
    };
    files.into_iter().map(learnt).collect()
}

/// What the files of a list of sources are found with.
struct Finding<'a, 'b> {
    /// How rows become samples.
    sample: &'a SampleOptions,
    /// What is masked in them before.
    hygiene: &'a HygienePlan,
    findings: &'a mut Findings<'b>,
}

impl Finding<'_, '_> {
    /// The files that the sources under `key` mean, in order. Those of a folder, or of a pattern, follow each
    /// other by name.
    fn files(&mut self, key: &str, sources: &[Source]) -> Vec<SourceFile> {
        let mut files = Vec::with_capacity(sources.len());
        for (entry, source) in sources.iter().enumerate() {
            let format = file_format(source.format);
            let columns = columns(&format!("{key}.{entry}"), source, format, self.findings);
            let own = |file: SourceFile| file.with_columns(columns.clone()).of_entry(entry);
            match &source.path {
                PathOrBuiltin::Path(path) if source.format == SourceFormat::Documents => {
                    let reader =
                        Arc::new(self.reader(&format!("{key}.{entry}"), &source.documents));
                    let found = self.documents(&format!("{key}.{entry}.path"), path, source);
                    let found = found.into_iter().map(|path| SourceFile::new(path, format));
                    files.extend(found.map(|file| own(file.read_by(reader.clone()))));
                }
                PathOrBuiltin::Path(path) => {
                    let found = self.rows(&format!("{key}.{entry}.path"), path, source, format);
                    files.extend(found.into_iter().map(|path| own(SourceFile::new(path, format))));
                }
                PathOrBuiltin::Builtin(name) => {
                    let file = self.builtin(&format!("{key}.{entry}.path"), name, source, format);
                    files.extend(file.map(own));
                }
            }
        }
        files
    }

    /// Whether a path is none, but what comes to a command while it runs; recorded.
    fn is_stream(&mut self, key: &str, path: &Path) -> bool {
        let is_stream = path == Path::new("-");
        if is_stream {
            let message = "`-` is standard input, which nobody can read again: a run is measured, gone on \
                           with and told by its files. Write what comes from it into one";
            self.findings.problem(key, message);
        }
        is_stream
    }

    /// Files of rows; those that are missing or unreadable are recorded.
    fn rows(&mut self, key: &str, path: &Path, source: &Source, format: Format) -> Vec<PathBuf> {
        if self.is_stream(key, path) {
            return Vec::new();
        }
        let RowFiles { files, left_out } = match row_files::find(path, format) {
            Ok(found) => found,
            Err(error) => {
                self.findings.unreadable(key, path, source, &error);
                return Vec::new();
            }
        };
        if let Some(warning) = row_files::warning(path, &left_out) {
            self.findings.warn(format!("{key}: {warning}"));
        }
        for path in &files {
            match SourceFile::new(path, format).check() {
                Err(Error::Read { source: error, .. }) => {
                    self.findings.unreadable(key, path, source, &error);
                }
                Err(error) => self.findings.problem(key, error),
                Ok(()) => {}
            }
        }
        files
    }

    /// Files that are documents, or are to be; those that are missing or unreadable are recorded.
    fn documents(&mut self, key: &str, path: &Path, source: &Source) -> Vec<PathBuf> {
        if self.is_stream(key, path) {
            return Vec::new();
        }
        let is_there = path.symlink_metadata().is_ok();
        let named = if is_there || !row_files::is_pattern(path) {
            Ok(vec![path.to_owned()])
        } else {
            row_files::find(path, Format::Text).map(|found| found.files)
        };
        let found = match named {
            Ok(named) => graft_documents::Sources::find(&named),
            Err(error) => {
                self.findings.unreadable(key, path, source, &error);
                return Vec::new();
            }
        };
        if found.files.is_empty() {
            self.findings.problem(key, format_args!("there is no file in `{}`", path.display()));
        }
        let (mut files, mut unreadable) = (Vec::with_capacity(found.files.len()), Vec::new());
        for Found { path: file, problem } in found.files {
            match (problem, file.metadata()) {
                // What was asked for by name may be yet to come.
                (_, Err(error)) if file == path => {
                    self.findings.unreadable(key, path, source, &error);
                }
                (Some(problem), _) => unreadable.push(format!("`{}`: {problem}", file.display())),
                (None, Err(error)) => unreadable.push(format!("`{}`: {error}", file.display())),
                (None, Ok(_)) => match plain_file::open(&file) {
                    Ok(_) => files.push(file),
                    Err(why) => unreadable.push(format!("`{}`: {why}", file.display())),
                },
            }
        }
        if !unreadable.is_empty() {
            let told = some_of(&unreadable);
            if source.documents.allow.contains(&DocumentsAllow::Unreadable) {
                self.findings.warn(format!("{key}: left out, as it cannot be read: {told}"));
            } else {
                let hint = "mend these or take them away, or leave them out, counted: `documents: {allow: \
                            [unreadable]}`";
                self.findings.problem_with_hint(key, format_args!("cannot read {told}"), hint);
            }
        }
        files
    }

    /// Who reads the documents of a source.
    fn reader(&mut self, key: &str, documents: &Documents) -> DocumentRows {
        /// The tokens that a text begins and ends with.
        const MARKS: usize = 2;
        let Documents { max_tokens, overlap, allow } = documents;
        let room = self.sample.max_seq_len.saturating_sub(MARKS).max(1);
        let longest = max_tokens.map_or(room, NonZeroUsize::get);
        if longest > room && self.sample.overlong == graft_data::Overlong::Error {
            let message = format!(
                "found {longest}, but data.max_seq_len is {}, and a text begins and ends with a token of its own: \
                 at most {room}",
                self.sample.max_seq_len
            );
            self.findings.problem(&format!("{key}.documents.max_tokens"), message);
        }
        if *overlap > longest / 2 {
            let message = format!(
                "found {overlap}, and a text has at most {longest} tokens: allowed is at most half of that, so \
                 that each brings something new"
            );
            self.findings.problem(&format!("{key}.documents.overlap"), message);
        }
        let personal = &self.hygiene.asked.personal;
        let masks = personal.masks().then(|| Arc::clone(personal));
        DocumentRows { max_tokens: longest, overlap: *overlap, allow: allow.clone(), masks }
    }

    fn builtin(
        &mut self,
        key: &str,
        name: &str,
        source: &Source,
        format: Format,
    ) -> Option<SourceFile> {
        if source.format == SourceFormat::Documents {
            let message = format!("`{}` is rows, not documents", source.path);
            self.findings.problem(key, message);
            return None;
        }
        let file = SourceFile::builtin(name, format);
        if file.is_none() {
            let names: Vec<String> = SourceFile::builtin_names().collect();
            let message =
                format!("`{}` is not in this program; built in: {}", source.path, names.join(", "));
            self.findings.problem(key, message);
        }
        file
    }
}

pub(super) fn chat_template(chat: &Chat) -> ChatTemplate {
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

/// Documents become texts.
fn file_format(format: SourceFormat) -> Format {
    let format = if format == SourceFormat::Documents { SourceFormat::Text } else { format };
    format.name().parse().expect("the forms of rows have the same names in recipes and data")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_and_data_name_the_same_forms_of_rows() {
        let forms =
            || SourceFormat::ALL.iter().filter(|(_, format)| *format != SourceFormat::Documents);
        assert!(forms().map(|(name, _)| *name).eq(Format::ALL.into_iter().map(Format::name)));
        for (name, format) in forms() {
            assert_eq!(file_format(*format).name(), *name);
        }
    }
}
