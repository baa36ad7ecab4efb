//! The plan's files as tokens.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use graft_data::hygiene::dropped_by;
use graft_data::{
    Conversation, Dataset, Error, FileDigest, Message, Overlong, Part, Portion, Role, RowCounts,
    Rows, SampleOptions, Samples, Schedule, SourceFile, Split, Statistics, Take, Tokenizer,
    is_plain, mixture,
};

use super::findings::Findings;
use super::held_out::{HeldOut, HeldOutRows, held_out_rows, no_room, without_room};
use super::hygiene::Surveyed;
use super::keeping::Keeping;
use super::leaks::{self, Section};
use super::{Plan, PlanErrors, Validation};
use crate::run_folder::manifest::{DataFile, FileHash};
use crate::wrong_use::some_of;

/// Samples of an epoch that is more than each once: its order is in memory.
const MOST_OF_AN_EPOCH: f64 = 16_777_216.0;

/// Everything a run reads, in host memory.
#[derive(Debug)]
pub struct LoadedData {
    /// Samples to train on; never empty.
    pub train: Samples,
    /// Whether the samples for validation were held out of those to train on.
    pub is_split: bool,
    /// How much an epoch has of each source of these; they follow each other.
    pub mixture: Vec<Part>,
    /// What the first that asked was given.
    pub(super) schedule: OnceLock<Arc<Schedule>>,
    /// Numbers about the training files, held-back rows included.
    pub statistics: Statistics,
    /// Samples that the loss is measured on; empty for none.
    pub validation: Samples,
    /// What the model is asked before and after; `None` for nothing.
    pub questions: Option<Questions>,
    /// Tokens that the tokenizer knows.
    pub vocabulary: usize,
    /// Samples of general ability; empty for none.
    pub general: Samples,
    /// Size and hash of every file, by the recipe's key that names it: of the very bytes that became
    /// the samples.
    pub files: BTreeMap<String, DataFile>,
    /// How many rows each section's files have, by the section's key, and what became of them.
    pub counts: BTreeMap<String, RowCounts>,
    /// What is allowed, but hardly meant.
    pub warnings: Vec<String>,
    /// What was found in the rows, by the recipe's key that asked for it.
    pub hygiene: BTreeMap<String, String>,
    /// A hash of which rows of `data.train` are left out for it; `None` where none are.
    pub cleaned_sha256: Option<String>,
}

/// What a run asks the model, with the tokenizer that reads the answers. A run that asks nothing has no
/// tokenizer, and the memory of its tables.
#[derive(Debug)]
pub struct Questions {
    /// Makes text of answers.
    pub tokenizer: Tokenizer,
    /// Questions with answers; empty for none.
    pub held_out: Vec<HeldOut>,
    /// The recipe's `finish.prompts` as the model is given them.
    pub prompts: Vec<Vec<u32>>,
}

impl LoadedData {
    /// Questions with answers; empty for none.
    pub fn held_out(&self) -> &[HeldOut] {
        self.questions.as_ref().map_or(&[], |questions| &questions.held_out)
    }

    /// Which samples belong to which step of the plan.
    ///
    /// # Errors
    /// There is no sample to train on.
    pub fn schedule(&self, plan: &Plan) -> Result<Arc<Schedule>, Error> {
        // Millions of rows take seconds to pack, and every part of a command asks.
        if let Some(schedule) = self.schedule.get().filter(|it| *it.options() == plan.batches) {
            return Ok(Arc::clone(schedule));
        }
        let schedule = Schedule::mixed(&self.train.stored_lengths(), &self.mixture, plan.batches)?;
        let schedule = Arc::new(schedule);
        // Only the first one asked for is kept.
        let _ = self.schedule.set(Arc::clone(&schedule));
        Ok(schedule)
    }
}

impl LoadedData {
    /// Samples of every section.
    pub(crate) fn sections(&self) -> [&Samples; 3] {
        [&self.train, &self.validation, &self.general]
    }

