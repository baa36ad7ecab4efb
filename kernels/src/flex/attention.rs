//! Causal attention with grouped key heads, tiled over queries and keys: the scores of one pair of tiles
//! exist at a time. The forward pass keeps a running maximum and sum (Milakov and Gimelshein 2018), the
//! backward pass recomputes the scores from the saved log-sum-exp (Dao et al. 2022, section 3).
//!
//! `q` is `[queries, heads · head_dim]`, `k` and `v` `[keys, kv_heads · head_dim]`. Tiles are counted from
//! the start of a span, so a sequence has the same bits wherever it lies.
#![expect(unsafe_code, reason = "tasks write disjoint rows and heads of one output")]

#[cfg(target_arch = "x86_64")]
mod direct;
mod operands;
mod tiled;

use std::marker::PhantomData;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
pub(super) use self::direct::words;
use super::matrix::{Matrix, Value};
use crate::layout::{AttentionShape, Span};
use crate::precision::Precision;

/// A matrix that tasks write disjoint parts of.
struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    values: PhantomData<&'a mut [T]>,
}

// SAFETY: it has no values of its own to look at; a thread that takes a part takes it alone, by the promise of
// `run` and of whoever uses what `at` gives, and so only needs values that may change threads.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    fn new(values: &'a mut [T]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len(), values: PhantomData }
    }

    /// Where the values `offset..offset + extent` begin, all of which are there.
    fn at(&self, offset: usize, extent: usize) -> *mut T {
        let is_inside = offset <= self.len && extent <= self.len - offset;
        assert!(is_inside, "{extent} values at {offset} of {}", self.len);
        self.start.wrapping_add(offset)
    }

    /// The values `offset..offset + len`.
    ///
    /// # Safety
    /// Nothing else refers to any of them, or touches one through a pointer, while the slice lives.
    #[expect(clippy::mut_from_ref, reason = "nothing else refers to them, by the caller's promise")]
    unsafe fn run(&self, offset: usize, len: usize) -> &mut [T] {
        // SAFETY: `at` has checked that they lie in the slice that is borrowed for `'a`, which holds values;
        // that this is the only reference to them is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(offset, len), len) }
    }
}

/// Where the forward pass writes.
struct Attended<'a, T> {
    /// `[queries, heads · head_dim]`
    out: Shared<'a, T>,
    /// `[heads, queries]`
    lse: Shared<'a, f32>,
    queries: usize,
}

/// That no row belongs to two spans, and each is one of `rows`: tasks of two spans then share nothing.
fn assert_disjoint<'a>(ranges: impl Iterator<Item = &'a Range<usize>>, rows: usize, what: &str) {
    let mut ranges: Vec<_> = ranges.filter(|range| !range.is_empty()).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    for pair in ranges.windows(2) {
        let [one, next] = [&pair[0], &pair[1]];
        assert!(one.end <= next.start, "{what} {one:?} and {next:?} of two spans overlap");
    }
    let end = ranges.last().map_or(0, |range| range.end);
    assert!(end <= rows, "a span's {what} end at {end}, of {rows}");
}

/// The spans that go the direct way, and the others.
fn by_way(shape: &AttentionShape) -> [Vec<&Span>; 2] {
    #[cfg(target_arch = "x86_64")]
    let takes = |span: &&Span| direct::takes(span, shape.head_dim);
    #[cfg(not(target_arch = "x86_64"))]
    let takes = |_: &&Span| false;
    let (direct, tiled) = shape.spans.iter().partition(takes);
    [direct, tiled]
}

/// Every key head of every span.
fn key_heads<'a>(spans: &[&'a Span], shape: &AttentionShape) -> Vec<(&'a Span, usize)> {
    let of_span = |&span: &&'a Span| (0..shape.kv_heads).map(move |kv_head| (span, kv_head));
    spans.iter().flat_map(of_span).collect()
}

fn clear(values: &mut Vec<f32>, len: usize, value: f32) {
    values.clear();
    values.resize(len, value);
}

/// Output `[queries, heads · head_dim]` and log-sum-exp `[heads, queries]`.
pub(super) fn forward<T: Value>(
    qkv: [Matrix<'_>; 3],
    queries: usize,
    shape: &AttentionShape,
    precision: Precision,
) -> (Vec<T>, Vec<f32>) {
    assert_disjoint(shape.spans.iter().map(|span| &span.queries), queries, "queries");
    let mut out = vec![T::of(0.0); queries * shape.heads * shape.head_dim];
    let mut lse = vec![0.0; shape.heads * queries];
    let to = Attended { out: Shared::new(&mut out), lse: Shared::new(&mut lse), queries };
    let [direct, tiled] = by_way(shape);
    #[cfg(target_arch = "x86_64")]
    direct::forward(&direct, qkv, shape, precision, &to);
    #[cfg(not(target_arch = "x86_64"))]
    drop(direct);
    tiled::forward(&tiled, qkv, shape, precision, &to);
    (out, lse)
}

/// What [`backward`] needs from the forward pass.
pub(super) struct Saved<'a> {
    pub(super) q: Matrix<'a>,
    pub(super) k: Matrix<'a>,
    pub(super) v: Matrix<'a>,
    pub(super) out: Matrix<'a>,
    pub(super) lse: &'a [f32],
}

