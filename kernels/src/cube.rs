//! The ops for GPUs, written once in CubeCL: on NVIDIA through CUDA, on everything else through wgpu
//! (Vulkan, Metal, Direct3D).
//!
//! Frozen weights stay on the device in the form their file has them. A product decodes one into a buffer
//! of the operands' type and multiplies through cubek, with f32 sums; for the next token of a sequence the
//! weight is decoded inside the product. Gradients, moments and the steps along them stay on the device, too.
//! Every sum runs in an order that the shapes alone decide, so a device gives the same bits on every run.

#![expect(
    clippy::used_underscore_binding,
    reason = "what `define` marks is read by the macro alone"
)]

mod adamw;
mod ahead;
mod attention;
mod cross_entropy;
#[cfg(feature = "cuda")]
pub mod cuda;
mod dropout;
mod elementwise;
mod found;
mod launch;
mod matrix;
mod product;
mod rms_norm;
mod sums;
mod weight;
#[cfg(feature = "wgpu")]
pub mod wgpu;

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::DType;
use burn::tensor::backend::Backend;
use burn_cubecl::kernel::cast;
use burn_cubecl::ops::numeric;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime};
use cubecl::prelude::InputScalar;

use crate::dropout::Dropout;
use crate::frozen::FrozenMatrix;
use crate::kernels::{AttentionSaved, Home, Kernels, LoraGradients, LoraSaved, LowRank};
use crate::layout::{AttentionShape, Direction, Rotation};
use crate::precision::{Precision, Rounding};

#[cfg(feature = "wgpu")]
pub use self::wgpu::{Wgpu, WgpuDevice};
pub use adamw::DeviceAdamW;
pub use ahead::Waiting;
#[cfg(feature = "cuda")]
pub use cuda::{Cuda, CudaDevice};
pub use found::Found;
use launch::OnDevice;
pub use matrix::DeviceMatrix;
use product::{High, operand, product, sums, transposed, with_low_rank};
pub use sums::DeviceSums;
pub use weight::Weight;

/// A backend of these kernels.
type Cube<R, BT> = CubeBackend<R, f32, i32, BT>;

impl<R: CubeRuntime, BT: BoolElement> Kernels for Cube<R, BT> {
    type Frozen = Weight<R>;

    type GradientSums = DeviceSums<R>;

    type AdamWState = DeviceAdamW<R>;

    const READS_HOST: bool = false;

    fn device_memory(device: &R::Device) -> Option<u64> {
        let usage = R::client(device).memory_usage().ok()?;
        Some(usage.bytes_reserved + ahead::device_memory::<R>(device))
    }

    fn freeze(matrix: FrozenMatrix, device: &R::Device) -> Weight<R> {
        Weight::resident(&matrix, device)
    }

    fn freeze_at(home: Home, matrix: FrozenMatrix, device: &R::Device) -> Weight<R> {
        match home {
            Home::Device => Self::freeze(matrix, device),
            Home::Host => Weight::OnHost(Arc::new(Waiting::new(matrix, device.clone()))),
        }
    }

    fn visit(now: &[&Weight<R>], next: &[&Weight<R>]) {
        weight::visit(now, next);
    }

    fn frozen_shape(weight: &Weight<R>) -> [usize; 2] {
        weight.shape()
    }

    fn frozen_band(weight: &Weight<R>, rows: Range<usize>) -> Option<Weight<R>> {
        weight.band(rows)
    }

    fn frozen_rows(weight: &Weight<R>, ids: &[u32], _device: &R::Device) -> CubeTensor<R> {
        weight.here().rows(ids)
    }

    fn frozen_linear(
        x: &CubeTensor<R>,
        weight: &Weight<R>,
        precision: Precision,
        rounding: Rounding,
    ) -> CubeTensor<R> {
        let x = operand(x, precision);
        let weight = weight.here().values(x.dtype);
        product(&x, &transposed(&weight), sums(&OnDevice::of(&x), precision, rounding))
    }

    fn frozen_linear_decode(
        x: &CubeTensor<R>,
        weight: &Weight<R>,
        precision: Precision,
    ) -> CubeTensor<R> {
        /// Rows up to which reading the weight is the work.
        const FEW: usize = 8;
        if x.meta.shape()[0] > FEW {
            return Self::frozen_linear(x, weight, precision, Rounding::Exact);
        }
        product::decoding(&operand(x, precision), &weight.here())
    }

    fn frozen_linear_dx(
        dy: &CubeTensor<R>,
        weight: &Weight<R>,
        precision: Precision,
    ) -> CubeTensor<R> {
        let dy = operand(dy, precision);
        product(&dy, &weight.here().values(dy.dtype), DType::F32)
    }

    fn lora_low(x: &CubeTensor<R>, update: &LowRank<Self>, precision: Precision) -> CubeTensor<R> {
        let x = seen(&operand(x, precision), update);
        let low = product(&x, &transposed(&operand(&update.a, precision)), DType::F32);
        scaled(low, update.scale)
    }

    fn lora_linear(
        x: &CubeTensor<R>,
        weight: &Weight<R>,
        update: &LowRank<Self>,
        low: &CubeTensor<R>,
        precision: Precision,
        rounding: Rounding,
    ) -> CubeTensor<R> {
        let y = Self::frozen_linear(x, weight, precision, Rounding::Exact);
        let out = sums(&OnDevice::of(&y), precision, rounding);
        with_low_rank(
            &y,
            &rounded(low, precision),
            &rounded(&update.b, precision),
            High::ByColumn,
            out,
        )
    }

