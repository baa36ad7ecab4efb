//! The one trait that an implementation of the kernels provides, on a backend without a tape.
//!
//! Tensors are f32; those that are only ever operands of bf16 products are bf16. `tokens` is the flat run of a micro-batch's tokens; weights are `[out, in]`.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, FloatDType, Slice, TensorMetadata};

use crate::adamw::{AdamWState, GradientSums};
use crate::dropout::Dropout;
use crate::frozen::FrozenMatrix;
use crate::layout::{AttentionShape, Direction, Rotation};
use crate::precision::{Precision, Rounding};

/// Where the frozen weights of a model's blocks live. A backend that reads them where the host has them
/// knows one home only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// On the device, as long as the model lives.
    #[default]
    Device,
    /// On the host, from where a device without room for all of them copies them block by block.
    Host,
}

impl Home {
    /// Whether weights that live here are read where the host has them.
    pub fn is_on_host<B: Kernels>(self) -> bool {
        B::READS_HOST || self == Self::Host
    }
}

/// Fused ops and their gradients.
pub trait Kernels: Backend<FloatElem = f32> {
    /// A frozen weight where the kernels can read it.
    type Frozen: Clone + Debug + Send + Sync + 'static;

    /// Sums of gradients where they are computed.
    type GradientSums: GradientSums<Device = Self::Device, Tensor = FloatTensor<Self>> + Debug;

    /// What AdamW remembers, in the same place.
    type AdamWState: AdamWState<Device = Self::Device, Tensor = FloatTensor<Self>, Sums = Self::GradientSums>
        + Debug;

    /// Whether frozen weights are read where the host has them, so that their pages are wanted.
    const READS_HOST: bool = true;

    /// Bytes taken of the device's memory, what is kept for later included; `None` where that is the host's, or nobody counts.
    fn device_memory(_device: &Self::Device) -> Option<u64> {
        None
    }

    /// Takes a host matrix to the device; on the CPU this copies nothing.
    fn freeze(matrix: FrozenMatrix, device: &Self::Device) -> Self::Frozen;

    /// Takes the weight of a block's projection to its home.
    fn freeze_at(home: Home, matrix: FrozenMatrix, device: &Self::Device) -> Self::Frozen {
        let _ = home;
        Self::freeze(matrix, device)
    }

    /// A block of weights `now` runs next, and after it one of weights `next`, if one is known. Where they
    /// wait on the host, both are copied to the device, the latter while the former runs, and copies of
    /// others are given up for it.
    fn visit(now: &[&Self::Frozen], next: &[&Self::Frozen]) {
        let _ = (now, next);
    }

    /// `[out, in]` of a frozen weight.
    fn frozen_shape(weight: &Self::Frozen) -> [usize; 2];

    /// Some rows of a frozen weight, in the same memory; `None` where it cannot be cut there.
    fn frozen_band(weight: &Self::Frozen, rows: Range<usize>) -> Option<Self::Frozen>;

    /// Rows `ids` of a frozen table: `[ids, in]`.
    fn frozen_rows(weight: &Self::Frozen, ids: &[u32], device: &Self::Device) -> FloatTensor<Self>;

    /// `x·Wᵀ`: `[tokens, in]` → `[tokens, out]`.
    fn frozen_linear(
        x: &FloatTensor<Self>,
        weight: &Self::Frozen,
        precision: Precision,
        rounding: Rounding,
    ) -> FloatTensor<Self>;

    /// `x·Wᵀ` for the next token of a few sequences, where reading the weight is the work: exact, but the
    /// sums may run in another order than those of [`Kernels::frozen_linear`].
    fn frozen_linear_decode(
        x: &FloatTensor<Self>,
        weight: &Self::Frozen,
        precision: Precision,
    ) -> FloatTensor<Self> {
        Self::frozen_linear(x, weight, precision, Rounding::Exact)
    }

