//! The adapted projection on burn's tape, whose op has a fixed number of parents: three, or four where the
//! update has an input of its own.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops as Step, OpsKind};
use burn::tensor::ops::FloatTensor;

use crate::kernels::{Kernels, LoraGradients, LoraSaved};
use crate::precision::Precision;

type State<B> = (LoraSaved<B>, Precision);

/// Parents are the input, `A` and `B`.
pub(super) fn one_input<B: Kernels>(
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
            let found = gradients::<B>(&dy, &step.state, x.is_some());
            register::<B>(grads, [(x, found.x), (a, Some(found.a)), (b, Some(found.b))]);
        }
    }
    let nodes = parents.map(|parent| parent.node);
    match LoraLinear.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish((saved, precision), y),
        OpsKind::UnTracked(prepared) => prepared.finish(y),
    }
}

/// Parents are the input, `A`, `B` and the update's input.
pub(super) fn two_inputs<B: Kernels>(
    parents: [FloatTensor<Autodiff<B>>; 4],
    y: FloatTensor<B>,
    saved: LoraSaved<B>,
    precision: Precision,
) -> FloatTensor<Autodiff<B>> {
    #[derive(Debug)]
    struct LoraLinear;
    impl<B: Kernels> Backward<B, 4> for LoraLinear {
        type State = State<B>;
        fn backward(
            self,
            step: Step<State<B>, 4>,
            grads: &mut Gradients,
            _checkpointer: &mut Checkpointer,
        ) {
            let dy = grads.consume::<B>(&step.node);
            let [x, a, b, input] = step.parents.map(|parent| parent.map(|node| node.id));
            let found = gradients::<B>(&dy, &step.state, x.is_some() || input.is_some());
            let LoraGradients { x: dx, input: d_input, a: da, b: db } = found;
            register::<B>(grads, [(x, dx), (input, d_input), (a, Some(da)), (b, Some(db))]);
        }
    }
    let nodes = parents.map(|parent| parent.node);
    match LoraLinear.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish((saved, precision), y),
        OpsKind::UnTracked(prepared) => prepared.finish(y),
    }
}

fn gradients<B: Kernels>(
    dy: &FloatTensor<B>,
    (saved, precision): &State<B>,
    wants_dx: bool,
) -> LoraGradients<B> {
    B::lora_linear_backward(dy, saved, wants_dx, *precision)
}

fn register<B: Kernels>(
    grads: &mut Gradients,
    gradients: impl IntoIterator<Item = (Option<NodeId>, Option<FloatTensor<B>>)>,
) {
    for (parent, gradient) in gradients {
        if let (Some(parent), Some(gradient)) = (parent, gradient) {
            grads.register::<B>(parent, gradient);
        }
    }
}
