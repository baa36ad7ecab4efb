//! Matrix products: what cubek multiplies, and what is added to it.

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::cast;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::{Strategy, launch_ref};
use cubek::std::InputBinding;

use super::launch::{OnDevice, UNITS, contiguous, rows_cols, sum_of_cube};
use super::matrix::{DeviceMatrix, Stored};
use crate::precision::{Precision, Rounding};

/// `left·right`, of any number of dimensions, the last two a matrix; both of one type, the sums f32.
///
/// # Panics
/// If the types differ: some devices multiply bits of one type as if they were the other's.
pub(super) fn product<R: CubeRuntime>(
    left: &CubeTensor<R>,
    right: &CubeTensor<R>,
    out: DType,
) -> CubeTensor<R> {
    assert_eq!(left.dtype, right.dtype, "operands of one product");
    let place = OnDevice::of(left);
    let mut shape = left.meta.shape().clone();
    let last = shape.num_dims() - 1;
    assert_eq!(shape[last], right.meta.shape()[last - 1], "what a product sums over");
    shape[last] = right.meta.shape()[last];
    let result = CubeTensor::new_contiguous(
        place.client.clone(),
        left.device.clone(),
        shape.clone(),
        place.client.empty(shape.num_elements() * out.size()),
        out,
    );
    let dtype = left.dtype;
    let mut types = MatmulElems::from_globals(&MatmulGlobalElems {
        lhs: dtype.into(),
        rhs: dtype.into(),
        out: out.into(),
    });
    // Tensor cores would round f32 to fewer bits.
    let strategy = match dtype {
        DType::F32 => Strategy::SimpleUnit(Default::default()),
        _ => Strategy::Auto,
    };
    let operand =
        |tensor: &CubeTensor<R>| InputBinding::new(tensor.clone().binding(), dtype.into());
    let (left, right) = (operand(left), operand(right));
    launch_ref(&strategy, &place.client, left, right, result.clone().binding(), &mut types)
        .unwrap_or_else(|error| panic!("a product of {dtype:?} {shape:?}: {error:?}"));
    result
}

/// The matrices seen the other way round.
pub(super) fn transposed<R: CubeRuntime>(tensor: &CubeTensor<R>) -> CubeTensor<R> {
    let mut tensor = tensor.clone();
    let last = tensor.meta.shape().num_dims() - 1;
    tensor.meta.swap(last - 1, last);
    tensor
}

/// Values as operands of products of such precision.
pub(super) fn operand<R: CubeRuntime>(
    tensor: &CubeTensor<R>,
    precision: Precision,
) -> CubeTensor<R> {
    cast(tensor.clone(), OnDevice::of(tensor).operand(precision))
}

/// What sums of a product become.
pub(super) fn sums<R: CubeRuntime>(
    place: &OnDevice<R>,
    precision: Precision,
    to: Rounding,
) -> DType {
    match to {
        Rounding::Exact => DType::F32,
        Rounding::Operand => place.operand(precision),
    }
}

/// A unit's share of rows and of columns: it reads a value of either factor once for four outputs.
const SHARE: usize = 4;

