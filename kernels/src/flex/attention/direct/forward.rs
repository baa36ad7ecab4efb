//! The forward pass: scores, weights under a running maximum, weighted sums.

use rayon::prelude::*;

use super::tile::Tile;
use super::words::{Running, Words};
use super::{COLS, KEYS, Packed, Pairs, ROWS, SCRATCH, Scratch, Singles, Way};
use crate::flex::attention::operands::Head;
use crate::flex::attention::{Attended, clear, key_heads};
use crate::flex::gemm::grow;
use crate::flex::matrix::{Matrix, Value};
use crate::layout::{AttentionShape, Span};
use crate::precision::Precision;

/// Writes the output and the log-sum-exp of the rows of `spans`.
pub(in crate::flex::attention) fn forward<T: Value>(
    spans: &[&Span],
    qkv: [Matrix<'_>; 3],
    shape: &AttentionShape,
    precision: Precision,
    to: &Attended<'_, T>,
) {
    match Way::of(precision) {
        Way::Pairs => all::<Pairs, T>(spans, qkv, shape, to),
        Way::Rounded => all::<Singles<true>, T>(spans, qkv, shape, to),
        Way::Exact => all::<Singles<false>, T>(spans, qkv, shape, to),
    }
}

fn all<W: Words, T: Value>(
    spans: &[&Span],
    [q, k, v]: [Matrix<'_>; 3],
    shape: &AttentionShape,
    to: &Attended<'_, T>,
) {
    let dim = shape.head_dim;
    let heads = key_heads(spans, shape);
    let pack = |&(span, kv_head): &(&Span, usize)| {
        let [k, v] = [k, v].map(|data| Head::of_keys(data, shape, span, kv_head));
        SCRATCH.with_borrow_mut(|Scratch { buffers, .. }| {
            let keys = span.keys.len();
            let packed = Packed::by_key::<W>(&k, keys, dim, buffers);
            [packed, Packed::across::<W>(&v, keys, dim, buffers)]
        })
    };
    let packed: Vec<_> = heads.par_iter().map(pack).collect();
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
            tile.load::<W>(q, &mut scratch.q, &mut scratch.head);
            tile.attend::<W>(keys, values, scratch);
            tile.finish(to, scratch);
        });
    });
}

impl Tile<'_> {
    /// Leaves the weighted sums of the values in `sums`, not yet divided by `total`.
    fn attend<W: Words>(&self, keys: &Packed, values: &Packed, scratch: &mut Scratch) {
        let (dim, stacked, scale) = (self.shape.head_dim, self.stacked(), self.shape.scale());
        let Scratch { q, scores, rows: weights, sums, level, total, .. } = scratch;
        clear(sums, stacked * dim, 0.0);
        clear(level, stacked, f32::NEG_INFINITY);
        clear(total, stacked, 0.0);
        grow(scores, ROWS * KEYS);
        grow(weights, ROWS * W::LINE);
        for (index, first) in (0..self.seen()).step_by(KEYS).enumerate() {
            let (keys, values) = (keys.tile(index), values.tile(index));
            for rows in self.blocks() {
                let (most, row) = (rows.most(first), rows.stacked);
                if most == 0 {
                    continue;
                }
                let depth = dim / W::VALUES;
                let of_keys = keys.chunks_exact(depth * COLS).take(most.div_ceil(COLS));
                for (panel, keys) in of_keys.enumerate() {
                    let scores = &mut scores[panel * COLS..];
                    W::by_rows(depth, &q[row * W::LINE..], keys, scores, KEYS, false);
                }
                for line in 0..rows.count {
                    let at = row + line;
                    let state = Running {
                        level: &mut level[at],
                        total: &mut total[at],
                        sums: &mut sums[at * dim..(at + 1) * dim],
                    };
                    let scores = &scores[line * KEYS..(line + 1) * KEYS];
                    let weights = &mut weights[line * W::LINE..(line + 1) * W::LINE];
                    W::weigh(scores, rows.visible(line, first), most, scale, state, weights);
                }
                for (panel, values) in values.chunks_exact(W::LINE * COLS).enumerate() {
                    let sums = &mut sums[row * dim + panel * COLS..];
                    W::by_rows(most.div_ceil(W::VALUES), weights, values, sums, dim, true);
                }
            }
        }
    }

    fn finish<T: Value>(&self, to: &Attended<'_, T>, scratch: &Scratch) {
        let (dim, Scratch { sums, level, total, .. }) = (self.shape.head_dim, scratch);
        for rows in self.blocks() {
            for line in 0..rows.count {
                let at = rows.stacked + line;
                // SAFETY: a row of a head, which belongs to this task alone, for no two spans share a query;
                // the references end with this line.
                let (out, lse) = unsafe {
                    let out = to.out.run(self.start(&rows, line), dim);
                    (out, &mut to.lse.run(rows.head * to.queries + rows.query + line, 1)[0])
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
