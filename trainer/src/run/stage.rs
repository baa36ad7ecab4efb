//! What a run is doing, for the sentence that says where it ended.

use std::cell::Cell;
use std::fmt;

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Opening its folder, or going back to a checkpoint.
    Opening,
    /// Scoring the base.
    Base,
    /// Taking steps, or measuring between them.
    Steps {
        /// Steps taken.
        taken: u64,
        /// Steps planned.
        total: u64,
    },
    /// Something after the last step.
    After(Part),
}

/// What is done after the last step, each on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The adapter, or the fully trained model.
    Result,
    /// The scores of the result.
    Scores,
    /// The merged model and its comparison.
    Merge,
    /// What programs are given.
    Programs,
    /// The report.
    Report,
}

impl Part {
    /// As the subject of a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::Result => "writing what was learnt",
            Self::Scores => "scoring the result",
            Self::Merge => "merging the adapter",
            Self::Programs => "writing what programs take",
            Self::Report => "writing the report",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opening => write!(out, "before the first step"),
            Self::Base => write!(out, "while scoring the base"),
            Self::Steps { taken: 0, .. } => write!(out, "in the first step"),
            Self::Steps { taken, total } => write!(out, "after step {taken} of {total}"),
            Self::After(part) => write!(out, "after the last step, while {}", part.name()),
        }
    }
}

/// Where a run is now.
#[derive(Debug)]
pub(super) struct Whereabouts(Cell<Stage>);

impl Default for Whereabouts {
    fn default() -> Self {
        Self(Cell::new(Stage::Opening))
    }
}

impl Whereabouts {
    pub(super) fn enter(&self, stage: Stage) {
        self.0.set(stage);
    }

    pub(super) fn stage(&self) -> Stage {
        self.0.get()
    }
}
