//! Rows that can be trusted: which of them say the same or nearly the same, which are both learnt and
//! measured, and whose personal data is in them.
//!
//! [`survey`] reads all rows of a run once, keeps some hundred bytes of each, and gives a [`Report`] of
//! what it found with the places and, for every file, what is to be left out or masked of it
//! ([`Cleaning`]). A [`crate::SourceFile`] that carries its cleaning is read without these rows from then
//! on, by whoever reads it.

mod cleaning;
mod contamination;
mod judgement;
mod kept;
mod near;
pub mod personal;
mod report;
mod side_by_side;
mod survey;
mod texts;
mod words;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use personal::{MaskKey, Personal};

pub(crate) use cleaning::is_dropping;
pub use cleaning::{Cleaned, Cleaning, dropped_by};
pub(crate) use kept::{of_bytes, to_bytes};
pub use report::{Check, Finding, Place, Report, RowId, What};
pub use side_by_side::texts_of;
pub use survey::{Section, Survey, Unread, survey};

/// What happens to a row in which something was found; the mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is told.
    Report,
    /// What was found is masked; where whole rows are looked for, as if told.
    Mask,
    /// The row is left out, counted.
    Drop,
    /// No run begins.
    Error,
}

impl Action {
    /// Its word in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Mask => "mask",
            Self::Drop => "drop",
            Self::Error => "error",
        }
    }
}

/// What is looked for. Nothing, but for rows that are both learnt and measured, by default.
#[derive(Debug, Clone, PartialEq)]
pub struct Hygiene {
    /// Rows that say what an earlier one says.
    pub duplicates: Option<Action>,
    /// Rows that say nearly what an earlier one says.
    pub near_duplicates: Option<Near>,
    /// Rows that share a stretch of words with a measured row.
    pub contamination: Option<Contamination>,
    /// Rows that say what a measured row says, or nearly so where that is looked for.
    pub leaks: Action,
    /// Personal data and secrets in texts.
    pub personal: Arc<Personal>,
}

/// Rows that say nearly the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Near {
    /// What happens to the later ones.
    pub action: Action,
    /// From which share of common stretches of words on, above 0 and at most 1.
    pub threshold: f64,
}

/// Stretches of words in common with measured rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contamination {
    /// What happens to the rows that are learnt.
    pub action: Action,
    /// Words of a stretch, at least 1.
    pub words: usize,
}

impl Default for Hygiene {
    fn default() -> Self {
        Self {
            duplicates: None,
            near_duplicates: None,
            contamination: None,
            leaks: Action::Report,
            personal: Arc::default(),
        }
    }
}

impl Hygiene {
    /// Looks for everything and changes nothing.
    pub fn that_reports(key: MaskKey) -> Self {
        let action = Action::Report;
        Self {
            duplicates: Some(action),
            near_duplicates: Some(Near { action, threshold: Near::THRESHOLD }),
            contamination: Some(Contamination { action, words: Contamination::WORDS }),
            leaks: action,
            personal: Arc::new(Personal::that_reports(key)),
        }
    }

    /// Looks for everything, and tells what nothing else happens to.
    #[must_use]
    pub fn and_reports(&self) -> Self {
        let all = Self::that_reports(MaskKey::default());
        Self {
            duplicates: self.duplicates.or(all.duplicates),
            near_duplicates: self.near_duplicates.or(all.near_duplicates),
            contamination: self.contamination.or(all.contamination),
            leaks: self.leaks,
            personal: Arc::new(Personal::clone(&self.personal).and_reports()),
        }
    }

    /// What tells this from what finds, or says, something else.
    pub(crate) fn identity(&self) -> String {
        let Self { duplicates, near_duplicates, contamination, leaks, personal } = self;
        let said: Vec<_> = (0..personal.len()).map(|by| personal.said(by)).collect();
        let personal = personal.identity();
        format!(
            "{duplicates:?} {near_duplicates:?} {contamination:?} {leaks:?} {said:?}\n{personal}"
        )
    }

    /// Whether rows have to be read for it before they are read to be learnt: rows that are both learnt and
    /// measured are told without.
    pub fn needs_survey(&self) -> bool {
        let Self { duplicates, near_duplicates, contamination, leaks, personal } = self;
        let of_rows = duplicates.is_some() || near_duplicates.is_some() || contamination.is_some();
        of_rows || *leaks != Action::Report || !personal.is_empty()
    }
}

impl Near {
    /// The usual threshold.
    pub const THRESHOLD: f64 = 0.8;
}

impl Contamination {
    /// The usual length of a stretch.
    pub const WORDS: usize = 13;
}

#[cfg(test)]
mod tests;
