//! The way for processors that multiply pairs of bf16: tiles go from one product to the next in the form
//! that it reads.
//!
//! Keys and values are packed once for all queries. Twelve queries of a head are multiplied by a tile of
//! keys where they lie, row by row; what becomes of their scores is rounded on the way out of registers,
//! as rows for the sums over keys and as pairs of rows for the sums over queries, so that nothing is packed
//! or transposed between two products.
#![expect(unsafe_code, reason = "kernels for instructions that were detected; disjoint outputs")]

mod x86;

use std::cell::RefCell;

use half::slice::HalfBitsSliceExt;
use rayon::prelude::*;

use super::operands::{Across, Head};
use super::{Attended, Saved, Shared};
use crate::flex::gemm::{Block, Buffers, Form, View, bf16_is_native, grow, pack, shuffle};
use crate::flex::matrix::{Matrix, Value};
use crate::flex::simd::{dot, vectorize};
use crate::layout::{AttentionShape, Span};
use crate::precision::Precision;

/// Keys of a tile: whole panels and whole tiles of a product.
const KEYS: usize = 192;
/// Rows of a product's tile.
const ROWS: usize = 12;
/// Columns of a product's tile, and of a panel of its right side.
const COLS: usize = 32;
/// Words, of two values each, from one row to the next: room for a tile of keys, and for a head.
const LINE: usize = KEYS / 2;
/// Queries of a tile, over all heads of a key head, about: what the second cache holds beside the keys.
const STACKED: usize = 192;

/// Whether a span goes this way. Few queries of many keys, as in decoding, are not worth packing the keys.
pub(super) fn takes(span: &Span, head_dim: usize, precision: Precision) -> bool {
    let is_form = head_dim.is_multiple_of(COLS) && head_dim <= 2 * LINE;
    let is_worth_it = span.queries.len() >= ROWS.min(span.keys.len());
    precision == Precision::Bf16 && is_form && is_worth_it && bf16_is_native()
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    /// Rows of queries, and of the gradient of the output: `[stacked][LINE]`.
    q: Vec<f32>,
    d_o: Vec<f32>,
    /// The same as right sides of sums over queries: panels of `[stacked / 2][COLS]`.
    q_across: Vec<f32>,
    d_o_across: Vec<f32>,
    /// Of twelve rows and a tile of keys, `[ROWS][KEYS]`: raw, and their gradient.
    scores: Vec<f32>,
    d_scores: Vec<f32>,
    /// What the scores became, `[ROWS][LINE]`.
    rows: Vec<f32>,
    /// Weights and the scores' gradient as pairs of rows, `[stacked / 2][KEYS]`.
    weights: Vec<f32>,
    d_weights: Vec<f32>,
    /// `[stacked, head_dim]`
    sums: Vec<f32>,
    /// Of every stacked row: the largest score so far, or the output times its gradient.
    level: Vec<f32>,
    /// The sum of the weights so far, or the log-sum-exp.
    total: Vec<f32>,
    /// A row of one head.
    head: Vec<f32>,
    buffers: Buffers,
}

/// Keys or values of a span and key head, as a right side: tiles of [`KEYS`], each panels of [`COLS`].
struct Packed {
    words: Vec<f32>,
    dim: usize,
}

impl Packed {
    /// Panels of keys, as deep as a head is wide: for `x·kᵀ`.
    fn by_key(head: &Head<'_>, keys: usize, dim: usize, buffers: &mut Buffers) -> Self {
        let form = form(dim / 2);
        Self::tiles(keys, dim, |first, count, tile| {
            let block = Block { row0: first, rows: count, depth0: 0, depth: dim };
            pack(head, block, tile, form, buffers);
        })
    }

    /// Panels of a head's columns, as deep as a tile has keys: for `p·v`.
    fn across(head: &Head<'_>, keys: usize, dim: usize, buffers: &mut Buffers) -> Self {
        let form = form(LINE);
        Self::tiles(keys, dim, |first, count, tile| {
            let block = Block { row0: 0, rows: dim, depth0: first, depth: count };
            pack(&Across(*head), block, tile, form, buffers);
        })
    }

    fn tiles(keys: usize, dim: usize, mut pack: impl FnMut(usize, usize, &mut [f32])) -> Self {
        let mut words = vec![0.0; keys.div_ceil(KEYS) * KEYS * dim / 2];
        for (index, tile) in words.chunks_exact_mut(KEYS * dim / 2).enumerate() {
            let first = index * KEYS;
            pack(first, KEYS.min(keys - first), tile);
        }
        Self { words, dim }
    }

