//! Causal attention with packed documents and grouped heads, a tile of queries at a time.
//!
//! A tile's scores come from one product over all heads, then a kernel makes weights of them, then a
//! second product. Only the log-sum-exp of every row is kept (Dao et al. 2022): the backward pass makes the
//! weights again, tile by tile, so that no more than a tile of scores exists. Which keys a query sees is a
//! range, from its document's first to itself.

mod kernels;
mod tiles;

use burn::tensor::{DType, Tensor, TensorPrimitive};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime};
use kernels::{along_kernel, gradient_kernel, weights_kernel};
use tiles::{Sight, Tile};

use super::launch::{OnDevice, contiguous, rows_cols};
use super::product::{product, transposed};
use crate::layout::AttentionShape;

type Matrix<R, BT, const D: usize> = Tensor<CubeBackend<R, f32, i32, BT>, D>;

fn wrap<R: CubeRuntime, BT: BoolElement, const D: usize>(x: CubeTensor<R>) -> Matrix<R, BT, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

fn raw<R: CubeRuntime, BT: BoolElement, const D: usize>(x: Matrix<R, BT, D>) -> CubeTensor<R> {
    x.into_primitive().tensor()
}

/// `[rows, heads * head_dim]` by key head: `[kv_heads, rows * group, head_dim]`.
fn by_head<R: CubeRuntime, BT: BoolElement>(
    x: Matrix<R, BT, 2>,
    shape: &AttentionShape,
    group: usize,
) -> Matrix<R, BT, 3> {
    let ([rows, _], AttentionShape { kv_heads, head_dim, .. }) = (x.dims(), shape);
    let x = x.reshape([rows, *kv_heads, group, *head_dim]).permute([1, 0, 2, 3]);
    let x = raw(x.reshape([*kv_heads, rows * group, *head_dim]));
    wrap(contiguous(&x))
}

/// The way back from [`by_head`].
fn by_row<R: CubeRuntime, BT: BoolElement>(x: Matrix<R, BT, 3>, group: usize) -> Matrix<R, BT, 2> {
    let [kv_heads, rows, head_dim] = x.dims();
    let x = x.reshape([kv_heads, rows / group, group, head_dim]).permute([1, 0, 2, 3]);
    x.reshape([rows / group, kv_heads * group * head_dim])
}

/// Adds `part` to rows `start..` of every head.
fn add_rows<R: CubeRuntime, BT: BoolElement>(
    sum: Matrix<R, BT, 3>,
    part: CubeTensor<R>,
    start: usize,
) -> Matrix<R, BT, 3> {
    let part = wrap::<R, BT, 3>(part);
    let [heads, rows, width] = part.dims();
    let range = [0..heads, start..start + rows, 0..width];
    let part = sum.clone().slice(range.clone()) + part;
    sum.slice_assign(range, part)
}

/// The operands of an attention.
struct Operands<R: CubeRuntime, BT: BoolElement> {
    q: Matrix<R, BT, 2>,
    /// `[kv_heads, keys, head_dim]`
    k: Matrix<R, BT, 3>,
    v: Matrix<R, BT, 3>,
    group: usize,
    sight: Sight<R>,
}

impl<R: CubeRuntime, BT: BoolElement> Operands<R, BT> {
    fn new([q, k, v]: [CubeTensor<R>; 3], shape: &AttentionShape) -> Self {
        let sight = Sight::new(shape, rows_cols(&q)[0], &OnDevice::of(&q));
        let [k, v] = [k, v].map(|x| by_head(wrap::<R, BT, 2>(x), shape, 1));
        Self { q: wrap(q), k, v, group: shape.heads / shape.kv_heads, sight }
    }

    /// Some rows of a matrix of all queries, by key head.
    fn queries(&self, x: &Matrix<R, BT, 2>, tile: Tile, shape: &AttentionShape) -> CubeTensor<R> {
        raw(by_head(x.clone().narrow(0, tile.query, tile.queries), shape, self.group))
    }

    /// The keys or values that a tile sees.
    fn seen(x: &Matrix<R, BT, 3>, tile: Tile) -> CubeTensor<R> {
        contiguous(&raw(x.clone().narrow(1, tile.key, tile.keys)))
    }
}

