//! The ops in plain burn, one line of mathematics each: slow, dense, and the oracle of the tests.
//!
//! They run on any backend, so under burn's own tape they also give reference gradients.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData, activation};

use crate::dropout::Dropout;
use crate::layout::{AttentionShape, Rotation};

/// `x·Wᵀ + scale · (x·Aᵀ)·Bᵀ`: `x` `[tokens, in]`, `W` `[out, in]`, `A` `[rank, in]`, `B` `[out, rank]`.
pub fn lora_linear<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    a: Tensor<B, 2>,
    b: Tensor<B, 2>,
    scale: f32,
) -> Tensor<B, 2> {
    let low = x.clone().matmul(a.transpose()) * scale; // [tokens, rank]
    x.matmul(weight.transpose()) + low.matmul(b.transpose()) // [tokens, out]
}

/// The values of `x` that are kept, zeros in place of the others.
pub fn dropped<B: Backend>(x: Tensor<B, 2>, dropout: &Dropout) -> Tensor<B, 2> {
    let [rows, cols] = x.dims();
    let keeps = |i: usize| f32::from(u8::from(dropout.keeps(i / cols, i % cols)));
    let keep: Vec<f32> = (0..rows * cols).map(keeps).collect();
    let keep = Tensor::<B, 2>::from_data(TensorData::new(keep, [rows, cols]), &x.device());
    x * keep
}

/// `x / sqrt(mean(x²) + eps) · weight`, `x` `[tokens, d_model]`.
pub fn rms_norm<B: Backend>(x: Tensor<B, 2>, weight: Tensor<B, 1>, eps: f32) -> Tensor<B, 2> {
    let mean = x.clone().powf_scalar(2.0).mean_dim(1);
    x / (mean + eps).sqrt() * weight.unsqueeze()
}

/// Rotary positions on `[tokens, heads · head_dim]`.
pub fn rope<B: Backend>(x: Tensor<B, 2>, rotation: &Rotation) -> Tensor<B, 2> {
    let [tokens, width] = x.dims();
    let half = rotation.half;
    let table = |values: &[f32]| {
        Tensor::<B, 3>::from_data(TensorData::new(values.to_vec(), [tokens, 1, half]), &x.device())
    };
    let (cos, sin) = (table(&rotation.cos), table(&rotation.sin));
    let x = x.reshape([tokens, width / (2 * half), 2 * half]); // [tokens, heads, head_dim]
    let low = x.clone().narrow(2, 0, half);
    let high = x.narrow(2, half, half);
    let rotated_low = low.clone() * cos.clone() - high.clone() * sin.clone();
    let rotated_high = high * cos + low * sin;
    Tensor::cat(vec![rotated_low, rotated_high], 2).reshape([tokens, width]) // [tokens, width]
}

/// Causal attention inside each span, every score in memory.
pub fn attention<B: Backend>(
    q: Tensor<B, 2>,
    k: Tensor<B, 2>,
    v: Tensor<B, 2>,
    shape: &AttentionShape,
) -> Tensor<B, 2> {
    let AttentionShape { heads, kv_heads, head_dim, spans } = shape;
    let [queries, width] = q.dims();
    let device = q.device();
    let mut rows = Vec::new();
    let mut done = 0;
    for span in spans.iter() {
        if span.queries.start > done {
            rows.push(Tensor::zeros([span.queries.start - done, width], &device));
        }
        let (n, m) = (span.queries.len(), span.keys.len());
        let split = |x: Tensor<B, 2>, start: usize, len: usize, heads: usize| {
            x.narrow(0, start, len).reshape([len, heads, *head_dim]).swap_dims(0, 1)
        };
        let repeat = |x: Tensor<B, 3>| {
            x.unsqueeze_dim::<4>(1).repeat_dim(1, heads / kv_heads).reshape([*heads, m, *head_dim]) // [heads, keys, head_dim]
        };
        let q = split(q.clone(), span.queries.start, n, *heads); // [heads, queries, head_dim]
        let k = repeat(split(k.clone(), span.keys.start, m, *kv_heads));
        let v = repeat(split(v.clone(), span.keys.start, m, *kv_heads));
        let scores = q.matmul(k.swap_dims(1, 2)) * shape.scale(); // [heads, queries, keys]
        let row = Tensor::<B, 1, Int>::arange(0..n as i64, &device).reshape([n, 1]);
        let column = Tensor::<B, 1, Int>::arange(0..m as i64, &device).reshape([1, m]);
        let hidden = column.expand([n, m]).greater(row.expand([n, m]) + (m - n) as i64);
        let scores = scores.mask_fill(hidden.unsqueeze::<3>().expand([*heads, n, m]), -1e30);
        let out = activation::softmax(scores, 2).matmul(v); // [heads, queries, head_dim]
        rows.push(out.swap_dims(0, 1).reshape([n, width]));
        done = span.queries.end;
    }
    if done < queries {
        rows.push(Tensor::zeros([queries - done, width], &device));
    }
    Tensor::cat(rows, 0) // [queries, heads * head_dim]
}

/// Every column of `[rows, cols]` times its factor of `[1, cols]`.
pub fn scale_columns<B: Backend>(x: Tensor<B, 2>, factors: Tensor<B, 2>) -> Tensor<B, 2> {
    x * factors
}

/// `silu(gate) · up`.
pub fn swiglu<B: Backend>(gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
    activation::silu(gate) * up
}

/// Each row's negative log-likelihood `[rows]` of `targets`.
pub fn cross_entropy<B: Backend>(logits: Tensor<B, 2>, targets: &[u32]) -> Tensor<B, 1> {
    let rows = targets.len();
    let ids: Vec<i32> = targets.iter().map(|&id| id as i32).collect();
    let ids = Tensor::<B, 2, Int>::from_data(TensorData::new(ids, [rows, 1]), &logits.device());
    -activation::log_softmax(logits, 1).gather(1, ids).reshape([rows])
}
