//! Causal attention with packed documents and grouped heads, a tile of queries at a time.
//!
//! A tile's scores come from one product over all heads, then a kernel makes weights of them, then a
//! second product. Only the log-sum-exp of every row is kept (Dao et al. 2022): the backward pass makes the
//! weights again, tile by tile, so that no more than a tile of scores exists. Which keys a query sees is a
//! range, from its document's first to itself.

use burn::tensor::{DType, Tensor, TensorPrimitive};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime};
use cubecl::prelude::*;

use super::launch::{Place, UNITS, contiguous, max_of_cube, rows_cols, sum_of_cube};
use super::product::{product, transposed};
use crate::layout::AttentionShape;

/// Scores of a tile, over all heads: 64 MiB of f32.
const TILE: usize = 1 << 24;

/// The ranges of keys that queries see: `[first, end)`, empty outside every span.
struct Sight<R: CubeRuntime> {
    first: Vec<u32>,
    end: Vec<u32>,
    on_device: [CubeTensor<R>; 2],
}

/// Queries that are worked on together, and the keys that any of them sees.
#[derive(Clone, Copy)]
struct Tile {
    query: usize,
    queries: usize,
    key: usize,
    keys: usize,
}

impl<R: CubeRuntime> Sight<R> {
    fn new(shape: &AttentionShape, queries: usize, place: &Place<R>) -> Self {
        let (mut first, mut end) = (vec![0; queries], vec![0; queries]);
        for span in shape.spans.iter() {
            // The last query stands at the last key.
            let before = span.keys.len() - span.queries.len();
            for (i, query) in span.queries.clone().enumerate() {
                first[query] = span.keys.start as u32;
                end[query] = (span.keys.start + before + i + 1) as u32;
            }
        }
        let on_device = [&first, &end].map(|ends| place.upload_u32(ends));
        Self { first, end, on_device }
    }

    /// All queries in tiles, those that see nothing left out.
    fn tiles(&self, heads: usize) -> Vec<Tile> {
        let ranges = self.first.iter().zip(&self.end);
        let longest = ranges.map(|(first, end)| end - first).max().unwrap_or(0) as usize;
        // As many as a document has: a tile over many short ones would be empty for the most part.
        let most =
            (TILE / (heads * longest.max(1))).min(longest.next_multiple_of(32)).clamp(32, 512);
        let cut = (0..self.first.len()).step_by(most).filter_map(|query| {
            let queries = most.min(self.first.len() - query);
            let seeing = (query..query + queries).filter(|&i| self.end[i] > self.first[i]);
            let key = seeing.clone().map(|i| self.first[i]).min()? as usize;
            let end = seeing.map(|i| self.end[i]).max()? as usize;
            Some(Tile { query, queries, key, keys: end - key })
        });
        cut.collect()
    }
}

/// Rows of a tile's scores are `[kv_heads, queries, group]`; which head and which query a row is.
#[cube]
fn place_of(row: usize, queries: usize, group: usize) -> (usize, usize) {
    let head = row / (queries * group) * group + row % group;
    let query = row / group % queries;
    (head, query)
}

#[cube(launch)]
fn weights_kernel<F: Float>(
    scores: &Array<f32>,
    first: &Array<u32>,
    end: &Array<u32>,
    weights: &mut Array<F>,
    lse: &mut Array<f32>,
    query: u32,
    queries: u32,
    key: u32,
    keys: u32,
    group: u32,
    scale: f32,
    #[define(F)] _dtype: StorageType,
) {
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    let (keys, row) = (keys as usize, CUBE_POS);
    let start = row * keys;
    if start >= weights.len() {
        terminate!();
    }
    let (head, place) = place_of(row, queries as usize, group as usize);
    let place = query as usize + place;
    let (low, high) = (first[place], end[place]);
    let mut most = f32::new(-1.0e30);
    let mut i = UNIT_POS as usize;
    while i < keys {
        let at = key + i as u32;
        if at >= low && at < high {
            most = max(most, scores[start + i] * scale);
        }
        i += UNITS as usize;
    }
    let most = max_of_cube(most, &mut shared);
    let mut sum = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < keys {
        let at = key + i as u32;
        if at >= low && at < high {
            sum += f32::exp(scores[start + i] * scale - most);
        }
        i += UNITS as usize;
    }
    let sum = sum_of_cube(sum, &mut shared);
    let mut inverse = 0.0f32;
    let mut log = 0.0f32;
    if sum > 0.0f32 {
        inverse = 1.0f32 / sum;
        log = most + f32::ln(sum);
    }
    let mut i = UNIT_POS as usize;
    while i < keys {
        let at = key + i as u32;
        let mut weight = 0.0f32;
        if at >= low && at < high {
            weight = f32::exp(scores[start + i] * scale - most) * inverse;
        }
        weights[start + i] = F::cast_from(weight);
        i += UNITS as usize;
    }
    if UNIT_POS == 0 {
        lse[head * first.len() + place] = log;
    }
}

#[cube(launch)]
fn gradient_kernel<F: Float>(
    scores: &Array<f32>,
    d_weights: &Array<f32>,
    first: &Array<u32>,
    end: &Array<u32>,
    lse: &Array<f32>,
    along: &Array<f32>,
    weights: &mut Array<F>,
    d_scores: &mut Array<F>,
    query: u32,
    queries: u32,
    key: u32,
    keys: u32,
    group: u32,
    scale: f32,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < weights.len() {
        let keys = keys as usize;
        let row = ABSOLUTE_POS / keys;
        let at = key + (ABSOLUTE_POS % keys) as u32;
        let (head, place) = place_of(row, queries as usize, group as usize);
        let place = query as usize + place;
        let mut weight = 0.0f32;
        let mut gradient = 0.0f32;
        if at >= first[place] && at < end[place] {
            let index = head * first.len() + place;
            weight = f32::exp(scores[ABSOLUTE_POS] * scale - lse[index]);
            gradient = weight * (d_weights[ABSOLUTE_POS] - along[index]) * scale;
        }
        weights[ABSOLUTE_POS] = F::cast_from(weight);
        d_scores[ABSOLUTE_POS] = F::cast_from(gradient);
    }
}

/// `Σ d_out · out` of every head and query: what the softmax takes off each gradient.
#[cube(launch)]
fn along_kernel<F: Float, D: Float>(
    out: &Array<F>,
    d_out: &Array<D>,
    along: &mut Array<f32>,
    queries: u32,
    heads: u32,
    #[define(F, D)] _dtypes: [StorageType; 2],
) {
    if ABSOLUTE_POS < along.len() {
        let (queries, heads) = (queries as usize, heads as usize);
        let (head, query) = (ABSOLUTE_POS / queries, ABSOLUTE_POS % queries);
        let width = out.len() / queries / heads;
        let start = (query * heads + head) * width;
        let mut sum = 0.0f32;
        for i in start..start + width {
            sum += f32::cast_from(out[i]) * f32::cast_from(d_out[i]);
        }
        along[ABSOLUTE_POS] = sum;
    }
}

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
        let sight = Sight::new(shape, rows_cols(&q)[0], &Place::of(&q));
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
    let (place, dtype, [queries, width]) = (Place::of(&qkv[0]), qkv[0].dtype, rows_cols(&qkv[0]));
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
    let (place, dtype, [queries, width]) = (Place::of(&qkv[0]), qkv[0].dtype, rows_cols(&qkv[0]));
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
    let (place, [queries, _]) = (Place::of(out), rows_cols(out));
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
