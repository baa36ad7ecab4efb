//! Parity with transformers, PEFT and PyTorch in f32: logits, losses, every adapter gradient and a run
//! of AdamW, on random tiny models that `fixtures/model/generate.py` saved with their answers.
//!
//! Whole tensors are compared. Every failing tensor is named with how far it moved.

#[path = "model_parity/fixture.rs"]
mod fixture;

use std::collections::BTreeSet;
use std::fs;

use burn::tensor::{Tensor, TensorPrimitive};
use fixture::{CASES, Fixture};
use graft::engine::{Checkpointing, Parameters};
use graft::evaluate::Scorer;
use graft::learning_rate::{Decay, LearningRate};
use graft::optimizer::{AdamW, AdamWConfig};
use graft::step::{StepOptions, Trainer};
use graft_adapters::LoraLinear;
use graft_data::Batch;
use graft_kernels::Precision;
use graft_model::param::host_values;
use graft_model::{Context, Layout, Llama};
use graft_tests::Cpu;
use graft_tests::parity::{Deviations, cases};

type Model = Llama<Cpu, LoraLinear<Cpu>>;

/// Both sides add the same f32 products, each in its own order: a few dozen roundings of 6e-8 through
/// the layers stay under this part of the largest logit, which any change of a formula exceeds.
const LOGITS: f64 = 2e-5;
/// A sum of a few dozen terms that carry the logits' error with either sign.
const LOSS: f64 = 1e-5;
/// The way back doubles the products of the way there, and entries of a tensor are compared with the
/// length of the whole: small ones are differences of large ones.
const GRADIENT: f64 = 1e-4;
/// Of the way that a tensor went in ten steps. AdamW divides by the gradient's own size, so an entry
/// whose gradient is near zero takes a step that its rounding decides; these are few in a tensor.
const PATH: f64 = 1e-4;

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

fn distance(found: &[f32], expected: &[f32]) -> f64 {
    norm(found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)))
}

fn length(values: &[f32]) -> f64 {
    norm(values.iter().map(|&value| f64::from(value)))
}

/// Logits of every position of rows that lie one after the other, `[tokens, vocab]`.
fn logits(model: &Model, batch: &Batch) -> Vec<f32> {
    let layout =
        Layout::of_documents(&model.config, &model.rope, &batch.positions, &batch.documents);
    let hidden = model.hidden(&batch.tokens, &layout, Context::evaluation(Precision::F32));
    let logits = model.logits(&hidden, Precision::F32);
    let logits = Tensor::<Cpu, 2>::from_primitive(TensorPrimitive::Float(logits));
    assert_eq!(logits.dims(), [batch.len(), model.config.vocab_size]);
    host_values::<Cpu>(logits.into_primitive().tensor())
}

/// AdamW at PyTorch's defaults, as the reference ran it.
fn trainer(mut model: Model) -> Trainer<Cpu, LoraLinear<Cpu>> {
    let parameters = Parameters::of(&mut model);
    let adamw = AdamWConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    let optimizer = AdamW::new(adamw, parameters.len());
    let options = StepOptions {
        seed: 1,
        precision: Precision::F32,
        checkpointing: Checkpointing::Block,
        micro_batches_per_visit: 1,
        max_grad_norm: Some(1.0),
        learning_rate: LearningRate { peak: 1e-3, warmup: 0, total: 10, decay: Decay::Constant },
    };
    Trainer { model, parameters, optimizer, options }
}

#[test]
fn every_fixture_is_compared_and_none_is_missing() {
    let entries = fs::read_dir(cases("model")).expect("the folder of the cases");
    let folders = entries.map(|entry| entry.expect("a folder that opened lists its entries"));
    let folders = folders.filter(|entry| entry.path().is_dir());
    let found: BTreeSet<String> =
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(found, CASES.map(str::to_owned).into());
}

#[test]
fn logits_are_those_of_transformers() {
    let mut deviations = Deviations::of("model");
    for case in CASES {
        let fixture = Fixture::open(case);
        let expected = fixture.tensors("expected.safetensors").floats("logits");
        let found = logits(&fixture.model(), &fixture.batch());
        assert_eq!(found.len(), expected.len(), "{case}: logits");
        let off = found.iter().zip(&expected).map(|(a, b)| f64::from((a - b).abs()));
        // Not `f64::max`, which would pass over what is no number.
        let off = off.fold(0.0, |max, value| if value <= max { max } else { value });
        let largest = expected.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
        deviations.note("logits", case, off / f64::from(largest), LOGITS);
    }
    deviations.finish(CASES.len());
}

