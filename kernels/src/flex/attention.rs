//! Causal attention with grouped key heads, tiled over queries: the scores of one tile exist at a
//! time, the backward pass recomputes them from the saved log-sum-exp (Dao et al. 2022, section 3).
//!
//! `q` is `[queries, heads · head_dim]`, `k` and `v` `[keys, kv_heads · head_dim]`.
#![expect(unsafe_code, reason = "tasks write disjoint heads of one output")]

use std::cell::RefCell;

use rayon::prelude::*;

use super::gemm::{Operand, Product, Runs, View, gemm_serial};
use super::simd::{dot, exp, max, sum, vectorize};
use crate::layout::{AttentionShape, Span};
use crate::precision::Precision;

/// Queries of a tile.
const TILE: usize = 48;

thread_local! {
    static SCORES: RefCell<[Vec<f32>; 2]> = RefCell::default();
}

/// One head's columns of a `[tokens, width]` matrix, from row `row` on.
#[derive(Clone, Copy)]
struct Head<'a> {
    data: &'a [f32],
    width: usize,
    row: usize,
    column: usize,
}

impl Operand for Head<'_> {
    fn runs(&self) -> Runs {
        Runs::AlongDepth
    }

    fn run<'s>(&'s self, line: usize, start: usize, scratch: &'s mut [f32]) -> &'s [f32] {
        let start = (self.row + line) * self.width + self.column + start;
        &self.data[start..start + scratch.len()]
    }
}

/// The transpose of a [`Head`].
struct HeadTransposed<'a>(Head<'a>);

impl Operand for HeadTransposed<'_> {
    fn runs(&self) -> Runs {
        Runs::AcrossRows
    }

    fn run<'s>(&'s self, line: usize, start: usize, scratch: &'s mut [f32]) -> &'s [f32] {
        self.0.run(line, start, scratch)
    }
}

/// A matrix that tasks write disjoint parts of.
struct Shared {
    start: *mut f32,
    len: usize,
}

// SAFETY: each task writes the rows and columns of its own span and head only.
unsafe impl Sync for Shared {}

impl Shared {
    fn new(values: &mut [f32]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len() }
    }

    /// # Safety
    /// No two tasks may write the same element of the slices they take.
    #[expect(clippy::mut_from_ref, reason = "disjoint by the caller's promise")]
    unsafe fn from(&self, offset: usize) -> &mut [f32] {
        debug_assert!(offset <= self.len, "offset {offset} of {}", self.len);
        // SAFETY: inside the allocation; disjointness is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), self.len - offset) }
    }
}

/// Query tiles of a span: first query (relative to the span), rows, and keys the tile can see.
fn tiles(span: &Span) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
    let (queries, keys) = (span.queries.len(), span.keys.len());
    assert!(keys >= queries, "a span of {queries} queries has only {keys} keys");
    (0..queries).step_by(TILE).map(move |first| {
        let rows = TILE.min(queries - first);
        (first, rows, keys - queries + first + rows)
    })
}

/// Output `[queries, heads · head_dim]` and log-sum-exp `[heads, queries]`.
pub(super) fn forward(
    [q, k, v]: [&[f32]; 3],
    queries: usize,
    shape: &AttentionShape,
    precision: Precision,
) -> (Vec<f32>, Vec<f32>) {
    let dim = shape.head_dim;
    let (width, kv_width) = (shape.heads * dim, shape.kv_heads * dim);
    let group = shape.heads / shape.kv_heads;
    let mut out = vec![0.0; queries * width];
    let mut lse = vec![0.0; shape.heads * queries];
    let tasks: Vec<_> = shape
        .spans
        .iter()
        .flat_map(|span| tiles(span).map(move |tile| (span, tile)))
        .flat_map(|task| (0..shape.heads).map(move |head| (task, head)))
        .collect();
    let (shared_out, shared_lse) = (Shared::new(&mut out), Shared::new(&mut lse));
    tasks.into_par_iter().for_each(|((span, (first, rows, keys)), head)| {
        let row = span.queries.start + first;
        let column = head / group * dim;
        let q = Head { data: q, width, row, column: head * dim };
        let k = Head { data: k, width: kv_width, row: span.keys.start, column };
        let v = Head { data: v, width: kv_width, row: span.keys.start, column };
        SCORES.with_borrow_mut(|[scores, _]| {
            scores.resize(rows * keys, 0.0);
            gemm_serial(Product::new(rows, keys, dim, precision), &q, &k, scores);
            // SAFETY: rows `row..row + rows` of this head belong to this task alone.
            let lse = unsafe { &mut shared_lse.from(head * queries + row)[..rows] };
            for (i, (scores, lse)) in scores.chunks_exact_mut(keys).zip(lse).enumerate() {
                *lse = softmax(scores, keys - rows + i + 1, shape.scale());
            }
            let product = Product { ldc: width, ..Product::new(rows, dim, keys, precision) };
            let weights = View::rows(scores, keys);
            // SAFETY: as above, the columns of this head in these rows.
            let out = unsafe { shared_out.from(row * width + head * dim) };
            gemm_serial(product, &weights, &HeadTransposed(v), out);
        });
    });
    (out, lse)
}