    /// Bytes of the records of all samples: in memory, and in files.
    pub(crate) fn kept(&self) -> [u64; 2] {
        let [train, validation, general] = self.sections().map(Samples::bytes);
        // What was held out is of the same records.
        let validation = if self.is_split { [0; 2] } else { validation };
        [0, 1].map(|place| train[place] + validation[place] + general[place])
    }

    /// Records how many samples of each source an epoch has, where that is not each once.
    fn count_an_epoch(&mut self, plan: &Plan) {
        let (false, Ok(schedule)) = (is_plain(&self.mixture), self.schedule(plan)) else { return };
        let parts = self.mixture.iter().enumerate().filter(|(_, part)| part.samples > 0);
        let rows = parts.zip(schedule.rows_of_parts()).map(|((index, _), rows)| {
            let path = &plan.recipe.data.train[index].path;
            (format!("data.train[{index}] (`{path}`)"), rows.round() as usize)
        });
        self.counts.entry("data.train".to_owned()).or_default().epoch = rows.collect();
        for (index, (part, source)) in self.mixture.iter().zip(&plan.recipe.data.train).enumerate()
        {
            let is_meant = matches!(source.take, graft_recipes::Take::Epochs(_));
            if !is_meant && part.times > 1.0 {
                self.warnings.push(format!(
                    "data.train[{index}] (`{}`): an epoch has each of its {} samples {:.1} times on average, as it is \
                     asked to have more than there are",
                    source.path, part.samples, part.times
                ));
            }
        }
    }
}

fn take(take: graft_recipes::Take) -> Take {
    match take {
        graft_recipes::Take::Epochs(times) => Take::Epochs(times),
        graft_recipes::Take::Rows(rows) => Take::Rows(rows),
        graft_recipes::Take::Weight(weight) => Take::Weight(weight),
        graft_recipes::Take::Replay(share) => Take::Replay(share),
    }
}

/// Options for text that is measured and never trained on: cut into parts, so that every token
/// counts, whatever its length.
#[must_use]
pub fn measured_options(options: &SampleOptions) -> SampleOptions {
    let (overlong, allow_empty_targets) = (Overlong::Split, true);
    SampleOptions { overlong, allow_empty_targets, ..options.clone() }
}

/// `None` for no files, or with a problem.
fn dataset(
    key: &str,
    files: &[SourceFile],
    tokenizer: &Tokenizer,
    options: &SampleOptions,
    keeping: &mut Keeping,
    findings: &mut Findings<'_>,
) -> Option<Dataset> {
    if files.is_empty() {
        return None;
    }
    let loaded = keeping.load(files, tokenizer, options);
    loaded.map_err(|error| findings.problem(key, error)).ok()
}

fn files_of(dataset: Option<&Dataset>) -> &[FileDigest] {
    dataset.map_or(&[], |dataset| &dataset.files)
}

/// How many rows the sections' files have, and what became of them, by the sections' keys.
fn counts(sections: &[(&str, &Option<Dataset>)]) -> BTreeMap<String, RowCounts> {
    let counts = sections.iter().filter_map(|(key, dataset)| {
        Some(((*key).to_owned(), dataset.as_ref()?.statistics.counts()))
    });
    counts.collect()
}

/// What is to be said of the sections' files, such as what of documents was left out.
fn remarks(sections: &[(&str, &Option<Dataset>)]) -> Vec<String> {
    let told = |(key, dataset): &(&str, &Option<Dataset>)| {
        let files = &dataset.as_ref()?.statistics.files;
        let told: Vec<String> = files
            .iter()
            .flat_map(|file| {
                let path = file.path.display();
                file.remarks.iter().map(move |remark| format!("`{path}`: {remark}"))
            })
            .collect();
        (!told.is_empty()).then(|| format!("{key}: {}", some_of(&told)))
    };
    sections.iter().filter_map(told).collect()
}

