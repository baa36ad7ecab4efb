//! Why a run ended early.

use graft_data::{Samples, SourceFile};
use graft_files::disk;
use graft_model::stop::Stopped;

use super::stage::{Part, Stage};
use crate::ledger::TooLarge;
use crate::plan::PlanErrors;
use crate::run_folder;
use graft_engine::score::ScoreError;
use graft_engine::step::Diverged;

impl RunError {
    /// An error of scoring these rows of these files, a row in it named by its place.
    pub(super) fn scoring(error: ScoreError, rows: &Samples, files: &[SourceFile]) -> Self {
        match error {
            ScoreError::NotANumber { row, .. } => {
                let origin = match rows.origin_of(row) {
                    Ok(origin) => origin,
                    Err(error) => return error.into(),
                };
                let place = Box::new(origin.place(files));
                Self::Unscored { place, error: Box::new(error) }
            }
            other => other.into(),
        }
    }
}

/// Why a run ended early, or never began.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The recipe's data or files.
    #[error(transparent)]
    Plan(#[from] PlanErrors),
    /// Rows or tokens.
    #[error(transparent)]
    Data(#[from] graft_data::Error),
    /// The model's files.
    #[error(transparent)]
    Model(#[from] graft_model::Error),
    /// The adapter's files, or writing a merged model.
    #[error(transparent)]
    Adapter(#[from] graft_adapters::Error),
    /// The run folder.
    #[error(transparent)]
    Folder(#[from] run_folder::Error),
    /// More memory or disk than there is.
    #[error(transparent)]
    Room(#[from] TooLarge),
    /// The processor's kernels.
    #[error(transparent)]
    Kernels(#[from] graft_kernels::flex::isa::IsaError),
    /// Nothing would be trained.
    #[error("nothing is trained: the adapter's targets and layers select no projection")]
    NothingTrained,
    /// The base is another one than the run began with.
    #[error(
        "`{file}` of the base has changed while the run went on: its SHA-256 was {was}, and is {now}. Put it \
         back, then go on with `--resume`"
    )]
    BaseChanged {
        /// The file.
        file: String,
        /// The beginning of its hash then.
        was: String,
        /// And now.
        now: String,
    },
    /// A loss or gradient that is no number.
    #[error(
        "{diverged}; its rows are {rows}. The step was not taken. Go on from the last checkpoint at a \
         lower rate with `--resume training.learning_rate=…`, or with smaller steps with `--resume \
         training.max_grad_norm=…`; or look at these rows, and start anew with others"
    )]
    Diverged {
        /// What was not a number.
        diverged: Diverged,
        /// Files and lines of the step's rows.
        rows: String,
    },
    /// The disk did not keep the blocks' inputs.
    #[error(
        "{0}. The step was not taken. Free the disk and go on from the last checkpoint with `--resume`, \
         or keep them in memory with `--resume training.activation_offload=none`"
    )]
    Offload(#[from] graft_engine::OffloadError),
    /// The device ended the work.
    #[error(
        "{device} stopped computing: {reason}. The last checkpoint is whole: go on from it with \
         `--resume`, or on another device that `--device` names"
    )]
    Device {
        /// Its name.
        device: String,
        /// What it said.
        reason: String,
    },
    /// Rows have no score.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// A row of the run has no score.
    #[error("{place} has no score: {error}")]
    Unscored {
        /// File and line.
        place: Box<graft_data::RowPlace>,
        /// Its loss, and the way out.
        error: Box<ScoreError>,
    },
    /// An update left what is no number.
    #[error(
        "the update of step {step} left value {index} of `{tensor}` as {value}, which is no number: what \
         was learnt since the last checkpoint is not kept. Lower training.learning_rate, or the optimizer's \
         weight_decay in a new run; `--resume` goes on from the last checkpoint"
    )]
    Destroyed {
        /// The step.
        step: u64,
        /// The tensor.
        tensor: String,
        /// Medium in the flattened tensor.
        index: usize,
        /// What stands there.
        value: f32,
    },
    /// The model that an adapter of numbers makes answers with none.
    #[error(
        "after step {step}, the last one, the model's loss on the first row of data.train is {loss}, which \
         is no number: nothing was written. Train anew with a lower training.learning_rate, adapter.alpha \
         or weight_decay of the optimizer"
    )]
    NoAnswer {
        /// The last step.
        step: u64,
        /// What was found.
        loss: f64,
    },
    /// Asked to stop.
    #[error("{stopped} {stage}: {}", goes_on(*stage))]
    Stopped {
        /// By which signal.
        stopped: Stopped,
        /// When.
        stage: Stage,
    },
    /// All steps are taken, but something after them failed.
    #[error(
        "all steps are taken, but {} failed: {error}{}", part.name(), missing(*part)
    )]
    Unfinished {
        /// What failed.
        part: Part,
        /// Why.
        error: Box<RunError>,
    },
    /// A run ended, and its manifest could not be told.
    #[error("{error}\n  that it ended so could not be recorded: {manifest}")]
    Unrecorded {
        /// Why the run ended.
        error: Box<RunError>,
        /// Why the manifest still says otherwise.
        manifest: run_folder::Error,
    },
    /// A checkpoint that is not one of this run.
    #[error(
        "`{}` is no checkpoint of this run: {reason}. Remove that folder to go on from the one \
         before", path.display()
    )]
    Checkpoint {
        /// The checkpoint's folder.
        path: std::path::PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// Every checkpoint is damaged.
    #[error(
        "no checkpoint of this run is as it was written:{}\n  put one back from a copy, or start a new run \
         in another folder with `output_dir=…`", listed(.0)
    )]
    NoWholeCheckpoint(
        /// Their folders, newest first, and what is wrong with each.
        Vec<(std::path::PathBuf, String)>,
    ),
    /// The run has come further than it is to go.
    #[error(
        "the run in `{}` is at step {step}, but the recipe ends at step {total}: ask for more with \
         `training.epochs=…` or `training.max_steps=…`", path.display()
    )]
    Beyond {
        /// The run's folder.
        path: std::path::PathBuf,
        /// The step of its checkpoint.
        step: u64,
        /// All steps of the recipe.
        total: u64,
    },
    /// The merged model does not answer as base and adapter do.
    #[error(
        "the merged model does not answer as base + adapter do: mean divergence {found:.2e} nats a \
         token, more than {allowed:.1e}; the merged folder was removed"
    )]
    Merge {
        /// Mean Kullback–Leibler divergence, in nats a token.
        found: f64,
        /// The tolerance.
        allowed: f64,
    },
    /// What a program takes could not be written.
    #[error("what {name} takes (`finish.for`) was not written: {reason}")]
    Program {
        /// The program.
        name: &'static str,
        /// What stood in the way.
        reason: String,
    },
    /// A file could not be written.
    #[error("cannot write `{}`: {source}{}", path.display(), disk::way_out(source))]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// How a run that was asked to stop goes on.
