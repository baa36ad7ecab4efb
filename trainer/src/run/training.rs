//! The loop: steps, measurements, checkpoints.

use std::sync::atomic::Ordering;
use std::time::Instant;

use graft_adapters::Trainable;
use graft_data::{Batch, Sample, Schedule};
use graft_model::{Llama, atomic};
use graft_recipes::{ActivationOffload, Optimizer, Warmup};

use super::scores::Scores;
use super::state::{self, Position};
use super::{Outcome, RunError, RunOptions, finish, inputs};
use crate::device::Backend;
use crate::engine::{Checkpointing, Offload, Parameters};
use crate::evaluate::{Scorer, Totals};
use crate::learning_rate::{Decay, LearningRate};
use crate::memory::peak_resident_bytes;
use crate::optimizer::{AdamW, AdamWConfig};
use crate::plan::{LoadedData, Plan};
use crate::progress::{Fields, Progress, Unit};
use crate::run_folder::RunFolder;
use crate::run_folder::manifest::{Manifest, Status};
use crate::run_folder::metrics::{EvalLine, Line, MetricsLog, TrainLine};
use crate::run_folder::tensorboard::EventLog;
use crate::step::{StepError, StepOptions, StepOutcome, Trainer};

/// A run that is under way.
pub(super) struct Run<'a, B: Backend, P> {
    pub(super) plan: &'a Plan,
    pub(super) data: &'a LoadedData,
    pub(super) trainer: Trainer<B, P>,
    pub(super) folder: RunFolder,
    pub(super) position: Position,
    pub(super) before: Scores,
    pub(super) total: u64,
    /// Most memory of a GPU found in use.
    pub(super) peak_device_memory: Option<u64>,
    schedule: Schedule,
    metrics: MetricsLog,
    events: Option<EventLog>,
    options: RunOptions<'a>,
}

impl<'a, B: Backend, P: Trainable<B>> Run<'a, B, P> {
    /// Opens the run's folder, goes back to its last checkpoint if it has one, and scores the base.
    pub(super) fn new(
        plan: &'a Plan,
        data: &'a LoadedData,
        mut model: Llama<B, P>,
        options: RunOptions<'a>,
    ) -> Result<Self, RunError> {
        let schedule = data.schedule(plan)?;
        let total = plan.total_steps(&schedule);
        let parameters = Parameters::of(&mut model);
        if parameters.is_empty() {
            return Err(RunError::NothingTrained);
        }
        let now = inputs::inputs(plan, &parameters)?;
        let goes_on = options.resume && RunFolder::holds_run(&plan.output_dir);
        let mut folder = if goes_on {
            let folder = RunFolder::open_for_resume(&plan.output_dir)?;
            folder.check_unchanged(&now)?;
            folder
        } else {
            RunFolder::create(&plan.output_dir, &plan.recipe.to_yaml(), Manifest::begin(now))?
        };
        let offload = match plan.activation_offload {
            ActivationOffload::Disk => Some(Offload::create(folder.path())?),
            // The CPU computes in the host's memory.
            ActivationOffload::Host if !plan.device.is_cpu() => Some(Offload::Host),
            ActivationOffload::Host | ActivationOffload::None => None,
        };
        let config = adamw(plan);
        let optimizer = AdamW::new(config, &parameters, &model.device);
        let mut trainer =
            Trainer { model, parameters, optimizer, options: step_options(plan, total), offload };
        let mut position = Position::default();
        if let Some(checkpoint) = folder.checkpoints().latest()? {
            position = state::load(&checkpoint.path, &mut trainer)?;
        }
        if goes_on {
            folder.resumed_after(position.step)?;
        }
        let (metrics, _) = MetricsLog::open(&folder.metrics_path(), position.step)?;
        let events = if plan.logging.tensorboard {
            Some(EventLog::open(&folder.tensorboard_path(), position.step)?)
        } else {
            None
        };
        let path = folder.path().join("before.json");
        let before = if let Some(before) = Scores::read(&path) {
            before
        } else {
            let before = Scores::of("score the base", plan, data, &trainer.model)?;
            before.write(&path)?;
            before
        };
        Ok(Self {
            plan,
            data,
            trainer,
            folder,
            position,
            before,
            total,
            peak_device_memory: None,
            schedule,
            metrics,
            events,
            options,
        })
    }

