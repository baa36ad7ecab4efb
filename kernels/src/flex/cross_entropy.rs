//! Softmax cross-entropy of a chunk of logits, loss and gradient in the same pass.

use rayon::prelude::*;

use super::simd::{exp, max, sum, vectorize};

/// Replaces each row of `logits` by `(softmax − one-hot) · scale` and returns each row's loss,
/// `log Σ e^logit − logit[target]`.
pub(super) fn in_place(logits: &mut [f32], targets: &[u32], scale: f32) -> Vec<f32> {
    if targets.is_empty() {
        return Vec::new();
    }
    let vocab = logits.len() / targets.len();
    logits
        .par_chunks_exact_mut(vocab)
        .zip(targets)
        .map(|(row, &target)| {
            vectorize(
                #[inline(always)]
                || one_row(row, target as usize, scale),
            )
        })
        .collect()
}

#[inline(always)]
fn one_row(row: &mut [f32], target: usize, scale: f32) -> f32 {
    let max = max(row);
    let at_target = row[target];
    for value in row.iter_mut() {
        *value = exp(*value - max);
    }
    let total = sum(row);
    let factor = scale / total;
    for value in row.iter_mut() {
        *value *= factor;
    }
    row[target] -= scale;
    total.ln() + max - at_target
}
