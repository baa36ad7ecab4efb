//! Replaying blocks gives the gradients of a tape over the whole model.

use burn::backend::Autodiff;
use burn::tensor::backend::AutodiffBackend;
use graft_adapters::Trainable;
use graft_data::Batch;
use graft_engine::loss::{LossHead, NextToken, Turn};
use graft_engine::sink::{OfExample, Sink};
use graft_engine::{Checkpointing, DropoutNoise, Gradient, Parameters};
use graft_kernels::adamw::GradientSums;
use graft_kernels::{Precision, backward_from};
use graft_model::{Context, Layout, Llama, Taped};
use graft_tests::Cpu;
use proptest::prelude::*;

use super::drawn::{config, drawn};
use super::{bits, collate, slope};

/// The seed of `graft_tests::trainer`.
const SEED: u64 = 7;

/// All blocks on one tape, as a framework without checkpointing would run them.
pub(crate) fn full_tape<P: Trainable<Cpu>>(
    mut model: Llama<Cpu, P>,
    precision: Precision,
    batch: &Batch,
) -> Vec<f32> {
    let parameters = Parameters::of(&mut model);
    let noise = DropoutNoise { seed: SEED, step: 1, micro_batch: 0 };
    let context = Context { precision, noise: Some(&noise) };
    let layout =
        Layout::of_documents(&model.config, &model.rope, &batch.positions, &batch.documents);
    let mut pass = Taped::new(context, &P::trains);
    let input = model.embedding.rows(&batch.tokens, &model.device);
    let input = <Autodiff<Cpu> as AutodiffBackend>::from_inner(input).require_grad();
    let output =
        model.blocks.iter().fold(input.clone(), |x, block| block.forward(x, &layout, &mut pass));
    let mut gradient = Gradient::new(&parameters, &model.device);
    let scale = 1.0 / batch.targets().max(1) as f32;
    let turn = Turn { batch, context, hidden: output.primitive.clone() };
    let (_, above) =
        NextToken.turn(&model, turn, scale, &mut OfExample { example: 0, sink: &mut gradient });
    let gradients = backward_from::<Cpu>(output, above);
    pass.into_leaves().gradients(&gradients, |name, values| gradient.add(0, name, values));
    let entered = <Autodiff<Cpu> as AutodiffBackend>::grad(&input, &gradients);
    let of_rows = model.embedding.rows_gradients(&batch.tokens, entered.expect("it was asked for"));
    OfExample { example: 0, sink: &mut gradient }.add_table(of_rows);
    gradient.into_sums().values()
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn checkpointed_gradients_are_those_of_the_full_tape_to_the_bit(drawn in drawn(1..4)) {
        let batch = collate(&drawn.rows());
        let replayed = slope(&drawn, Checkpointing::Block, std::slice::from_ref(&batch));
        let kept = slope(&drawn, Checkpointing::None, std::slice::from_ref(&batch));
        prop_assert_eq!(replayed.bits(), kept.bits());
        let recalled = slope(&drawn, Checkpointing::Selective, std::slice::from_ref(&batch));
        prop_assert_eq!(replayed.bits(), recalled.bits());
        let taped = full_tape(drawn.adapted(0.5), drawn.precision, &batch);
        prop_assert_eq!(bits(&replayed.gradient), bits(&taped));
    }
}