#[cube(launch)]
fn add_product<F: Float>(
    sums: &Array<f32>,
    low: &Array<f32>,
    high: &Array<f32>,
    out: &mut Array<F>,
    rank: u32,
    rows: u32,
    cols: u32,
    by_column: u32,
    #[define(F)] _dtype: StorageType,
) {
    let (rank, rows, cols) = (rank as usize, rows as usize, cols as usize);
    // Neighbours have neighbouring columns; a unit's own columns are `apart`.
    let apart = cols.div_ceil(SHARE);
    let row = ABSOLUTE_POS / apart * SHARE;
    let col = ABSOLUTE_POS % apart;
    let mut start = 1usize;
    let mut step = cols;
    if by_column == 1u32 {
        start = rank;
        step = 1usize;
    }
    if row < rows {
        let mut values = Array::<f32>::new(SHARE * SHARE);
        #[unroll]
        for r in 0..SHARE {
            let row = min(row + r, rows - 1);
            #[unroll]
            for c in 0..SHARE {
                let col = min(col + c * apart, cols - 1);
                values[r * SHARE + c] = sums[row * cols + col];
            }
        }
        let mut column = Array::<f32>::new(SHARE);
        for i in 0..rank {
            #[unroll]
            for c in 0..SHARE {
                let col = min(col + c * apart, cols - 1);
                column[c] = high[col * start + i * step];
            }
            #[unroll]
            for r in 0..SHARE {
                let factor = low[min(row + r, rows - 1) * rank + i];
                #[unroll]
                for c in 0..SHARE {
                    values[r * SHARE + c] += factor * column[c];
                }
            }
        }
        #[unroll]
        for r in 0..SHARE {
            #[unroll]
            for c in 0..SHARE {
                if row + r < rows && col + c * apart < cols {
                    out[(row + r) * cols + col + c * apart] = F::cast_from(values[r * SHARE + c]);
                }
            }
        }
    }
}

/// How the second factor of an update lies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum High {
    /// `[cols, rank]`, as `B` does.
    ByColumn,
    /// `[rank, cols]`, as `A` does.
    ByRank,
}

/// `sums + low·high`: `[rows, cols]`, f32 `sums`, `low` `[rows, rank]`.
pub(super) fn with_low_rank<R: CubeRuntime>(
    sums: &CubeTensor<R>,
    low: &CubeTensor<R>,
    high: &CubeTensor<R>,
    lies: High,
    out: DType,
) -> CubeTensor<R> {
    let (place, [rows, cols]) = (OnDevice::of(sums), rows_cols(sums));
    let [_, rank] = rows_cols(low);
    let result = place.empty([rows, cols], out);
    let (count, dim) = place.each(rows.div_ceil(SHARE) * cols.div_ceil(SHARE));
    let f32_array = |tensor: &CubeTensor<R>| {
        assert_eq!(tensor.dtype, DType::F32, "a low-rank update");
        contiguous(tensor).into_array_arg()
    };
    add_product::launch(
        &place.client,
        count,
        dim,
        f32_array(sums),
        f32_array(low),
        f32_array(high),
        result.clone().into_array_arg(),
        rank as u32,
        rows as u32,
        cols as u32,
        u32::from(lies == High::ByColumn),
        out.into(),
    );
    result
}

/// One cube an output: the weight is read once for each row of `x`, and never written out.
#[cube(launch)]
fn few_rows<F: Float>(
    x: &Array<F>,
    stored: &Stored,
    out: &mut Array<f32>,
    first: u32,
    width: u32,
    cols: u32,
    #[define(F)] _dtype: StorageType,
) {
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    let (width, cols) = (width as usize, cols as usize);
    if CUBE_POS >= out.len() {
        terminate!();
    }
    let (row, col) = (CUBE_POS / cols, CUBE_POS % cols);
    let start = first as usize + col * width;
    let mut sum = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < width {
        // Rounded as an operand is.
        let weight = f32::cast_from(F::cast_from(stored.value(start + i)));
        sum += weight * f32::cast_from(x[row * width + i]);
        i += UNITS as usize;
    }
    let sum = sum_of_cube(sum, &mut shared);
    if UNIT_POS == 0 {
        out[CUBE_POS] = sum;
    }
}

/// `x·Wᵀ` for so few rows that reading the weight is the work: `[rows, out]`, f32.
pub(super) fn decoding<R: CubeRuntime>(
    x: &CubeTensor<R>,
    weight: &DeviceMatrix<R>,
) -> CubeTensor<R> {
    let (place, [rows, _], [cols, width]) = (OnDevice::of(x), rows_cols(x), weight.shape());
    let result = place.empty([rows, cols], DType::F32);
    let (count, dim) = place.rows(rows * cols);
    few_rows::launch(
        &place.client,
        count,
        dim,
        contiguous(x).into_array_arg(),
        weight.stored(),
        result.clone().into_array_arg(),
        weight.first() as u32,
        width as u32,
        cols as u32,
        x.dtype.into(),
    );
    result
}