    fn tile(&self, index: usize) -> &[f32] {
        let words = KEYS * self.dim / 2;
        &self.words[index * words..(index + 1) * words]
    }
}

/// Panels of so many steps.
fn form(steps: usize) -> Form {
    Form { width: COLS, stride: steps * COLS, pairs: true, precision: Precision::Bf16 }
}

/// A tile of queries with all heads of a key head: `group` times `rows` of them, each head's in blocks of
/// [`ROWS`], the last one filled up with zeros.
#[derive(Clone, Copy)]
struct Tile<'a> {
    shape: &'a AttentionShape,
    span: &'a Span,
    kv_head: usize,
    /// First query, relative to the span.
    first: usize,
    rows: usize,
}

/// Queries of one head that are multiplied together.
#[derive(Clone, Copy)]
struct Rows {
    /// Where they are among the stacked rows.
    stacked: usize,
    head: usize,
    /// The first, among those of the tensor.
    query: usize,
    count: usize,
    /// Keys of the span that the first one sees; each sees one more.
    seen: usize,
}

impl Rows {
    /// Keys from `first` on, of a tile, that row `line` sees; nobody is behind the last row.
    fn visible(&self, line: usize, first: usize) -> usize {
        let seen = if line < self.count { self.seen + line } else { 0 };
        seen.saturating_sub(first).min(KEYS)
    }

    /// The most that any of them sees.
    fn most(&self, first: usize) -> usize {
        self.visible(self.count - 1, first)
    }
}

impl<'a> Tile<'a> {
    fn all(
        shape: &'a AttentionShape,
        span: &'a Span,
        kv_head: usize,
    ) -> impl Iterator<Item = Self> {
        let (queries, keys) = (span.queries.len(), span.keys.len());
        assert!(keys >= queries, "a span of {queries} queries has only {keys} keys");
        let group = shape.heads / shape.kv_heads;
        let most = (STACKED / group / ROWS * ROWS).max(ROWS);
        (0..queries).step_by(most).map(move |first| {
            let rows = most.min(queries - first);
            Self { shape, span, kv_head, first, rows }
        })
    }

    fn width(&self) -> usize {
        self.shape.heads * self.shape.head_dim
    }

    /// Keys of the span that its last query sees.
    fn seen(&self) -> usize {
        self.span.keys.len() - self.span.queries.len() + self.first + self.rows
    }

    fn stacked(&self) -> usize {
        self.shape.heads / self.shape.kv_heads * self.rows.next_multiple_of(ROWS)
    }

    fn blocks(self) -> impl Iterator<Item = Rows> {
        let a_head = self.rows.div_ceil(ROWS);
        (0..self.stacked() / ROWS).map(move |block| {
            let (head, row) = (block / a_head, block % a_head * ROWS);
            Rows {
                stacked: block * ROWS,
                head: self.kv_head * (self.shape.heads / self.shape.kv_heads) + head,
                query: self.span.queries.start + self.first + row,
                count: ROWS.min(self.rows - row),
                seen: self.seen() - self.rows + row + 1,
            }
        })
    }

    /// Where a row of one head begins in a matrix of queries.
    fn start(&self, rows: &Rows, line: usize) -> usize {
        (rows.query + line) * self.width() + rows.head * self.shape.head_dim
    }

    /// Copies the tile's rows of a matrix of queries to `lines`, rounded, zeros where there is none.
    fn load(&self, from: Matrix<'_>, lines: &mut Vec<f32>, head: &mut Vec<f32>) {
        let dim = self.shape.head_dim;
        grow(lines, self.stacked() * LINE);
        head.resize(dim, 0.0);
        for rows in self.blocks() {
            for line in 0..ROWS {
                let to = &mut lines[(rows.stacked + line) * LINE..][..dim / 2];
                let to = shuffle::halves(to);
                if line >= rows.count {
                    to.fill(0);
                    continue;
                }
                let start = self.start(&rows, line);
                match from.halves(start, dim) {
                    Some(halves) => to.copy_from_slice(halves),
                    None => shuffle::round_run(from.run(start, head), to),
                }
            }
        }
    }
}

