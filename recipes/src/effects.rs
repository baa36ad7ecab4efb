//! Keys that mean something only beside another: what has no effect is refused by name, never dropped.
//!
//! A recipe that extends another, or an override, may take away what a key below it stands on
//! (`evaluation.held_out=[]`, and `max_new_tokens` of the shipped recipe asks nothing any more). That
//! is no mistake: the key goes back to its default, as forms of a schedule make way for each other.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use crate::dataset::{Chat, Preamble, Validation};
use crate::hygiene::{Contamination, Hygiene, NearDuplicates, RowAction};
use crate::outcome::{Checkpoint, Evaluation, Finish, MergeOnto, Target};
use crate::problem::{Location, Problem};
use crate::recipe::Recipe;
use crate::section::Sink;
use crate::source::{Source, SourceFormat};
use crate::train_on::TrainOn;
use crate::training::{Duration, Warmup};

/// The files of a recipe, and the command line above them.
#[derive(Debug)]
pub(crate) struct RecipeFiles<'a> {
    /// The lowest first.
    files: Vec<Arc<str>>,
    /// Paths of the files that are not shipped with the program.
    paths: Vec<PathBuf>,
    arguments: &'a [String],
}

impl<'a> RecipeFiles<'a> {
    /// No file yet below these overrides.
    pub(crate) fn below(arguments: &'a [String]) -> Self {
        Self { files: Vec::new(), paths: Vec::new(), arguments }
    }

    /// Adds the file that the others extend, by its label, and by its path where it is no shipped one.
    pub(crate) fn put_below(&mut self, file: Arc<str>, path: Option<PathBuf>) {
        self.files.insert(0, file);
        self.paths.extend(path);
    }

    /// The recipes that were read from files.
    pub(crate) fn into_paths(self) -> Vec<PathBuf> {
        self.paths
    }

    /// How high `key` is written, or dropped; `None` where nobody speaks of it.
    fn height_of(&self, key: &str, recipe: &Recipe) -> Option<usize> {
        let is_dropped = |argument: &String| argument.strip_prefix('~') == Some(key);
        if self.arguments.iter().any(is_dropped) {
            return Some(self.files.len());
        }
        recipe.locate(key).map(|location| self.height(location))
    }

    fn height(&self, location: &Location) -> usize {
        match location {
            Location::File { file, .. } => {
                self.files.iter().position(|layer| layer == file).unwrap_or(0)
            }
            Location::CommandLine { .. } => self.files.len(),
        }
    }
}

/// A key that needs others.
struct Need {
    key: &'static str,
    /// Whether it is given, and in vain.
    in_vain: fn(&Recipe) -> bool,
    /// What could give it effect.
    others: &'static [&'static str],
    reason: &'static str,
    /// Takes it back.
    reset: fn(&mut Recipe),
}

