//! The loop: steps, measurements, checkpoints.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use graft_adapters::{Began, Learns, Trainable};
use graft_data::{Batch, Sample, Schedule};
use graft_files::atomic;
use graft_model::Llama;
use graft_recipes::{ActivationOffload, Optimizer, Warmup};

use super::going_on::{self, Opened};
use super::scores::Scores;
use super::stage::{Stage, Whereabouts};
use super::state::{self, Position, State};
use super::{Outcome, RunError, Training, finish, inputs, said};
use crate::device::Backend;
use crate::memory::{give_freed_memory_back, peak_resident_bytes};
use crate::plan::{LoadedData, Plan};
use crate::progress::{Fields, Progress, Unit, Voice, warn};
use crate::run_folder::checkpoints::{Checkpoint, Gone};
use crate::run_folder::manifest::Status;
use crate::run_folder::metrics::{self, EvalLine, Line, MetricsLog, TrainLine};
use crate::run_folder::tensorboard::EventLog;
use crate::run_folder::{BEFORE, RunFolder};
use crate::{privacy, signals};
use graft_engine::learning_rate::{Decay, LearningRate};
use graft_engine::loss::{LossHead, NextToken};
use graft_engine::optimizer::{AdamW, AdamWConfig};
use graft_engine::score::{Scorer, Totals};
use graft_engine::step::{StepError, StepOptions, StepOutcome, Trainer};
use graft_engine::{Checkpointing, Offload, Parameters};

/// Trains `model` as planned in the plan's folder, which is told how it ended.
pub(super) fn train<B: Backend, P: Trainable<B>>(
    training: Training<'_>,
    mut model: Llama<B, P>,
) -> Result<Outcome, RunError> {
    let Training { plan, data, inputs, going_on, home: _, began, voice } = training;
    let parameters = Parameters::of(&mut model);
    if parameters.is_empty() {
        return Err(RunError::NothingTrained);
    }
    // From here on there is something to keep.
    signals::work_begins(voice);
    if let Some(parent) = plan.output_dir.parent() {
        // What holds runs is as open as people have it; the run's own folder is not.
        std::fs::create_dir_all(parent)
            .map_err(|source| RunError::Write { path: parent.to_owned(), source })?;
    }
    let mut read = plan.files()?;
    read.extend(plan.recipe.files().iter().cloned());
    let closed = privacy::as_private_as(&plan.output_dir, read.iter().map(PathBuf::as_path));
    if going_on.is_some() {
        // What the run left until now was as open as its inputs were then.
        privacy::close_folder(&plan.output_dir, closed)
            .map_err(|source| RunError::Write { path: plan.output_dir.clone(), source })?;
    }
    let asked = inputs::asked_sha256(plan, &inputs);
    let Opened { mut folder, from, metrics } = going_on::open(voice, plan, going_on, inputs)?;
    let whereabouts = Whereabouts::default();
    let start = Start { voice, plan, data, asked, from, began, metrics };
    let work =
        || Run::new(start, model, parameters, &mut folder, &whereabouts).and_then(Run::finish);
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(error)) => Err(recorded(&mut folder, placed(error, whereabouts.stage()))),
        Err(panic) => {
            let reason = said(panic.as_ref()).unwrap_or("it does not say why").to_owned();
            // What is said is the panic, whether this can be recorded or not.
            let _ = folder.end(Status::Failed { reason });
            resume_unwind(panic)
        }
    }
}

/// What a run begins with, or goes on from.
struct Start<'a> {
    voice: Voice,
    plan: &'a Plan,
    data: &'a LoadedData,
    /// The hash of what base and result are asked.
    asked: String,
    from: Option<(Checkpoint, State)>,
    began: Began,
    metrics: MetricsLog,
}

/// The error with what the run was doing.
fn placed(error: RunError, stage: Stage) -> RunError {
    match (error.stopped(), stage, error) {
        (Some(stopped), stage, _) => RunError::Stopped { stopped, stage },
        (
            None,
            _,
            error @ (RunError::Unfinished { .. }
            | RunError::Destroyed { .. }
            | RunError::NoAnswer { .. }),
        ) => error,
        (None, Stage::After(part), error) => RunError::Unfinished { part, error: error.into() },
        (None, _, error) => error,
    }
}

/// Tells the folder how the run ended. That this fails never hides why it ended.
fn recorded(folder: &mut RunFolder, error: RunError) -> RunError {
    let status = match &error {
        RunError::Stopped { stopped, stage } => {
            Status::Stopped { reason: format!("{stopped} {stage}") }
        }
        other => Status::Failed { reason: other.to_string() },
    };
    match folder.end(status) {
        Ok(()) => error,
        Err(manifest) => RunError::Unrecorded { error: error.into(), manifest },
    }
}

