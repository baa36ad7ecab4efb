//! A cell of the matrix: one case, the form of its weights, a precision and an arrangement of its rows,
//! compared with the reference's answers.

use std::collections::BTreeMap;
use std::fmt;

use burn::tensor::{Tensor, TensorPrimitive};
use graft_data::{Batch, Sample};
use graft_engine::Checkpointing;
use graft_engine::score::Scorer;
use graft_kernels::Precision;
use graft_model::param::host_values;
use graft_model::{Context, Layout};
use graft_tests::parity::Deviations;
use graft_tests::{Cpu, trainer};

use crate::arrangement::Arrangement;
use crate::fixture::{Fixture, Model, Tensors, Weights, tensors_of_tables};

/// Both sides add the same products, ours in f32: a few dozen roundings of 6e-8 through the layers stay
/// under this part of the largest logit, which any change of a formula exceeds.
const LOGITS: f64 = 2e-5;
/// A sum of a few dozen terms that carry the logits' error with either sign.
pub(crate) const LOSS: f64 = 1e-5;
/// The way back doubles the products of the way there, and entries of a tensor are compared with the
/// length of the whole: small ones are differences of large ones.
pub(crate) const GRADIENT: f64 = 1e-4;
/// How far from f64 we may be, where PyTorch's own bf16 is 1 away. Both round the operands of products,
/// PyTorch the results and the residual stream too; half as much again is room for chance.
pub(crate) const BF16: f64 = 1.5;

/// Squared relative distances from f64 of several tensors, ours and PyTorch's, by what they share.
///
/// In bf16 both distances of one tensor are draws from about the same spread, and a tiny tensor, whose
/// errors come from a few activations, can draw 1.5 times the other's by chance. Sums over a whole case
/// and over all tensors of a kind do not, and a formula that is wrong in one of either stands out.
#[derive(Default)]
pub(crate) struct Pools(BTreeMap<String, [f64; 2]>);

impl Pools {
    fn add(&mut self, of: &str, ours: f64, pytorchs: f64) {
        let [ours_sum, pytorchs_sum] = self.0.entry(of.to_owned()).or_default();
        *ours_sum += ours * ours;
        *pytorchs_sum += pytorchs * pytorchs;
    }

    /// Notes ours as multiples of PyTorch's; returns how many notes these are.
    pub(crate) fn note(self, comparison: &str, deviations: &mut Deviations) -> usize {
        for (of, [ours, pytorchs]) in &self.0 {
            deviations.note(comparison, of, (ours / pytorchs).sqrt(), BF16);
        }
        self.0.len()
    }
}

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
    /// Notes logits, and in f32 the mean loss and the gradient of every adapter tensor; in bf16 the
    /// gradients go to `pools`. Returns how many notes were made.
    pub(crate) fn compare(&self, deviations: &mut Deviations, pools: &mut Pools) -> usize {
        let Self { fixture, weights, precision, arrangement } = *self;
        let case = fixture.case;
        let answers = fixture.tensors(weights.name());
        let trainer = trainer(fixture.model(weights), Checkpointing::Block, precision);
        let batches = arrangement.batches(&fixture.rows());
        let found = batches.iter().flat_map(|batch| logits(&trainer.model, batch, precision));
        self.note_logits(&found.collect::<Vec<f32>>(), &answers, deviations);
        let targets = batches.iter().map(Batch::targets).sum();
        let gradient = trainer.gradient(1, &batches, targets);
        let (loss, gradient) = gradient.expect("the reference's gradient is finite");
        let mean = answers.floats("losses").into_iter().map(f64::from).sum::<f64>();
        let mean = mean / targets as f64;
        for slot in trainer.parameters.slots() {
            let name = &slot.name;
            // `….q_proj.lora_A`
            let short = name.trim_end_matches(".weight");
            let kind = short.rmatch_indices('.').nth(1).map_or(short, |(dot, _)| &short[dot + 1..]);
            let expected = answers.shaped(&format!("gradient.{name}"), &slot.shape);
            let off = distance(&gradient[slot.range.clone()], &expected) / length(&expected);
            if precision == Precision::F32 {
                deviations.note(
                    &format!("gradients, {self}"),
                    &format!("{case}: {name}"),
                    off,
                    GRADIENT,
                );
            } else {
                let pytorchs = answers.number(&format!("bf16.gradient.{name}"));
                let of_block = name.starts_with("model.layers.");
                let kind = if of_block { kind } else { "tensor of embedding and head" };
                pools.add(&format!("every {kind}"), off, pytorchs);
                pools.add(case, off, pytorchs);
            }
        }
        // Seven projections with two matrices, and magnitudes in one case, all of them on both sides.
        let of_blocks = if case == "dora" { 21 } else { 14 } * trainer.model.config.layers;
        let tensors = of_blocks + tensors_of_tables(case);
        assert_eq!(answers.count("gradient."), tensors, "{case}: the reference's");
        assert_eq!(trainer.parameters.slots().len(), tensors, "{case}: ours");
        if precision == Precision::Bf16 {
            return 1;
        }
        let moved = (loss / mean - 1.0).abs();
        deviations.note(&format!("mean loss, {self}"), case, moved, LOSS);
        2 + tensors
    }

    fn note_logits(&self, found: &[f32], answers: &Tensors, deviations: &mut Deviations) {
        let (case, expected) = (self.fixture.case, answers.floats("logits"));
        assert_eq!(found.len(), expected.len(), "{case}: logits");
        let (off, tolerance) = match self.precision {
            Precision::F32 => {
                let largest = expected.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
                (farthest(found, &expected) / f64::from(largest), LOGITS)
            }
            Precision::Bf16 => {
                let off = distance(found, &expected) / length(&expected);
                (off / answers.number("bf16.logits"), BF16)
            }
        };
        deviations.note(&format!("logits, {self}"), case, off, tolerance);
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
    let scores = Scorer { model, precision }.score(rows, &mut |_| ()).expect("losses are numbers");
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