/// What became of the held-out rows, where not all are asked as they are.
fn counts_of_held_out(
    samples: usize,
    otherwise: BTreeMap<String, usize>,
) -> Option<(String, RowCounts)> {
    let rows = samples + dropped_by(&otherwise);
    let counts = RowCounts { rows, samples, otherwise, ..RowCounts::default() };
    (!counts.otherwise.is_empty()).then(|| ("evaluation.held_out".to_owned(), counts))
}

fn samples_and_rows(dataset: Option<Dataset>) -> (Samples, Rows) {
    dataset.map_or_else(Default::default, |dataset| (dataset.samples, dataset.rows))
}

/// Files of sections and what was read of them, by the recipe's keys that name them. A file that
/// stands in two sections was read twice, and has to have been the same.
fn hashes(
    sections: &[(&str, &[SourceFile], &[FileDigest])],
    findings: &mut Findings<'_>,
) -> BTreeMap<String, DataFile> {
    let (mut files, mut hashes) = (BTreeMap::new(), BTreeMap::new());
    for (key, sources, digests) in sections {
        for (index, (source, digest)) in sources.iter().zip(*digests).enumerate() {
            let FileDigest { bytes, sha256 } = digest;
            let hash = FileHash { bytes: *bytes, sha256: sha256.clone(), sampled: false };
            let path = source.path.display().to_string();
            let file = DataFile { path: path.clone(), hash: hash.clone() };
            files.insert(format!("{key}[{index}]"), file);
            if hashes.insert(path, hash.clone()).is_some_and(|before| before != hash) {
                let path = source.path.display();
                findings.problem(key, format_args!("`{path}` changed while it was read"));
            }
        }
    }
    files
}

