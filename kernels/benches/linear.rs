//! How fast a frozen linear layer is, forward and backward, in each form of its weight:
//! `cargo bench -p graft-kernels --bench linear`. Throughput is in multiply-adds, two operations each.

use std::hint::black_box;

use burn::tensor::ops::FloatTensorOps;
use burn::tensor::{DType, TensorData};
use burn_flex::{Flex, FlexTensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use graft_kernels::frozen::Storage;
use graft_kernels::{FrozenMatrix, Kernels, Precision, Rounding, nf4};

/// Numbers between -1 and 1 that look random.
fn numbers(len: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn nf4(rows: usize, cols: usize) -> FrozenMatrix {
    let packed = nf4::quantize(&numbers(rows * cols), nf4::AbsmaxFormat::Double)
        .expect("finite numbers can be quantised");
    let storage = Storage::Nf4 { codes: packed.codes.into(), absmax: packed.absmax };
    FrozenMatrix::new(rows, cols, storage).expect("as many codes as values")
}

fn tensor(rows: usize, cols: usize) -> FlexTensor {
    let data = TensorData::new(numbers(rows * cols), [rows, cols]).convert_dtype(DType::F32);
    Flex::float_from_data(data, &Default::default())
}

fn linear(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frozen linear");
    group.sample_size(10);
    // Tokens, inputs, outputs: a training step's, then those of decoding.
    for [tokens, inner, out] in
        [[512, 4096, 4096], [512, 2048, 8192], [1, 4096, 4096], [1, 2048, 8192]]
    {
        let device = Default::default();
        let weight = nf4(out, inner);
        let weights = [
            ("nf4", Flex::freeze(weight.clone(), &device)),
            ("bf16", Flex::freeze(weight.to_bf16(), &device)),
        ];
        let (x, dy) = (tensor(tokens, inner), tensor(tokens, out));
        group.throughput(Throughput::Elements((tokens * inner * out) as u64));
        for (name, weight) in &weights {
            for precision in [Precision::Bf16, Precision::F32] {
                let label = format!("{name} {}, {tokens} x {inner} x {out}", precision.name());
                group.bench_function(BenchmarkId::new("y", &label), |bench| {
                    bench.iter(|| {
                        let exact = Rounding::Exact;
                        black_box(<Flex as Kernels>::frozen_linear(&x, weight, precision, exact))
                    });
                });
                group.bench_function(BenchmarkId::new("dx", &label), |bench| {
                    bench.iter(|| black_box(Flex::frozen_linear_dx(&dy, weight, precision)));
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, linear);
criterion_main!(benches);