const NEEDS: &[Need] = &[
    Need {
        key: "evaluation.every_steps",
        in_vain: |recipe| {
            let measures = match &recipe.data.validation {
                Validation::None => false,
                Validation::Sources(sources) => !sources.is_empty(),
                Validation::Fraction(_) => true,
            };
            !measures && recipe.evaluation.every_steps.is_some()
        },
        others: &["data.validation"],
        reason: "data.validation is none: nothing is measured while training",
        reset: |recipe| recipe.evaluation.every_steps = None,
    },
    Need {
        key: "evaluation.max_new_tokens",
        in_vain: |recipe| {
            let asks = !recipe.evaluation.held_out.is_empty() || !recipe.finish.prompts.is_empty();
            !asks && recipe.evaluation.max_new_tokens.get() != Evaluation::MAX_NEW_TOKENS
        },
        others: &["evaluation.held_out", "finish.prompts"],
        reason: "evaluation.held_out and finish.prompts are empty: the model is asked nothing",
        reset: |recipe| recipe.evaluation.max_new_tokens = default(Evaluation::MAX_NEW_TOKENS),
    },
    Need {
        key: "evaluation.samples",
        in_vain: |recipe| {
            let evaluation = &recipe.evaluation;
            evaluation.held_out.is_empty() && evaluation.samples != Evaluation::SAMPLES
        },
        others: &["evaluation.held_out"],
        reason: "evaluation.held_out is empty: there is no answer to show",
        reset: |recipe| recipe.evaluation.samples = Evaluation::SAMPLES,
    },
    Need {
        key: "checkpoint.keep",
        in_vain: |recipe| {
            let checkpoint = &recipe.checkpoint;
            checkpoint.every_steps.is_none() && checkpoint.keep.get() != Checkpoint::KEEP
        },
        others: &["checkpoint.every_steps"],
        reason: "checkpoint.every_steps is none: only the last step leaves a checkpoint",
        reset: |recipe| recipe.checkpoint.keep = default(Checkpoint::KEEP),
    },
    Need {
        key: "finish.onto",
        in_vain: |recipe| {
            let Finish { merge, onto, targets, .. } = &recipe.finish;
            let merges = *merge || targets.contains(&Target::Ollama);
            !merges && *onto != MergeOnto::Dequantised
        },
        others: &["finish.merge", "finish.for"],
        reason: "finish.merge is false: nothing is merged",
        reset: |recipe| recipe.finish.onto = MergeOnto::Dequantised,
    },
    Need {
        key: "data.chat.date",
        in_vain: |recipe| {
            let chat = &recipe.data.chat;
            chat.preamble == Preamble::None && chat.date != Chat::DATE
        },
        others: &["data.chat.preamble"],
        reason: "data.chat.preamble is none: only the official one gives a date",
        reset: |recipe| Chat::DATE.clone_into(&mut recipe.data.chat.date),
    },
    Need {
        key: "data.train_on_inputs",
        in_vain: |recipe| recipe.data.train_on_inputs && is_all_text(recipe),
        others: &["data.train", "data.validation", "evaluation.general"],
        reason: "every row is text, whose tokens are all targets anyway",
        reset: |recipe| recipe.data.train_on_inputs = false,
    },
    Need {
        key: "data.train_on",
        in_vain: |recipe| recipe.data.train_on != TrainOn::default() && is_without_chats(recipe),
        others: &["data.train", "data.validation", "evaluation.general"],
        reason: "no row is a chat, of whose turns some could be targets and others not",
        reset: |recipe| recipe.data.train_on = TrainOn::default(),
    },
    Need {
        key: "data.train_on",
        in_vain: |recipe| recipe.data.train_on != TrainOn::default() && recipe.data.train_on_inputs,
        others: &["data.train_on_inputs"],
        reason: "data.train_on_inputs is true: every token is a target",
        reset: |recipe| recipe.data.train_on = TrainOn::default(),
    },
    Need {
        key: "data.system_prompt",
        in_vain: |recipe| {
            let asks = !recipe.finish.prompts.is_empty();
            recipe.data.system_prompt.is_some() && !asks && is_all_without_chats(recipe)
        },
        others: &["data.train", "data.validation", "evaluation.general", "evaluation.held_out"],
        reason: "no row is a chat that it could be added to",
        reset: |recipe| recipe.data.system_prompt = None,
    },
    Need {
        key: "data.hygiene.near_duplicates.threshold",
        in_vain: |recipe| {
            let NearDuplicates { action, threshold } = recipe.data.hygiene.near_duplicates;
            action == RowAction::Off && threshold != NearDuplicates::THRESHOLD
        },
        others: &["data.hygiene.near_duplicates.action"],
        reason: "data.hygiene.near_duplicates.action is off: nothing is looked for",
        reset: |recipe| {
            recipe.data.hygiene.near_duplicates = Hygiene::default().near_duplicates;
        },
    },
    Need {
        key: "data.hygiene.contamination.ngram",
        in_vain: |recipe| {
            let Contamination { action, ngram } = recipe.data.hygiene.contamination;
            action == RowAction::Off && ngram.get() != Contamination::NGRAM
        },
        others: &["data.hygiene.contamination.action"],
        reason: "data.hygiene.contamination.action is off: nothing is looked for",
        reset: |recipe| recipe.data.hygiene.contamination = Hygiene::default().contamination,
    },
    Need {
        key: "data.hygiene.contamination.action",
        in_vain: |recipe| {
            recipe.data.hygiene.contamination.action != RowAction::Off && !measures_files(recipe)
        },
        others: MEASURED,
        reason: NO_FILES,
        reset: |recipe| recipe.data.hygiene.contamination = Hygiene::default().contamination,
    },
    Need {
        key: "data.hygiene.leaks",
        in_vain: |recipe| recipe.data.hygiene.leaks != RowAction::Report && !measures_files(recipe),
        others: MEASURED,
        reason: NO_FILES,
        reset: |recipe| recipe.data.hygiene.leaks = RowAction::Report,
    },
    Need {
        key: "data.hygiene.mask_key",
        in_vain: |recipe| recipe.data.hygiene.mask_key.is_some() && !recipe.data.hygiene.masks(),
        others: &["data.hygiene.personal", "data.hygiene.patterns", "data.hygiene.names"],
        reason: "nothing is masked",
        reset: |recipe| recipe.data.hygiene.mask_key = None,
    },
    Need {
        key: "training.micro_batches_per_visit",
        in_vain: |recipe| {
            let training = &recipe.training;
            training.micro_batches_per_visit > training.gradient_accumulation_steps
        },
        others: &["training.gradient_accumulation_steps"],
        reason: "training.gradient_accumulation_steps is less: a step has no more of them",
        reset: |recipe| {
            let training = &mut recipe.training;
            training.micro_batches_per_visit = training.gradient_accumulation_steps;
        },
    },
];

