//! The ops of backends without a tape: the kernels themselves.

use std::sync::Arc;

use burn::tensor::ops::FloatTensor;
use burn_flex::Flex;

use super::{Attended, Ops, Output, Values};
use crate::kernels::{Kernels, LowRank};
use crate::layout::{AttentionShape, Direction, Rotation};
use crate::precision::{Precision, Rounding};

macro_rules! ops_without_tape {
    ($backend:ty $(, $parameter:ident: $bound:path)*) => {
        impl<$($parameter: $bound),*> Ops for $backend {
            type Inner = Self;

            fn frozen_linear(
                x: FloatTensor<Self>,
                weight: &<Self as Kernels>::Frozen,
                precision: Precision,
                output: Output<Self>,
            ) -> FloatTensor<Self> {
                if let Values::Decoded = output.values {
                    let y = <Self as Kernels>::frozen_linear_decode(&x, weight, precision);
                    return rounded::<Self>(y, precision, output.rounding);
                }
                <Self as Kernels>::frozen_linear(&x, weight, precision, output.rounding)
            }

            fn lora_low(
                x: &FloatTensor<Self>,
                update: &LowRank<Self>,
                precision: Precision,
            ) -> FloatTensor<Self> {
                <Self as Kernels>::lora_low(x, update, precision)
            }

            fn lora_linear(
                x: FloatTensor<Self>,
                weight: &<Self as Kernels>::Frozen,
                update: LowRank<Self>,
                low: FloatTensor<Self>,
                precision: Precision,
                output: Output<Self>,
            ) -> FloatTensor<Self> {
                let rounding = output.rounding;
                if let Values::Decoded = output.values {
                    let y = <Self as Kernels>::frozen_linear_decode(&x, weight, precision);
                    let exact = Rounding::Exact;
                    let high = <Self as Kernels>::dense_linear(&low, &update.b, precision, exact);
                    let y = <Self as Kernels>::add(y, &high);
                    return rounded::<Self>(y, precision, rounding);
                }
                <Self as Kernels>::lora_linear(&x, weight, &update, &low, precision, rounding)
            }

            fn dense_linear(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                precision: Precision,
                output: Output<Self>,
            ) -> FloatTensor<Self> {
                <Self as Kernels>::dense_linear(&x, &weight, precision, output.rounding)
            }

            fn rms_norm(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                eps: f32,
                operands: Precision,
            ) -> FloatTensor<Self> {
                <Self as Kernels>::rms_norm(&x, &weight, eps, operands)
            }

            fn rope(
                x: FloatTensor<Self>,
                rotation: &Arc<Rotation>,
                operands: Precision,
            ) -> FloatTensor<Self> {
                <Self as Kernels>::rope(&x, rotation, Direction::Forward, operands)
            }

            fn causal_attention(
                q: FloatTensor<Self>,
                k: FloatTensor<Self>,
                v: FloatTensor<Self>,
                shape: &AttentionShape,
                precision: Precision,
                known: Option<Attended<Self>>,
            ) -> (FloatTensor<Self>, Attended<Self>) {
                let attended = known.unwrap_or_else(|| {
                    <Self as Kernels>::causal_attention(&q, &k, &v, shape, precision).into()
                });
                (attended[0].clone(), attended)
            }

            fn scale_columns(
                x: FloatTensor<Self>,
                factors: FloatTensor<Self>,
                _in_place: Option<FloatTensor<Self>>,
            ) -> FloatTensor<Self> {
                <Self as Kernels>::scale_columns(&x, &factors)
            }

            fn scaled_columns(
                x: &FloatTensor<Self>,
                factors: &FloatTensor<Self>,
                precision: Precision,
            ) -> FloatTensor<Self> {
                Self::operand(<Self as Kernels>::scale_columns(x, factors), precision)
            }

            fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
                <Self as Kernels>::swiglu(&gate, &up)
            }
        }
    };
}

ops_without_tape!(Flex);
#[cfg(feature = "cube")]
ops_without_tape!(
    burn_cubecl::CubeBackend<R, f32, i32, BT>,
    R: burn_cubecl::CubeRuntime,
    BT: burn_cubecl::BoolElement
);

fn rounded<B: Kernels>(
    y: FloatTensor<B>,
    precision: Precision,
    rounding: Rounding,
) -> FloatTensor<B> {
    match rounding {
        Rounding::Exact => y,
        Rounding::Operand => B::operand(y, precision),
    }
}
