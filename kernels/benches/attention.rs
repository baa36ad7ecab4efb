//! How fast causal attention is, forward and backward, over one row of tokens:
//! `cargo bench -p graft-kernels --bench attention`. Throughput is in multiply-adds that a causal mask
//! leaves, two operations each: two products forward, five backward.

use std::hint::black_box;

use burn::tensor::ops::FloatTensorOps;
use burn::tensor::{DType, TensorData};
use burn_flex::{Flex, FlexTensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use graft_kernels::{AttentionSaved, AttentionShape, Kernels, Precision, Span};

/// Numbers between -1 and 1 that look random.
fn tensor(seed: u64, rows: usize, cols: usize) -> FlexTensor {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..rows * cols).map(|_| next()).collect();
    let data = TensorData::new(values, [rows, cols]).convert_dtype(DType::F32);
    Flex::float_from_data(data, &Default::default())
}

fn attention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    group.sample_size(10);
    // Tokens, heads, key heads, width of a head: the shapes of 100 M, 1B and 8B parameters.
    for [tokens, heads, kv_heads, head_dim] in [
        [512, 12, 4, 64],
        [2048, 12, 4, 64],
        [8192, 12, 4, 64],
        [512, 32, 8, 64],
        [2048, 32, 8, 128],
    ] {
        let span = Span { queries: 0..tokens, keys: 0..tokens };
        let shape = AttentionShape { heads, kv_heads, head_dim, spans: [span].into() };
        let [q, d_out] = [1, 2].map(|seed| tensor(seed, tokens, heads * head_dim));
        let [k, v] = [3, 4].map(|seed| tensor(seed, tokens, kv_heads * head_dim));
        let product = (tokens * (tokens + 1) / 2 * heads * head_dim) as u64;
        for precision in [Precision::Bf16, Precision::F32] {
            let [q, k, v] = [&q, &k, &v].map(|x| Flex::operand(x.clone(), precision));
            let label = format!("{} {tokens} x {heads}/{kv_heads} x {head_dim}", precision.name());
            group.throughput(Throughput::Elements(2 * product));
            group.bench_function(BenchmarkId::new("forward", &label), |bench| {
                bench.iter(|| black_box(Flex::causal_attention(&q, &k, &v, &shape, precision)));
            });
            let (out, lse) = Flex::causal_attention(&q, &k, &v, &shape, precision);
            let saved = AttentionSaved { q, k, v, out, lse };
            group.throughput(Throughput::Elements(5 * product));
            group.bench_function(BenchmarkId::new("backward", &label), |bench| {
                bench.iter(|| {
                    black_box(Flex::causal_attention_backward(&saved, &d_out, &shape, precision))
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, attention);
criterion_main!(benches);
