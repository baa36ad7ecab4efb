//! Every op, forward and backward, against plain burn under burn's own tape, over random shapes. The oracle
//! computes on the CPU whatever the kernels run on: plain burn on a device would be one more thing to trust,
//! and its tape gives wrong gradients there where a dimension of one is permuted and reshaped.
//!
//! Both sides are f32 and sum in different orders, so they agree to a few roundings of the largest
//! magnitude involved: `2e-5` of it covers sums of up to some hundred terms.

#[path = "adamw.rs"]
mod adamw;
#[path = "lora.rs"]
mod lora;

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::tensor::{Tensor, TensorData, TensorPrimitive};
use graft_kernels::frozen::{FrozenMatrix, Storage};
use graft_kernels::nf4::AbsmaxFormat;
use graft_kernels::{
    AttentionShape, Kernels, Ops, Output, Precision, Rotation, Rounding, Span, backward_from, nf4,
    reference,
};
use proptest::prelude::*;

use super::{BF16, Backend, CASES, PRECISIONS};

type Tape = Autodiff<Backend>;
/// The oracle's.
type Cpu = Autodiff<burn_flex::Flex>;
const TOLERANCE: f32 = 2e-5;

/// Values in [-1, 1) from a multiplicative hash: no two calls with one seed and index differ.
pub(super) fn values(seed: u64, len: usize) -> Vec<f32> {
    (0..len as u64)
        .map(|i| {
            let mut z = (seed << 32).wrapping_add(i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        })
        .collect()
}

fn leaf(seed: u64, shape: [usize; 2]) -> Tensor<Tape, 2> {
    inner(seed, shape).require_grad()
}

fn inner(seed: u64, shape: [usize; 2]) -> Tensor<Tape, 2> {
    let data = TensorData::new(values(seed, shape[0] * shape[1]), shape);
    Tensor::from_data(data, &Default::default())
}

fn wrap(
    primitive: <Tape as burn::tensor::backend::BackendTypes>::FloatTensorPrimitive,
) -> Tensor<Tape, 2> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

fn raw<const D: usize>(
    tensor: &Tensor<Tape, D>,
) -> <Tape as burn::tensor::backend::BackendTypes>::FloatTensorPrimitive {
    tensor.clone().into_primitive().tensor()
}

pub(super) fn to_vec<B: burn::tensor::backend::Backend, const D: usize>(
    tensor: Tensor<B, D>,
) -> Vec<f32> {
    tensor.into_data().convert::<f32>().to_vec().unwrap()
}

fn close(what: &str, ours: &[f32], expected: &[f32]) {
    near(what, ours, expected, Within::ORDER_ONE);
}

/// How far values may be apart: by `tolerance` of the largest, which is a tenth at least.
#[derive(Clone, Copy)]
struct Within {
    tolerance: f32,
    /// What the largest counts as where all are below a tenth of it: they have cancelled, which the roundings
    /// of their terms do not.
    typical: f32,
}

impl Within {
    /// Terms are of order one.
    const ORDER_ONE: Self = Self { tolerance: TOLERANCE, typical: 0.1 };

    /// Sums over `outer` values, each a sum of `inner` products of order one: a lone one may cancel.
    fn sums_of_sums(outer: usize, inner: usize) -> Self {
        Self { typical: 0.1 * ((outer * inner) as f32).sqrt(), ..Self::ORDER_ONE }
    }
}

fn near(what: &str, ours: &[f32], expected: &[f32], Within { tolerance, typical }: Within) {
    assert_eq!(ours.len(), expected.len(), "{what}: sizes");
    let largest = expected.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
    let largest = if largest < 0.1 * typical { typical } else { largest.max(0.1) };
    for (i, (a, b)) in ours.iter().zip(expected).enumerate() {
        assert!(
            (a - b).abs() <= tolerance * largest,
            "{what}[{i}]: {a} is not {b} (largest {largest})"
        );
    }
}

/// A tensor's values on the CPU, as a leaf of the oracle's tape.
fn on_cpu(tensor: &Tensor<Tape, 2>) -> Tensor<Cpu, 2> {
    let data = TensorData::new(to_vec(tensor.clone().inner()), tensor.dims());
    Tensor::from_data(data, &Default::default())
}

/// Compares outputs, then the gradients of every leaf for one random gradient from above.
fn compare<const N: usize>(
    what: &str,
    leaves: [&Tensor<Tape, 2>; N],
    ours: Tensor<Tape, 2>,
    oracle: impl FnOnce([Tensor<Cpu, 2>; N]) -> Tensor<Cpu, 2>,
) {
    compare_within(Within::ORDER_ONE, what, leaves, ours, oracle);
}

fn compare_within<const N: usize>(
    within: Within,
    what: &str,
    leaves: [&Tensor<Tape, 2>; N],
    ours: Tensor<Tape, 2>,
    oracle: impl FnOnce([Tensor<Cpu, 2>; N]) -> Tensor<Cpu, 2>,
) {
    let its_leaves = leaves.map(|leaf| on_cpu(leaf).require_grad());
    let oracle = oracle(its_leaves.clone());
    let expected = to_vec(oracle.clone().inner());
    near(&format!("{what}: output"), &to_vec(ours.clone().inner()), &expected, within);
    let above = inner(99, ours.dims());
    let seeded =
        backward_from::<Backend>(raw(&ours), above.clone().inner().into_primitive().tensor());
    let expected = (oracle * on_cpu(&above)).sum().backward();
    for (i, (leaf, its_leaf)) in leaves.into_iter().zip(its_leaves).enumerate() {
        let ours = to_vec(leaf.grad(&seeded).expect("a gradient"));
        let expected = to_vec(its_leaf.grad(&expected).expect("a reference gradient"));
        near(&format!("{what}: gradient {i}"), &ours, &expected, within);
    }
}

fn dense(matrix: &FrozenMatrix) -> Tensor<Cpu, 2> {
    let data = TensorData::new(matrix.to_f32(), matrix.shape());
    Tensor::from_data(data, &Default::default())
}

/// One random weight in every form that is no quantised one.
fn stored(seed: u64, out: usize, depth: usize) -> Vec<(&'static str, FrozenMatrix)> {
    let full = FrozenMatrix::from_f32(out, depth, &values(seed, out * depth));
    let half: Vec<u8> =
        full.to_f32().iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect();
    let half = FrozenMatrix::new(out, depth, Storage::F16(half.into())).unwrap();
    let bf16 = full.to_bf16();
    vec![("f32", full), ("f16", half), ("bf16", bf16)]
}

/// Values computed and left as they are.
fn computed() -> Output<Backend> {
    Output::computed(Rounding::Exact)
}

/// A random weight in NF4.
fn nf4(seed: u64, out: usize, depth: usize, format: AbsmaxFormat) -> FrozenMatrix {
    let packed = nf4::quantize(&values(seed, out * depth), format).unwrap();
    let storage = Storage::Nf4 { codes: packed.codes.into(), absmax: packed.absmax };
    FrozenMatrix::new(out, depth, storage).unwrap()
}

/// One random weight in every stored form.
pub(super) fn all_forms(seed: u64, out: usize, depth: usize) -> Vec<(&'static str, FrozenMatrix)> {
    let mut forms = stored(seed, out, depth);
    forms.push(("nf4", nf4(seed, out, depth, AbsmaxFormat::Plain)));
    forms.push(("nf4, double", nf4(seed, out, depth, AbsmaxFormat::Double)));
    forms
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoding_is_the_same_product_up_to_the_order_of_its_sums(
        rows in 1_usize..7, blocks in 1_usize..9, extra in 0_usize..2, out in 1_usize..80,
    ) {
        // Whole blocks have a way of their own, others take the usual one.
        let depth = 64 * blocks - extra;
        for (form, matrix) in all_forms(1, out, depth) {
            let x = raw(&inner(2, [rows, depth])).primitive;
            let frozen = Backend::freeze(matrix, &Default::default());
            let values = |y| to_vec(Tensor::<Backend, 2>::from_primitive(TensorPrimitive::Float(y)));
            for precision in PRECISIONS {
                let expected = <Backend as Kernels>::frozen_linear(&x, &frozen, precision, Rounding::Exact);
                let found = Backend::frozen_linear_decode(&x, &frozen, precision);
                close(form, &values(found), &values(expected));
            }
        }
    }

    #[test]
    fn rows_and_bands_are_those_of_the_decoded_weight(
        blocks in 1_usize..6, extra in 0_usize..2, out in 1_usize..80, cut in 0_usize..80,
    ) {
        let (depth, cut) = (64 * blocks - extra, cut % out);
        for (form, matrix) in all_forms(1, out, depth) {
            let whole = dense(&matrix).inner();
            let frozen = Backend::freeze(matrix, &Default::default());
            let ids = [out - 1, 0, cut];
            let rows = Backend::frozen_rows(&frozen, &ids.map(|id| id as u32), &Default::default());
            let rows = Tensor::<Backend, 2>::from_primitive(TensorPrimitive::Float(rows));
            let expected = Tensor::cat(ids.map(|id| whole.clone().narrow(0, id, 1)).into(), 0);
            close(form, &to_vec(rows), &to_vec(expected));
            let Some(band) = Backend::frozen_band(&frozen, cut..out) else { continue };
            prop_assert_eq!(Backend::frozen_shape(&band), [out - cut, depth]);
            let x = inner(2, [5, depth]);
            let y = <Backend as Kernels>::frozen_linear(
                &raw(&x).primitive, &band, Precision::F32, Rounding::Exact);
            let y = Tensor::<Backend, 2>::from_primitive(TensorPrimitive::Float(y));
            let expected = on_cpu(&x).inner().matmul(whole.narrow(0, cut, out - cut).transpose());
            close(form, &to_vec(y), &to_vec(expected));
        }
    }

    #[test]
    fn frozen_linear_is_a_product_with_the_decoded_weight(
        tokens in 1_usize..70, depth in 1_usize..600, out in 1_usize..80,
    ) {
        for (form, matrix) in all_forms(1, out, depth) {
            let x = leaf(2, [tokens, depth]);
            let frozen = Backend::freeze(matrix.clone(), &Default::default());
            let ours = wrap(Tape::frozen_linear(raw(&x), &frozen, Precision::F32, computed()));
            compare(form, [&x], ours, |[x]| x.matmul(dense(&matrix).transpose()));
        }
    }

    #[test]
    fn bf16_rounds_both_operands_where_there_is_bf16_and_nothing_else(
        tokens in 1_usize..30, depth in 1_usize..400, out in 1_usize..40,
    ) {
        let round = |values: Vec<f32>| -> Vec<f32> {
            values.iter().map(|&value| {
                if BF16 { half::bf16::from_f32(value).to_f32() } else { value }
            }).collect()
        };
        let x = leaf(3, [tokens, depth]);
        let matrix = FrozenMatrix::from_f32(out, depth, &values(4, out * depth));
        let frozen = Backend::freeze(matrix.clone(), &Default::default());
        let ours = wrap(Tape::frozen_linear(raw(&x), &frozen, Precision::Bf16, computed()));
        let rounded = Tensor::<burn_flex::Flex, 2>::from_data(
            TensorData::new(round(to_vec(x.inner())), [tokens, depth]), &Default::default());
        let rounded_weight = matrix.to_bf16();
        let oracle = rounded.matmul(dense(if BF16 { &rounded_weight } else { &matrix }).inner().transpose());
        close("bf16 product", &to_vec(ours.inner()), &to_vec(oracle));
    }

    #[test]
    fn linear_gives_both_gradients(
        tokens in 1_usize..70, depth in 1_usize..300, out in 1_usize..70,
    ) {
        let (x, w) = (leaf(5, [tokens, depth]), leaf(6, [out, depth]));
        let ours = wrap(Tape::dense_linear(raw(&x), raw(&w), Precision::F32, computed()));
        compare("linear", [&x, &w], ours, |[x, w]| x.matmul(w.transpose()));
    }

    #[test]
    fn rms_norm_matches(tokens in 1_usize..20, width in 1_usize..130) {
        let (x, w) = (leaf(7, [tokens, width]), leaf(8, [1, width]));
        let flat: Tensor<Tape, 1> = w.clone().reshape([width]);
        let ours = wrap(Tape::rms_norm(raw(&x), raw(&flat), 1e-5, Precision::F32));
        compare("rms_norm", [&x, &w], ours, |[x, w]| reference::rms_norm(x, w.reshape([width]), 1e-5));
    }

    #[test]
    fn scaled_columns_match(rows in 1_usize..200, width in 1_usize..130) {
        let (x, w) = (leaf(21, [rows, width]), leaf(22, [1, width]));
        let flat: Tensor<Tape, 1> = w.clone().reshape([width]);
        let in_place = Tape::scaled_columns(&raw(&x), &raw(&flat), Precision::F32);
        let in_place = (rows % 2 == 0).then_some(in_place);
        let ours = wrap(Tape::scale_columns(raw(&x), raw(&flat), in_place));
        let within = Within::sums_of_sums(rows, 1);
        compare_within(within, "scale_columns", [&x, &w], ours, |[x, w]| reference::scale_columns(x, w));
    }

    #[test]
    fn swiglu_matches(tokens in 1_usize..20, width in 1_usize..130) {
        let (gate, up) = (leaf(9, [tokens, width]), leaf(10, [tokens, width]));
        let ours = wrap(Tape::swiglu(raw(&gate), raw(&up)));
        compare("swiglu", [&gate, &up], ours, |[gate, up]| reference::swiglu(gate, up));
    }

    #[test]
    fn rope_matches(tokens in 1_usize..20, heads in 1_usize..5, half in 1_usize..20) {
        let angles = values(11, tokens * half);
        let [cos, sin] = [f32::cos, f32::sin].map(|of| angles.iter().map(|a| of(a * 3.0)).collect());
        let rotation = Arc::new(Rotation::new(half, cos, sin));
        let x = leaf(12, [tokens, heads * 2 * half]);
        let ours = wrap(Tape::rope(raw(&x), &rotation, Precision::F32));
        compare("rope", [&x], ours, |[x]| reference::rope(x, &rotation));
    }

    #[test]
    fn attention_matches_inside_every_span(
        lengths in prop::collection::vec(1_usize..120, 1..4),
        kv_heads in 1_usize..3, group in 1_usize..4, half_dim in 1_usize..20,
    ) {
        let (heads, head_dim) = (kv_heads * group, 2 * half_dim);
        let mut spans = Vec::new();
        let mut start = 1; // one row of padding in front belongs to no span
        for length in lengths {
            spans.push(Span { queries: start..start + length, keys: start..start + length });
            start += length;
        }
        let tokens = start + 2;
        let shape = AttentionShape { heads, kv_heads, head_dim, spans: spans.into() };
        let q = leaf(13, [tokens, heads * head_dim]);
        let k = leaf(14, [tokens, kv_heads * head_dim]);
        let v = leaf(15, [tokens, kv_heads * head_dim]);
        let ours = wrap(Tape::causal_attention(raw(&q), raw(&k), raw(&v), &shape, Precision::F32, None).0);
        compare("attention", [&q, &k, &v], ours, |[q, k, v]| reference::attention(q, k, v, &shape));
    }

    #[test]
    fn attention_over_rounded_values_matches_in_either_precision(
        lengths in prop::collection::vec(1_usize..420, 1..4),
        kv_heads in 1_usize..3, group in 1_usize..5, head_dim in 1_usize..9, cached in 0_usize..2,
    ) {
        // Weights and their gradients are rounded on the way, to half of 2⁻⁸ each. Before a lone key the
        // gradients cancel to nothing, which their roundings do not.
        const ROUNDED: Within = Within { tolerance: 1e-2, typical: 0.5 };
        let (heads, head_dim) = (kv_heads * group, 16 * head_dim);
        let mut spans = Vec::new();
        let (mut query, mut key) = (1, 0);
        for length in lengths {
            // Some spans go on behind keys that were there before.
            let before = cached * (length % 7);
            let keys = key..key + before + length;
            spans.push(Span { queries: query..query + length, keys });
            (query, key) = (query + length, key + before + length);
        }
        let (queries, keys) = (query + 2, key + 3);
        let shape = AttentionShape { heads, kv_heads, head_dim, spans: spans.into() };
        let rounded = |seed, rows, width| {
            let values = values(seed, rows * width);
            let even = values.iter().map(|&value| half::bf16::from_f32(value).to_f32());
            let data = TensorData::new(even.collect(), [rows, width]);
            Tensor::<Tape, 2>::from_data(data, &Default::default()).require_grad()
        };
        for (precision, within) in
            [(Precision::F32, Within::ORDER_ONE), (Precision::Bf16, ROUNDED)]
        {
            let q = rounded(23, queries, heads * head_dim);
            let [k, v] = [24, 25].map(|seed| rounded(seed, keys, kv_heads * head_dim));
            let ours = wrap(Tape::causal_attention(raw(&q), raw(&k), raw(&v), &shape, precision, None).0);
            let [q_half, k_half, v_half] =
                [&q, &k, &v].map(|x| Backend::operand(raw(x).primitive, precision));
            let (halves, _) =
                <Backend as Kernels>::causal_attention(&q_half, &k_half, &v_half, &shape, precision);
            let halves = Tensor::<Backend, 2>::from_primitive(TensorPrimitive::Float(halves));
            assert_eq!(to_vec(ours.clone().inner()), to_vec(halves), "operands in either form");
            let oracle = |[q, k, v]: [Tensor<Cpu, 2>; 3]| reference::attention(q, k, v, &shape);
            compare_within(within, precision.name(), [&q, &k, &v], ours, oracle);
        }
    }

    #[test]
    fn cross_entropy_gives_losses_and_gradient(
        rows in 1_usize..20, vocab in 1_usize..300, band in 1_usize..300,
    ) {
        let logits = leaf(16, [rows, vocab]);
        let targets: Vec<u32> = (0..rows).map(|i| ((i * 31) % vocab) as u32).collect();
        let bands = logits.clone().inner().split(band, 1);
        let bands = bands.into_iter().map(|band| band.into_primitive().tensor()).collect();
        // Some rows count for nothing, and some against what their target says.
        let factors: Vec<f32> = (0..rows).map(|i| [0.5, 0.0, -1.25, 2.0][i % 4]).collect();
        let (losses, gradient) = Backend::cross_entropy(bands, &targets, &factors);
        let logits = on_cpu(&logits).require_grad();
        let oracle = reference::cross_entropy(logits.clone(), &targets);
        close("losses", &losses, &to_vec(oracle.clone().inner()));
        let factors = Tensor::from_data(TensorData::new(factors, [rows]), &Default::default());
        let expected = logits.grad(&(oracle * factors).sum().backward()).unwrap();
        let bands = gradient.into_iter().map(|band| {
            Tensor::<Backend, 2>::from_primitive(TensorPrimitive::Float(band))
        });
        let gradient = Tensor::cat(bands.collect(), 1);
        close("gradient of logits", &to_vec(gradient), &to_vec(expected));
    }

    #[test]
    fn later_queries_continue_where_a_cache_ends(cached in 1_usize..60, new in 1_usize..60) {
        let (heads, kv_heads, head_dim) = (4, 2, 16);
        let tokens = cached + new;
        let full = AttentionShape {
            heads, kv_heads, head_dim,
            spans: [Span { queries: 0..tokens, keys: 0..tokens }].into(),
        };
        let tail = AttentionShape {
            spans: [Span { queries: 0..new, keys: 0..tokens }].into(), ..full.clone()
        };
        let q = inner(17, [tokens, heads * head_dim]);
        let k = inner(18, [tokens, kv_heads * head_dim]);
        let v = inner(19, [tokens, kv_heads * head_dim]);
        let whole = wrap(Tape::causal_attention(raw(&q), raw(&k), raw(&v), &full, Precision::F32, None).0);
        let last = q.narrow(0, cached, new);
        let part = wrap(Tape::causal_attention(raw(&last), raw(&k), raw(&v), &tail, Precision::F32, None).0);
        close("tail", &to_vec(part.inner()), &to_vec(whole.narrow(0, cached, new).inner()));
    }
}