fn head<'a>(data: Matrix<'a>, shape: &AttentionShape, span: &Span, kv_head: usize) -> Head<'a> {
    let AttentionShape { kv_heads, head_dim, .. } = *shape;
    let (width, row) = (kv_heads * head_dim, span.keys.start);
    Head { data, width, row, column: kv_head * head_dim }
}

/// Writes the output and the log-sum-exp of the rows of `spans`.
pub(super) fn forward<T: Value>(
    spans: &[&Span],
    [q, k, v]: [Matrix<'_>; 3],
    shape: &AttentionShape,
    to: &Attended<T>,
) {
    let dim = shape.head_dim;
    let heads: Vec<_> = spans
        .iter()
        .flat_map(|&span| (0..shape.kv_heads).map(move |kv_head| (span, kv_head)))
        .collect();
    let packed: Vec<_> = heads
        .par_iter()
        .map(|&(span, kv_head)| {
            let [k, v] = [k, v].map(|data| head(data, shape, span, kv_head));
            SCRATCH.with_borrow_mut(|Scratch { buffers, .. }| {
                let keys = span.keys.len();
                [Packed::by_key(&k, keys, dim, buffers), Packed::across(&v, keys, dim, buffers)]
            })
        })
        .collect();
    let tasks: Vec<_> = heads
        .iter()
        .zip(&packed)
        .flat_map(|(&(span, kv_head), packed)| {
            Tile::all(shape, span, kv_head).map(move |tile| (tile, packed))
        })
        .collect();
    // The last tiles of a span see most keys: the long tasks come first.
    tasks.into_par_iter().rev().for_each(|(tile, [keys, values])| {
        SCRATCH.with_borrow_mut(|scratch| {
            tile.load(q, &mut scratch.q, &mut scratch.head);
            tile.attend(keys, values, scratch);
            tile.finish(to, scratch);
        });
    });
}

impl Tile<'_> {
    /// Leaves the weighted sums of the values in `sums`, not yet divided by `total`.
    fn attend(&self, keys: &Packed, values: &Packed, scratch: &mut Scratch) {
        let (dim, stacked, scale) = (self.shape.head_dim, self.stacked(), self.shape.scale());
        let Scratch { q, scores, rows: weights, sums, level, total, .. } = scratch;
        clear(sums, stacked * dim, 0.0);
        clear(level, stacked, f32::NEG_INFINITY);
        clear(total, stacked, 0.0);
        grow(scores, ROWS * KEYS);
        grow(weights, ROWS * LINE);
        for (index, first) in (0..self.seen()).step_by(KEYS).enumerate() {
            let (keys, values) = (keys.tile(index), values.tile(index));
            for rows in self.blocks() {
                let most = rows.most(first);
                if most == 0 {
                    continue;
                }
                let row = rows.stacked;
                let of_keys = keys.chunks_exact(dim / 2 * COLS).take(most.div_ceil(COLS));
                for (panel, keys) in of_keys.enumerate() {
                    x86::by_rows(
                        dim / 2,
                        &q[row * LINE..],
                        keys,
                        &mut scores[panel * COLS..],
                        KEYS,
                        false,
                    );
                }
                for line in 0..rows.count {
                    let at = row + line;
                    let state = x86::Running {
                        level: &mut level[at],
                        total: &mut total[at],
                        sums: &mut sums[at * dim..(at + 1) * dim],
                    };
                    let scores = &scores[line * KEYS..(line + 1) * KEYS];
                    let weights = &mut weights[line * LINE..(line + 1) * LINE];
                    x86::weigh(scores, rows.visible(line, first), most, scale, state, weights);
                }
                for (panel, values) in values.chunks_exact(LINE * COLS).enumerate() {
                    let sums = &mut sums[row * dim + panel * COLS..];
                    x86::by_rows(most.div_ceil(2), weights, values, sums, dim, true);
                }
            }
        }
    }

    fn finish<T: Value>(&self, to: &Attended<T>, scratch: &Scratch) {
        let (dim, Scratch { sums, level, total, .. }) = (self.shape.head_dim, scratch);
        for rows in self.blocks() {
            for line in 0..rows.count {
                let at = rows.stacked + line;
                // SAFETY: these rows of these heads belong to this task alone.
                let (out, lse) = unsafe {
                    let out = &mut to.out.from(self.start(&rows, line))[..dim];
                    (out, &mut to.lse.from(rows.head * to.queries + rows.query + line)[0])
                };
                let inverse = 1.0 / total[at];
                for (out, sum) in out.iter_mut().zip(&sums[at * dim..(at + 1) * dim]) {
                    *out = T::of(sum * inverse);
                }
                *lse = level[at] + total[at].ln();
            }
        }
    }
}

