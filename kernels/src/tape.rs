//! The ops a decoder calls: the same ones with a tape ([`Autodiff`]) and without.
//!
//! On a tape each op has its own backward from [`Kernels`]; a frozen weight is no parent, so it has no
//! gradient and no copy. Because both passes run the same kernels, a block that is replayed on a tape
//! gives the bits of the first pass.

mod lora;
mod without;

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops as Step, OpsKind, binary, unary};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{FloatDType, Scalar, TensorMetadata};

use crate::kernels::{AttentionSaved, Kernels, LoraSaved, LowRank};
use crate::layout::{AttentionShape, Direction, Rotation};
use crate::precision::{Precision, Rounding};

/// Where the values of a product come from. A gradient may need none of them.
#[derive(Clone, Debug)]
pub enum Values<B: Kernels> {
    /// They are computed.
    Computed,
    /// They are computed while sequences are continued token by token:
    /// [`Kernels::frozen_linear_decode`] may serve. On a tape the same as [`Values::Computed`].
    Decoded,
    /// They are known from before.
    Known(FloatTensor<B>),
    /// Nobody reads them, only gradients flow through: what stands in their place has the right shape and
    /// is no number.
    Unread,
}

/// What a product is to give.
#[derive(Clone, Debug)]
pub struct Output<B: Kernels> {
    /// Where its values come from.
    pub values: Values<B>,
    /// What becomes of its sums.
    pub rounding: Rounding,
}

impl<B: Kernels> Output<B> {
    /// Values that are computed.
    pub fn computed(rounding: Rounding) -> Self {
        Self { values: Values::Computed, rounding }
    }

    /// The values of the product of `x` and a weight of `out` rows on a tape; `run` computes them.
    fn on_tape(
        self,
        x: &FloatTensor<B>,
        out: usize,
        run: impl FnOnce(Rounding) -> FloatTensor<B>,
    ) -> FloatTensor<B> {
        match self.values {
            Values::Computed | Values::Decoded => run(self.rounding),
            Values::Known(y) => y,
            Values::Unread => unread::<B>(x, out),
        }
    }
}

/// What attention gives: its output and the log-sum-exp of every row.
pub type Attended<B> = [FloatTensor<B>; 2];

/// Differentiable ops, on a backend with or without a tape.
pub trait Ops: Backend<FloatElem = f32> {
    /// The kernels underneath.
    type Inner: Kernels<Device = Self::Device>;

    /// `x·Wᵀ` with a frozen `[out, in]` weight.
    fn frozen_linear(
        x: FloatTensor<Self>,
        weight: &<Self::Inner as Kernels>::Frozen,
        precision: Precision,
        output: Output<Self::Inner>,
    ) -> FloatTensor<Self>;

    /// `low = scale · x·Aᵀ`, which has no gradient of its own: that of [`Ops::lora_linear`] goes past it.
    fn lora_low(
        x: &FloatTensor<Self>,
        update: &LowRank<Self>,
        precision: Precision,
    ) -> FloatTensor<Self::Inner>;

    /// `x·Wᵀ + scale · (x·Aᵀ)·Bᵀ`, with the `low` of the same input and update.
    fn lora_linear(
        x: FloatTensor<Self>,
        weight: &<Self::Inner as Kernels>::Frozen,
        update: LowRank<Self>,
        low: FloatTensor<Self::Inner>,
        precision: Precision,
        output: Output<Self::Inner>,
    ) -> FloatTensor<Self>;

