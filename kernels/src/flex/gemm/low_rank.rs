//! Gradients of a low-rank update's matrices: `narrowᵀ·wide`, a sum over tokens of outer products.
//!
//! One side is as narrow as the rank, so that rounding and packing the wide one would cost more than the
//! product. Both are read where they lie, in f32; the sums run over the tokens in order. Of the wide side
//! dropout may have left values out.
#![expect(unsafe_code, reason = "micro-kernels read panels whose sizes are asserted")]

use rayon::prelude::*;

use super::super::dropout::{Kept, clear_panels};
use super::super::matrix::{Matrix, Value};
use super::super::simd::{prefetch, vectorize};
use super::micro::{self, Micro, MicroTile};

/// Tokens whose part of a panel stays in the first cache while the ranks pass over it.
const TOKENS: usize = 128;

/// Panels whose columns are read together: whole cache lines of a row.
const GROUP: usize = 4;

/// How many tokens ahead memory is asked for: rows lie too far apart for the processor to foresee.
const AHEAD: usize = 16;

/// `narrowᵀ·wide`, `[rank, width]`, of `narrow` `[tokens, rank]` and `wide` `[tokens, width]`.
pub(crate) fn across(
    narrow: &[f32],
    rank: usize,
    wide: Matrix<'_>,
    width: usize,
    kept: Option<&Kept>,
) -> Vec<f32> {
    let micro @ Micro { mr, nr, .. } = micro::f32_kernel(rank);
    let tokens = narrow.len() / rank;
    assert_eq!(tokens * width, wide.len(), "tokens of both sides");
    // [panels][tokens][mr]
    let mut left = vec![0.0; rank.div_ceil(mr) * tokens * mr];
    for (panel, left) in left.chunks_exact_mut((tokens * mr).max(1)).enumerate() {
        let lines = left.chunks_exact_mut(mr).zip(narrow.chunks_exact(rank));
        for (left, narrow) in lines {
            let narrow = &narrow[panel * mr..rank.min((panel + 1) * mr)];
            left[..narrow.len()].copy_from_slice(narrow);
        }
    }
    let groups: Vec<Vec<f32>> = (0..width.div_ceil(GROUP * nr))
        .into_par_iter()
        .with_max_len(1)
        .map(|group| group_of_panels(micro, &left, (wide, kept), width, group * GROUP * nr))
        .collect();
    let panel = rank.div_ceil(mr) * mr * nr;
    let mut result = Vec::with_capacity(rank * width);
    for row in 0..rank {
        for column in (0..width).step_by(nr) {
            let sums = &groups[column / (GROUP * nr)][column / nr % GROUP * panel..];
            result.extend_from_slice(&sums[row * nr..][..nr.min(width - column)]);
        }
    }
    result
}

/// The sums of the panels from column `column` on: `[GROUP][panels of the left][mr][nr]`.
fn group_of_panels(
    Micro { mr, nr, run, .. }: Micro,
    left: &[f32],
    (wide, kept): (Matrix<'_>, Option<&Kept>),
    width: usize,
    column: usize,
) -> Vec<f32> {
    let tokens = wide.len() / width;
    let panels = left.len() / (tokens * mr).max(1);
    let columns = (GROUP * nr).min(width - column);
    let count = columns.div_ceil(nr);
    let mut sums = vec![0.0; GROUP * panels * mr * nr];
    let mut right = vec![0.0; TOKENS * GROUP * nr]; // [GROUP][TOKENS][nr]
    for first in (0..tokens).step_by(TOKENS) {
        let here = TOKENS.min(tokens - first);
        for token in 0..here {
            let part = |token: usize| token * width + column..token * width + column + columns;
            let soon = part((first + token + AHEAD).min(tokens - 1));
            let to = &mut right[token * nr..];
            match wide {
                Matrix::F32(wide) => {
                    prefetch(&wide[soon]);
                    spread(&wide[part(first + token)], to, nr);
                }
                Matrix::Bf16(wide) => {
                    prefetch(&wide[soon]);
                    spread(&wide[part(first + token)], to, nr);
                }
            }
            if let Some(kept) = kept {
                clear_panels(to, nr, TOKENS * nr, columns, kept.from(first + token, column));
            }
        }
        for (index, tile) in sums.chunks_exact_mut(mr * nr).take(count * panels).enumerate() {
            let left = &left[(index % panels * tokens + first) * mr..][..here * mr];
            let right = &right[index / panels * TOKENS * nr..][..here * nr];
            // SAFETY: `left` holds `here · mr`, `right` `here · nr` values, `tile`, borrowed alone, `mr · nr`; the
            // kernel's features were detected when it was chosen.
            unsafe {
                run(
                    here,
                    left.as_ptr(),
                    right.as_ptr(),
                    MicroTile::at(tile.as_mut_ptr(), nr, true),
                );
            }
        }
    }
    sums
}

/// Lays a row's columns down, `nr` in each panel of [`TOKENS`] lines.
#[inline(always)]
fn spread<T: Value>(from: &[T], to: &mut [f32], nr: usize) {
    vectorize(
        #[inline(always)]
        || {
            for (from, to) in from.chunks(nr).zip(to.chunks_mut(TOKENS * nr)) {
                let to = &mut to[..from.len()];
                let ((from, from_rest), (to, to_rest)) =
                    (from.as_chunks::<16>(), to.as_chunks_mut::<16>());
                for (to, from) in to.iter_mut().zip(from) {
                    *to = from.map(T::get);
                }
                for (to, from) in to_rest.iter_mut().zip(from_rest) {
                    *to = from.get();
                }
            }
        },
    );
}

/// The transpose of a row-major `[rows, cols]`.
pub(crate) fn transposed(values: &[f32], cols: usize) -> Vec<f32> {
    let rows = values.len() / cols.max(1);
    let mut result = Vec::with_capacity(values.len());
    for column in 0..cols {
        result.extend((0..rows).map(|row| values[row * cols + column]));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_are_those_of_plain_loops_at_every_edge() {
        for (tokens, rank, width) in
            [(1, 1, 1), (3, 8, 32), (130, 16, 33), (257, 9, 96), (40, 7, 31), (129, 1, 65)]
        {
            let value = |i: usize| (i as f32 * 0.61).sin();
            let narrow: Vec<f32> = (0..tokens * rank).map(value).collect();
            let wide: Vec<f32> = (0..tokens * width).map(|i| value(3 * i + 1)).collect();
            let found = across(&narrow, rank, Matrix::F32(&wide), width, None);
            let mut expected = vec![0.0_f32; rank * width];
            for (narrow, wide) in narrow.chunks_exact(rank).zip(wide.chunks_exact(width)) {
                for (row, &left) in expected.chunks_exact_mut(width).zip(narrow) {
                    for (sum, &right) in row.iter_mut().zip(wide) {
                        *sum += left * right;
                    }
                }
            }
            for (found, expected) in found.iter().zip(&expected) {
                let near = (found - expected).abs() <= 1e-5 * tokens as f32;
                assert!(near, "{found}, {expected}: {tokens} tokens, {rank} x {width}");
            }
            let back = transposed(&transposed(&found, width), rank);
            assert_eq!(back, found, "{rank} x {width} transposed twice");
            assert_eq!(
                transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3),
                [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]
            );
        }
    }
}
