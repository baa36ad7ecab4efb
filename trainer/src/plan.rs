//! From a recipe as written to a plan as meant: files found, sizes known, every problem at once.
//!
//! [`Plan::resolve`] reads config.json, the tokenizer and the headers of the weights, and looks at
//! the files of data without reading them; [`Plan::load_data`] makes tokens of them. Nothing is
//! written, so a plan that is refused leaves nothing behind.

mod absent;
mod data;
mod findings;
mod held_out;
mod hygiene;
mod keeping;
mod leaks;
mod method;
mod model;
mod model_files;
mod output;
mod row_forms;
mod serving;
mod sources;
mod training_data;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use graft_adapters::AnyMethod;
use graft_data::{
    ChatTemplate, Packing, SampleOptions, Schedule, ScheduleOptions, SourceFile, Tokenizer,
};
use graft_kernels::Precision;
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::LlamaConfig;
use graft_model::checkpoint::expected;
use graft_model::folder::ModelFolder;
use graft_recipes::{
    ActivationOffload, Checkpoint, Checkpointing, Duration, Evaluation, Finish, Init, Logging,
    Optimizer, Recipe, Threads, Training, Warmup,
};

use crate::base_mark::BaseMark;
use crate::device::Device;
pub use absent::{Absent, ToFetch};
pub use data::{LoadedData, Questions, measured_options};
use graft_engine::optimizer::StateFormat;
pub use graft_recipes::Problems as PlanErrors;
pub use held_out::{HeldOut, HeldOutRows, held_out_rows, no_room, without_room};
pub use hygiene::HygienePlan;
pub use method::result as result_name;
pub use model_files::{ModelFiles, ModelFilesError};
pub use row_forms::as_flags_say;
pub use sources::{DataPlan, Validation};
pub use training_data::{LookedThrough, TrainingData};

pub(crate) use data::answers_without_end;
use findings::Findings;
pub(crate) use model_files::{open_tokenizer, read_config, text_files};

/// Whether a run begins or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A new run: the output folder must not hold one.
    Anew,
    /// A killed run goes on in its folder.
    Resume,
    /// Nothing begins: the output folder may hold anything, and models and data may still be to come.
    Anywhere,
    /// Nothing begins: the output folder may hold anything, but models and data are there.
    Measuring,
}

/// A run as meant. Everything that could be checked without reading data or weights is.
#[derive(Debug)]
pub struct Plan {
    /// The recipe that the plan was made from.
    pub recipe: Recipe,
    /// Where the weights are.
    pub model_folder: ModelFolder,
    /// What the model is.
    pub config: LlamaConfig,
    /// The id that stands behind short rows.
    pub pad: u32,
    /// Whether the weights are the checkpoint's or drawn from the seed.
    pub init: Init,
    /// How NF4 keeps scales, where frozen projections are kept in it.
    pub nf4: Option<AbsmaxFormat>,
    /// How it trains.
    pub method: AnyMethod,
    /// A PEFT folder to go on from.
    pub init_from: Option<PathBuf>,
    /// How rows become samples, the chat template included.
    pub sample: SampleOptions,
    /// Rows to train on; never empty.
    pub train: Vec<SourceFile>,
    /// What the loss is measured on while training.
    pub validation: Validation,
    /// Questions with answers; empty for none.
    pub held_out: Vec<SourceFile>,
    /// Text of general ability; empty for none.
    pub general: Vec<SourceFile>,
    /// Which rows it goes without.
    pub hygiene: HygienePlan,
    /// How samples are dealt out to steps, in which order.
    pub batches: ScheduleOptions,
    /// Epochs or steps.
    pub duration: Duration,
    /// Micro-batches of a step that share each visit of a block.
    pub micro_batches_per_visit: NonZeroUsize,
    /// The learning rate after warm-up.
    pub learning_rate: f64,
    /// The learning rate over the steps.
    pub schedule: graft_recipes::Schedule,
    /// The rule of the steps.
    pub optimizer: Optimizer,
    /// Global gradient norm to clip to.
    pub max_grad_norm: Option<f64>,
    /// What the backward pass replays.
    pub checkpointing: Checkpointing,
    /// Where blocks' inputs are kept between the passes.
    pub activation_offload: ActivationOffload,
    /// What computes it.
    pub device: Device,
    /// How operands of products are rounded.
    pub precision: Precision,
    /// The root of all randomness.
    pub seed: u64,
    /// CPU threads.
    pub threads: NonZeroUsize,
    /// Steps between measurements of the validation loss; `None` for before and after only.
    pub evaluate_every: Option<NonZeroUsize>,
    /// Tokens an answer to a held-out question may have.
    pub max_new_tokens: NonZeroUsize,
    /// Answers shown side by side in the report.
    pub report_samples: usize,
    /// When checkpoints are written, and how many are kept.
    pub checkpoint: Checkpoint,
    /// What is logged.
    pub logging: Logging,
    /// What happens after the last step.
    pub finish: Finish,
    /// The run folder.
    pub output_dir: PathBuf,
    /// What is allowed, but hardly meant.
    pub warnings: Vec<String>,
    /// What is not there yet; nothing where a run begins.
    pub absent: Absent,
}

