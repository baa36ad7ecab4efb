//! How fast 100,000 rows are packed, and how full the bins are: `cargo bench -p graft-data --bench packing`.
//!
//! Lengths are those of chats (log-normal, a median of 300 tokens), and some made to be hard.

use criterion::{Criterion, criterion_group, criterion_main};
use graft_data::pack;

const ROWS: usize = 100_000;
const MAX_SEQ_LEN: usize = 2_048;

/// Uniform numbers in (0, 1), the same in every run.
fn uniform() -> impl FnMut() -> f64 {
    let mut state = 7_u64;
    move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }
}

/// Lengths of chats: log-normal, a median of 300, cut to what `overlong` lets through.
fn chats() -> Vec<usize> {
    let mut next = uniform();
    let mut normal = || (-2.0 * next().ln()).sqrt() * (std::f64::consts::TAU * next()).cos();
    (0..ROWS).map(|_| ((300.0 * (0.9 * normal()).exp()) as usize).clamp(2, MAX_SEQ_LEN)).collect()
}

fn packing(criterion: &mut Criterion) {
    let mut next = uniform();
    let all: [(&str, Vec<usize>); 6] = [
        ("chats", chats()),
        ("uniform", (0..ROWS).map(|_| 1 + (next() * MAX_SEQ_LEN as f64) as usize).collect()),
        ("equal", vec![700; ROWS]),
        ("one token", vec![1; ROWS]),
        ("two sizes", (0..ROWS).map(|i| if i % 2 == 0 { 1_500 } else { 548 }).collect()),
        ("half and one more", vec![MAX_SEQ_LEN / 2 + 1; ROWS]),
    ];
    let mut group = criterion.benchmark_group("packing 100,000 rows");
    group.sample_size(10);
    for (name, lengths) in all {
        let bins = pack(&lengths, MAX_SEQ_LEN);
        let tokens: usize = lengths.iter().sum();
        // The fewest bins that these tokens could fill.
        let least = tokens.div_ceil(MAX_SEQ_LEN);
        let fill = 100.0 * tokens as f64 / (bins.len() * MAX_SEQ_LEN) as f64;
        let title = format!("{name}: {} bins, at least {least}, {fill:.2} % full", bins.len());
        group.bench_function(title, |bencher| bencher.iter(|| pack(&lengths, MAX_SEQ_LEN)));
    }
    group.finish();
}

criterion_group!(benches, packing);
criterion_main!(benches);
