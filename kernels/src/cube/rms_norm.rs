//! RMSNorm, one cube a row, as [`crate::flex`] has it: `x / sqrt(mean(x²) + eps) · weight`.

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{OnDevice, UNITS, contiguous, rows_cols, sum_of_cube};

/// `1 / sqrt(mean(x²) + eps)` of a row.
#[cube]
fn inverse(
    x: &Array<f32>,
    start: usize,
    width: usize,
    eps: f32,
    shared: &mut SharedMemory<f32>,
) -> f32 {
    let mut sum = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < width {
        sum += x[start + i] * x[start + i];
        i += UNITS as usize;
    }
    let sum = sum_of_cube(sum, shared);
    1.0f32 / f32::sqrt(sum / f32::cast_from(width as u32) + eps)
}

#[cube(launch)]
fn forward_kernel<F: Float>(
    x: &Array<f32>,
    weight: &Array<f32>,
    out: &mut Array<F>,
    eps: f32,
    #[define(F)] _dtype: StorageType,
) {
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    let width = weight.len();
    let start = CUBE_POS * width;
    if start >= x.len() {
        terminate!();
    }
    let inverse = inverse(x, start, width, eps, &mut shared);
    let mut i = UNIT_POS as usize;
    while i < width {
        out[start + i] = F::cast_from(x[start + i] * inverse * weight[i]);
        i += UNITS as usize;
    }
}

#[cube(launch)]
fn dx_kernel(x: &Array<f32>, weight: &Array<f32>, dy: &Array<f32>, out: &mut Array<f32>, eps: f32) {
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    let width = weight.len();
    let start = CUBE_POS * width;
    if start >= x.len() {
        terminate!();
    }
    let inverse = inverse(x, start, width, eps, &mut shared);
    let mut sum = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < width {
        sum += x[start + i] * weight[i] * dy[start + i];
        i += UNITS as usize;
    }
    let sum = sum_of_cube(sum, &mut shared);
    let along = sum * inverse * inverse / f32::cast_from(width as u32);
    let mut i = UNIT_POS as usize;
    while i < width {
        out[start + i] = inverse * (weight[i] * dy[start + i] - x[start + i] * along);
        i += UNITS as usize;
    }
}

#[cube(launch)]
fn inverse_kernel(x: &Array<f32>, out: &mut Array<f32>, width: u32, eps: f32) {
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    if CUBE_POS >= out.len() {
        terminate!();
    }
    let width = width as usize;
    let inverse = inverse(x, CUBE_POS * width, width, eps, &mut shared);
    if UNIT_POS == 0 {
        out[CUBE_POS] = inverse;
    }
}

/// A unit a column, over all rows in order.
#[cube(launch)]
fn dw_kernel(x: &Array<f32>, inverse: &Array<f32>, dy: &Array<f32>, out: &mut Array<f32>) {
    let width = out.len();
    if ABSOLUTE_POS < width {
        let mut sum = 0.0f32;
        for row in 0..inverse.len() {
            let index = row * width + ABSOLUTE_POS;
            sum += dy[index] * x[index] * inverse[row];
        }
        out[ABSOLUTE_POS] = sum;
    }
}

/// The norm of every row, as `dtype`.
pub(super) fn forward<R: CubeRuntime>(
    x: &CubeTensor<R>,
    weight: &CubeTensor<R>,
    eps: f32,
    dtype: DType,
) -> CubeTensor<R> {
    let (place, shape) = (OnDevice::of(x), rows_cols(x));
    let out = place.empty(shape, dtype);
    let (count, dim) = place.rows(shape[0]);
    forward_kernel::launch(
        &place.client,
        count,
        dim,
        contiguous(x).into_array_arg(),
        contiguous(weight).into_array_arg(),
        out.clone().into_array_arg(),
        eps,
        dtype.into(),
    );
    out
}

/// The gradient with respect to `x`.
pub(super) fn dx<R: CubeRuntime>(
    x: &CubeTensor<R>,
    weight: &CubeTensor<R>,
    eps: f32,
    dy: &CubeTensor<R>,
) -> CubeTensor<R> {
    let (place, shape) = (OnDevice::of(x), rows_cols(x));
    let out = place.empty(shape, DType::F32);
    let (count, dim) = place.rows(shape[0]);
    dx_kernel::launch(
        &place.client,
        count,
        dim,
        contiguous(x).into_array_arg(),
        contiguous(weight).into_array_arg(),
        contiguous(dy).into_array_arg(),
        out.clone().into_array_arg(),
        eps,
    );
    out
}

/// The gradient with respect to the weight.
pub(super) fn dw<R: CubeRuntime>(x: &CubeTensor<R>, eps: f32, dy: &CubeTensor<R>) -> CubeTensor<R> {
    let (place, [rows, width]) = (OnDevice::of(x), rows_cols(x));
    let inverse = place.empty([rows], DType::F32);
    let x = contiguous(x);
    let (count, dim) = place.rows(rows);
    inverse_kernel::launch(
        &place.client,
        count,
        dim,
        x.clone().into_array_arg(),
        inverse.clone().into_array_arg(),
        width as u32,
        eps,
    );
    let out = place.empty([width], DType::F32);
    let (count, dim) = place.each(width);
    dw_kernel::launch(
        &place.client,
        count,
        dim,
        x.into_array_arg(),
        inverse.into_array_arg(),
        contiguous(dy).into_array_arg(),
        out.clone().into_array_arg(),
    );
    out
}
