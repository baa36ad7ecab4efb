//! The backward pass: `P = e^(S − lse)`, `dV += Pᵀ·dO`, `dS = P·(dO·Vᵀ − Σ dO·O)`, `dQ = dS·K`,
//! `dK += dSᵀ·Q`.

use half::bf16;
use half::slice::HalfBitsSliceExt;
use rayon::prelude::*;

use super::tile::Tile;
use super::words::{Gradient, Words};
use super::{COLS, KEYS, Packed, Pairs, ROWS, SCRATCH, Scratch, Singles, Way};
use crate::flex::attention::operands::Head;
use crate::flex::attention::{Saved, Shared, clear, key_heads};
use crate::flex::gemm::{Block, View, grow, micro, pack, shuffle};
use crate::flex::matrix::Matrix;
use crate::flex::simd::{dot, vectorize};
use crate::layout::{AttentionShape, Span};
use crate::precision::Precision;

/// Adds the gradients of the rows of `spans`. One task a span and key head, so that sums have one order.
pub(in crate::flex::attention) fn backward(
    spans: &[&Span],
    saved: &Saved<'_>,
    d_out: &[f32],
    shape: &AttentionShape,
    precision: Precision,
    outputs: &[Shared<'_, f32>; 3],
) {
    match Way::of(precision) {
        Way::Pairs => all::<Pairs>(spans, saved, d_out, shape, outputs),
        Way::Rounded => all::<Singles<true>>(spans, saved, d_out, shape, outputs),
        Way::Exact => all::<Singles<false>>(spans, saved, d_out, shape, outputs),
    }
}

fn all<W: Words>(
    spans: &[&Span],
    saved: &Saved<'_>,
    d_out: &[f32],
    shape: &AttentionShape,
    outputs: &[Shared<'_, f32>; 3],
) {
    key_heads(spans, shape).into_par_iter().for_each(|(span, kv_head)| {
        let dim = shape.head_dim;
        let [k, v] = [saved.k, saved.v].map(|data| Head::of_keys(data, shape, span, kv_head));
        SCRATCH.with_borrow_mut(|scratch| {
            let (keys, buffers) = (span.keys.len(), &mut scratch.buffers);
            let pass = Backward {
                saved,
                d_out,
                outputs,
                keys: Packed::by_key::<W>(&k, keys, dim, buffers),
                values: Packed::by_key::<W>(&v, keys, dim, buffers),
                keys_across: Packed::across::<W>(&k, keys, dim, buffers),
            };
            for tile in Tile::all(shape, span, kv_head) {
                pass.tile::<W>(&tile, scratch);
            }
        });
    });
}

struct Backward<'a> {
    saved: &'a Saved<'a>,
    d_out: &'a [f32],
    outputs: &'a [Shared<'a, f32>; 3],
    keys: Packed,
    values: Packed,
    keys_across: Packed,
}