/// Turns raw scores into weights: the first `visible` are seen, the rest become zero.
fn softmax(scores: &mut [f32], visible: usize, scale: f32) -> f32 {
    vectorize(
        #[inline(always)]
        || {
            let (seen, hidden) = scores.split_at_mut(visible);
            hidden.fill(0.0);
            let max = max(seen) * scale;
            for score in seen.iter_mut() {
                *score = exp(*score * scale - max);
            }
            let total = sum(seen);
            let inverse = 1.0 / total;
            for score in seen {
                *score *= inverse;
            }
            max + total.ln()
        },
    )
}

/// What [`backward`] needs from the forward pass.
pub(super) struct Saved<'a> {
    pub(super) q: &'a [f32],
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    pub(super) out: &'a [f32],
    pub(super) lse: &'a [f32],
}

/// Gradients of q, k and v. One task a span and key head, so that sums have one order.
pub(super) fn backward(
    saved: &Saved<'_>,
    d_out: &[f32],
    shape: &AttentionShape,
    precision: Precision,
) -> [Vec<f32>; 3] {
    let mut dq = vec![0.0; saved.q.len()];
    let mut dk = vec![0.0; saved.k.len()];
    let mut dv = vec![0.0; saved.v.len()];
    let outputs = [&mut dq, &mut dk, &mut dv].map(|values| Shared::new(values));
    let tasks: Vec<_> = shape
        .spans
        .iter()
        .flat_map(|span| (0..shape.kv_heads).map(move |kv_head| (span, kv_head)))
        .collect();
    let pass = Backward { saved, d_out, shape, precision, outputs };
    tasks.into_par_iter().for_each(|(span, kv_head)| {
        let group = shape.heads / shape.kv_heads;
        for head in kv_head * group..(kv_head + 1) * group {
            for (first, rows, keys) in tiles(span) {
                pass.tile(span, head, first, rows, keys);
            }
        }
    });
    [dq, dk, dv]
}

struct Backward<'a> {
    saved: &'a Saved<'a>,
    d_out: &'a [f32],
    shape: &'a AttentionShape,
    precision: Precision,
    outputs: [Shared; 3],
}

impl Backward<'_> {
    /// `P = e^(S − lse)`, `dV += Pᵀ·dO`, `dS = P·(dO·Vᵀ − Σ dO·O)`, `dQ = dS·K`, `dK += dSᵀ·Q`.
    fn tile(&self, span: &Span, head: usize, first: usize, rows: usize, keys: usize) {
        let Self { saved, d_out, shape, precision, outputs: [dq, dk, dv] } = self;
        let (dim, precision) = (shape.head_dim, *precision);
        let (width, kv_width) = (shape.heads * dim, shape.kv_heads * dim);
        let (row, column) = (span.queries.start + first, head * dim);
        let kv_column = head / (shape.heads / shape.kv_heads) * dim;
        let queries = saved.q.len() / width;
        let lse = &saved.lse[head * queries + row..][..rows];
        let by_query = |data| Head { data, width, row, column };
        let by_key = |data| Head { data, width: kv_width, row: span.keys.start, column: kv_column };
        let (q, d_o) = (by_query(saved.q), by_query(d_out));
        let (k, v) = (by_key(saved.k), by_key(saved.v));
        let kv_start = span.keys.start * kv_width + kv_column;
        let to_scores = Product::new(rows, keys, dim, precision);
        let to_keys =
            Product { ldc: kv_width, accumulate: true, ..Product::new(keys, dim, rows, precision) };
        let to_queries = Product { ldc: width, ..Product::new(rows, dim, keys, precision) };
        SCORES.with_borrow_mut(|[weights, d_weights]| {
            weights.resize(rows * keys, 0.0);
            d_weights.resize(rows * keys, 0.0);
            gemm_serial(to_scores, &q, &k, weights);
            gemm_serial(to_scores, &d_o, &v, d_weights);
            for (i, (p, dp)) in
                weights.chunks_exact_mut(keys).zip(d_weights.chunks_exact_mut(keys)).enumerate()
            {
                let at = (row + i) * width + column;
                let (out, d_out) = (&saved.out[at..at + dim], &d_out[at..at + dim]);
                let delta = dot(out, d_out);
                scores_gradient(p, dp, keys - rows + i + 1, shape.scale(), lse[i], delta);
            }
            let p = View::transposed(weights, keys);
            // SAFETY: this span's keys of this key head, which one task owns.
            gemm_serial(to_keys, &p, &HeadTransposed(d_o), unsafe { dv.from(kv_start) });
            let ds = View::transposed(d_weights, keys);
            // SAFETY: as above.
            gemm_serial(to_keys, &ds, &HeadTransposed(q), unsafe { dk.from(kv_start) });
            let ds = View::rows(d_weights, keys);
            // SAFETY: these rows of this head.
            let dq = unsafe { dq.from(row * width + column) };
            gemm_serial(to_queries, &ds, &HeadTransposed(k), dq);
        });
    }
}

/// Turns raw scores into weights and their gradient into the gradient of `q·kᵀ`.
fn scores_gradient(
    p: &mut [f32],
    dp: &mut [f32],
    visible: usize,
    scale: f32,
    lse: f32,
    delta: f32,
) {
    vectorize(
        #[inline(always)]
        || {
            for (p, dp) in p[..visible].iter_mut().zip(&mut dp[..visible]) {
                *p = exp(*p * scale - lse);
                *dp = *p * (*dp - delta) * scale;
            }
            p[visible..].fill(0.0);
            dp[visible..].fill(0.0);
        },
    );
}
