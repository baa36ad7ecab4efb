//! Scores before and after: exact answers, general perplexity, validation loss, and samples of text.

use graft_adapters::Trainable;
use graft_model::Llama;
use serde::{Deserialize, Serialize};

use super::RunError;
use crate::device::Backend;
use crate::plan::{LoadedData, Plan, Questions};
use crate::progress::{Progress, Unit, Voice};
use graft_engine::score::{Scorer, Totals};

/// What a model scores at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scores {
    /// Held-out questions answered exactly; `None` without any.
    pub(super) exact: Option<Exact>,
    /// Perplexity on the general rows.
    pub(super) general_perplexity: Option<f64>,
    /// Mean loss on the validation rows.
    pub(super) validation_loss: Option<f64>,
    /// Answers to the first held-out questions.
    pub(super) samples: Vec<String>,
    /// Answers to the recipe's prompts.
    pub(super) prompts: Vec<String>,
}

/// Exact answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Exact {
    /// Answered exactly.
    pub(super) right: usize,
    /// Asked.
    pub(super) asked: usize,
}

impl Exact {
    /// From 0 to 1.
    pub(super) fn share(self) -> f64 {
        self.right as f64 / self.asked as f64
    }
}

impl Scores {
    /// Scores a model on everything that the plan evaluates; `validated` is what validation has just given,
    /// where it has.
    pub(super) fn of<B: Backend, P: Trainable<B>>(
        voice: Voice,
        title: &str,
        plan: &Plan,
        data: &LoadedData,
        model: &Llama<B, P>,
        validated: Option<Totals>,
    ) -> Result<Self, RunError> {
        let scorer = Scorer { model, precision: plan.precision };
        let (held_out, questions) = (data.held_out(), data.questions.as_ref());
        let rows = held_out.len() + data.general.len() + data.validation.len();
        let asked = rows + questions.map_or(0, |questions| questions.prompts.len());
        if asked == 0 {
            return Ok(Self::default());
        }
        let progress = Progress::new(voice, title, asked as u64, Unit::Count("rows"));
        let fields = Default::default();
        let mut before = 0;
        let mut report = |done: usize| progress.step((before + done) as u64, &fields);
        let max_new = plan.max_new_tokens.get();
        let (mut answers, mut prompts) = (Vec::new(), Vec::new());
        if let Some(Questions { tokenizer, held_out, prompts: texts }) = questions {
            let asked: Vec<Vec<u32>> = held_out.iter().map(|row| row.prompt.clone()).collect();
            answers = scorer.answers(&asked, tokenizer, max_new, &mut report)?;
            before += answers.len();
            let mut report = |done: usize| progress.step((before + done) as u64, &fields);
            prompts = scorer.answers(texts, tokenizer, max_new, &mut report)?;
            before += prompts.len();
        }
        let mut report = |done: usize| progress.step((before + done) as u64, &fields);
        let general = scorer
            .score(&data.general, &mut report)
            .map_err(|error| RunError::scoring(error, &data.general, &plan.general))?;
        before += general.len();
        let mut report = |done: usize| progress.step((before + done) as u64, &fields);
        let validation = if let Some(totals) = validated {
            totals
        } else {
            let scores = scorer.score(&data.validation, &mut report);
            let files = plan.validation_rows();
            Totals::of(&scores.map_err(|e| RunError::scoring(e, &data.validation, files))?)
        };
        let right = answers.iter().zip(held_out).filter(|(a, row)| **a == row.expected);
        let exact = Exact { right: right.count(), asked: answers.len() };
        let scores = Self {
            exact: (exact.asked > 0).then_some(exact),
            general_perplexity: (!general.is_empty()).then(|| Totals::of(&general).perplexity()),
            validation_loss: (!data.validation.is_empty()).then(|| validation.loss()),
            samples: answers.into_iter().take(plan.report_samples).collect(),
            prompts,
        };
        progress.finish(&scores.summary());
        Ok(scores)
    }

    /// One line for people.
    pub(super) fn summary(&self) -> String {
        let mut parts = Vec::new();
        if let Some(exact) = self.exact {
            let percent = 100.0 * exact.share();
            parts.push(format!("exact match {percent:.1} % ({} of {})", exact.right, exact.asked));
        }
        if let Some(perplexity) = self.general_perplexity {
            parts.push(format!("general perplexity {perplexity:.2}"));
        }
        if let Some(loss) = self.validation_loss {
            parts.push(format!("validation loss {loss:.4}"));
        }
        parts.join(", ")
    }

    /// Scores that an earlier part of the run wrote.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// What a later part of the run reads.
    pub(super) fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("scores are plain data")
            + "
"
    }
}