    /// Takes the steps that are left, then writes what was learnt.
    pub(super) fn finish(mut self) -> Result<Outcome, RunError> {
        if let Err(error) = self.steps() {
            let status = match &error {
                RunError::Interrupted { .. } => Status::Stopped { reason: "asked to".to_owned() },
                other => Status::Failed { reason: other.to_string() },
            };
            self.folder.end(status)?;
            return Err(error);
        }
        finish::finish(self)
    }

    fn steps(&mut self) -> Result<(), RunError> {
        let done = self.position.step;
        let progress = Progress::going_on("train", done, self.total, Unit::Count("steps"));
        for step in done + 1..=self.total {
            let outcome = self.step(step)?;
            let fields = Fields {
                loss: Some(outcome.loss),
                tokens_per_second: Some(self.position.tokens as f64 / self.position.seconds),
            };
            progress.step(step, &fields);
            if Self::due(self.plan.evaluate_every, step) {
                self.evaluate(step)?;
            }
            let interrupted = self.options.interrupted.load(Ordering::Relaxed);
            if interrupted
                || Self::due(self.plan.checkpoint.every_steps, step)
                || step == self.total
            {
                self.checkpoint()?;
            }
            if interrupted && step < self.total {
                return Err(RunError::Interrupted { step, total: self.total });
            }
        }
        progress.finish(&format!("last loss {:.4}", self.position.loss));
        Ok(())
    }

    fn due(every: Option<std::num::NonZeroUsize>, step: u64) -> bool {
        every.is_some_and(|every| step.is_multiple_of(every.get() as u64))
    }

    fn step(&mut self, step: u64) -> Result<StepOutcome, RunError> {
        let rows = self.schedule.step(step - 1);
        let batches: Vec<Batch> = rows.iter().map(|rows| self.batch(rows)).collect();
        let started = Instant::now();
        let outcome = self.trainer.step(step, &batches).map_err(|error| match error {
            StepError::Diverged(diverged) => {
                RunError::Diverged { diverged, rows: self.origins(&rows.concat()) }
            }
            StepError::Offload(error) => error.into(),
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
            }))?;
        }
        Ok(outcome)
    }

    fn batch(&self, rows: &[usize]) -> Batch {
        let samples: Vec<&Sample> = rows.iter().map(|&row| &self.data.train[row]).collect();
        Batch::collate(&samples, 1, self.plan.pad)
    }

    /// Files and lines of rows, for an error.
    fn origins(&self, rows: &[usize]) -> String {
        const SHOWN: usize = 8;
        let name = |row: &usize| {
            let origin = self.data.train[*row].origin;
            format!("{}:{}", self.plan.train[origin.file].path.display(), origin.line)
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
        let scorer = Scorer { model: &self.trainer.model, precision: self.plan.precision };
        let totals = Totals::of(&scorer.score(&self.data.validation, &mut |_| ()));
        self.log(&Line::Eval(EvalLine {
            step,
            eval_loss: totals.loss(),
            eval_tokens: totals.targets as u64,
        }))
    }

    fn checkpoint(&mut self) -> Result<(), RunError> {
        // Lines of the steps that a checkpoint holds must survive whatever happens after it.
        self.metrics.sync()?;
        let checkpoints = self.folder.checkpoints();
        let path = checkpoints.path(self.position.step);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|source| RunError::Write { path: parent.to_owned(), source })?;
        }
        atomic::replace_folder(&path, |temporary| -> Result<(), CheckpointError> {
            state::save(temporary, &mut self.trainer, self.position)?;
            let adapter = temporary.join("adapter");
            finish::save_adapter(&adapter, self.plan, &mut self.trainer)?;
            Ok(())
        })
        .map_err(|error| error.into_run_error(&path))?;
        checkpoints.prune(self.plan.checkpoint.keep)?;
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
