//! The ops a decoder calls: the same ones with a tape ([`Autodiff`]) and without.
//!
//! On a tape each op has its own backward from [`Kernels`]; a frozen weight is no parent, so it has no
//! gradient and no copy. Because both passes run the same kernels, a block that is replayed on a tape
//! gives the bits of the first pass.

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops as Step, OpsKind, binary, unary};
use burn::tensor::TensorMetadata;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::{FloatTensor, FloatTensorOps};
use burn_flex::Flex;

use crate::kernels::{AttentionSaved, Kernels, LoraSaved, LowRank};
use crate::layout::{AttentionShape, Direction, Rotation};
use crate::precision::Precision;

/// Whether anything reads the values of a result. A gradient may need none of them: then they are not
/// computed, and what stands in their place has the right shape only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// They are read.
    Read,
    /// They are read while sequences are continued token by token:
    /// [`Kernels::frozen_linear_decode`] may serve. On a tape the same as [`Output::Read`].
    Decoded,
    /// Only gradients flow through it.
    Unread,
}

/// Differentiable ops, on a backend with or without a tape.
pub trait Ops: Backend<FloatElem = f32> {
    /// The kernels underneath.
    type Inner: Kernels<Device = Self::Device>;

    /// `x·Wᵀ` with a frozen `[out, in]` weight.
    fn frozen_linear(
        x: FloatTensor<Self>,
        weight: &<Self::Inner as Kernels>::Frozen,
        precision: Precision,
        output: Output,
    ) -> FloatTensor<Self>;

    /// `x·Wᵀ + scale · (x·Aᵀ)·Bᵀ`.
    fn lora_linear(
        x: FloatTensor<Self>,
        weight: &<Self::Inner as Kernels>::Frozen,
        update: LowRank<Self>,
        precision: Precision,
        output: Output,
    ) -> FloatTensor<Self>;

    /// `x·Wᵀ` with a dense `[out, in]` weight.
    fn dense_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// RMSNorm over the last dimension.
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f32) -> FloatTensor<Self>;

    /// Rotary positions.
    fn rope(x: FloatTensor<Self>, rotation: &Arc<Rotation>) -> FloatTensor<Self>;

    /// Causal attention inside each span.
    fn causal_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        shape: &AttentionShape,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// `silu(gate) · up`.
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Without a tape the ops are the kernels.
macro_rules! ops_without_tape {
    ($backend:ty) => {
        impl Ops for $backend {
            type Inner = Self;

            fn frozen_linear(
                x: FloatTensor<Self>,
                weight: &<Self as Kernels>::Frozen,
                precision: Precision,
                output: Output,
            ) -> FloatTensor<Self> {
                if output == Output::Decoded {
                    return <Self as Kernels>::frozen_linear_decode(&x, weight, precision);
                }
                <Self as Kernels>::frozen_linear(&x, weight, precision)
            }

            fn lora_linear(
                x: FloatTensor<Self>,
                weight: &<Self as Kernels>::Frozen,
                update: LowRank<Self>,
                precision: Precision,
                output: Output,
            ) -> FloatTensor<Self> {
                if output == Output::Decoded {
                    let low = <Self as Kernels>::lora_low(&x, &update, precision);
                    let y = <Self as Kernels>::frozen_linear_decode(&x, weight, precision);
                    let high = <Self as Kernels>::dense_linear(&low, &update.b, precision);
                    return Self::float_add(y, high);
                }
                let [y, _low] = <Self as Kernels>::lora_linear(&x, weight, &update, precision);
                y
            }

            fn dense_linear(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                precision: Precision,
            ) -> FloatTensor<Self> {
                <Self as Kernels>::dense_linear(&x, &weight, precision)
            }

            fn rms_norm(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                eps: f32,
            ) -> FloatTensor<Self> {
                <Self as Kernels>::rms_norm(&x, &weight, eps)
            }

            fn rope(x: FloatTensor<Self>, rotation: &Arc<Rotation>) -> FloatTensor<Self> {
                <Self as Kernels>::rope(&x, rotation, Direction::Forward)
            }

            fn causal_attention(
                q: FloatTensor<Self>,
                k: FloatTensor<Self>,
                v: FloatTensor<Self>,
                shape: &AttentionShape,
                precision: Precision,
            ) -> FloatTensor<Self> {
                <Self as Kernels>::causal_attention(&q, &k, &v, shape, precision).0
            }

            fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
                <Self as Kernels>::swiglu(&gate, &up)
            }
        }
    };
}