impl Backward<'_> {
    fn tile<W: Words>(&self, tile: &Tile<'_>, scratch: &mut Scratch) {
        let dim = tile.shape.head_dim;
        self.load::<W>(tile, scratch);
        for (index, first) in (0..tile.seen()).step_by(KEYS).enumerate() {
            let seen = (tile.seen() - first).min(KEYS);
            self.scores::<W>(tile, index, seen, scratch);
            let Scratch { q_across, d_o_across, weights, d_weights, .. } = scratch;
            let [_, dk, dv] = self.outputs;
            tile.add_to_keys::<W>(first, seen, weights, d_o_across, dv);
            tile.add_to_keys::<W>(first, seen, d_weights, q_across, dk);
        }
        for rows in tile.blocks() {
            for line in 0..rows.count {
                // SAFETY: a row of a head, which belongs to this task alone, for no two spans share a query;
                // the reference ends with this line.
                let dq = unsafe { self.outputs[0].run(tile.start(&rows, line), dim) };
                let at = (rows.stacked + line) * dim;
                dq.copy_from_slice(&scratch.sums[at..at + dim]);
            }
        }
    }

    /// Rows of queries and of the output's gradient, both ways, and what a row's scores need.
    fn load<W: Words>(&self, tile: &Tile<'_>, scratch: &mut Scratch) {
        let (dim, stacked) = (tile.shape.head_dim, tile.stacked());
        let Self { saved, d_out, .. } = self;
        let queries = saved.q.len() / tile.width();
        let Scratch { q, d_o, q_across, d_o_across, sums, level, total, head, buffers, .. } =
            scratch;
        // They are operands already: nothing is left to round.
        let form = W::unrounded(stacked / W::VALUES);
        let block = Block { row0: 0, rows: dim, depth0: 0, depth: stacked };
        for (from, lines, across) in [(saved.q, q, q_across), (Matrix::F32(d_out), d_o, d_o_across)]
        {
            tile.load::<W>(from, lines, head);
            let lines = &mut lines[..stacked * W::LINE];
            let view = if W::VALUES == 1 {
                View::transposed(&*lines, W::LINE)
            } else {
                let halves = shuffle::halves(lines).reinterpret_cast::<bf16>();
                View::transposed(halves, W::VALUES * W::LINE)
            };
            let words = stacked * dim / W::VALUES;
            grow(across, words);
            pack(&view, block, &mut across[..words], form, buffers);
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

    /// Weights and the gradient of the scores for a tile of keys; their part of `dQ`.
    fn scores<W: Words>(&self, tile: &Tile<'_>, index: usize, seen: usize, scratch: &mut Scratch) {
        let (dim, stacked, scale) = (tile.shape.head_dim, tile.stacked(), tile.shape.scale());
        let [keys, values, across] =
            [&self.keys, &self.values, &self.keys_across].map(|packed| packed.tile(index));
        let Scratch { q, d_o, scores, d_scores, rows: d_rows, weights, d_weights, .. } = scratch;
        let (sums, level, lse) = (&mut scratch.sums, &scratch.level, &scratch.total);
        for lines in [&mut *scores, d_scores] {
            grow(lines, ROWS * KEYS);
        }
        grow(d_rows, ROWS * W::LINE);
        for columns in [&mut *weights, d_weights] {
            grow(columns, stacked / W::VALUES * KEYS);
        }
        let (first, depth) = (index * KEYS, dim / W::VALUES);
        for rows in tile.blocks() {
            let (most, row) = (rows.most(first), rows.stacked);
            let panels = most.div_ceil(COLS);
            let sides = [(&*q, keys, &mut *scores), (&*d_o, values, &mut *d_scores)];
            for (lines, right, products) in sides {
                for (panel, right) in right.chunks_exact(depth * COLS).take(panels).enumerate() {
                    let products = &mut products[panel * COLS..];
                    W::by_rows(depth, &lines[row * W::LINE..], right, products, KEYS, false);
                }
            }
            for line in (0..ROWS).step_by(2) {
                let (at, two) = (row + line, line * KEYS..(line + 2) * KEYS);
                let of = Gradient {
                    scale,
                    visible: [line, line + 1].map(|line| rows.visible(line, first)),
                    lse: [lse[at], lse[at + 1]],
                    along: [level[at], level[at + 1]],
                };
                let columns = at / W::VALUES * KEYS..(at + 2) / W::VALUES * KEYS;
                W::gradient(
                    &of,
                    [&scores[two.clone()], &d_scores[two]],
                    // Whole tiles of keys are read below.
                    seen.next_multiple_of(ROWS),
                    [&mut weights[columns.clone()], &mut d_weights[columns]],
                    &mut d_rows[line * W::LINE..(line + 2) * W::LINE],
                );
            }
            let left = W::rows(d_rows, &d_weights[row / W::VALUES * KEYS..]);
            for (panel, right) in across.chunks_exact(W::LINE * COLS).enumerate() {
                let sums = &mut sums[row * dim + panel * COLS..];
                W::by_rows(most.div_ceil(W::VALUES), left, right, sums, dim, true);
            }
        }
    }
}

impl Tile<'_> {
    /// Adds `columnsᵀ·across` to a tile of keys.
    fn add_to_keys<W: Words>(
        &self,
        first: usize,
        seen: usize,
        columns: &[f32],
        across: &[f32],
        to: &Shared<'_, f32>,
    ) {
        let (dim, steps) = (self.shape.head_dim, self.stacked() / W::VALUES);
        let width = self.shape.kv_heads * dim;
        for key in (0..seen).step_by(ROWS) {
            let row = self.span.keys.start + first + key;
            let count = (self.span.keys.len() - first - key).min(ROWS);
            let panels = across.chunks_exact(steps * COLS).take(dim / COLS);
            for (panel, right) in panels.enumerate() {
                let start = row * width + self.kv_head * dim + panel * COLS;
                let left = &columns[key..];
                if count == ROWS {
                    let to = to.at(start, (ROWS - 1) * width + COLS);
                    let to = micro::MicroTile::at(to, width, true);
                    // SAFETY: rows of this span's keys, only the columns of this key head: they belong to
                    // this task alone, for no two spans share a key, and no reference to them exists.
                    unsafe { W::by_columns(steps, left, right, to) };
                    continue;
                }
                let mut sums = [0.0; ROWS * COLS];
                let all = micro::MicroTile::at(sums.as_mut_ptr(), COLS, false);
                // SAFETY: a whole tile of sums of its own.
                unsafe { W::by_columns(steps, left, right, all) };
                for (line, sums) in sums.chunks_exact(COLS).take(count).enumerate() {
                    // SAFETY: one of the same rows; the reference ends with this line.
                    let to = unsafe { to.run(start + line * width, COLS) };
                    for (to, sum) in to.iter_mut().zip(sums) {
                        *to += sum;
                    }
                }
            }
        }
    }
}
