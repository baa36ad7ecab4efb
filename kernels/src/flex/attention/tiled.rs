//! The way for any precision and processor: every product of tiles is a general one.
//!
//! The query heads of a key head are stacked, so that its keys are packed once for all of them.
#![expect(unsafe_code, reason = "tasks write disjoint rows and heads of one output")]

use std::cell::RefCell;

use rayon::prelude::*;

use super::operands::{Across, Head, Stacked};
use super::{Attended, Saved, Shared, clear, key_heads};
use crate::flex::gemm::{Product, View, gemm_serial, gemm_serial_at};
use crate::flex::matrix::{Matrix, Value};
use crate::flex::simd::{dot, exp, max, sum, vectorize};
use crate::layout::{AttentionShape, Span};
use crate::precision::Precision;

/// Queries of a tile.
const TILE: usize = 48;
/// Keys of a tile: with four heads a key head, its scores fill 192 KiB.
const KEYS: usize = 256;

thread_local! {
    /// Memory alone: what a task reads of it, it has written before.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    d_scores: Vec<f32>,
    /// Sums of the stacked rows, `[heads · rows, head_dim]`.
    sums: Vec<f32>,
    /// Of every stacked row: the largest score so far, or the output times its gradient.
    level: Vec<f32>,
    /// The sum of the weights so far.
    total: Vec<f32>,
    /// One row of one head.
    head: Vec<f32>,
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

/// Tiles of the first `seen` keys: first key and how many.
fn key_tiles(seen: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..seen).step_by(KEYS).map(move |first| (first, KEYS.min(seen - first)))
}

/// One tile of queries, with all heads of a key head.
#[derive(Clone, Copy)]
struct Tile<'a> {
    shape: &'a AttentionShape,
    span: &'a Span,
    kv_head: usize,
    first: usize,
    rows: usize,
    /// Keys that its last query sees.
    seen: usize,
}

impl<'a> Tile<'a> {
    fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
    }

    fn stacked(&self) -> usize {
        self.group() * self.rows
    }

    fn width(&self) -> usize {
        self.shape.heads * self.shape.head_dim
    }

    fn row(&self) -> usize {
        self.span.queries.start + self.first
    }

    fn by_query(&self, data: Matrix<'a>) -> Stacked<'a> {
        let dim = self.shape.head_dim;
        let column = self.kv_head * self.group() * dim;
        let first = Head { data, width: self.width(), row: self.row(), column };
        Stacked { first, rows: self.rows, dim }
    }

    fn by_key(&self, data: Matrix<'a>, first: usize) -> Head<'a> {
        let all = Head::of_keys(data, self.shape, self.span, self.kv_head);
        Head { row: all.row + first, ..all }
    }

    /// Keys from `first` on, of `keys`, that a stacked row sees.
    fn visible(&self, line: usize, first: usize, keys: usize) -> usize {
        let seen = self.seen - self.rows + line % self.rows + 1;
        seen.saturating_sub(first).min(keys)
    }

    /// Head and query of a stacked row in a `[heads, queries]` matrix.
    fn index(&self, line: usize, queries: usize) -> usize {
        let head = self.kv_head * self.group() + line / self.rows;
        head * queries + self.row() + line % self.rows
    }
}

/// Writes the output and the log-sum-exp of the rows of `spans`.
pub(super) fn forward<T: Value>(
    spans: &[&Span],
    [q, k, v]: [Matrix<'_>; 3],
    shape: &AttentionShape,
    precision: Precision,
    to: &Attended<'_, T>,
) {
    let Attended { out: shared_out, lse: shared_lse, queries } = to;
    let queries = *queries;
    let tasks: Vec<_> = spans
        .iter()
        .flat_map(|span| tiles(span).map(move |tile| (*span, tile)))
        .flat_map(|task| (0..shape.kv_heads).map(move |kv_head| (task, kv_head)))
        .collect();
    tasks.into_par_iter().for_each(|((span, (first, rows, seen)), kv_head)| {
        let tile = Tile { shape, span, kv_head, first, rows, seen };
        SCRATCH.with_borrow_mut(|scratch| {
            tile.attend([q, k, v], precision, scratch);
            let Scratch { sums, level, total, .. } = scratch;
            let to = tile.by_query(Matrix::F32(&[]));
            for (line, sums) in sums.chunks_exact(shape.head_dim).enumerate() {
                // SAFETY: a row of a head, which belongs to this task alone, for no two spans share a query;
                // the references end with this line.
                let (out, lse) = unsafe {
                    let out = shared_out.run(to.start(line), shape.head_dim);
                    (out, &mut shared_lse.run(tile.index(line, queries), 1)[0])
                };
                let inverse = 1.0 / total[line];
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = T::of(sum * inverse);
                }
                *lse = level[line] + total[line].ln();
            }
        });
    });
}

impl Tile<'_> {
    /// Leaves the weighted sums of the values in `sums`, not yet divided by `total`.
    fn attend(&self, [q, k, v]: [Matrix<'_>; 3], precision: Precision, scratch: &mut Scratch) {
        let (dim, stacked, scale) = (self.shape.head_dim, self.stacked(), self.shape.scale());
        let Scratch { scores, sums, level, total, .. } = scratch;
        clear(sums, stacked * dim, 0.0);
        clear(level, stacked, f32::NEG_INFINITY);
        clear(total, stacked, 0.0);
        for (first, keys) in key_tiles(self.seen) {
            scores.resize(stacked * keys, 0.0);
            let to_scores = Product::new(stacked, keys, dim, precision);
            gemm_serial(to_scores, &self.by_query(q), &self.by_key(k, first), scores);
            let rows = scores.chunks_exact_mut(keys).zip(sums.chunks_exact_mut(dim));
            for (line, (scores, sums)) in rows.enumerate() {
                let visible = self.visible(line, first, keys);
                weigh(scores, visible, scale, &mut level[line], &mut total[line], sums);
            }
            let product =
                Product { accumulate: true, ..Product::new(stacked, dim, keys, precision) };
            gemm_serial(product, &View::rows(&*scores, keys), &Across(self.by_key(v, first)), sums);
        }
    }
}

/// Turns raw scores into weights under a maximum that may have risen: what was summed before is scaled
/// to it. The first `visible` are seen, the rest become zero.
fn weigh(
    scores: &mut [f32],
    visible: usize,
    scale: f32,
    level: &mut f32,
    total: &mut f32,
    sums: &mut [f32],
) {
    vectorize(
        #[inline(always)]
        || {
            let (seen, hidden) = scores.split_at_mut(visible);
            hidden.fill(0.0);
            if seen.is_empty() {
                return;
            }
            let highest = max(seen) * scale;
            if *level == f32::NEG_INFINITY {
                *level = highest;
            } else if highest > *level || highest.is_nan() {
                let factor = exp(*level - highest);
                *total *= factor;
                for sum in sums {
                    *sum *= factor;
                }
                *level = highest;
            }
            for score in seen.iter_mut() {
                *score = exp(*score * scale - *level);
            }
            *total += sum(seen);
        },
    );
}

/// Adds the gradients of the rows of `spans`. One task a span and key head, so that sums have one order.
pub(super) fn backward(
    spans: &[&Span],
    saved: &Saved<'_>,
    d_out: &[f32],
    shape: &AttentionShape,
    precision: Precision,
    outputs: &[Shared<'_, f32>; 3],
) {
    let pass = Backward { saved, d_out, precision, outputs };
    key_heads(spans, shape).into_par_iter().for_each(|(span, kv_head)| {
        for (first, rows, seen) in tiles(span) {
            let tile = Tile { shape, span, kv_head, first, rows, seen };
            SCRATCH.with_borrow_mut(|scratch| pass.tile(&tile, scratch));
        }
    });
}

struct Backward<'a> {
    saved: &'a Saved<'a>,
    d_out: &'a [f32],
    precision: Precision,
    outputs: &'a [Shared<'a, f32>; 3],
}