/// A run that is under way.
pub(super) struct Run<'a, B: Backend, P> {
    pub(super) voice: Voice,
    pub(super) plan: &'a Plan,
    pub(super) data: &'a LoadedData,
    /// The hash of what base and result are asked.
    pub(super) asked: String,
    pub(super) trainer: Trainer<B, P>,
    pub(super) folder: &'a mut RunFolder,
    pub(super) whereabouts: &'a Whereabouts,
    /// What its adapters began as, where that is a part of the weights.
    pub(super) began: Began,
    pub(super) position: Position,
    pub(super) before: Scores,
    pub(super) total: u64,
    /// The last step that validation was measured behind in this process, and what it gave.
    pub(super) validated: Option<(u64, Totals)>,
    /// Most memory of a GPU found in use.
    pub(super) peak_device_memory: Option<u64>,
    schedule: Arc<Schedule>,
    metrics: MetricsLog,
    events: Option<EventLog>,
}

impl<'a, B: Backend, P: Trainable<B>> Run<'a, B, P> {
    /// Scores the base, unless it was, and goes back to the last checkpoint, if there is one.
    fn new(
        start: Start<'a>,
        model: Llama<B, P>,
        parameters: Parameters,
        folder: &'a mut RunFolder,
        whereabouts: &'a Whereabouts,
    ) -> Result<Self, RunError> {
        let Start { voice, plan, data, asked, from, began, metrics } = start;
        let schedule = data.schedule(plan)?;
        let total = plan.total_steps(&schedule);
        let offload = match plan.activation_offload {
            ActivationOffload::Disk => Some(Offload::create(folder.path())?),
            // The CPU computes in the host's memory.
            ActivationOffload::Host if !plan.device.is_cpu() => Some(Offload::Host),
            ActivationOffload::Host | ActivationOffload::None => None,
        };
        let config = adamw(plan);
        let optimizer = AdamW::new(config, &parameters, &model.device);
        let options = step_options(plan, total);
        let head = head(plan);
        let mut trainer = Trainer { model, parameters, head, optimizer, options, offload };
        let position = from.as_ref().map_or_else(Position::default, |(_, state)| state.position);
        // Nothing is learnt yet, whatever the checkpoint holds: what is scored is the base.
        let known = going_on::scores_of_base(voice, folder, position.step, &asked)?;
        let before = if let Some(before) = known {
            before
        } else {
            whereabouts.enter(Stage::Base);
            let before = Scores::of(voice, "score the base", plan, data, &trainer.model, None)?;
            // That it was damaged is recorded already; where it is now is said.
            let changed = folder.put(BEFORE, 0, &asked, before.to_text().as_bytes())?;
            changed.iter().for_each(going_on::say_mended);
            before
        };
        give_freed_memory_back();
        whereabouts.enter(Stage::Opening);
        if let Some((saved, state)) = &from {
            state::load(&saved.path, position, &mut trainer)?;
            folder.trained(state.trained_sha256().to_owned());
        }
        let events = if plan.logging.tensorboard {
            Some(EventLog::open(&folder.tensorboard_path(), position.step)?)
        } else {
            None
        };
        let mut run = Self {
            voice,
            plan,
            data,
            asked,
            trainer,
            folder,
            whereabouts,
            began,
            position,
            before,
            total,
            validated: None,
            peak_device_memory: None,
            schedule,
            metrics,
            events,
        };
        if run.position.step == 0 {
            let before = run.before.clone();
            run.log_validation(0, &before)?;
        }
        Ok(run)
    }

    /// Puts the validation loss of scores into the metrics, unless it was measured at this step: so the
    /// curve begins with the base and ends with the result.
    pub(super) fn log_validation(&mut self, step: u64, scores: &Scores) -> Result<(), RunError> {
        let Some(eval_loss) = scores.validation_loss else { return Ok(()) };
        if self.is_evaluated(step)? {
            return Ok(());
        }
        let eval_tokens = (0..self.data.validation.len())
            .map(|row| self.data.validation.targets_of(row) as u64)
            .sum();
        self.log(&Line::Eval(EvalLine { step, eval_loss, eval_tokens }))
    }

    /// Takes the steps that are left, then writes what was learnt.
    fn finish(mut self) -> Result<Outcome, RunError> {
        let taken = self.steps();
        if taken.as_ref().is_err_and(|error| error.stopped().is_some()) {
            self.keep()?;
        }
        taken?;
        finish::finish(self)
    }

