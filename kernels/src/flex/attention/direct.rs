//! The way for processors with AVX-512: tiles go from one product to the next in the form that it reads.
//!
//! Keys and values are packed once for all queries. Twelve queries of a head are multiplied by a tile of
//! keys where they lie, row by row, and what becomes of their scores leaves registers as a left side of the
//! products that follow, so that nothing is packed or transposed between two of them.
#![expect(unsafe_code, reason = "tasks write disjoint rows and heads of one output")]

mod backward;
mod forward;
mod tile;
pub(in crate::flex) mod words;

use std::cell::RefCell;

pub(super) use backward::backward;
pub(super) use forward::forward;
use words::{Pairs, Singles, Words};

use super::operands::{Across, Head};
use crate::flex::gemm::{Block, Buffers, pack};
use crate::flex::isa::{Isa, multiplies_pairs};
use crate::layout::Span;
use crate::precision::Precision;

/// Keys of a tile: whole panels and whole tiles of a product.
pub(in crate::flex) const KEYS: usize = 192;
/// Rows of a product's tile.
pub(in crate::flex) const ROWS: usize = 12;
/// Columns of a product's tile, and of a panel of its right side.
pub(in crate::flex) const COLS: usize = 32;
/// Queries of a tile, over all heads of a key head, about: what the second cache holds beside the keys.
const STACKED: usize = 192;

/// How the operands of products lie.
#[derive(Clone, Copy)]
enum Way {
    /// As pairs of bf16.
    Pairs,
    /// As f32, rounded to bf16 before.
    Rounded,
    /// As f32.
    Exact,
}

impl Way {
    fn of(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::Exact,
            Precision::Bf16 if multiplies_pairs() => Self::Pairs,
            Precision::Bf16 => Self::Rounded,
        }
    }
}

/// Whether a span goes this way. Few queries of many keys, as in decoding, are not worth packing the keys.
pub(super) fn takes(span: &Span, head_dim: usize) -> bool {
    let is_form = head_dim.is_multiple_of(COLS) && head_dim <= KEYS;
    let is_worth_it = span.queries.len() >= ROWS.min(span.keys.len());
    is_form && is_worth_it && Isa::get() >= Isa::Avx512
}

thread_local! {
    /// Memory alone: what a task reads of it, it has written before.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A row of a left side has [`Words::LINE`] words.
#[derive(Default)]
struct Scratch {
    /// Rows of queries, and of the gradient of the output: `[stacked][line]`.
    q: Vec<f32>,
    d_o: Vec<f32>,
    /// Queries and the gradient of the output as right sides of sums over queries: panels of `[stacked / values][COLS]`.
    q_across: Vec<f32>,
    d_o_across: Vec<f32>,
    /// Of twelve rows and a tile of keys, `[ROWS][KEYS]`: raw, and their gradient.
    scores: Vec<f32>,
    d_scores: Vec<f32>,
    /// What the scores became, `[ROWS][line]`.
    rows: Vec<f32>,
    /// Weights and the scores' gradient for sums over queries, `[stacked / values][KEYS]`.
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
    tile: usize,
}

impl Packed {
    /// Panels of keys, as deep as a head is wide: for `x·kᵀ`.
    fn by_key<W: Words>(head: &Head<'_>, keys: usize, dim: usize, buffers: &mut Buffers) -> Self {
        let form = W::form(dim / W::VALUES);
        Self::tiles(keys, KEYS * dim / W::VALUES, |first, count, tile| {
            let block = Block { row0: first, rows: count, depth0: 0, depth: dim };
            pack(head, block, tile, form, buffers);
        })
    }

    /// Panels of a head's columns, as deep as a tile has keys: for `p·v`.
    fn across<W: Words>(head: &Head<'_>, keys: usize, dim: usize, buffers: &mut Buffers) -> Self {
        let form = W::form(W::LINE);
        Self::tiles(keys, KEYS * dim / W::VALUES, |first, count, tile| {
            let block = Block { row0: 0, rows: dim, depth0: first, depth: count };
            pack(&Across(*head), block, tile, form, buffers);
        })
    }

    fn tiles(keys: usize, tile: usize, mut pack: impl FnMut(usize, usize, &mut [f32])) -> Self {
        let mut words = vec![0.0; keys.div_ceil(KEYS) * tile];
        for (index, tile) in words.chunks_exact_mut(tile).enumerate() {
            let first = index * KEYS;
            pack(first, KEYS.min(keys - first), tile);
        }
        Self { words, tile }
    }

    fn tile(&self, index: usize) -> &[f32] {
        &self.words[index * self.tile..(index + 1) * self.tile]
    }
}
