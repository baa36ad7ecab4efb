//! Another loss is another head: the walk, the step and the metrics take it as they are.

use burn::tensor::ops::FloatTensor;
use graft_data::Batch;
use graft_engine::Checkpointing;
use graft_engine::loss::{LossHead, Mean, Measures, Predictions, Targets, Turn};
use graft_engine::sink::OfExample;
use graft_kernels::Precision;
use graft_model::{Llama, Projection};
use graft_tests::{Cpu, lora_model, samples, tiny_config, tiny_lora, trainer};

use super::collate;

/// The sum over documents of their tokens' losses, each document with a weight by its place.
struct Weighted([f32; 3]);

impl<P: Projection<Cpu>> LossHead<Cpu, P> for Weighted {
    fn terms(&self, batch: &Batch) -> usize {
        batch.documents.len()
    }

    fn turn(
        &self,
        model: &Llama<Cpu, P>,
        turn: Turn<'_, Cpu>,
        scale: f32,
        gradient: &mut OfExample<'_, Cpu>,
    ) -> (Measures, FloatTensor<Cpu>) {
        let targets = Targets::of(turn.batch);
        let document =
            |row: &usize| turn.batch.documents.partition_point(|document| document.end <= *row);
        let weights: Vec<f32> = targets.rows.iter().map(|row| self.0[document(row)]).collect();
        let predictions = Predictions { model, precision: turn.context.precision };
        let factors: Vec<f32> = weights.iter().map(|weight| weight * scale).collect();
        let (losses, d_hidden) =
            predictions.losses_and_gradient(turn.hidden, &targets, &factors, gradient);
        let sum = |of: &dyn Fn(f64, f64) -> f64| {
            weights.iter().zip(&losses).map(|(&w, &l)| of(f64::from(w), f64::from(l))).sum()
        };
        let further = [("unweighted", Mean { sum: sum(&|_, l| l), count: losses.len() })];
        (Measures { loss: sum(&|w, l| w * l), further: further.into() }, d_hidden)
    }
}

#[test]
fn a_head_of_its_own_weighs_documents_and_tells_of_them_by_name() {
    let weights = [2.0, 0.0, -0.5];
    let rows = samples(&[12, 17, 9], 101);
    let config = tiny_config(false);
    let of_model = |checkpointing| {
        trainer(lora_model(&config, &tiny_lora(&config, 0.0), None), checkpointing, Precision::F32)
    };
    let (mut loss, mut plain, mut targets) = (0.0, 0.0, 0);
    let mut gradient = Vec::new();
    for (row, weight) in rows.iter().zip(weights) {
        let batch = collate(std::slice::from_ref(row));
        let (own, slope) =
            of_model(Checkpointing::None).gradient(1, std::slice::from_ref(&batch), 1).unwrap();
        loss += f64::from(weight) * own;
        plain += own;
        targets += batch.targets();
        gradient.resize(slope.len(), 0.0);
        gradient.iter_mut().zip(slope).for_each(|(sum, value)| *sum += weight * value);
    }
    for checkpointing in [Checkpointing::Block, Checkpointing::Selective, Checkpointing::None] {
        let mut trainer = of_model(checkpointing);
        trainer.head = Box::new(Weighted(weights));
        let batch = collate(&rows);
        let (_, found) = trainer.gradient(1, std::slice::from_ref(&batch), 1).unwrap();
        for slot in trainer.parameters.slots() {
            let norm = |values: &mut dyn Iterator<Item = f32>| {
                values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
            };
            let [found, expected] = [&found, &gradient].map(|all| &all[slot.range.clone()]);
            let apart = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
            let length = norm(&mut expected.iter().copied());
            // Sums of f32 in another order.
            assert!(apart < 1e-5 * length, "{}: {apart} of {length}", slot.name);
        }
        let outcome = trainer.step(1, &[batch.clone(), batch]).unwrap();
        assert!((outcome.loss - loss / 3.0).abs() < 1e-5, "{} and {loss}", outcome.loss);
        let mean = outcome.further["unweighted"];
        assert!((mean - plain / targets as f64).abs() < 1e-5, "{mean} and {plain}");
        assert_eq!(outcome.targets, 2 * targets);
    }
}