/// Keys that name files of rows that are measured.
const MEASURED: &[&str] = &["data.validation", "evaluation.held_out", "evaluation.general"];
const NO_FILES: &str =
    "no file is measured: data.validation, evaluation.held_out and evaluation.general name none";

/// Whether any file of rows is measured.
fn measures_files(recipe: &Recipe) -> bool {
    let evaluation = &recipe.evaluation;
    !recipe.data.validation.sources().is_empty()
        || !evaluation.held_out.is_empty()
        || !evaluation.general.is_empty()
}

/// A default of the schema.
fn default(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("defaults of counts are at least 1")
}

/// What is trained on and what is measured.
fn learnt_and_measured(recipe: &Recipe) -> impl Iterator<Item = &Source> {
    let measured = recipe.data.validation.sources().iter().chain(&recipe.evaluation.general);
    recipe.data.train.iter().chain(measured)
}

/// Whether what is trained on and what is measured is plain text alone.
fn is_all_text(recipe: &Recipe) -> bool {
    learnt_and_measured(recipe).all(|source| source.format.is_text())
}

/// Whether the rows of a source go through the chat template.
fn is_chat(source: &Source) -> bool {
    !source.format.is_text() && source.format != SourceFormat::Completion
}

/// Whether no row of what is trained on and what is measured is a chat.
fn is_without_chats(recipe: &Recipe) -> bool {
    !learnt_and_measured(recipe).any(is_chat)
}

/// Nor is a question.
fn is_all_without_chats(recipe: &Recipe) -> bool {
    is_without_chats(recipe) && !recipe.evaluation.held_out.iter().any(is_chat)
}

/// Refuses what has no effect, or takes it back where a layer above left it none.
pub(crate) fn check(recipe: &mut Recipe, layers: &RecipeFiles<'_>, sink: &Sink) {
    for need in NEEDS {
        if !(need.in_vain)(recipe) {
            continue;
        }
        if is_above(need.key, need.others, recipe, layers) {
            refuse(need.key, need.reason, recipe, sink);
        } else {
            (need.reset)(recipe);
        }
    }
    let schedule = recipe.training.schedule;
    if let (Warmup::Steps(warmup), Duration::MaxSteps(all)) =
        (schedule.warmup(), recipe.training.duration)
        && warmup > all.get()
    {
        let key = format!("training.schedule.{}.warmup_steps", schedule.name());
        // A trial of few steps is no mistake: it has the first steps of the whole run.
        if is_above(&key, &["training.max_steps"], recipe, layers) {
            let reason = format!("the run has {all} steps, so the rate never comes up");
            refuse(&key, &reason, recipe, sink);
        }
    }
}

/// Whether `key` is written no lower than all of the others that are written.
fn is_above(key: &str, others: &[&str], recipe: &Recipe, layers: &RecipeFiles<'_>) -> bool {
    let own = layers.height_of(key, recipe);
    let others = others.iter().filter_map(|other| layers.height_of(other, recipe));
    others.into_iter().all(|other| own >= Some(other))
}

fn refuse(key: &str, reason: &str, recipe: &Recipe, sink: &Sink) {
    let value = recipe.to_value();
    let found = value.pointer(&format!("/{}", key.replace('.', "/")));
    let found = found.map(ToString::to_string).unwrap_or_default();
    sink.push(Problem {
        key: key.to_owned(),
        location: recipe.locate(key).cloned(),
        message: format!("found {found}, but {reason}"),
        hint: Some(format!("drop `{key}`")),
    });
}