ops_without_tape!(Flex);

impl<B: Kernels> Ops for Autodiff<B> {
    type Inner = B;

    fn frozen_linear(
        x: FloatTensor<Self>,
        weight: &B::Frozen,
        precision: Precision,
        output: Output,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct FrozenLinear;
        impl<B: Kernels> Backward<B, 1> for FrozenLinear {
            type State = (B::Frozen, Precision);
            fn backward(
                self,
                step: Step<Self::State, 1>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let (weight, precision) = step.state;
                unary::<B, _>(step.parents, step.node, grads, |dy| {
                    B::frozen_linear_dx(&dy, &weight, precision)
                });
            }
        }
        let y = match output {
            Output::Read | Output::Decoded => B::frozen_linear(&x.primitive, weight, precision),
            Output::Unread => unread::<B>(&x.primitive, weight),
        };
        match FrozenLinear.prepare::<NoCheckpointing>([x.node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((weight.clone(), precision), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn lora_linear(
        x: FloatTensor<Self>,
        weight: &B::Frozen,
        update: LowRank<Self>,
        precision: Precision,
        output: Output,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct LoraLinear;
        impl<B: Kernels> Backward<B, 3> for LoraLinear {
            type State = (LoraSaved<B>, Precision);
            fn backward(
                self,
                step: Step<Self::State, 3>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let (saved, precision) = step.state;
                let dy = grads.consume::<B>(&step.node);
                let [x, a, b] = step.parents;
                let (dx, [da, db]) = B::lora_linear_backward(&dy, &saved, x.is_some(), precision);
                for (parent, gradient) in [(x, dx), (a, Some(da)), (b, Some(db))] {
                    if let (Some(parent), Some(gradient)) = (parent, gradient) {
                        grads.register::<B>(parent.id, gradient);
                    }
                }
            }
        }
        let nodes = [x.node, update.a.node, update.b.node];
        let (a, b) = (update.a.primitive, update.b.primitive);
        let (x, update) = (x.primitive, LowRank { a, b, scale: update.scale });
        let [y, low] = match output {
            Output::Read | Output::Decoded => B::lora_linear(&x, weight, &update, precision),
            Output::Unread => [unread::<B>(&x, weight), B::lora_low(&x, &update, precision)],
        };
        match LoraLinear.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let saved = LoraSaved { x, low, weight: weight.clone(), update };
                prepared.finish((saved, precision), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn dense_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Linear;
        impl<B: Kernels> Backward<B, 2> for Linear {
            type State = (FloatTensor<B>, FloatTensor<B>, Precision);
            fn backward(
                self,
                step: Step<Self::State, 2>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let (x, weight, precision) = step.state;
                binary::<B, _, _>(
                    step.parents,
                    step.node,
                    grads,
                    |dy| B::dense_linear_dx(&dy, &weight, precision),
                    |dy| B::dense_linear_dw(&dy, &x, precision),
                );
            }
        }
        let y = B::dense_linear(&x.primitive, &weight.primitive, precision);
        let nodes = [x.node, weight.node];
        match Linear.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                prepared.finish((x.primitive, weight.primitive, precision), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct RmsNorm;
        impl<B: Kernels> Backward<B, 2> for RmsNorm {
            type State = (FloatTensor<B>, FloatTensor<B>, f32);
            fn backward(
                self,
                step: Step<Self::State, 2>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let (x, weight, eps) = step.state;
                binary::<B, _, _>(
                    step.parents,
                    step.node,
                    grads,
                    |dy| B::rms_norm_dx(&x, &weight, eps, &dy),
                    |dy| B::rms_norm_dw(&x, eps, &dy),
                );
            }
        }
        let y = B::rms_norm(&x.primitive, &weight.primitive, eps);
        let nodes = [x.node, weight.node];
        match RmsNorm.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((x.primitive, weight.primitive, eps), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn rope(x: FloatTensor<Self>, rotation: &Arc<Rotation>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Rope;
        impl<B: Kernels> Backward<B, 1> for Rope {
            type State = Arc<Rotation>;
            fn backward(
                self,
                step: Step<Self::State, 1>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let rotation = step.state;
                unary::<B, _>(step.parents, step.node, grads, |dy| {
                    B::rope(&dy, &rotation, Direction::Backward)
                });
            }
        }
        let y = B::rope(&x.primitive, rotation, Direction::Forward);
        match Rope.prepare::<NoCheckpointing>([x.node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(rotation.clone(), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn causal_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        shape: &AttentionShape,
        precision: Precision,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Attention;
        impl<B: Kernels> Backward<B, 3> for Attention {
            type State = (AttentionSaved<B>, AttentionShape, Precision);
            fn backward(
                self,
                step: Step<Self::State, 3>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let (saved, shape, precision) = step.state;
                let d_out = grads.consume::<B>(&step.node);
                let gradients = B::causal_attention_backward(&saved, &d_out, &shape, precision);
                for (parent, gradient) in step.parents.into_iter().zip(gradients) {
                    if let Some(parent) = parent {
                        grads.register::<B>(parent.id, gradient);
                    }
                }
            }
        }
        let (out, lse) =
            B::causal_attention(&q.primitive, &k.primitive, &v.primitive, shape, precision);
        let nodes = [q.node, k.node, v.node];
        match Attention.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let saved = AttentionSaved {
                    q: q.primitive,
                    k: k.primitive,
                    v: v.primitive,
                    out: out.clone(),
                    lse,
                };
                prepared.finish((saved, shape.clone(), precision), out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct SwiGlu;
        impl<B: Kernels> Backward<B, 2> for SwiGlu {
            type State = (FloatTensor<B>, FloatTensor<B>);
            fn backward(
                self,
                step: Step<Self::State, 2>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let (gate, up) = step.state;
                let dy = grads.consume::<B>(&step.node);
                let gradients = B::swiglu_backward(&gate, &up, &dy);
                for (parent, gradient) in step.parents.into_iter().zip(gradients) {
                    if let Some(parent) = parent {
                        grads.register::<B>(parent.id, gradient);
                    }
                }
            }
        }
        let y = B::swiglu(&gate.primitive, &up.primitive);
        let nodes = [gate.node, up.node];
        match SwiGlu.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((gate.primitive, up.primitive), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

/// Stands for `x·Wᵀ` where nothing reads it: one zero, seen as `[tokens, out]`.
fn unread<B: Kernels>(x: &FloatTensor<B>, weight: &B::Frozen) -> FloatTensor<B> {
    let [out, _] = B::frozen_shape(weight);
    let zero = B::float_zeros([1, 1].into(), &B::float_device(x), x.dtype().into());
    B::float_expand(zero, [x.shape()[0], out].into())
}

/// Runs the backward pass from `out` with `gradient` as its gradient.
///
/// burn's own `backward` seeds ones; a block in the middle of a model is seeded with what came from
/// above.
pub fn backward_from<B: Kernels>(
    out: FloatTensor<Autodiff<B>>,
    gradient: FloatTensor<B>,
) -> Gradients {
    #[derive(Debug)]
    struct Seed;
    impl<B: Kernels> Backward<B, 1> for Seed {
        type State = FloatTensor<B>;
        fn backward(
            self,
            step: Step<Self::State, 1>,
            grads: &mut Gradients,
            _checkpointer: &mut Checkpointer,
        ) {
            let gradient = step.state;
            unary::<B, _>(step.parents, step.node, grads, |_ones| gradient);
        }
    }
    let value = out.primitive.clone();
    let seeded =
        match Seed.prepare::<NoCheckpointing>([out.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(gradient, value),
            OpsKind::UnTracked(prepared) => prepared.finish(value),
        };
    drop(out);
    <Autodiff<B> as AutodiffBackend>::backward(seeded)
}