impl Plan {
    /// Reads and tokenizes every file, and keeps the tokenizer where the model is asked something.
    ///
    /// # Errors
    /// What is wrong with each section's files, all at once, with file and line.
    pub fn load_data(&self, tokenizer: Tokenizer) -> Result<LoadedData, PlanErrors> {
        if self.absent.rows {
            return self.in_place(tokenizer);
        }
        // Rows that may not be learnt are not read for it.
        let mut keeping = Keeping::of(&self.recipe.data.cache);
        let surveyed = self.survey(&tokenizer, &mut keeping)?;
        let mut findings = Findings::new(&self.recipe);
        let mut read = |key, files: &[SourceFile], options, findings: &mut Findings<'_>| {
            dataset(key, files, &tokenizer, options, &mut keeping, findings)
        };
        let cleaned = |key, files: &[SourceFile]| surveyed.cleaned(key, files);
        let train_files = cleaned("data.train", &self.train);
        let train = read("data.train", &train_files, &self.sample, &mut findings);
        let validation_files = cleaned("data.validation", self.validation.files());
        let validation = read("data.validation", &validation_files, &self.sample, &mut findings);
        let held_out_files = cleaned("evaluation.held_out", &self.held_out);
        let held_out = held_out_rows(&held_out_files, &tokenizer, &self.sample)
            .map_err(|error| findings.problem("evaluation.held_out", error))
            .ok();
        let measured = measured_options(&self.sample);
        let general_files = cleaned("evaluation.general", &self.general);
        let general = read("evaluation.general", &general_files, &measured, &mut findings);
        let prompts = self.prompts(&tokenizer, &mut findings);
        if let (Some(rows), Some(prompts)) = (&held_out, &prompts) {
            self.check_room(&rows.questions, prompts, &mut findings);
        }
        let split = self.split(train.as_ref(), &surveyed, &mut findings);
        let held_files = held_out.as_ref().map_or(&[][..], |rows| &rows.files[..]);
        let files = hashes(
            &[
                ("data.train", &self.train, files_of(train.as_ref())),
                ("data.validation", self.validation.files(), files_of(validation.as_ref())),
                ("evaluation.held_out", &self.held_out, held_files),
                ("evaluation.general", &self.general, files_of(general.as_ref())),
            ],
            &mut findings,
        );
        findings.finish()?;
        let files = files.into_iter().chain(self.hygiene.files.clone()).collect();
        let sections = [
            ("data.train", &train),
            ("data.validation", &validation),
            ("evaluation.general", &general),
        ];
        let (mut counts, remarks) = (counts(&sections), remarks(&sections));
        let complete = "a failure was recorded as a problem";
        let (held_out, prompts) = (held_out.expect(complete), prompts.expect(complete));
        let HeldOutRows { questions: held_out, rows: held_out_rows, cleaned: otherwise, .. } =
            held_out;
        counts.extend(counts_of_held_out(held_out.len(), otherwise));
        let Dataset { samples, statistics, rows: train_rows, .. } = train.expect(complete);
        let (validation, validation_rows) = samples_and_rows(validation);
        let (general, general_rows) = samples_and_rows(general);
        let is_split = split.is_some();
        let (train, validation) = match split {
            Some(split) => (samples.choose(&split.train), samples.choose(&split.validation)),
            None => (samples, validation),
        };
        let mut findings = Findings::new(&self.recipe);
        let mixture = self.mixture(&train, &mut findings);
        findings.finish()?;
        let mut warnings = keeping.notes;
        warnings.extend(open_answers(&statistics, &tokenizer));
        warnings.extend(remarks);
        if surveyed.report.is_some() {
            warnings.extend(surveyed.warnings());
        } else {
            let rows = [&train_rows, &validation_rows, &held_out_rows, &general_rows];
            warnings.extend(self.leaks(rows, &train)?);
        }
        let vocabulary = tokenizer.vocab_size();
        let questions = (!held_out.is_empty() || !prompts.is_empty()).then_some(Questions {
            tokenizer,
            held_out,
            prompts,
        });
        let mut data = LoadedData {
            train,
            is_split,
            mixture,
            schedule: OnceLock::new(),
            statistics,
            validation,
            questions,
            vocabulary,
            general,
            files,
            counts,
            warnings,
            hygiene: surveyed.found(),
            cleaned_sha256: surveyed.sha256(),
        };
        data.count_an_epoch(self);
        Ok(data)
    }

    /// What is to be said of rows that are trained on and measured; `rows` are those of data.train,
    /// data.validation, evaluation.held_out and evaluation.general.
    fn leaks(&self, rows: [&Rows; 4], trained: &Samples) -> Result<Vec<String>, PlanErrors> {
        let [train, validation, held_out, general] = rows;
        let of = |key, sources, rows| Section { key, sources, rows };
        let leaks = leaks::of_rows(
            of("data.train", &self.train, train),
            trained,
            &[
                of("data.validation", self.validation.files(), validation),
                of("evaluation.held_out", &self.held_out, held_out),
                of("evaluation.general", &self.general, general),
            ],
        );
        let mut findings = Findings::new(&self.recipe);
        let leaks = leaks.map_err(|error| findings.problem("data.train", error)).ok();
        findings.finish()?;
        Ok(leaks.expect("a failure was recorded as a problem"))
    }

    /// How much an epoch has of each source, in the order of the samples.
    fn mixture(&self, train: &Samples, findings: &mut Findings<'_>) -> Vec<Part> {
        let sources = &self.recipe.data.train;
        let mut portions: Vec<Portion> = sources
            .iter()
            .map(|source| Portion { samples: 0, tokens: 0, take: take(source.take) })
            .collect();
        for (file, samples, tokens) in train.by_file() {
            let portion = &mut portions[self.train[file].entry];
            portion.samples += samples;
            portion.tokens += tokens;
        }
        for (index, (source, portion)) in sources.iter().zip(&portions).enumerate() {
            if portion.samples == 0 && source.take != graft_recipes::Take::default() {
                let message =
                    "no row of it is left to train on, so an epoch cannot have some of it";
                findings.problem(&format!("data.train.{index}"), message);
            }
        }
        let parts = mixture(&portions);
        let epoch: f64 = parts.iter().map(|part| part.samples as f64 * part.times).sum();
        if epoch > MOST_OF_AN_EPOCH && epoch > train.len() as f64 {
            let message = format!(
                "an epoch would have {epoch:.0} samples; at most {MOST_OF_AN_EPOCH} are planned at once: ask for \
                 less of a source, and for more epochs"
            );
            findings.problem("data.train", message);
        }
        parts
    }

    /// Rows in place of those that are not there.
    fn in_place(&self, tokenizer: Tokenizer) -> Result<LoadedData, PlanErrors> {
        let mut findings = Findings::new(&self.recipe);
        let rows = self.rows_in_place(tokenizer);
        if rows.is_none() {
            let message = "a step has too many tokens to be planned without its rows";
            findings.problem("training.micro_batch_size", message);
        }
        findings.finish()?;
        Ok(rows.expect("a failure was recorded as a problem"))
    }

    /// Which rows are kept out of training, where a share of them is.
    fn split(
        &self,
        train: Option<&Dataset>,
        surveyed: &Surveyed,
        findings: &mut Findings<'_>,
    ) -> Option<Split> {
        let (Some(train), Validation::Fraction(fraction)) = (train, &self.validation) else {
            return None;
        };
        let together = [&train.together[..], &surveyed.together].concat();
        train
            .split(*fraction, self.seed, &together)
            .map_err(|error| findings.problem("data.validation.fraction", error))
            .ok()
    }

    /// The recipe's prompts as the model is asked them; `None` with a problem.
    fn prompts(&self, tokenizer: &Tokenizer, findings: &mut Findings<'_>) -> Option<Vec<Vec<u32>>> {
        let prompts = self.finish.prompts.iter().map(|text| self.prompt(text, tokenizer));
        let prompts = prompts.collect::<Result<Vec<_>, _>>();
        prompts.map_err(|error| findings.problem("finish.prompts", error)).ok()
    }

    /// A user's question as the model is asked it.
    fn prompt(&self, text: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>, Error> {
        let mut conversation = Conversation::of(vec![Message::text(Role::User, text)]);
        if let Some(system) = &self.sample.system_prompt {
            conversation = conversation.with_system_prompt(system);
        }
        self.chat().prompt(&conversation, tokenizer)
    }

    /// Every prompt and its answer must fit the positions that the model knows.
    fn check_room(&self, rows: &[HeldOut], prompts: &[Vec<u32>], findings: &mut Findings<'_>) {
        let longest = self.config.max_position_embeddings;
        let answer = self.max_new_tokens.get();
        let told = (answer, "evaluation.max_new_tokens");
        if let Some(row) = without_room(rows, answer, longest) {
            let message = no_room(&row.question, row.prompt.len(), told, longest);
            findings.problem("evaluation.held_out", message);
        }
        for (index, (text, prompt)) in self.finish.prompts.iter().zip(prompts).enumerate() {
            if prompt.len() + answer > longest {
                let message = no_room(text, prompt.len(), told, longest);
                findings.problem(&format!("finish.prompts.{index}"), message);
            }
        }
    }
}

/// Who learns such answers answers without end: usually the chat template writes no end token, or writes it
/// outside of what it marks as the model's.
fn open_answers(statistics: &Statistics, tokenizer: &Tokenizer) -> Option<String> {
    let found = answers_without_end("data.train", "learnt", statistics, tokenizer)?;
    Some(format!(
        "{found}: the model would not learn to stop; look at one with `graft data`, and at what the chat \
         template writes behind an answer"
    ))
}

/// How many rows of `from` have an answer that no end token closes and that is `used`, where there are any.
pub(crate) fn answers_without_end(
    from: &str,
    used: &str,
    statistics: &Statistics,
    tokenizer: &Tokenizer,
) -> Option<String> {
    let Statistics { answers_without_end: open, rows, .. } = statistics;
    if *open == 0 {
        return None;
    }
    let stops = tokenizer.stop_ids();
    let names: Vec<String> = stops.iter().filter_map(|&id| tokenizer.token(id)).collect();
    Some(format!(
        "{from}: in {open} of {rows} rows an answer is {used} without a token that ends it ({})",
        if names.is_empty() { "the model's files name none".to_owned() } else { names.join(", ") }
    ))
}
