//! What lies between the products of an attention: scores to weights, and back to their gradients.

use cubecl::prelude::*;

use crate::cube::launch::{UNITS, max_of_cube, sum_of_cube};

/// Rows of a tile's scores are `[kv_heads, queries, group]`; which head and which query a row is.
#[cube]
fn place_of(row: usize, queries: usize, group: usize) -> (usize, usize) {
    let head = row / (queries * group) * group + row % group;
    let query = row / group % queries;
    (head, query)
}

#[cube(launch)]
pub(super) fn weights_kernel<F: Float>(
    scores: &Array<f32>,
    first: &Array<u32>,
    end: &Array<u32>,
    weights: &mut Array<F>,
    lse: &mut Array<f32>,
    query: u32,
    queries: u32,
    key: u32,
    keys: u32,
    group: u32,
    scale: f32,
    #[define(F)] _dtype: StorageType,
) {
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    let (keys, row) = (keys as usize, CUBE_POS);
    let start = row * keys;
    if start >= weights.len() {
        terminate!();
    }
    let (head, place) = place_of(row, queries as usize, group as usize);
    let place = query as usize + place;
    let (low, high) = (first[place], end[place]);
    let mut most = f32::new(-1.0e30);
    let mut i = UNIT_POS as usize;
    while i < keys {
        let at = key + i as u32;
        if at >= low && at < high {
            most = max(most, scores[start + i] * scale);
        }
        i += UNITS as usize;
    }
    let most = max_of_cube(most, &mut shared);
    let mut sum = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < keys {
        let at = key + i as u32;
        if at >= low && at < high {
            sum += f32::exp(scores[start + i] * scale - most);
        }
        i += UNITS as usize;
    }
    let sum = sum_of_cube(sum, &mut shared);
    let mut inverse = 0.0f32;
    let mut log = 0.0f32;
    if sum > 0.0f32 {
        inverse = 1.0f32 / sum;
        log = most + f32::ln(sum);
    }
    let mut i = UNIT_POS as usize;
    while i < keys {
        let at = key + i as u32;
        let mut weight = 0.0f32;
        if at >= low && at < high {
            weight = f32::exp(scores[start + i] * scale - most) * inverse;
        }
        weights[start + i] = F::cast_from(weight);
        i += UNITS as usize;
    }
    if UNIT_POS == 0 {
        lse[head * first.len() + place] = log;
    }
}

#[cube(launch)]
pub(super) fn gradient_kernel<F: Float>(
    scores: &Array<f32>,
    d_weights: &Array<f32>,
    first: &Array<u32>,
    end: &Array<u32>,
    lse: &Array<f32>,
    along: &Array<f32>,
    weights: &mut Array<F>,
    d_scores: &mut Array<F>,
    query: u32,
    queries: u32,
    key: u32,
    keys: u32,
    group: u32,
    scale: f32,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < weights.len() {
        let keys = keys as usize;
        let row = ABSOLUTE_POS / keys;
        let at = key + (ABSOLUTE_POS % keys) as u32;
        let (head, place) = place_of(row, queries as usize, group as usize);
        let place = query as usize + place;
        let mut weight = 0.0f32;
        let mut gradient = 0.0f32;
        if at >= first[place] && at < end[place] {
            let index = head * first.len() + place;
            weight = f32::exp(scores[ABSOLUTE_POS] * scale - lse[index]);
            gradient = weight * (d_weights[ABSOLUTE_POS] - along[index]) * scale;
        }
        weights[ABSOLUTE_POS] = F::cast_from(weight);
        d_scores[ABSOLUTE_POS] = F::cast_from(gradient);
    }
}

/// `Σ d_out · out` of every head and query: what the softmax takes off each gradient.
#[cube(launch)]
pub(super) fn along_kernel<F: Float, D: Float>(
    out: &Array<F>,
    d_out: &Array<D>,
    along: &mut Array<f32>,
    queries: u32,
    heads: u32,
    #[define(F, D)] _dtypes: [StorageType; 2],
) {
    if ABSOLUTE_POS < along.len() {
        let (queries, heads) = (queries as usize, heads as usize);
        let (head, query) = (ABSOLUTE_POS / queries, ABSOLUTE_POS % queries);
        let width = out.len() / queries / heads;
        let start = (query * heads + head) * width;
        let mut sum = 0.0f32;
        for i in start..start + width {
            sum += f32::cast_from(out[i]) * f32::cast_from(d_out[i]);
        }
        along[ABSOLUTE_POS] = sum;
    }
}