/// The output, as the operands are, and the log-sum-exp of every row, `[heads, queries]`.
pub(super) fn forward<R: CubeRuntime, BT: BoolElement>(
    qkv: [CubeTensor<R>; 3],
    shape: &AttentionShape,
) -> (CubeTensor<R>, CubeTensor<R>) {
    let (place, dtype, [queries, width]) =
        (OnDevice::of(&qkv[0]), qkv[0].dtype, rows_cols(&qkv[0]));
    let device = qkv[0].device.clone();
    let of = Operands::<R, BT>::new(qkv, shape);
    let lse = place.upload_f32(&vec![0.0; shape.heads * queries]);
    let none = |rows| Matrix::<R, BT, 2>::zeros([rows, width], &device).cast(dtype);
    let (mut parts, mut done) = (Vec::new(), 0);
    for tile in of.sight.tiles(shape.heads) {
        if tile.query > done {
            parts.push(none(tile.query - done));
        }
        let q = of.queries(&of.q, tile, shape);
        let [k, v] = [&of.k, &of.v].map(|x| Operands::seen(x, tile));
        let scores = product(&q, &transposed(&k), DType::F32);
        let rows = shape.heads * tile.queries;
        let weights = place.empty([shape.kv_heads, tile.queries * of.group, tile.keys], dtype);
        let (count, dim) = place.rows(rows);
        weights_kernel::launch(
            &place.client,
            count,
            dim,
            scores.into_array_arg(),
            of.sight.on_device[0].clone().into_array_arg(),
            of.sight.on_device[1].clone().into_array_arg(),
            weights.clone().into_array_arg(),
            lse.clone().into_array_arg(),
            tile.query as u32,
            tile.queries as u32,
            tile.key as u32,
            tile.keys as u32,
            of.group as u32,
            shape.scale(),
            dtype.into(),
        );
        parts.push(by_row(wrap::<R, BT, 3>(product(&weights, &v, dtype)), of.group));
        done = tile.query + tile.queries;
    }
    if queries > done {
        parts.push(none(queries - done));
    }
    let lse = wrap::<R, BT, 1>(lse).reshape([shape.heads, queries]);
    (raw(Tensor::cat(parts, 0)), raw(lse))
}

/// What [`backward`] needs of [`forward`].
pub(super) struct Saved<'a, R: CubeRuntime> {
    /// Queries, keys and values, as operands.
    pub(super) qkv: [CubeTensor<R>; 3],
    /// The output.
    pub(super) out: &'a CubeTensor<R>,
    /// Log-sum-exp of every row.
    pub(super) lse: &'a CubeTensor<R>,
}

/// The gradients of q, k and v: f32.
pub(super) fn backward<R: CubeRuntime, BT: BoolElement>(
    saved: Saved<'_, R>,
    d_out: &CubeTensor<R>,
    shape: &AttentionShape,
) -> [CubeTensor<R>; 3] {
    let Saved { qkv, out, lse } = saved;
    let (place, dtype, [queries, width]) =
        (OnDevice::of(&qkv[0]), qkv[0].dtype, rows_cols(&qkv[0]));
    let device = qkv[0].device.clone();
    let of = Operands::<R, BT>::new(qkv, shape);
    let along = along(out, d_out, shape.heads);
    let lse = contiguous(lse);
    let d_out = wrap::<R, BT, 2>(d_out.clone()).cast(dtype);
    let none = |rows| Matrix::<R, BT, 2>::zeros([rows, width], &device);
    let [mut dk, mut dv] = [&of.k, &of.v].map(|x| Matrix::<R, BT, 3>::zeros(x.dims(), &device));
    let (mut parts, mut done) = (Vec::new(), 0);
    for tile in of.sight.tiles(shape.heads) {
        if tile.query > done {
            parts.push(none(tile.query - done));
        }
        let [q, d_tile] = [&of.q, &d_out].map(|x| of.queries(x, tile, shape));
        let [k, v] = [&of.k, &of.v].map(|x| Operands::seen(x, tile));
        let scores = product(&q, &transposed(&k), DType::F32);
        let d_weights = product(&d_tile, &transposed(&v), DType::F32);
        let rows = tile.queries * of.group;
        let [weights, d_scores] =
            [(); 2].map(|()| place.empty([shape.kv_heads, rows, tile.keys], dtype));
        let (count, dim) = place.each(shape.kv_heads * rows * tile.keys);
        gradient_kernel::launch(
            &place.client,
            count,
            dim,
            scores.into_array_arg(),
            d_weights.into_array_arg(),
            of.sight.on_device[0].clone().into_array_arg(),
            of.sight.on_device[1].clone().into_array_arg(),
            lse.clone().into_array_arg(),
            along.clone().into_array_arg(),
            weights.clone().into_array_arg(),
            d_scores.clone().into_array_arg(),
            tile.query as u32,
            tile.queries as u32,
            tile.key as u32,
            tile.keys as u32,
            of.group as u32,
            shape.scale(),
            dtype.into(),
        );
        dv = add_rows(dv, product(&transposed(&weights), &d_tile, DType::F32), tile.key);
        dk = add_rows(dk, product(&transposed(&d_scores), &q, DType::F32), tile.key);
        let dq = product(&d_scores, &k, DType::F32);
        parts.push(by_row(wrap::<R, BT, 3>(dq), of.group));
        done = tile.query + tile.queries;
    }
    if queries > done {
        parts.push(none(queries - done));
    }
    [raw(Tensor::cat(parts, 0)), raw(by_row(dk, 1)), raw(by_row(dv, 1))]
}

fn along<R: CubeRuntime>(
    out: &CubeTensor<R>,
    d_out: &CubeTensor<R>,
    heads: usize,
) -> CubeTensor<R> {
    let (place, [queries, _]) = (OnDevice::of(out), rows_cols(out));
    let along = place.empty([heads, queries], DType::F32);
    let (count, dim) = place.each(heads * queries);
    along_kernel::launch(
        &place.client,
        count,
        dim,
        contiguous(out).into_array_arg(),
        contiguous(d_out).into_array_arg(),
        along.clone().into_array_arg(),
        queries as u32,
        heads as u32,
        [out.dtype.into(), d_out.dtype.into()],
    );
    along
}
