//! Causal attention with grouped key heads, tiled over queries and keys: the scores of one pair of tiles
//! exist at a time. The forward pass keeps a running maximum and sum (Milakov and Gimelshein 2018), the
//! backward pass recomputes the scores from the saved log-sum-exp (Dao et al. 2022, section 3).
//!
//! `q` is `[queries, heads · head_dim]`, `k` and `v` `[keys, kv_heads · head_dim]`. Tiles are counted from
//! the start of a span, so a sequence has the same bits wherever it lies.
#![expect(unsafe_code, reason = "tasks write disjoint heads of one output")]

#[cfg(target_arch = "x86_64")]
mod direct;
mod operands;
mod tiled;

#[cfg(target_arch = "x86_64")]
pub(super) use self::direct::words;
use super::matrix::{Matrix, Value};
use crate::layout::{AttentionShape, Span};
use crate::precision::Precision;

/// A matrix that tasks write disjoint parts of.
struct Shared<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: each task writes the rows and columns of its own span and head only.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn new(values: &mut [T]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len() }
    }

    /// # Safety
    /// No two tasks may write the same element of the slices they take.
    #[expect(clippy::mut_from_ref, reason = "disjoint by the caller's promise")]
    unsafe fn from(&self, offset: usize) -> &mut [T] {
        debug_assert!(offset <= self.len, "offset {offset} of {}", self.len);
        // SAFETY: inside the allocation; disjointness is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), self.len - offset) }
    }
}

/// Where the forward pass writes.
struct Attended<T> {
    /// `[queries, heads · head_dim]`
    out: Shared<T>,
    /// `[heads, queries]`
    lse: Shared<f32>,
    queries: usize,
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