fn clear(values: &mut Vec<f32>, len: usize, value: f32) {
    values.clear();
    values.resize(len, value);
}

/// Adds the gradients of the rows of `spans`. One task a span and key head, so that sums have one order.
pub(super) fn backward(
    spans: &[&Span],
    saved: &Saved<'_>,
    d_out: &[f32],
    shape: &AttentionShape,
    outputs: &[Shared<f32>; 3],
) {
    let tasks: Vec<_> = spans
        .iter()
        .flat_map(|&span| (0..shape.kv_heads).map(move |kv_head| (span, kv_head)))
        .collect();
    tasks.into_par_iter().for_each(|(span, kv_head)| {
        let dim = shape.head_dim;
        let [k, v] = [saved.k, saved.v].map(|data| head(data, shape, span, kv_head));
        SCRATCH.with_borrow_mut(|scratch| {
            let (keys, buffers) = (span.keys.len(), &mut scratch.buffers);
            let pass = Backward {
                saved,
                d_out,
                outputs,
                keys: Packed::by_key(&k, keys, dim, buffers),
                values: Packed::by_key(&v, keys, dim, buffers),
                keys_across: Packed::across(&k, keys, dim, buffers),
            };
            for tile in Tile::all(shape, span, kv_head) {
                pass.tile(&tile, scratch);
            }
        });
    });
}

struct Backward<'a> {
    saved: &'a Saved<'a>,
    d_out: &'a [f32],
    outputs: &'a [Shared<f32>; 3],
    keys: Packed,
    values: Packed,
    keys_across: Packed,
}

