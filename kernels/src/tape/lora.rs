//! The adapted projection on burn's tape.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops as Step, OpsKind};
use burn::tensor::ops::FloatTensor;

use crate::kernels::{Kernels, LoraGradients, LoraSaved, LowRank};
use crate::precision::Precision;

type State<B> = (LoraSaved<B>, Precision);

/// The values of an update.
pub(super) fn without_tape<B: Kernels>(update: &LowRank<Autodiff<B>>) -> LowRank<B> {
    let LowRank { a, b, scale, dropout } = update;
    let [a, b] = [a, b].map(|matrix| matrix.primitive.clone());
    LowRank { a, b, scale: *scale, dropout: *dropout }
}

/// Parents are the input, `A` and `B`.
pub(super) fn on_tape<B: Kernels>(
    parents: [FloatTensor<Autodiff<B>>; 3],
    y: FloatTensor<B>,
    saved: LoraSaved<B>,
    precision: Precision,
) -> FloatTensor<Autodiff<B>> {
    #[derive(Debug)]
    struct LoraLinear;
    impl<B: Kernels> Backward<B, 3> for LoraLinear {
        type State = State<B>;
        fn backward(
            self,
            step: Step<State<B>, 3>,
            grads: &mut Gradients,
            _checkpointer: &mut Checkpointer,
        ) {
            let dy = grads.consume::<B>(&step.node);
            let [x, a, b] = step.parents.map(|parent| parent.map(|node| node.id));
            let (saved, precision) = step.state;
            let found = B::lora_linear_backward(&dy, &saved, x.is_some(), precision);
            let LoraGradients { x: dx, a: da, b: db } = found;
            for (parent, gradient) in [(x, dx), (a, Some(da)), (b, Some(db))] {
                if let (Some(parent), Some(gradient)) = (parent, gradient) {
                    grads.register::<B>(parent, gradient);
                }
            }
        }
    }
    let nodes = parents.map(|parent| parent.node);
    match LoraLinear.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish((saved, precision), y),
        OpsKind::UnTracked(prepared) => prepared.finish(y),
    }
}
