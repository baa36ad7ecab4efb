//! The engine's laws: checkpointing changes nothing, micro-batches are one batch, packing is separate
//! rows, threads do not matter, an adapter of zeros is the base, and gradients are slopes.

use burn::backend::Autodiff;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::FloatTensorOps;
use burn::tensor::{Tensor, TensorPrimitive};
use graft::engine::loss::{NextToken, Targets};
use graft::engine::{Checkpointing, Gradient, Parameters};
use graft::evaluate::Scorer;
use graft_adapters::Trainable;
use graft_data::Batch;
use graft_kernels::{Precision, backward_from};
use graft_model::{Context, Layout, Llama, Taped};
use graft_tests::{
    Cpu, batch, frozen_model, full_model, lora_model, samples, tiny_config, tiny_lora, trainer,
};

type Tape = Autodiff<Cpu>;

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn gradient<P: Trainable<Cpu>>(
    model: Llama<Cpu, P>,
    checkpointing: Checkpointing,
    batches: &[Batch],
) -> (f64, Vec<f32>) {
    let trainer = trainer(model, checkpointing, Precision::F32);
    let targets = batches.iter().map(Batch::targets).sum();
    trainer.gradient(1, batches, targets).expect("finite")
}

/// All blocks on one tape, as a framework without checkpointing would run them.
fn full_tape<P: Trainable<Cpu>>(mut model: Llama<Cpu, P>, batch: &Batch) -> Vec<f32> {
    let parameters = Parameters::of(&mut model);
    let context = Context::evaluation(Precision::F32);
    let layout =
        Layout::of_documents(&model.config, &model.rope, &batch.positions, &batch.documents);
    let mut pass = Taped::new(context, &P::trains);
    let input = model.embedding.rows(&batch.tokens, &model.device);
    let input = <Tape as AutodiffBackend>::from_inner(input).require_grad();
    let output =
        model.blocks.iter().fold(input.clone(), |x, block| block.forward(x, &layout, &mut pass));
    let mut gradient = Gradient::new(&parameters);
    let head = NextToken { model: &model, precision: Precision::F32 };
    let scale = 1.0 / batch.targets() as f32;
    let hidden = output.primitive.clone();
    let (_, above) = head.loss_and_gradient(hidden, &Targets::of(batch), scale, &mut gradient);
    let gradients = backward_from::<Cpu>(output, above);
    pass.into_leaves().gradients(&gradients, |name, values| gradient.add(name, &values));
    gradient.into_values()
}

#[test]
fn checkpointed_gradients_are_those_of_the_full_tape_to_the_bit() {
    let config = tiny_config(false);
    let batch = batch(&samples(&[20, 9, 33], 101));
    for (nf4, dropout) in [(None, 0.0), (Some(true), 0.0), (Some(false), 0.3)] {
        let model = || lora_model(&config, &tiny_lora(&config, dropout), nf4);
        let (loss, replayed) =
            gradient(model(), Checkpointing::Block, std::slice::from_ref(&batch));
        let (kept_loss, kept) =
            gradient(model(), Checkpointing::None, std::slice::from_ref(&batch));
        assert_eq!(loss.to_bits(), kept_loss.to_bits());
        assert_eq!(bits(&replayed), bits(&kept), "nf4 {nf4:?}, dropout {dropout}");
        if dropout == 0.0 {
            assert_eq!(bits(&replayed), bits(&full_tape(model(), &batch)), "nf4 {nf4:?}");
        }
        assert!(replayed.iter().all(|value| *value != 0.0 || dropout > 0.0), "a gradient is lost");
    }
}

#[test]
fn every_gradient_is_the_slope_of_the_loss() {
    for tied in [false, true] {
        let config = tiny_config(tied);
        let batch = batch(&samples(&[12, 17], 101));
        let model = full_model(&config);
        let (_, gradient) =
            gradient(model.clone(), Checkpointing::Block, std::slice::from_ref(&batch));
        let mut trainer = trainer(model, Checkpointing::Block, Precision::F32);
        let slots = trainer.parameters.slots().to_vec();
        let start = trainer.parameters.values().to_vec();
        for slot in slots {
            // Along the gradient the slope is its norm; a step of 1e-3 / norm moves the loss by 1e-3.
            let direction = &gradient[slot.range.clone()];
            let norm = direction.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let mut loss_at = |sign: f64| {
                let mut values = start.clone();
                for (value, d) in values[slot.range.clone()].iter_mut().zip(direction) {
                    *value += (sign * 2e-3 / norm / norm * f64::from(*d)) as f32;
                }
                trainer.parameters.values_mut().copy_from_slice(&values);
                let parameters = trainer.parameters.clone();
                parameters.store(&mut trainer.model);
                trainer
                    .gradient(1, std::slice::from_ref(&batch), batch.targets())
                    .expect("finite")
                    .0
            };
            let slope = (loss_at(1.0) - loss_at(-1.0)) / 4e-3;
            // f32 losses near 4.6 carry 5e-7; curvature adds the rest.
            assert!((slope - 1.0).abs() < 0.05, "{} (tied {tied}): {slope}", slot.name);
        }
    }
}

#[test]
fn micro_batches_equal_one_batch() {
    let config = tiny_config(false);
    let rows = samples(&[20, 9, 33, 14], 101);
    let model = || lora_model(&config, &tiny_lora(&config, 0.0), Some(true));
    let one = gradient(model(), Checkpointing::Block, &[batch(&rows)]);
    let parts: Vec<Batch> = rows.chunks(1).map(batch).collect();
    let many = gradient(model(), Checkpointing::Block, &parts);
    assert!((one.0 - many.0).abs() < 1e-6, "{} and {}", one.0, many.0);
    let largest = one.1.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
    for (i, (a, b)) in one.1.iter().zip(&many.1).enumerate() {
        // The same terms are added in another order.
        assert!((a - b).abs() < 1e-5 * largest, "gradient {i}: {a} and {b}");
    }
}

