//! Softmax cross-entropy of a chunk of logits, loss and gradient in the same pass.

use rayon::prelude::*;

use super::simd::{exp, max, sum, vectorize};

/// Replaces each row of the logits, whose columns lie in `bands`, by `(softmax − one-hot) · factor` and
/// returns each row's loss, `log Σ e^logit − logit[target]`.
pub(super) fn in_place(bands: Vec<&mut [f32]>, targets: &[u32], factors: &[f32]) -> Vec<f32> {
    assert_eq!(factors.len(), targets.len(), "one factor a row");
    if targets.is_empty() {
        return Vec::new();
    }
    let mut rows: Vec<Vec<&mut [f32]>> = targets.iter().map(|_| Vec::new()).collect();
    for band in bands {
        let width = band.len() / targets.len();
        for (row, part) in rows.iter_mut().zip(band.chunks_exact_mut(width)) {
            row.push(part);
        }
    }
    rows.into_par_iter()
        .zip(targets)
        .zip(factors)
        .map(|((mut row, &target), &factor)| {
            vectorize(
                #[inline(always)]
                || one_row(&mut row, target as usize, factor),
            )
        })
        .collect()
}

#[inline(always)]
fn one_row(row: &mut [&mut [f32]], target: usize, factor: f32) -> f32 {
    let highest = row.iter().fold(f32::NEG_INFINITY, |highest, part| {
        let part = max(part);
        // A NaN is not lost.
        if highest > part || highest.is_nan() { highest } else { part }
    });
    let (band, column) = place(row, target);
    let at_target = row[band][column];
    let mut total = 0.0;
    for part in row.iter_mut() {
        for value in part.iter_mut() {
            *value = exp(*value - highest);
        }
        total += sum(part);
    }
    let share = factor / total;
    for part in row.iter_mut() {
        for value in part.iter_mut() {
            *value *= share;
        }
    }
    row[band][column] -= factor;
    total.ln() + highest - at_target
}

/// The band that holds a column, and which of its own it is.
fn place(row: &[&mut [f32]], mut column: usize) -> (usize, usize) {
    for (band, part) in row.iter().enumerate() {
        if column < part.len() {
            return (band, column);
        }
        column -= part.len();
    }
    panic!("a target beyond the vocabulary");
}