impl Backward<'_> {
    /// `P = e^(S − lse)`, `dV += Pᵀ·dO`, `dS = P·(dO·Vᵀ − Σ dO·O)`, `dQ = dS·K`, `dK += dSᵀ·Q`.
    fn tile(&self, tile: &Tile<'_>, scratch: &mut Scratch) {
        let Self { saved, d_out, precision, outputs: [dq, dk, dv] } = self;
        let (dim, stacked) = (tile.shape.head_dim, tile.stacked());
        let (scale, precision) = (tile.shape.scale(), *precision);
        let kv_width = tile.shape.kv_heads * dim;
        let queries = saved.q.len() / tile.width();
        let (q, d_o) = (tile.by_query(saved.q), tile.by_query(Matrix::F32(d_out)));
        let Scratch { scores, d_scores, sums, level, head, .. } = scratch;
        clear(sums, stacked * dim, 0.0);
        clear(level, stacked, 0.0);
        for (line, delta) in level.iter_mut().enumerate() {
            let at = q.start(line)..q.start(line) + dim;
            head.resize(dim, 0.0);
            *delta = dot(saved.out.run(at.start, head), &d_out[at]);
        }
        for (first, keys) in key_tiles(tile.seen) {
            let (k, v) = (tile.by_key(saved.k, first), tile.by_key(saved.v, first));
            scores.resize(stacked * keys, 0.0);
            d_scores.resize(stacked * keys, 0.0);
            let to_scores = Product::new(stacked, keys, dim, precision);
            gemm_serial(to_scores, &q, &k, scores);
            gemm_serial(to_scores, &d_o, &v, d_scores);
            let rows = scores.chunks_exact_mut(keys).zip(d_scores.chunks_exact_mut(keys));
            for (line, (p, dp)) in rows.enumerate() {
                let visible = tile.visible(line, first, keys);
                let lse = saved.lse[tile.index(line, queries)];
                scores_gradient(p, dp, visible, scale, lse, level[line]);
            }
            let to_keys = Product {
                ldc: kv_width,
                accumulate: true,
                ..Product::new(keys, dim, stacked, precision)
            };
            let start = k.row * kv_width + k.column;
            let p = View::transposed(&*scores, keys);
            let ds = View::transposed(&*d_scores, keys);
            let [dv, dk] = [dv, dk].map(|to| to.at(start, to_keys.extent()));
            // SAFETY: rows of this span's keys, only the columns of this key head: they belong to this task
            // alone, for no two spans share a key, and no reference to them exists anywhere.
            unsafe {
                gemm_serial_at(to_keys, &p, &Across(d_o), dv);
                gemm_serial_at(to_keys, &ds, &Across(q), dk);
            }
            let to_queries =
                Product { accumulate: true, ..Product::new(stacked, dim, keys, precision) };
            gemm_serial(to_queries, &View::rows(&*d_scores, keys), &Across(k), sums);
        }
        for (line, sums) in sums.chunks_exact(dim).enumerate() {
            // SAFETY: a row of a head, which belongs to this task alone, for no two spans share a query; the
            // reference ends with this line.
            let dq = unsafe { dq.run(q.start(line), dim) };
            dq.copy_from_slice(sums);
        }
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