/// A plan and the tokenizer that makes tokens of its data.
///
/// They part when the data is loaded: from then on only a run that asks the model something has a
/// tokenizer, see [`Questions`].
#[derive(Debug)]
pub struct Resolved {
    /// The run as meant.
    pub plan: Plan,
    /// The model's tokenizer; its ids all have a row in the embedding.
    pub tokenizer: Tokenizer,
}

impl Plan {
    /// Plans a new run on a device.
    ///
    /// # Errors
    /// Every problem at once, each with the place of its key in the recipe.
    pub fn resolve(recipe: Recipe, device: Device) -> Result<Resolved, PlanErrors> {
        Self::resolve_for(recipe, Start::Anew, device)
    }

    /// Plans a run that begins, or one that goes on.
    ///
    /// # Errors
    /// As [`Plan::resolve`].
    pub fn resolve_for(
        recipe: Recipe,
        start: Start,
        device: Device,
    ) -> Result<Resolved, PlanErrors> {
        let mut findings = match start {
            Start::Anywhere => Findings::that_may_lack(&recipe),
            Start::Anew | Start::Resume | Start::Measuring => Findings::new(&recipe),
        };
        let model = match absent::model(&recipe, &mut findings) {
            Some(model) => model,
            None => model::resolve(&recipe, &mut findings),
        };
        let config = model.config.as_ref();
        let method = method::resolve(&recipe, config, model.tokenizer.as_ref(), &mut findings);
        if let (Some(folder), Some(config)) = (&model.folder, config) {
            method::warn_of_another_base(&recipe, folder, config, &mut findings);
        }
        if let Some(method) = &method {
            method::check_merge(&recipe, &**method, &mut findings);
        }
        serving::check(&recipe, &model, method.as_ref(), &mut findings);
        let data = sources::resolve(&recipe, config, model.template.as_ref(), &mut findings);
        output::check(&recipe, model.folder.as_ref(), start, &mut findings);
        keeping::check(&recipe, &mut findings);
        warn_of_settings(&recipe, &device, &mut findings);
        let absent = findings.absent().map(std::mem::take).unwrap_or_default();
        let warnings = findings.finish()?;
        let (found, warnings) = (Found { model, method, data }, Warnings { warnings, absent });
        Ok(Self::assembled(recipe, found, warnings, device))
    }