#[test]
fn the_loss_of_every_row_is_that_of_transformers() {
    let mut deviations = Deviations::of("model");
    for case in CASES {
        let fixture = Fixture::open(case);
        let expected = fixture.tensors("expected.safetensors").floats("losses");
        let model = fixture.model();
        let scorer = Scorer { model: &model, precision: Precision::F32 };
        let scores = scorer.score(&fixture.rows(), &mut |_| ());
        assert_eq!(scores.len(), expected.len(), "{case}: rows");
        for (row, (score, expected)) in scores.iter().zip(expected).enumerate() {
            let expected = f64::from(expected);
            let moved = (score.nll - expected).abs() / expected;
            deviations.note("row losses", &format!("{case}: row {row}"), moved, LOSS);
        }
    }
    deviations.finish(2 * CASES.len());
}

#[test]
fn the_gradient_of_every_adapter_tensor_is_that_of_peft() {
    let mut deviations = Deviations::of("model");
    let mut tensors = 0;
    for case in CASES {
        let fixture = Fixture::open(case);
        let expected = fixture.tensors("expected.safetensors");
        let batch = fixture.batch();
        let trainer = trainer(fixture.model());
        let targets = batch.targets();
        let (loss, gradient) =
            trainer.gradient(1, &[batch], targets).expect("the reference's gradient is finite");
        let mean = expected.floats("losses").iter().sum::<f32>() / targets as f32;
        let moved = (loss - f64::from(mean)).abs() / f64::from(mean);
        deviations.note("mean loss", case, moved, LOSS);
        for slot in trainer.parameters.slots() {
            let expected = expected.shaped(&format!("gradient.{}", slot.name), &slot.shape);
            let moved = distance(&gradient[slot.range.clone()], &expected) / length(&expected);
            deviations.note("gradients", &format!("{case}: {}", slot.name), moved, GRADIENT);
        }
        // Seven projections with two matrices, all of them on both sides.
        let layers = trainer.model.config.layers;
        assert_eq!(expected.count("gradient."), 14 * layers, "{case}: gradients of the reference");
        tensors += 1 + 14 * layers;
    }
    deviations.finish(tensors);
}

#[test]
fn ten_steps_of_adamw_end_where_pytorch_ends() {
    let fixture = Fixture::open("llama3_1");
    let reference = fixture.tensors("run.safetensors");
    let [losses, norms] = ["losses", "grad_norms"].map(|name| reference.floats(name));
    let rows = reference.rows();
    assert_eq!((losses.len(), norms.len(), rows.len()), (10, 10, 40));
    let mut trainer = trainer(fixture.model());
    let start = trainer.parameters.values().to_vec();
    let mut deviations = Deviations::of("model");
    for ((step, rows), (loss, norm)) in (1..).zip(rows.chunks(4)).zip(losses.iter().zip(norms)) {
        let batches = rows.chunks(2).map(|rows| Batch::collate(&[&rows[0], &rows[1]], 1, 0));
        let outcome = trainer.step(step, &batches.collect::<Vec<_>>()).expect("finite");
        let moved = |found: f64, expected: f32| (found / f64::from(expected) - 1.0).abs();
        deviations.note("AdamW losses", &format!("step {step}"), moved(outcome.loss, *loss), LOSS);
        let moved = moved(outcome.grad_norm, norm);
        deviations.note("AdamW gradient norms", &format!("step {step}"), moved, GRADIENT);
    }
    for slot in trainer.parameters.slots() {
        let expected = reference.shaped(&format!("adapter.{}", slot.name), &slot.shape);
        let way = distance(&expected, &start[slot.range.clone()]);
        let off = distance(&trainer.parameters.values()[slot.range.clone()], &expected);
        deviations.note("AdamW adapter", &slot.name, off / way, PATH);
    }
    let tensors = 14 * trainer.model.config.layers;
    assert_eq!(reference.count("adapter."), tensors, "tensors of the reference's adapter");
    deviations.finish(20 + tensors);
}