/// Gradients of q, k and v.
pub(super) fn backward(
    saved: &Saved<'_>,
    d_out: &[f32],
    shape: &AttentionShape,
    precision: Precision,
) -> [Vec<f32>; 3] {
    let rows = |x: Matrix<'_>, heads: usize| x.len() / (heads * shape.head_dim).max(1);
    let (queries, keys) = (rows(saved.q, shape.heads), rows(saved.k, shape.kv_heads));
    assert_disjoint(shape.spans.iter().map(|span| &span.queries), queries, "queries");
    assert_disjoint(shape.spans.iter().map(|span| &span.keys), keys, "keys");
    let mut gradients = [saved.q, saved.k, saved.v].map(|x| vec![0.0; x.len()]);
    let outputs = gradients.each_mut().map(|values| Shared::new(values));
    let [direct, tiled] = by_way(shape);
    #[cfg(target_arch = "x86_64")]
    direct::backward(&direct, saved, d_out, shape, precision, &outputs);
    #[cfg(not(target_arch = "x86_64"))]
    drop(direct);
    tiled::backward(&tiled, saved, d_out, shape, precision, &outputs);
    gradients
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: usize = 4;
    const KV_HEADS: usize = 2;

    fn numbers(len: usize, seed: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * 0.37 + seed).sin()).collect()
    }

    fn shape(head_dim: usize, spans: &[[Range<usize>; 2]]) -> AttentionShape {
        let spans = spans.iter().cloned().map(|[queries, keys]| Span { queries, keys }).collect();
        AttentionShape { heads: HEADS, kv_heads: KV_HEADS, head_dim, spans }
    }

    /// The output, and the gradients of q, k and v.
    fn both(
        [q, k, v, d_out]: [&[f32]; 4],
        shape: &AttentionShape,
        precision: Precision,
    ) -> [Vec<f32>; 4] {
        let queries = q.len() / (HEADS * shape.head_dim);
        let [q, k, v] = [q, k, v].map(Matrix::F32);
        let (out, lse) = forward::<f32>([q, k, v], queries, shape, precision);
        let saved = Saved { q, k, v, out: Matrix::F32(&out), lse: &lse };
        let [dq, dk, dv] = backward(&saved, d_out, shape, precision);
        [out, dq, dk, dv]
    }

    #[test]
    fn spans_side_by_side_have_the_bits_of_each_alone() {
        // Both ways: heads too narrow for panels, and as wide as one.
        for (head_dim, precision) in
            [(2, Precision::F32), (2, Precision::Bf16), (32, Precision::F32), (32, Precision::Bf16)]
        {
            let (width, kv_width) = (HEADS * head_dim, KV_HEADS * head_dim);
            let spans = [[0..5, 0..5], [5..7, 5..10], [7..8, 10..12]];
            let [q, d_out] = [0.0, 1.0].map(|seed| numbers(8 * width, seed));
            let [k, v] = [2.0, 3.0].map(|seed| numbers(12 * kv_width, seed));
            let all = both([&q, &k, &v, &d_out], &shape(head_dim, &spans), precision);
            for [queries, keys] in spans {
                let rows = queries.start * width..queries.end * width;
                let kv_rows = keys.start * kv_width..keys.end * kv_width;
                let parts = [&rows, &kv_rows, &kv_rows, &rows];
                let [q, k, v, d_out] = [&q, &k, &v, &d_out];
                let own = [
                    &q[rows.clone()],
                    &k[kv_rows.clone()],
                    &v[kv_rows.clone()],
                    &d_out[rows.clone()],
                ];
                let alone = shape(head_dim, &[[0..queries.len(), 0..keys.len()]]);
                let alone = both(own, &alone, precision);
                let of_all = [(0, parts[0]), (1, parts[3]), (2, parts[1]), (3, parts[2])];
                for (which, part) in of_all {
                    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    let found = bits(&all[which][part.clone()]);
                    assert_eq!(found, bits(&alone[which]), "{head_dim}, {queries:?}: {which}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "keys 0..3 and 2..4 of two spans overlap")]
    fn two_spans_may_not_have_gradients_of_the_same_key() {
        let [q, k] = [numbers(5 * 8, 0.0), numbers(4 * 4, 1.0)];
        both([&q, &k, &k, &q], &shape(2, &[[0..3, 0..3], [3..5, 2..4]]), Precision::F32);
    }

    #[test]
    #[should_panic(expected = "queries 0..3 and 2..4 of two spans overlap")]
    fn two_spans_may_not_have_outputs_of_the_same_query() {
        let [q, k] = [numbers(4 * 8, 0.0), numbers(8 * 4, 1.0)];
        both([&q, &k, &k, &q], &shape(2, &[[2..4, 0..2], [0..3, 2..8]]), Precision::F32);
    }

    #[test]
    #[should_panic(expected = "a span's queries end at 5, of 4")]
    fn a_span_may_not_have_more_queries_than_there_are() {
        let [q, k] = [numbers(4 * 8, 0.0), numbers(8 * 4, 1.0)];
        both([&q, &k, &k, &q], &shape(2, &[[2..5, 0..8]]), Precision::F32);
    }
}