    fn steps(&mut self) -> Result<(), RunError> {
        let done = self.position.step;
        self.enter_steps();
        if Self::due(self.plan.evaluate_every, done) && !self.is_evaluated(done)? {
            // It was asked to stop between the step and its evaluation.
            self.evaluate(done)?;
        }
        let progress =
            Progress::going_on(self.voice, "train", done, self.total, Unit::Count("steps"));
        // The first step may take long.
        progress.step(done, &Fields::default());
        for step in done + 1..=self.total {
            let outcome = self.step(step)?;
            self.enter_steps();
            let fields = Fields {
                loss: Some(outcome.loss),
                tokens_per_second: Some(self.position.tokens as f64 / self.position.seconds),
            };
            progress.step(step, &fields);
            if Self::due(self.plan.evaluate_every, step) {
                self.evaluate(step)?;
            }
            if Self::due(self.plan.checkpoint.every_steps, step) || step == self.total {
                self.checkpoint()?;
            }
        }
        progress.finish(&format!("last loss {:.4}", self.position.loss));
        Ok(())
    }

    fn enter_steps(&self) {
        let (taken, total) = (self.position.step, self.total);
        self.whereabouts.enter(Stage::Steps { taken, total });
    }

    /// Writes the checkpoint of the last step, unless it is there.
    fn keep(&mut self) -> Result<(), RunError> {
        let step = self.position.step;
        let latest = self.folder.checkpoints().latest()?.map(|checkpoint| checkpoint.step);
        if step == 0 || latest == Some(step) { Ok(()) } else { self.checkpoint() }
    }

    fn is_evaluated(&self, step: u64) -> Result<bool, RunError> {
        let lines = metrics::read(&self.folder.metrics_path())?;
        Ok(lines.iter().any(|line| matches!(line, Line::Eval(line) if line.step == step)))
    }

    fn due(every: Option<std::num::NonZeroUsize>, step: u64) -> bool {
        step > 0 && every.is_some_and(|every| step.is_multiple_of(every.get() as u64))
    }

    fn step(&mut self, step: u64) -> Result<StepOutcome, RunError> {
        let rows = self.schedule.step(step - 1);
        let batches = rows.iter().map(|rows| self.batch(rows)).collect::<Result<Vec<_>, _>>()?;
        let started = Instant::now();
        let outcome = self.trainer.step(step, &batches).map_err(|error| match error {
            StepError::Diverged(diverged) => {
                RunError::Diverged { diverged, rows: self.origins(&rows.concat()) }
            }
            StepError::Offload(error) => error.into(),
            StepError::Stopped(stopped) => graft_model::Error::from(stopped).into(),
        })?;
        let seconds = started.elapsed().as_secs_f64();
        self.peak_device_memory = self.peak_device_memory.max(outcome.device_memory);
        self.position = Position {
            step,
            tokens: self.position.tokens + outcome.tokens as u64,
            target_tokens: self.position.target_tokens + outcome.targets as u64,
            seconds: self.position.seconds + seconds,
            loss: outcome.loss,
        };
        let every = self.plan.logging.log_every.get() as u64;
        if step.is_multiple_of(every) || step == 1 || step == self.total {
            self.log(&Line::Train(TrainLine {
                step,
                loss: outcome.loss,
                learning_rate: outcome.learning_rate,
                grad_norm: outcome.grad_norm,
                tokens: outcome.tokens as u64,
                target_tokens: outcome.targets as u64,
                tokens_per_second: outcome.tokens as f64 / seconds,
                peak_memory_bytes: peak_resident_bytes(),
                peak_device_memory_bytes: self.peak_device_memory,
                measures: metrics::by_name(&outcome.further),
            }))?;
        }
        Ok(outcome)
    }

    fn batch(&self, rows: &[usize]) -> Result<Batch, graft_data::Error> {
        let samples = rows.iter().map(|&row| self.data.train.sample(row));
        let samples = samples.collect::<Result<Vec<_>, _>>()?;
        let samples: Vec<&Sample> = samples.iter().collect();
        Ok(Batch::collate(&samples, 1, self.plan.pad))
    }

    /// Files and lines of rows, for an error.
    fn origins(&self, rows: &[usize]) -> String {
        const SHOWN: usize = 8;
        let name = |row: &usize| match self.data.train.origin_of(*row) {
            Ok(origin) => origin.place(&self.plan.train).to_string(),
            Err(error) => error.to_string(),
        };
        let mut names: Vec<String> = rows.iter().take(SHOWN).map(name).collect();
        if rows.len() > SHOWN {
            names.push(format!("{} more", rows.len() - SHOWN));
        }
        names.join(", ")
    }

    fn log(&mut self, line: &Line) -> Result<(), RunError> {
        self.metrics.append(line)?;
        if let Some(events) = &mut self.events {
            events.log(line)?;
        }
        Ok(())
    }