fn goes_on(stage: Stage) -> &'static str {
    match stage {
        Stage::Opening | Stage::Base | Stage::Steps { taken: 0, .. } => {
            "begin again with `--resume`"
        }
        Stage::Steps { .. } => "its checkpoint is written, go on with `--resume`",
        Stage::After(_) => "`--resume` does what is missing",
    }
}

/// What is there of a run that failed after its last step.
fn missing(part: Part) -> &'static str {
    match part {
        Part::Result => ". The last checkpoint is whole, and `--resume` tries again",
        Part::Scores | Part::Merge | Part::Programs | Part::Report => {
            ". What was learnt is written, and `--resume` does what is missing"
        }
    }
}

fn listed(damaged: &[(std::path::PathBuf, String)]) -> String {
    let lines = damaged.iter().map(|(path, reason)| format!("\n  `{}`: {reason}", path.display()));
    lines.collect::<Vec<_>>().concat()
}

impl RunError {
    /// The signal, where the work was asked to stop.
    pub(super) fn stopped(&self) -> Option<Stopped> {
        match self {
            Self::Stopped { stopped, .. }
            | Self::Score(ScoreError::Stopped(stopped))
            | Self::Model(graft_model::Error::Stopped(stopped))
            | Self::Adapter(graft_adapters::Error::Model(graft_model::Error::Stopped(stopped))) => {
                Some(*stopped)
            }
            _ => None,
        }
    }

    /// Whether the cause is wrong input (exit code 2) rather than a failure (1).
    pub fn is_wrong_input(&self) -> bool {
        match self {
            Self::Plan(_)
            | Self::Data(_)
            | Self::Model(_)
            | Self::Room(_)
            | Self::Kernels(_)
            | Self::NothingTrained
            | Self::Checkpoint { .. }
            | Self::NoWholeCheckpoint(_)
            | Self::BaseChanged { .. }
            | Self::Beyond { .. } => true,
            Self::Adapter(error) => !matches!(
                error,
                graft_adapters::Error::Write(_) | graft_adapters::Error::NotFinite { .. }
            ),
            Self::Folder(error) => error.is_wrong_input(),
            Self::Unrecorded { error, manifest: _ } => error.is_wrong_input(),
            Self::Diverged { .. }
            | Self::Offload(_)
            | Self::Device { .. }
            | Self::Score(_)
            | Self::Unscored { .. }
            | Self::Destroyed { .. }
            | Self::NoAnswer { .. }
            | Self::Stopped { .. }
            | Self::Unfinished { .. }
            | Self::Merge { .. }
            | Self::Program { .. }
            | Self::Write { .. } => false,
        }
    }
}
