//! The engine's gradients are slopes, and steps along them lower the loss; what must not change them is
//! in `laws.rs`.

use graft_adapters::Trainable;
use graft_data::Batch;
use graft_engine::Checkpointing;
use graft_kernels::Precision;
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::Llama;
use graft_tests::{Cpu, batch, full_model, lora_model, samples, tiny_config, tiny_lora, trainer};

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
        let start = trainer.values();
        for slot in slots {
            // Along the gradient the slope is its norm; a step of 1e-3 / norm moves the loss by 1e-3.
            let direction = &gradient[slot.range.clone()];
            let norm = direction.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let mut loss_at = |sign: f64| {
                let mut values = start.clone();
                for (value, d) in values[slot.range.clone()].iter_mut().zip(direction) {
                    *value += (sign * 2e-3 / norm / norm * f64::from(*d)) as f32;
                }
                trainer.set_values(&values);
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
fn training_lowers_the_loss_and_leaves_the_base_alone() {
    let config = tiny_config(false);
    let rows = samples(&[20, 9, 33], 101);
    let model = lora_model(&config, &tiny_lora(&config, 0.1), Some(AbsmaxFormat::Double));
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