    /// The plan of what was found without a problem.
    fn assembled(recipe: Recipe, found: Found, warnings: Warnings, device: Device) -> Resolved {
        let complete = "whatever could not be resolved was recorded as a problem";
        let Found { model, method, data } = found;
        let Warnings { warnings, absent } = warnings;
        let DataPlan { sample, train, validation, held_out, general, hygiene } = data;
        let training = recipe.training.clone();
        // The sources were resolved before.
        let Evaluation { every_steps, held_out: _, general: _, max_new_tokens, samples } =
            recipe.evaluation.clone();
        let tokenizer = model.tokenizer.expect(complete);
        let plan = Self {
            model_folder: model.folder.expect(complete),
            config: model.config.expect(complete),
            pad: tokenizer.pad(),
            init: recipe.model.init,
            nf4: model.nf4,
            method: method.expect(complete),
            init_from: recipe.adapter.init_from().map(Path::to_path_buf),
            batches: batches(&recipe, sample.max_seq_len),
            sample,
            train,
            validation,
            held_out,
            general,
            hygiene,
            duration: training.duration,
            learning_rate: training.learning_rate,
            schedule: training.schedule,
            optimizer: training.optimizer,
            max_grad_norm: training.max_grad_norm,
            checkpointing: training.checkpointing,
            activation_offload: training.activation_offload,
            micro_batches_per_visit: training.micro_batches_per_visit,
            precision: device.precision(training.compute_dtype),
            device,
            seed: training.seed,
            threads: thread_count(training.threads),
            evaluate_every: every_steps,
            max_new_tokens,
            report_samples: usize::try_from(samples).unwrap_or(usize::MAX),
            checkpoint: recipe.checkpoint.clone(),
            logging: recipe.logging.clone(),
            finish: recipe.finish.clone(),
            output_dir: recipe.output_dir.clone(),
            warnings,
            absent,
            recipe,
        };
        Resolved { plan, tokenizer }
    }

    /// The files whose rows validation is measured on: its own, or those it was taken from.
    pub fn validation_rows(&self) -> &[SourceFile] {
        match &self.validation {
            Validation::Files(files) => files,
            Validation::None | Validation::Fraction(_) => &self.train,
        }
    }

    /// The files on disk that the run reads, but for its recipe.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub fn files(&self) -> Result<Vec<PathBuf>, graft_model::Error> {
        let rows =
            [&self.train[..], self.validation.files(), &self.held_out, &self.general].concat();
        let mut files: Vec<PathBuf> = rows.into_iter().map(|file| file.path).collect();
        files.extend(self.hygiene.paths());
        files.extend(self.model_folder.paths()?);
        if let Some(start) = &self.init_from {
            files.extend(ModelFolder::at(start)?.paths()?);
        }
        Ok(files)
    }

    /// Renders conversations.
    pub fn chat(&self) -> &ChatTemplate {
        &self.sample.chat
    }

    /// Optimizer steps of the whole run.
    pub fn total_steps(&self, schedule: &Schedule) -> u64 {
        match self.duration {
            Duration::Epochs(epochs) => {
                (epochs.get() as u64).saturating_mul(schedule.steps_per_epoch() as u64)
            }
            Duration::MaxSteps(steps) => steps.get() as u64,
        }
    }

    /// What is allowed, but hardly meant of a run of this length.
    ///
    /// # Errors
    /// More steps than anybody waits for.
    pub fn check_length(&self, schedule: &Schedule) -> Result<Vec<String>, PlanErrors> {
        /// A step a millisecond for thirty years.
        const MOST: u64 = 1_000_000_000_000;
        let all = self.total_steps(schedule);
        if all > MOST {
            let mut findings = Findings::new(&self.recipe);
            let epoch = schedule.steps_per_epoch();
            findings.problem(
                "training.epochs",
                format_args!(
                    "found epochs of {epoch} steps, {all} together; a run has at most {MOST}"
                ),
            );
            findings.finish()?;
        }
        let mut warnings = Vec::new();
        let warmup = match self.schedule.warmup() {
            Warmup::Steps(steps) => steps as u64,
            Warmup::Ratio(_) => 0,
        };
        let form = self.schedule.name();
        if warmup > all {
            warnings.push(format!(
                "training.schedule.{form}.warmup_steps: found {warmup}, but the run has {all} steps: \
                 the rate ends at {:.3e} and never reaches training.learning_rate, {:.3e}",
                self.learning_rate * all as f64 / warmup as f64,
                self.learning_rate
            ));
        }
        for (key, every) in [
            ("evaluation.every_steps", self.evaluate_every.map(NonZeroUsize::get)),
            ("logging.log_every", Some(self.logging.log_every.get())),
        ] {
            if let Some(every) = every.filter(|&every| every as u64 > all) {
                warnings.push(format!("{key}: found {every}, but the run has {all} steps"));
            }
        }
        Ok(warnings)
    }

    /// By what an adapter knows the base again; `None` for weights that are drawn.
    ///
    /// # Errors
    /// The weights can no longer be read.
    pub fn base_mark(&self) -> Result<Option<BaseMark>, graft_model::Error> {
        match self.init {
            Init::Random => Ok(None),
            Init::Checkpoint => {
                let checkpoint = graft_model::checkpoint::Checkpoint::open(&self.model_folder)?;
                Ok(Some(BaseMark::of(&checkpoint, &self.config)))
            }
        }
    }

    /// Whether a merged model is written: what trains every weight has nothing to merge.
    pub fn merges(&self) -> bool {
        self.finish.merge && self.method.merges()
    }

    /// How the optimizer keeps its moments.
    pub fn state_format(&self) -> StateFormat {
        state_format(self.optimizer)
    }

    /// Parameters of the base model.
    pub fn parameters(&self) -> u64 {
        parameters(&self.config)
    }

    /// Parameters that train.
    pub fn trainable_parameters(&self) -> u64 {
        self.method.trained(&self.config).iter().map(|tensor| tensor.len() as u64).sum()
    }
}