    fn evaluate(&mut self, step: u64) -> Result<(), RunError> {
        if self.data.validation.is_empty() {
            return Ok(());
        }
        give_freed_memory_back();
        let scorer = Scorer { model: &self.trainer.model, precision: self.plan.precision };
        let rows = &self.data.validation;
        let files = self.plan.validation_rows();
        let scores = scorer.score(rows, &mut |_| ());
        let totals = Totals::of(&scores.map_err(|e| RunError::scoring(e, rows, files))?);
        self.validated = Some((step, totals));
        give_freed_memory_back();
        self.log(&Line::Eval(EvalLine {
            step,
            eval_loss: totals.loss(),
            eval_tokens: totals.targets as u64,
        }))
    }

    /// Refuses what the last update left where it is no number.
    pub(super) fn check_values(&mut self) -> Result<(), RunError> {
        match self.trainer.first_not_finite() {
            None => Ok(()),
            Some((tensor, index, value)) => {
                Err(RunError::Destroyed { step: self.position.step, tensor, index, value })
            }
        }
    }

    fn checkpoint(&mut self) -> Result<(), RunError> {
        self.check_values()?;
        give_freed_memory_back();
        // Lines of the steps that a checkpoint holds must survive whatever happens after it.
        self.metrics.sync()?;
        self.folder.check_place()?;
        let checkpoints = self.folder.checkpoints();
        let (path, gone) = checkpoints.make_room(self.position.step)?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|source| RunError::Write { path: parent.to_owned(), source })?;
        }
        let mut trained = String::new();
        atomic::create_folder(&path, |temporary| -> Result<(), CheckpointError> {
            if self.plan.method.learns() == Learns::Adapter {
                let adapter = temporary.join("adapter");
                let base = &self.folder.manifest().inputs.base;
                finish::write_learnt(&adapter, self.plan, base, &self.began, &mut self.trainer)?;
            }
            let so_far = self.metrics.so_far();
            let (state, text) = state::save(temporary, &mut self.trainer, self.position, so_far)?;
            state.trained_sha256().clone_into(&mut trained);
            // Before it is there: a run killed meanwhile knows its own.
            self.folder.makes_checkpoint(self.position.step, &text).map_err(RunError::from)?;
            Ok(())
        })
        .map_err(|error| error.into_run_error(&path))?;
        self.folder.checkpointed(self.position.step, trained)?;
        let pruned = self.folder.checkpoints().prune(self.plan.checkpoint.keep)?;
        for sentence in gone.iter().chain(&pruned).filter_map(Gone::sentence) {
            warn(&sentence);
        }
        Ok(())
    }
}

/// An error inside an atomic replacement.
pub(super) enum CheckpointError {
    Run(Box<RunError>),
    Io(std::io::Error),
}

impl From<RunError> for CheckpointError {
    fn from(error: RunError) -> Self {
        Self::Run(Box::new(error))
    }
}

impl From<std::io::Error> for CheckpointError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl CheckpointError {
    pub(super) fn into_run_error(self, path: &std::path::Path) -> RunError {
        match self {
            Self::Run(error) => *error,
            Self::Io(source) => RunError::Write { path: path.to_owned(), source },
        }
    }
}

/// The loss of a run; there is one, whatever is planned.
fn head<B: Backend, P: Trainable<B>>(_plan: &Plan) -> Box<dyn LossHead<B, P>> {
    Box::new(NextToken)
}

fn adamw(plan: &Plan) -> AdamWConfig {
    let states = plan.state_format();
    let (Optimizer::AdamW(of) | Optimizer::AdamW8bit(of)) = plan.optimizer;
    let graft_recipes::AdamW { beta1, beta2, eps, weight_decay } = of;
    AdamWConfig { beta1, beta2, eps, weight_decay, states }
}

fn step_options(plan: &Plan, total: u64) -> StepOptions {
    let (warmup, decay) = match plan.schedule {
        graft_recipes::Schedule::Constant { warmup } => (warmup, Decay::Constant),
        graft_recipes::Schedule::Linear { warmup, final_ratio } => {
            (warmup, Decay::Linear { final_ratio })
        }
        graft_recipes::Schedule::Cosine { warmup, final_ratio } => {
            (warmup, Decay::Cosine { final_ratio })
        }
    };
    let warmup = match warmup {
        Warmup::Steps(steps) => steps as u64,
        Warmup::Ratio(ratio) => (ratio * total as f64).ceil() as u64,
    };
    let checkpointing = match plan.checkpointing {
        graft_recipes::Checkpointing::Block => Checkpointing::Block,
        graft_recipes::Checkpointing::Auto | graft_recipes::Checkpointing::Selective => {
            Checkpointing::Selective
        }
        graft_recipes::Checkpointing::None => Checkpointing::None,
    };
    StepOptions {
        seed: plan.seed,
        precision: plan.precision,
        checkpointing,
        micro_batches_per_visit: plan.micro_batches_per_visit.get(),
        max_grad_norm: plan.max_grad_norm,
        learning_rate: LearningRate { peak: plan.learning_rate, warmup, total, decay },
    }
}
