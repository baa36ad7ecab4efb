//! `drop(x)·Aᵀ` on processors with AVX-512: rows are copied without what is dropped and multiplied where they
//! lie, so that no input is transposed for the sake of its own noise.

use std::cell::RefCell;

use rayon::prelude::*;

use super::Dropped;
use crate::flex::attention::words::{COLS, KEYS, Pairs, ROWS, Singles, Words};
use crate::flex::gemm::{Block, Buffers, Operand, Product, View, grow, pack, shuffle};
use crate::flex::isa::multiplies_pairs;
use crate::precision::Precision;

/// Tiles of rows that a task takes.
const TILES: usize = 8;

thread_local! {
    /// Memory alone: what a task reads of it, it has written before.
    static SCRATCH: RefCell<[Vec<f32>; 3]> = RefCell::default();
}

/// `[rows, cols]` of the product of `x` and `a`, both as `product` wants them.
pub(super) fn low(x: &Dropped<'_>, product: Product, a: &[f32]) -> Vec<f32> {
    match product.precision {
        Precision::F32 => multiplied::<Singles<false>>(x, product, a),
        Precision::Bf16 if multiplies_pairs() => multiplied::<Pairs>(x, product, a),
        Precision::Bf16 => multiplied::<Singles<true>>(x, product, a),
    }
}

fn multiplied<W: Words>(x: &Dropped<'_>, product: Product, a: &[f32]) -> Vec<f32> {
    let Product { rows, cols: rank, depth, .. } = product;
    let (panels, stride) = (rank.div_ceil(COLS), W::LINE * COLS);
    let mut packed = vec![0.0; depth.div_ceil(KEYS) * panels * stride]; // [parts][panels][LINE][COLS]
    let mut buffers = Buffers::default();
    for (part, packed) in packed.chunks_exact_mut(panels * stride).enumerate() {
        let depth0 = part * KEYS;
        let block = Block { row0: 0, rows: rank, depth0, depth: KEYS.min(depth - depth0) };
        pack(&View::rows(a, depth), block, packed, W::form(W::LINE), &mut buffers);
    }
    let mut low = vec![0.0; rows * rank];
    let work = |(tile, out): (usize, &mut [f32])| {
        SCRATCH.with_borrow_mut(|[lines, sums, run]| {
            grow(lines, ROWS * W::LINE);
            grow(sums, panels * ROWS * COLS);
            grow(run, KEYS);
            for (part, packed) in packed.chunks_exact(panels * stride).enumerate() {
                let depth0 = part * KEYS;
                let depth = KEYS.min(depth - depth0);
                for line in 0..out.len() / rank {
                    let to = &mut lines[line * W::LINE..(line + 1) * W::LINE];
                    copy::<W>(x, [tile * ROWS + line, depth0], depth, to, run);
                }
                let sums = sums.chunks_exact_mut(ROWS * COLS);
                for (packed, sums) in packed.chunks_exact(stride).zip(sums) {
                    let steps = depth.div_ceil(W::VALUES);
                    W::by_rows(steps, lines, packed, sums, COLS, part > 0);
                }
            }
            for (line, out) in out.chunks_exact_mut(rank).enumerate() {
                for (panel, out) in out.chunks_mut(COLS).enumerate() {
                    let sums = &sums[(panel * ROWS + line) * COLS..];
                    out.copy_from_slice(&sums[..out.len()]);
                }
            }
        });
    };
    let tiles = low.par_chunks_mut(ROWS * rank).enumerate();
    if product.is_large() {
        tiles.with_min_len(TILES).for_each(work);
    } else {
        low.chunks_mut(ROWS * rank).enumerate().for_each(work);
    }
    low
}

/// Copies a part of a row, as an operand, without what is dropped.
fn copy<W: Words>(
    x: &Dropped<'_>,
    [row, depth0]: [usize; 2],
    depth: usize,
    to: &mut [f32],
    run: &mut [f32],
) {
    if W::VALUES == 2 {
        let halves = shuffle::halves(to);
        x.bf16_run(row, depth0, run, &mut halves[..depth]);
        // A last value alone has no other half.
        if let Some(other) = halves.get_mut(depth) {
            *other = 0;
        }
        return;
    }
    let to = &mut to[..depth];
    x.run(row, depth0, to);
    if W::ROUNDS {
        shuffle::round_in_place(to);
    }
}
