//! Why a run ended early.

use crate::ledger::TooLarge;
use crate::plan::PlanErrors;
use crate::run_folder;
use crate::step::Diverged;

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
    /// Nothing would be trained.
    #[error("nothing is trained: the adapter's targets and layers select no projection")]
    NothingTrained,
    /// A loss or gradient that is no number.
    #[error(
        "{diverged}; its rows are {rows}. The step was not taken. Lower training.learning_rate or \
         training.max_grad_norm, or look at these rows, and go on from the last checkpoint with \
         `--resume`, or start anew"
    )]
    Diverged {
        /// What was not a number.
        diverged: Diverged,
        /// Files and lines of the step's rows.
        rows: String,
    },
    /// The disk did not keep the blocks' inputs.
    #[error(
        "{0}. The step was not taken. Free the disk, or keep them in memory with \
         `training.activation_offload: none` in a new run; go on from the last checkpoint with `--resume`"
    )]
    Offload(#[from] crate::engine::OffloadError),
    /// The device ended the work.
    #[error(
        "{device} stopped computing: {reason}. The last checkpoint is whole: go on from it with \
         `--resume`, on this device or another (`--device`)"
    )]
    Device {
        /// Its name.
        device: String,
        /// What it said.
        reason: String,
    },
    /// Asked to stop.
    #[error(
        "stopped after step {step} of {total}; its checkpoint is written: go on with `--resume`"
    )]
    Interrupted {
        /// The last step taken.
        step: u64,
        /// Steps planned.
        total: u64,
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
    /// A file could not be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl RunError {
    /// Whether the cause is wrong input (exit code 2) rather than a failure (1).
    pub fn is_wrong_input(&self) -> bool {
        match self {
            Self::Plan(_)
            | Self::Data(_)
            | Self::Model(_)
            | Self::Room(_)
            | Self::NothingTrained
            | Self::Checkpoint { .. } => true,
            Self::Adapter(error) => !matches!(
                error,
                graft_adapters::Error::Write(_) | graft_adapters::Error::NotFinite { .. }
            ),
            Self::Folder(error) => error.is_wrong_input(),
            Self::Diverged { .. }
            | Self::Offload(_)
            | Self::Device { .. }
            | Self::Interrupted { .. }
            | Self::Merge { .. }
            | Self::Write { .. } => false,
        }
    }
}