    /// `dy·W`: `[tokens, out]` → `[tokens, in]`.
    fn frozen_linear_dx(
        dy: &FloatTensor<Self>,
        weight: &Self::Frozen,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// The narrow product of an update, `low = scale · drop(x)·Aᵀ`: `[tokens, rank]`.
    fn lora_low(
        x: &FloatTensor<Self>,
        update: &LowRank<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// `x·Wᵀ + low·Bᵀ`: `[tokens, out]`.
    fn lora_linear(
        x: &FloatTensor<Self>,
        weight: &Self::Frozen,
        update: &LowRank<Self>,
        low: &FloatTensor<Self>,
        precision: Precision,
        rounding: Rounding,
    ) -> FloatTensor<Self>;

    /// Gradients of [`Kernels::lora_linear`]; that of the input where `wants_dx`, which has no part in the
    /// others'.
    fn lora_linear_backward(
        dy: &FloatTensor<Self>,
        saved: &LoraSaved<Self>,
        wants_dx: bool,
        precision: Precision,
    ) -> LoraGradients<Self>;

    /// `x·Wᵀ` with a dense `weight` `[out, in]`.
    fn dense_linear(
        x: &FloatTensor<Self>,
        weight: &FloatTensor<Self>,
        precision: Precision,
        rounding: Rounding,
    ) -> FloatTensor<Self>;

    /// `dy·W` with a dense `weight`.
    fn dense_linear_dx(
        dy: &FloatTensor<Self>,
        weight: &FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// `dyᵀ·x`: the gradient `[out, in]` of a dense weight.
    fn dense_linear_dw(
        dy: &FloatTensor<Self>,
        x: &FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// `x / sqrt(mean(x²) + eps) · weight` over the last dimension, as operands of such products.
    fn rms_norm(
        x: &FloatTensor<Self>,
        weight: &FloatTensor<Self>,
        eps: f32,
        operands: Precision,
    ) -> FloatTensor<Self>;

    /// Gradient of [`Kernels::rms_norm`] with respect to `x`.
    fn rms_norm_dx(
        x: &FloatTensor<Self>,
        weight: &FloatTensor<Self>,
        eps: f32,
        dy: &FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// Gradient of [`Kernels::rms_norm`] with respect to `weight`.
    fn rms_norm_dw(x: &FloatTensor<Self>, eps: f32, dy: &FloatTensor<Self>) -> FloatTensor<Self>;

    /// Rotates every head of `[tokens, heads * head_dim]`: dimension `i` with `i + head_dim / 2`. The
    /// result is an operand of such products.
    fn rope(
        x: &FloatTensor<Self>,
        rotation: &Arc<Rotation>,
        direction: Direction,
        operands: Precision,
    ) -> FloatTensor<Self>;

    /// Causal attention inside each span: output `[queries, heads * head_dim]`, rounded as an operand,
    /// and the log-sum-exp of every row, `[heads, queries]`.
    fn causal_attention(
        q: &FloatTensor<Self>,
        k: &FloatTensor<Self>,
        v: &FloatTensor<Self>,
        shape: &AttentionShape,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Gradients of q, k and v.
    fn causal_attention_backward(
        saved: &AttentionSaved<Self>,
        d_out: &FloatTensor<Self>,
        shape: &AttentionShape,
        precision: Precision,
    ) -> [FloatTensor<Self>; 3];

    /// `a + b`, of one shape.
    fn add(a: FloatTensor<Self>, b: &FloatTensor<Self>) -> FloatTensor<Self>;

    /// Writes `rows` over those of `into` from row `first` on, in place if nothing else holds its memory.
    fn set_rows(
        into: FloatTensor<Self>,
        first: usize,
        rows: &FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let shape = rows.shape();
        let place = [first..first + shape[0], 0..shape[1]].map(Slice::from);
        Self::float_slice_assign(into, &place, rows.clone())
    }

    /// Values as operands of products of such precision.
    fn operand(x: FloatTensor<Self>, precision: Precision) -> FloatTensor<Self>;

    /// The values of `[rows, cols]` that are kept, zeros in place of the others.
    fn dropped(x: &FloatTensor<Self>, dropout: &Dropout) -> FloatTensor<Self>;

    /// Every column of `[rows, cols]` times its factor of `[cols]`, in the type of `x`.
    fn scale_columns(x: &FloatTensor<Self>, factors: &FloatTensor<Self>) -> FloatTensor<Self> {
        in_f32::<Self>(x.clone(), |x| Self::float_mul(x, row_of::<Self>(factors)))
    }

    /// Gradients of [`Kernels::scale_columns`], whose result is `y`: of `x` in the type of `dy`, and of the factors,
    /// `Σ y·dy / factor`, which is summed over the rows in one order. None of the factors is 0.
    fn scale_columns_backward(
        y: &FloatTensor<Self>,
        factors: &FloatTensor<Self>,
        dy: &FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2] {
        let wide = |values: &FloatTensor<Self>| match values.dtype() {
            DType::F32 => values.clone(),
            _ => Self::float_cast(values.clone(), FloatDType::F32),
        };
        let sums = Self::float_sum_dim(Self::float_mul(wide(y), wide(dy)), 0);
        let sums = Self::float_div(Self::float_reshape(sums, factors.shape()), factors.clone());
        [Self::scale_columns(dy, factors), sums]
    }

    /// `silu(gate) · up`.
    fn swiglu(gate: &FloatTensor<Self>, up: &FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradients of gate and up.
    fn swiglu_backward(
        gate: &FloatTensor<Self>,
        up: &FloatTensor<Self>,
        dy: &FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];

    /// Rows of logits against `targets`: each row's negative log-likelihood, and its gradient times the
    /// row's factor, `(softmax − one-hot) · factor`. The `vocab` columns come and go in bands, `[rows,
    /// band]` each.
    fn cross_entropy(
        logits: Vec<FloatTensor<Self>>,
        targets: &[u32],
        factors: &[f32],
    ) -> (Vec<f32>, Vec<FloatTensor<Self>>);
}

/// `[cols]` as one row.
fn row_of<B: Backend>(factors: &FloatTensor<B>) -> FloatTensor<B> {
    let cols = factors.shape().num_elements();
    B::float_reshape(factors.clone(), [1, cols].into())
}

/// What `change` makes of values of any type in f32, in that type again.
pub fn in_f32<B: Backend>(
    x: FloatTensor<B>,
    change: impl FnOnce(FloatTensor<B>) -> FloatTensor<B>,
) -> FloatTensor<B> {
    match x.dtype() {
        DType::BF16 => {
            let changed = change(B::float_cast(x, FloatDType::F32));
            B::float_cast(changed, FloatDType::BF16)
        }
        _ => change(x),
    }
}

/// A low-rank update of a frozen weight: `scale · B·A`.
#[derive(Clone, Debug)]
pub struct LowRank<B: Backend> {
    /// `[rank, in]`.
    pub a: FloatTensor<B>,
    /// `[out, rank]`.
    pub b: FloatTensor<B>,
    /// The factor, that of dropout included.
    pub scale: f32,
    /// What of `x` the update does not see; its gradient does not reach there either.
    pub dropout: Option<Dropout>,
}

/// What the gradient of an adapted projection needs from its forward pass.
#[derive(Clone, Debug)]
pub struct LoraSaved<B: Kernels> {
    /// Its input.
    pub x: FloatTensor<B>,
    /// `scale · x·Aᵀ`.
    pub low: FloatTensor<B>,
    /// The frozen weight.
    pub weight: B::Frozen,
    /// Its update.
    pub update: LowRank<B>,
}

/// Gradients of an adapted projection.
#[derive(Clone, Debug)]
pub struct LoraGradients<B: Kernels> {
    /// Of its input, where asked for.
    pub x: Option<FloatTensor<B>>,
    /// Of `A`.
    pub a: FloatTensor<B>,
    /// Of `B`.
    pub b: FloatTensor<B>,
}

/// What the gradient of attention needs from its forward pass.
#[derive(Clone, Debug)]
pub struct AttentionSaved<B: Backend> {
    /// Queries after rotation.
    pub q: FloatTensor<B>,
    /// Keys after rotation.
    pub k: FloatTensor<B>,
    /// Values.
    pub v: FloatTensor<B>,
    /// The output.
    pub out: FloatTensor<B>,
    /// Log-sum-exp of every row, `[heads, queries]`.
    pub lse: FloatTensor<B>,
}
