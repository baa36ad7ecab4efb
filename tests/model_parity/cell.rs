//! A cell of the matrix: one case, the form of its weights, a precision and an arrangement of its rows,
//! compared with the reference's answers.

use std::fmt;

use burn::tensor::{Tensor, TensorPrimitive};
use graft::engine::Checkpointing;
use graft::evaluate::Scorer;
use graft_data::{Batch, Sample};
use graft_kernels::Precision;
use graft_model::param::host_values;
use graft_model::{Context, Layout};
use graft_tests::parity::Deviations;
use graft_tests::{Cpu, trainer};

use crate::arrangement::Arrangement;
use crate::fixture::{Fixture, Model, Tensors, Weights};

/// Both sides add the same products, ours in f32: a few dozen roundings of 6e-8 through the layers stay
/// under this part of the largest logit, which any change of a formula exceeds.
const LOGITS: f64 = 2e-5;
/// A sum of a few dozen terms that carry the logits' error with either sign.
pub(crate) const LOSS: f64 = 1e-5;
/// The way back doubles the products of the way there, and entries of a tensor are compared with the
/// length of the whole: small ones are differences of large ones.
pub(crate) const GRADIENT: f64 = 1e-4;
/// How far from f64 we may be, where PyTorch's own bf16 is 1 away. Both round the operands of products,
/// PyTorch the results and the residual stream too.
pub(crate) const BF16: f64 = 1.5;

/// What is compared.
pub(crate) struct Cell<'a> {
    pub(crate) fixture: &'a Fixture,
    pub(crate) weights: Weights,
    pub(crate) precision: Precision,
    pub(crate) arrangement: Arrangement,
}

/// The row of the table that a cell belongs to.
impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (weights, precision) = (self.weights.name(), self.precision.name());
        write!(f, "{weights} in {precision}, {}", self.arrangement.name())
    }
}

impl Cell<'_> {
    /// Notes logits, mean loss and the gradient of every adapter tensor; returns how many notes these
    /// are.
    pub(crate) fn compare(&self, deviations: &mut Deviations) -> usize {
        let fixture = self.fixture;
        let answers = fixture.tensors(self.weights.name());
        let rows = fixture.rows();
        let trainer = trainer(fixture.model(self.weights), Checkpointing::Block, self.precision);
        let batches = self.arrangement.batches(&rows);
        let found: Vec<f32> = batches
            .iter()
            .flat_map(|batch| logits(&trainer.model, batch, self.precision))
            .collect();
        self.note_logits(&found, &answers, deviations);
        let targets = batches.iter().map(Batch::targets).sum();
        let gradient = trainer.gradient(1, &batches, targets);
        let (loss, gradient) = gradient.expect("the reference's gradient is finite");
        let losses = answers.floats("losses").into_iter().map(f64::from);
        let mean = losses.sum::<f64>() / targets as f64;
        let mut notes = 1;
        if self.precision == Precision::F32 {
            let moved = (loss - mean).abs() / mean;
            deviations.note(&format!("mean loss, {self}"), self.fixture.case, moved, LOSS);
            notes += 1;
        }
        for slot in trainer.parameters.slots() {
            let name = format!("gradient.{}", slot.name);
            let expected = answers.shaped(&name, &slot.shape);
            let found = &gradient[slot.range.clone()];
            let off = distance(found, &expected) / length(&expected);
            let (off, tolerance) = self.scaled(off, &name, &answers, GRADIENT);
            let what = format!("{}: {}", self.fixture.case, slot.name);
            deviations.note(&format!("gradients, {self}"), &what, off, tolerance);
            notes += 1;
        }
        // Seven projections with two matrices, all of them on both sides.
        let tensors = 14 * trainer.model.config.layers;
        assert_eq!(answers.count("gradient."), tensors, "{}: the reference's", self.fixture.case);
        assert_eq!(trainer.parameters.slots().len(), tensors, "{}: ours", self.fixture.case);
        notes
    }

    fn note_logits(&self, found: &[f32], answers: &Tensors, deviations: &mut Deviations) {
        let expected = answers.floats("logits");
        assert_eq!(found.len(), expected.len(), "{}: logits", self.fixture.case);
        let (off, tolerance) = match self.precision {
            Precision::F32 => {
                let largest = expected.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
                (farthest(found, &expected) / f64::from(largest), LOGITS)
            }
            Precision::Bf16 => {
                let off = distance(found, &expected) / length(&expected);
                self.scaled(off, "logits", answers, LOGITS)
            }
        };
        deviations.note(&format!("logits, {self}"), self.fixture.case, off, tolerance);
    }

    /// A relative distance with its tolerance: in bf16 as a multiple of PyTorch's.
    fn scaled(&self, off: f64, name: &str, answers: &Tensors, tolerance: f64) -> (f64, f64) {
        match self.precision {
            Precision::F32 => (off, tolerance),
            Precision::Bf16 => (off / answers.number(&format!("bf16.{name}")), BF16),
        }
    }
}

/// Logits of every position of a batch's documents, `[tokens, vocab]`.
fn logits(model: &Model, batch: &Batch, precision: Precision) -> Vec<f32> {
    let layout =
        Layout::of_documents(&model.config, &model.rope, &batch.positions, &batch.documents);
    let hidden = model.hidden(&batch.tokens, &layout, Context::evaluation(precision));
    let logits = model.logits(&hidden, precision);
    let logits = Tensor::<Cpu, 2>::from_primitive(TensorPrimitive::Float(logits));
    let vocab = model.config.vocab_size;
    assert_eq!(logits.dims(), [batch.len(), vocab]);
    let values = host_values::<Cpu>(logits.into_primitive().tensor());
    let documents = batch.documents.iter();
    documents.flat_map(|range| &values[range.start * vocab..range.end * vocab]).copied().collect()
}

/// Each row's summed loss, as evaluation computes it.
pub(crate) fn row_losses(model: &Model, rows: &[Sample], precision: Precision) -> Vec<f32> {
    let scores = Scorer { model, precision }.score(rows, &mut |_| ());
    scores.iter().map(|score| score.nll as f32).collect()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// `|found - expected|`.
pub(crate) fn distance(found: &[f32], expected: &[f32]) -> f64 {
    norm(found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)))
}

/// `|values|`.
pub(crate) fn length(values: &[f32]) -> f64 {
    norm(values.iter().map(|&value| f64::from(value)))
}

/// The largest difference. Not by `f64::max`, which would pass over what is no number.
fn farthest(found: &[f32], expected: &[f32]) -> f64 {
    let off = found.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs()));
    off.fold(0.0, |max, value| if value <= max { max } else { value })
}