    /// `x·Wᵀ` with a dense `[out, in]` weight.
    fn dense_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
        output: Output<Self::Inner>,
    ) -> FloatTensor<Self>;

    /// RMSNorm over the last dimension.
    fn rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
        operands: Precision,
    ) -> FloatTensor<Self>;

    /// Rotary positions.
    fn rope(
        x: FloatTensor<Self>,
        rotation: &Arc<Rotation>,
        operands: Precision,
    ) -> FloatTensor<Self>;

    /// Causal attention inside each span; its results may be known from before.
    fn causal_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        shape: &AttentionShape,
        precision: Precision,
        known: Option<Attended<Self::Inner>>,
    ) -> (FloatTensor<Self>, Attended<Self::Inner>);

    /// Every column of `[rows, cols]` times its factor of `[cols]`, in the type of `x`. The gradient reads the result, or
    /// what is given in its place.
    fn scale_columns(
        x: FloatTensor<Self>,
        factors: FloatTensor<Self>,
        in_place: Option<FloatTensor<Self::Inner>>,
    ) -> FloatTensor<Self>;

    /// The result of [`Ops::scale_columns`] as an operand of products of such precision, to be given in its place.
    fn scaled_columns(
        x: &FloatTensor<Self>,
        factors: &FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self::Inner>;

    /// `silu(gate) · up`.
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl<B: Kernels> Ops for Autodiff<B> {
    type Inner = B;

    fn frozen_linear(
        x: FloatTensor<Self>,
        weight: &B::Frozen,
        precision: Precision,
        output: Output<B>,
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
        let y = output.on_tape(&x.primitive, B::frozen_shape(weight)[0], |rounding| {
            B::frozen_linear(&x.primitive, weight, precision, rounding)
        });
        match FrozenLinear.prepare::<NoCheckpointing>([x.node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((weight.clone(), precision), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn lora_low(
        x: &FloatTensor<Self>,
        update: &LowRank<Self>,
        precision: Precision,
    ) -> FloatTensor<B> {
        B::lora_low(&x.primitive, &lora::without_tape(update), precision)
    }

    fn lora_linear(
        x: FloatTensor<Self>,
        weight: &B::Frozen,
        update: LowRank<Self>,
        low: FloatTensor<B>,
        precision: Precision,
        output: Output<B>,
    ) -> FloatTensor<Self> {
        let inner = lora::without_tape(&update);
        let y = output.on_tape(&x.primitive, B::frozen_shape(weight)[0], |rounding| {
            B::lora_linear(&x.primitive, weight, &inner, &low, precision, rounding)
        });
        let saved =
            LoraSaved { x: x.primitive.clone(), low, weight: weight.clone(), update: inner };
        lora::on_tape::<B>([x, update.a, update.b], y, saved, precision)
    }

    fn dense_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
        output: Output<B>,
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
        let y = output.on_tape(&x.primitive, weight.primitive.shape()[0], |rounding| {
            B::dense_linear(&x.primitive, &weight.primitive, precision, rounding)
        });
        let nodes = [x.node, weight.node];
        match Linear.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                prepared.finish((x.primitive, weight.primitive, precision), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
        operands: Precision,
    ) -> FloatTensor<Self> {
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
        let y = B::rms_norm(&x.primitive, &weight.primitive, eps, operands);
        let nodes = [x.node, weight.node];
        match RmsNorm.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((x.primitive, weight.primitive, eps), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn rope(
        x: FloatTensor<Self>,
        rotation: &Arc<Rotation>,
        operands: Precision,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Rope;
        impl<B: Kernels> Backward<B, 1> for Rope {
            type State = (Arc<Rotation>, Precision);
            fn backward(
                self,
                step: Step<Self::State, 1>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let (rotation, operands) = step.state;
                unary::<B, _>(step.parents, step.node, grads, |dy| {
                    B::rope(&dy, &rotation, Direction::Backward, operands)
                });
            }
        }
        let y = B::rope(&x.primitive, rotation, Direction::Forward, operands);
        match Rope.prepare::<NoCheckpointing>([x.node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((rotation.clone(), operands), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn causal_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        shape: &AttentionShape,
        precision: Precision,
        known: Option<Attended<B>>,
    ) -> (FloatTensor<Self>, Attended<B>) {
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
        let attended = known.unwrap_or_else(|| {
            B::causal_attention(&q.primitive, &k.primitive, &v.primitive, shape, precision).into()
        });
        let [out, lse] = attended.clone();
        let nodes = [q.node, k.node, v.node];
        let out = match Attention.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
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
        };
        (out, attended)
    }

    fn scaled_columns(
        x: &FloatTensor<Self>,
        factors: &FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<B> {
        B::operand(B::scale_columns(&x.primitive, &factors.primitive), precision)
    }

    fn scale_columns(
        x: FloatTensor<Self>,
        factors: FloatTensor<Self>,
        in_place: Option<FloatTensor<B>>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct ScaleColumns;
        impl<B: Kernels> Backward<B, 2> for ScaleColumns {
            type State = [FloatTensor<B>; 2];
            fn backward(
                self,
                step: Step<Self::State, 2>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let [y, factors] = step.state;
                let dy = grads.consume::<B>(&step.node);
                let gradients = B::scale_columns_backward(&y, &factors, &dy);
                for (parent, gradient) in step.parents.into_iter().zip(gradients) {
                    if let Some(parent) = parent {
                        grads.register::<B>(parent.id, gradient);
                    }
                }
            }
        }
        let y = B::scale_columns(&x.primitive, &factors.primitive);
        let nodes = [x.node, factors.node];
        match ScaleColumns.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let read = in_place.unwrap_or_else(|| y.clone());
                prepared.finish([read, factors.primitive], y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(y),
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

/// Stands for a product where nothing reads it: one NaN, seen as `[tokens, out]`, so that whoever reads it
/// all the same gives no gradient that passes for one.
fn unread<B: Kernels>(x: &FloatTensor<B>, out: usize) -> FloatTensor<B> {
    let nothing = Scalar::Float(f64::NAN);
    let nothing = B::float_full([1, 1].into(), nothing, &B::float_device(x), FloatDType::F32);
    B::float_expand(nothing, [x.shape()[0], out].into())
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
