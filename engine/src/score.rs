//! Scores a model on rows: negative log-likelihood of the targets, and exact answers.

use graft_data::{Batch, Sample, SampleList, Tokenizer};
use graft_kernels::{Kernels, Ops, Precision};
use graft_model::stop::{self, Stopped};
use graft_model::{Context, Layout, Llama, Projection};

use crate::generate::{GenerateError, Generator, Heard, Sampling};
use crate::loss::{Predictions, Targets};

/// Tokens that are scored in one pass: bounds memory, does not change a result.
pub const TOKENS: usize = 2_048;
/// Prompts that are answered at a time.
pub const PROMPTS: usize = 48;

/// The most tokens of a pass over these rows in their order, and the most targets.
pub fn largest_pass(samples: &(impl SampleList + ?Sized)) -> [usize; 2] {
    let (mut pass, mut most) = ([0; 2], [0; 2]);
    for at in 0..samples.len() {
        let row = [samples.tokens_of(at), samples.targets_of(at)];
        // A row that is longer than that has a pass of its own.
        let fits = pass[0] + row[0] <= TOKENS;
        pass = [0, 1].map(|i| if fits { pass[i] + row[i] } else { row[i] });
        most = [0, 1].map(|i| most[i].max(pass[i]));
    }
    most
}

/// Why rows have no score.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The process was asked to stop.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A loss that is no number.
    #[error(
        "the model's loss on the row of line {line} is {nll}: its weights or numbers of its config.json, or \
         those of its adapter, are damaged or were destroyed in training. Take them from where they come \
         from, or train anew with a lower training.learning_rate or adapter.alpha, or a higher eps of the \
         optimizer"
    )]
    NotANumber {
        /// The row's place among those that are scored.
        row: usize,
        /// Its line in its file.
        line: usize,
        /// Its loss.
        nll: f64,
    },
    /// Answers cannot be generated.
    #[error(transparent)]
    Generate(GenerateError),
    /// Answers are no text.
    #[error(transparent)]
    Text(#[from] graft_data::Error),
}

impl From<GenerateError> for ScoreError {
    fn from(error: GenerateError) -> Self {
        match error {
            GenerateError::Stopped(stopped) => Self::Stopped(stopped),
            other @ GenerateError::NotANumber { .. } => Self::Generate(other),
        }
    }
}

/// A row's score.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowScore {
    /// Summed negative log-likelihood of the targets, in nats.
    pub nll: f64,
    /// Number of targets.
    pub targets: usize,
}

/// Sums over rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Summed negative log-likelihood, in nats.
    pub nll: f64,
    /// Number of targets.
    pub targets: usize,
}

impl Totals {
    /// Sums scores in order.
    pub fn of(scores: &[RowScore]) -> Self {
        scores.iter().fold(Self::default(), |sum, score| Self {
            nll: sum.nll + score.nll,
            targets: sum.targets + score.targets,
        })
    }

    /// Mean loss a target, in nats.
    pub fn loss(&self) -> f64 {
        self.nll / self.targets as f64
    }

    /// `e^loss`.
    pub fn perplexity(&self) -> f64 {
        self.loss().exp()
    }
}

/// Scores rows with a model.
pub struct Scorer<'a, B: Kernels, P> {
    /// The model.
    pub model: &'a Llama<B, P>,
    /// Precision of its products.
    pub precision: Precision,
}

impl<B, P> Scorer<'_, B, P>
where
    B: Kernels + Ops<Inner = B>,
    P: Projection<B>,
{
    /// Each row's score; `progress` is told the rows done.
    ///
    /// # Errors
    /// A row's loss is no number; the process was asked to stop.
    pub fn score(
        &self,
        samples: &(impl SampleList + ?Sized),
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<RowScore>, ScoreError> {
        let mut scores = Vec::with_capacity(samples.len());
        while scores.len() < samples.len() {
            stop::check()?;
            let mut tokens = 0;
            let fits = (scores.len()..samples.len())
                .take_while(|&at| {
                    tokens += samples.tokens_of(at);
                    tokens <= TOKENS
                })
                .count();
            let now = scores.len()..scores.len() + fits.max(1);
            let now = now.map(|at| Ok(samples.sample(at)?.into_owned()));
            let now = now.collect::<Result<Vec<Sample>, ScoreError>>()?;
            let found = self.score_together(&now);
            let mut found_of = found.iter().zip(&now).enumerate();
            let broken = found_of.find(|(_, (score, _))| !score.nll.is_finite());
            if let Some((place, (&RowScore { nll, .. }, sample))) = broken {
                let (row, line) = (scores.len() + place, sample.origin.line);
                return Err(ScoreError::NotANumber { row, line, nll });
            }
            scores.extend(found);
            progress(scores.len());
        }
        Ok(scores)
    }

    fn score_together(&self, samples: &[Sample]) -> Vec<RowScore> {
        let references: Vec<&Sample> = samples.iter().collect();
        let batch = Batch::collate(&references, 1, 0);
        let model = self.model;
        let layout =
            Layout::of_documents(&model.config, &model.rope, &batch.positions, &batch.documents);
        let hidden = model.hidden(&batch.tokens, &layout, Context::evaluation(self.precision));
        let targets = Targets::of(&batch);
        let losses = Predictions { model, precision: self.precision }.losses(hidden, &targets);
        let mut scores = vec![RowScore::default(); samples.len()];
        for (&row, loss) in targets.rows.iter().zip(losses) {
            let document = batch.documents.partition_point(|range| range.end <= row);
            scores[document].nll += f64::from(loss);
            scores[document].targets += 1;
        }
        scores
    }

    /// The model's greedy answers to prompts, as text without surrounding white space; `progress` is
    /// told how many are complete.
    ///
    /// # Errors
    /// The model gives what is no number, or tokens that are no text; the process was asked to stop.
    pub fn answers(
        &self,
        prompts: &[Vec<u32>],
        tokenizer: &Tokenizer,
        max_new: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<String>, ScoreError> {
        let stop = tokenizer.stop_ids();
        let generator = Generator { model: self.model, precision: self.precision, stop: &stop };
        let mut answers = Vec::with_capacity(prompts.len());
        let mut complete = 0;
        let mut listener = |_: usize, heard| {
            if let Heard::End(_) = heard {
                complete += 1;
                progress(complete);
            }
            true
        };
        for prompts in prompts.chunks(PROMPTS) {
            let found = generator.run(prompts, max_new, &Sampling::greedy(), &mut listener)?;
            for answer in found {
                answers.push(tokenizer.decode(&answer.tokens, true)?.trim().to_owned());
            }
        }
        Ok(answers)
    }
}