impl Backward<'_> {
    /// `P = e^(S − lse)`, `dV += Pᵀ·dO`, `dS = P·(dO·Vᵀ − Σ dO·O)`, `dQ = dS·K`, `dK += dSᵀ·Q`.
    fn tile(&self, tile: &Tile<'_>, scratch: &mut Scratch) {
        let dim = tile.shape.head_dim;
        self.load(tile, scratch);
        for (index, first) in (0..tile.seen()).step_by(KEYS).enumerate() {
            let seen = (tile.seen() - first).min(KEYS);
            self.scores(tile, index, seen, scratch);
            let Scratch { q_across, d_o_across, weights, d_weights, .. } = scratch;
            let [_, dk, dv] = self.outputs;
            tile.add_to_keys(first, seen, weights, d_o_across, dv);
            tile.add_to_keys(first, seen, d_weights, q_across, dk);
        }
        for rows in tile.blocks() {
            for line in 0..rows.count {
                // SAFETY: these rows of these heads belong to this task alone.
                let dq = unsafe { self.outputs[0].from(tile.start(&rows, line)) };
                let at = (rows.stacked + line) * dim;
                dq[..dim].copy_from_slice(&scratch.sums[at..at + dim]);
            }
        }
    }

    /// Rows of queries and of the output's gradient, both ways, and what a row's scores need.
    fn load(&self, tile: &Tile<'_>, scratch: &mut Scratch) {
        let (dim, stacked) = (tile.shape.head_dim, tile.stacked());
        let Self { saved, d_out, .. } = self;
        let queries = saved.q.len() / tile.width();
        let Scratch { q, d_o, q_across, d_o_across, sums, level, total, head, buffers, .. } =
            scratch;
        let form = form(stacked / 2);
        for (from, lines, across) in [(saved.q, q, q_across), (Matrix::F32(d_out), d_o, d_o_across)]
        {
            tile.load(from, lines, head);
            let lines = shuffle::halves(&mut lines[..stacked * LINE]);
            let view = View::transposed(lines.reinterpret_cast::<half::bf16>(), 2 * LINE);
            grow(across, stacked * dim / 2);
            let block = Block { row0: 0, rows: dim, depth0: 0, depth: stacked };
            pack(&view, block, &mut across[..stacked * dim / 2], form, buffers);
        }
        clear(sums, stacked * dim, 0.0);
        clear(level, stacked, 0.0);
        clear(total, stacked, 0.0);
        for rows in tile.blocks() {
            for line in 0..rows.count {
                let start = tile.start(&rows, line);
                let out = saved.out.run(start, head);
                let d_out = &d_out[start..start + dim];
                level[rows.stacked + line] = vectorize(
                    #[inline(always)]
                    || dot(out, d_out),
                );
                total[rows.stacked + line] = saved.lse[rows.head * queries + rows.query + line];
            }
        }
    }

    /// Weights and the gradient of the scores for a tile of keys, as pairs of rows; their part of `dQ`.
    fn scores(&self, tile: &Tile<'_>, index: usize, seen: usize, scratch: &mut Scratch) {
        let (dim, stacked, scale) = (tile.shape.head_dim, tile.stacked(), tile.shape.scale());
        let [keys, values, across] =
            [&self.keys, &self.values, &self.keys_across].map(|packed| packed.tile(index));
        let Scratch { q, d_o, scores, d_scores, rows: d_rows, weights, d_weights, .. } = scratch;
        let (sums, level, lse) = (&mut scratch.sums, &scratch.level, &scratch.total);
        for lines in [&mut *scores, d_scores] {
            grow(lines, ROWS * KEYS);
        }
        grow(d_rows, ROWS * LINE);
        for pairs in [&mut *weights, d_weights] {
            grow(pairs, stacked / 2 * KEYS);
        }
        let first = index * KEYS;
        for rows in tile.blocks() {
            let (most, row) = (rows.most(first), rows.stacked);
            let panels = most.div_ceil(COLS);
            let sides = [(&*q, keys, &mut *scores), (&*d_o, values, &mut *d_scores)];
            for (lines, right, products) in sides {
                for (panel, right) in right.chunks_exact(dim / 2 * COLS).take(panels).enumerate() {
                    let products = &mut products[panel * COLS..];
                    x86::by_rows(dim / 2, &lines[row * LINE..], right, products, KEYS, false);
                }
            }
            for line in (0..ROWS).step_by(2) {
                let two = line * KEYS..(line + 2) * KEYS;
                let at = row + line;
                let pairs = at / 2 * KEYS..(at / 2 + 1) * KEYS;
                let of = x86::Gradient {
                    scale,
                    visible: [line, line + 1].map(|line| rows.visible(line, first)),
                    lse: [lse[at], lse[at + 1]],
                    along: [level[at], level[at + 1]],
                };
                x86::gradient(
                    &of,
                    [&scores[two.clone()], &d_scores[two]],
                    // Whole tiles of keys are read below.
                    seen.next_multiple_of(ROWS),
                    [&mut weights[pairs.clone()], &mut d_weights[pairs]],
                    &mut d_rows[line * LINE..(line + 2) * LINE],
                );
            }
            for (panel, right) in across.chunks_exact(LINE * COLS).enumerate() {
                let sums = &mut sums[row * dim + panel * COLS..];
                x86::by_rows(most.div_ceil(2), d_rows, right, sums, dim, true);
            }
        }
    }
}

impl Tile<'_> {
    /// Adds `pairsᵀ·across` to a tile of keys.
    fn add_to_keys(
        &self,
        first: usize,
        seen: usize,
        pairs: &[f32],
        across: &[f32],
        to: &Shared<f32>,
    ) {
        let (dim, steps) = (self.shape.head_dim, self.stacked() / 2);
        let width = self.shape.kv_heads * dim;
        for key in (0..seen).step_by(ROWS) {
            let row = self.span.keys.start + first + key;
            let panels = across.chunks_exact(steps * COLS).take(dim / COLS);
            for (panel, right) in panels.enumerate() {
                // SAFETY: this span's keys of this key head, which one task owns.
                let to = unsafe { to.from(row * width + self.kv_head * dim + panel * COLS) };
                let left = &pairs[key..];
                if self.span.keys.len() - first - key >= ROWS {
                    x86::by_pairs(steps, left, right, to, width, true);
                    continue;
                }
                let mut sums = [0.0; ROWS * COLS];
                x86::by_pairs(steps, left, right, &mut sums, COLS, false);
                let count = self.span.keys.len() - first - key;
                for (line, sums) in sums.chunks_exact(COLS).take(count).enumerate() {
                    for (to, sum) in to[line * width..].iter_mut().zip(sums) {
                        *to += sum;
                    }
                }
            }
        }
    }
}