#[test]
fn rows_together_score_as_rows_alone_to_the_bit() {
    let config = tiny_config(true);
    let rows = samples(&[20, 9, 33, 14], 101);
    let model = frozen_model(&config, Some(true));
    let scorer = Scorer { model: &model, precision: Precision::F32 };
    let together = scorer.score(&rows, &mut |_| ());
    for (row, expected) in rows.chunks(1).zip(together) {
        let alone = scorer.score(row, &mut |_| ())[0];
        assert_eq!(alone.nll.to_bits(), expected.nll.to_bits());
        assert_eq!(alone.targets, expected.targets);
    }
}

#[test]
fn padding_changes_nothing() {
    let config = tiny_config(true);
    let rows = samples(&[20, 9], 101);
    let references: Vec<_> = rows.iter().collect();
    let model = || lora_model(&config, &tiny_lora(&config, 0.0), None);
    let plain = gradient(model(), Checkpointing::Block, &[Batch::collate(&references, 1, 0)]);
    let padded = gradient(model(), Checkpointing::Block, &[Batch::collate(&references, 64, 0)]);
    assert_eq!(plain.0.to_bits(), padded.0.to_bits());
    let largest = plain.1.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
    for (a, b) in plain.1.iter().zip(&padded.1) {
        assert!((a - b).abs() < 1e-6 * largest, "{a} and {b}");
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let config = tiny_config(false);
    let rows = samples(&[70, 41, 90], 101);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let model = lora_model(&config, &tiny_lora(&config, 0.2), Some(true));
            let mut trainer = trainer(model, Checkpointing::Block, Precision::Bf16);
            for step in 1..=3 {
                trainer.step(step, &[batch(&rows)]).expect("finite");
            }
            bits(trainer.parameters.values())
        })
    };
    let one = run(1);
    for threads in [2, 3, 4] {
        assert_eq!(one, run(threads), "{threads} threads");
    }
}

#[test]
fn an_adapter_of_zeros_is_the_base_to_the_bit() {
    let config = tiny_config(false);
    let rows = samples(&[20, 9], 101);
    let mut adapted = lora_model(&config, &tiny_lora(&config, 0.5), Some(true));
    adapted.visit(&mut |param| {
        if param.name().ends_with("lora_B.weight") {
            param.set(&vec![0.0; param.len()], &Default::default());
        }
    });
    let base = frozen_model(&config, Some(true));
    let score = |scores: Vec<graft::evaluate::RowScore>| -> Vec<u64> {
        scores.iter().map(|score| score.nll.to_bits()).collect()
    };
    let precision = Precision::F32;
    let adapted = Scorer { model: &adapted, precision }.score(&rows, &mut |_| ());
    let base = Scorer { model: &base, precision }.score(&rows, &mut |_| ());
    assert_eq!(score(adapted), score(base));
}

#[test]
fn training_lowers_the_loss_and_leaves_the_base_alone() {
    let config = tiny_config(false);
    let rows = samples(&[20, 9, 33], 101);
    let model = lora_model(&config, &tiny_lora(&config, 0.1), Some(true));
    let frozen: Vec<Vec<u32>> = frozen_bits(&model);
    let mut trainer = trainer(model, Checkpointing::Block, Precision::F32);
    let first = trainer.step(1, &[batch(&rows)]).expect("finite").loss;
    let mut last = first;
    for step in 2..=20 {
        last = trainer.step(step, &[batch(&rows)]).expect("finite").loss;
    }
    assert!(last < first - 0.05, "from {first} to {last}");
    assert_eq!(frozen, frozen_bits(&trainer.model));
}

fn frozen_bits(model: &Llama<Cpu, graft_adapters::LoraLinear<Cpu>>) -> Vec<Vec<u32>> {
    let projections = model.blocks.iter().flat_map(graft_model::Block::projections);
    projections.map(|projection| bits(&projection.base().weight().to_f32())).collect()
}

#[test]
fn a_cache_gives_the_logits_of_the_whole_sequence() {
    use graft::generate::{Generator, Sampling};
    let config = tiny_config(false);
    let model = frozen_model(&config, Some(true));
    let prompts: Vec<Vec<u32>> =
        samples(&[5, 19, 1], 101).into_iter().map(|row| row.tokens).collect();
    let generator = Generator { model: &model, precision: Precision::F32, stop: &[] };
    let together = generator.run(&prompts, 24, &Sampling::greedy(), &mut |_, _| true);
    for (prompt, answer) in prompts.iter().zip(together) {
        assert_eq!(answer.len(), 24);
        let mut tokens = prompt.clone();
        for expected in answer {
            let document = 0..tokens.len();
            let positions: Vec<u32> = (0..tokens.len() as u32).collect();
            let layout = Layout::of_documents(&config, &model.rope, &positions, &[document]);
            let context = Context::evaluation(Precision::F32);
            let hidden = model.hidden(&tokens, &layout, context);
            let hidden = Tensor::<Cpu, 2>::from_primitive(TensorPrimitive::Float(hidden));
            let last = hidden.narrow(0, tokens.len() - 1, 1).into_primitive().tensor();
            let logits = model.logits(&last, Precision::F32);
            let logits = graft_model::param::host_values::<Cpu>(Cpu::float_neg(logits));
            let best = (0..logits.len()).min_by(|&a, &b| logits[a].total_cmp(&logits[b]));
            assert_eq!(best, Some(expected as usize));
            tokens.push(expected);
        }
    }
}