    fn lora_linear_backward(
        dy: &CubeTensor<R>,
        saved: &LoraSaved<Self>,
        wants_dx: bool,
        precision: Precision,
    ) -> LoraGradients<Self> {
        let LoraSaved { x, low, weight, update } = saved;
        let dy = operand(dy, precision);
        let d_low = product(&dy, &operand(&update.b, precision), DType::F32);
        let d_low = scaled(d_low, update.scale);
        let dx = wants_dx.then(|| {
            let through = product(&dy, &weight.here().values(dy.dtype), DType::F32);
            let (low, a) = (rounded(&d_low, precision), rounded(&update.a, precision));
            match &update.dropout {
                None => with_low_rank(&through, &low, &a, High::ByRank, DType::F32),
                Some(dropout) => {
                    let part = product(&low, &a, DType::F32);
                    dropout::with_dropped(&through, &part, dropout)
                }
            }
        });
        let x = seen(&operand(x, precision), update);
        let a = product(&transposed(&operand(&d_low, precision)), &x, DType::F32);
        let b = product(&transposed(&dy), &operand(low, precision), DType::F32);
        LoraGradients { x: dx, a, b }
    }

    fn dense_linear(
        x: &CubeTensor<R>,
        weight: &CubeTensor<R>,
        precision: Precision,
        rounding: Rounding,
    ) -> CubeTensor<R> {
        let (x, weight) = (operand(x, precision), operand(weight, precision));
        product(&x, &transposed(&weight), sums(&OnDevice::of(&x), precision, rounding))
    }

    fn dense_linear_dx(
        dy: &CubeTensor<R>,
        weight: &CubeTensor<R>,
        precision: Precision,
    ) -> CubeTensor<R> {
        product(&operand(dy, precision), &operand(weight, precision), DType::F32)
    }

    fn dense_linear_dw(
        dy: &CubeTensor<R>,
        x: &CubeTensor<R>,
        precision: Precision,
    ) -> CubeTensor<R> {
        product(&transposed(&operand(dy, precision)), &operand(x, precision), DType::F32)
    }

    fn rms_norm(
        x: &CubeTensor<R>,
        weight: &CubeTensor<R>,
        eps: f32,
        operands: Precision,
    ) -> CubeTensor<R> {
        rms_norm::forward(x, weight, eps, OnDevice::of(x).operand(operands))
    }

    fn rms_norm_dx(
        x: &CubeTensor<R>,
        weight: &CubeTensor<R>,
        eps: f32,
        dy: &CubeTensor<R>,
    ) -> CubeTensor<R> {
        rms_norm::dx(x, weight, eps, dy)
    }

    fn rms_norm_dw(x: &CubeTensor<R>, eps: f32, dy: &CubeTensor<R>) -> CubeTensor<R> {
        rms_norm::dw(x, eps, dy)
    }

    fn rope(
        x: &CubeTensor<R>,
        rotation: &Arc<Rotation>,
        direction: Direction,
        operands: Precision,
    ) -> CubeTensor<R> {
        elementwise::rope(x, rotation, direction, OnDevice::of(x).operand(operands))
    }

    fn causal_attention(
        q: &CubeTensor<R>,
        k: &CubeTensor<R>,
        v: &CubeTensor<R>,
        shape: &AttentionShape,
        precision: Precision,
    ) -> (CubeTensor<R>, CubeTensor<R>) {
        attention::forward::<R, BT>([q, k, v].map(|x| operand(x, precision)), shape)
    }

    fn causal_attention_backward(
        saved: &AttentionSaved<Self>,
        d_out: &CubeTensor<R>,
        shape: &AttentionShape,
        precision: Precision,
    ) -> [CubeTensor<R>; 3] {
        let AttentionSaved { q, k, v, out, lse } = saved;
        let qkv = [q, k, v].map(|x| operand(x, precision));
        attention::backward::<R, BT>(attention::Saved { qkv, out, lse }, d_out, shape)
    }

    fn add(a: CubeTensor<R>, b: &CubeTensor<R>) -> CubeTensor<R> {
        assert_eq!(a.dtype, b.dtype, "terms of a sum");
        numeric::add(a, b.clone())
    }

    fn operand(x: CubeTensor<R>, precision: Precision) -> CubeTensor<R> {
        operand(&x, precision)
    }

    fn dropped(x: &CubeTensor<R>, dropout: &Dropout) -> CubeTensor<R> {
        dropout::dropped(x, dropout)
    }

    fn swiglu(gate: &CubeTensor<R>, up: &CubeTensor<R>) -> CubeTensor<R> {
        elementwise::swiglu(gate, up)
    }

    fn swiglu_backward(
        gate: &CubeTensor<R>,
        up: &CubeTensor<R>,
        dy: &CubeTensor<R>,
    ) -> [CubeTensor<R>; 2] {
        elementwise::swiglu_backward(gate, up, dy)
    }

    fn cross_entropy(
        logits: Vec<CubeTensor<R>>,
        targets: &[u32],
        factors: &[f32],
    ) -> (Vec<f32>, Vec<CubeTensor<R>>) {
        cross_entropy::in_place(logits, targets, factors)
    }
}

/// What an update sees of its input.
fn seen<B: Backend, R: CubeRuntime>(x: &CubeTensor<R>, update: &LowRank<B>) -> CubeTensor<R> {
    update.dropout.as_ref().map_or_else(|| x.clone(), |dropout| dropout::dropped(x, dropout))
}

/// f32 values times a number.
fn scaled<R: CubeRuntime>(x: CubeTensor<R>, by: f32) -> CubeTensor<R> {
    if by.to_bits() == 1.0_f32.to_bits() {
        return x;
    }
    numeric::mul_scalar(x, InputScalar::new(by, DType::F32))
}

/// f32 values, rounded as operands of such a precision are.
fn rounded<R: CubeRuntime>(x: &CubeTensor<R>, precision: Precision) -> CubeTensor<R> {
    cast(operand(x, precision), DType::F32)
}