/// What the recipe's names led to.
struct Found {
    model: model::ModelPart,
    method: Option<AnyMethod>,
    data: DataPlan,
}

/// What is no problem, and yet to be told.
struct Warnings {
    warnings: Vec<String>,
    absent: Absent,
}

/// How samples are dealt out to steps.
fn batches(recipe: &Recipe, max_seq_len: usize) -> ScheduleOptions {
    let Training { micro_batch_size, gradient_accumulation_steps: accumulation, seed, .. } =
        recipe.training;
    let packing = if recipe.data.packing { Packing::Bins { max_seq_len } } else { Packing::Off };
    let shuffle = recipe.data.shuffle;
    ScheduleOptions { micro_batch_size, accumulation, packing, shuffle, seed }
}

/// Settings that do not go together, or not with the device.
fn warn_of_settings(recipe: &Recipe, device: &Device, findings: &mut Findings<'_>) {
    let Training { checkpointing, activation_offload, .. } = recipe.training;
    let offload = activation_offload.name();
    if activation_offload != ActivationOffload::None && checkpointing == Checkpointing::None {
        findings.warn(format!(
            "training.activation_offload: found {offload}, but training.checkpointing is none: \
             whole tapes are kept, and those stay where they are"
        ));
    }
    if activation_offload == ActivationOffload::Host && device.is_cpu() {
        findings.warn(
            "training.activation_offload: found host, but the CPU computes: its memory is the host's"
                .to_owned(),
        );
    }
    if let Some(lacking) = device.lacks(recipe.training.compute_dtype) {
        findings.warn(format!("training.{lacking}"));
    }
}

/// Parameters of a model of this shape; a tied head counts once.
pub fn parameters(config: &LlamaConfig) -> u64 {
    let count = |shape: &[usize]| shape.iter().map(|&size| size as u64).product::<u64>();
    expected(config).iter().map(|tensor| count(&tensor.shape)).sum()
}

/// How an optimizer keeps its moments.
fn state_format(optimizer: Optimizer) -> StateFormat {
    match optimizer {
        Optimizer::AdamW(_) => StateFormat::F32,
        Optimizer::AdamW8bit(_) => StateFormat::Blockwise8,
    }
}

/// How many threads a recipe's or flag's count means on this machine.
pub fn thread_count(threads: Threads) -> NonZeroUsize {
    match threads {
        Threads::Count(count) => count,
        Threads::Auto => std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    }
}

#[cfg(test)]
mod tests;
