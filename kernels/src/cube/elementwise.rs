//! Rotary positions and SwiGLU: one unit a value, or a pair of them.

use std::sync::Arc;

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{OnDevice, contiguous, rows_cols};
use crate::layout::{Direction, Rotation};

#[cube(launch)]
fn rope_kernel<I: Float, O: Float>(
    x: &Array<I>,
    cos: &Array<f32>,
    sin: &Array<f32>,
    out: &mut Array<O>,
    half: u32,
    width: u32,
    sign: f32,
    #[define(I, O)] _dtypes: [StorageType; 2],
) {
    // A unit turns the pair of dimensions `i` and `i + half` of a head.
    let (half, width) = (half as usize, width as usize);
    if ABSOLUTE_POS < x.len() / 2 {
        let row = ABSOLUTE_POS / (width / 2);
        let in_row = ABSOLUTE_POS % (width / 2);
        let angle = in_row % half;
        let low = row * width + in_row / half * (2 * half) + angle;
        let (c, s) = (cos[row * half + angle], sin[row * half + angle] * sign);
        let (a, b) = (f32::cast_from(x[low]), f32::cast_from(x[low + half]));
        out[low] = O::cast_from(a * c - b * s);
        out[low + half] = O::cast_from(b * c + a * s);
    }
}

/// Rotates every head of `[tokens, heads * head_dim]`.
pub(super) fn rope<R: CubeRuntime>(
    x: &CubeTensor<R>,
    rotation: &Arc<Rotation>,
    direction: Direction,
    dtype: DType,
) -> CubeTensor<R> {
    let (place, shape) = (OnDevice::of(x), rows_cols(x));
    let out = place.empty(shape, dtype);
    let (count, dim) = place.each(shape[0] * shape[1] / 2);
    // All blocks of a pass turn by the same angles: they travel once.
    let travel = || [&rotation.cos, &rotation.sin].map(|table| place.upload_f32(table));
    let [cos, sin] = rotation.on_devices.get(&x.device, travel);
    rope_kernel::launch(
        &place.client,
        count,
        dim,
        contiguous(x).into_array_arg(),
        cos.into_array_arg(),
        sin.into_array_arg(),
        out.clone().into_array_arg(),
        rotation.half as u32,
        shape[1] as u32,
        if direction == Direction::Forward { 1.0 } else { -1.0 },
        [x.dtype.into(), dtype.into()],
    );
    out
}

#[cube]
fn sigmoid(x: f32) -> f32 {
    1.0f32 / (1.0f32 + f32::exp(-x))
}

#[cube(launch)]
fn swiglu_kernel<F: Float>(
    gate: &Array<F>,
    up: &Array<F>,
    out: &mut Array<F>,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < out.len() {
        let gate = f32::cast_from(gate[ABSOLUTE_POS]);
        out[ABSOLUTE_POS] = F::cast_from(gate * sigmoid(gate) * f32::cast_from(up[ABSOLUTE_POS]));
    }
}

/// `silu(gate) · up`.
pub(super) fn swiglu<R: CubeRuntime>(gate: &CubeTensor<R>, up: &CubeTensor<R>) -> CubeTensor<R> {
    assert_eq!(gate.dtype, up.dtype, "gate and up");
    let (place, shape) = (OnDevice::of(gate), rows_cols(gate));
    let out = place.empty(shape, gate.dtype);
    let (count, dim) = place.each(shape[0] * shape[1]);
    swiglu_kernel::launch(
        &place.client,
        count,
        dim,
        contiguous(gate).into_array_arg(),
        contiguous(up).into_array_arg(),
        out.clone().into_array_arg(),
        gate.dtype.into(),
    );
    out
}

#[cube(launch)]
fn swiglu_backward_kernel<F: Float, D: Float>(
    gate: &Array<F>,
    up: &Array<F>,
    dy: &Array<D>,
    d_gate: &mut Array<F>,
    d_up: &mut Array<F>,
    #[define(F, D)] _dtypes: [StorageType; 2],
) {
    if ABSOLUTE_POS < d_gate.len() {
        let gate = f32::cast_from(gate[ABSOLUTE_POS]);
        let up = f32::cast_from(up[ABSOLUTE_POS]);
        let dy = f32::cast_from(dy[ABSOLUTE_POS]);
        let sigmoid = sigmoid(gate);
        let silu = gate * sigmoid;
        d_gate[ABSOLUTE_POS] = F::cast_from(dy * up * (sigmoid + silu * (1.0f32 - sigmoid)));
        d_up[ABSOLUTE_POS] = F::cast_from(dy * silu);
    }
}

/// The gradients of gate and up, in their type.
pub(super) fn swiglu_backward<R: CubeRuntime>(
    gate: &CubeTensor<R>,
    up: &CubeTensor<R>,
    dy: &CubeTensor<R>,
) -> [CubeTensor<R>; 2] {
    assert_eq!(gate.dtype, up.dtype, "gate and up");
    let (place, shape) = (OnDevice::of(gate), rows_cols(gate));
    let gradients = [(); 2].map(|()| place.empty(shape, gate.dtype));
    let (count, dim) = place.each(shape[0] * shape[1]);
    swiglu_backward_kernel::launch(
        &place.client,
        count,
        dim,
        contiguous(gate).into_array_arg(),
        contiguous(up).into_array_arg(),
        contiguous(dy).into_array_arg(),
        gradients[0].clone().into_array_arg(),
        gradients[1].clone().into_array_arg(),
        [gate.dtype.into(), dy.dtype.into()],
    );
    gradients
}
