//! Sums of gradients, their norm and the steps along them against plain loops in f64, over random sizes:
//! tensors below and above the least of 8 bits, whole blocks and others.
//!
//! A value goes through a dozen f32 operations. Each rounds by 6e-8 of its result, and devices may take
//! roots and quotients some ulps further off, so that `1e-6` of the magnitudes that are added covers them.

use std::ops::Range;

use burn::tensor::ops::FloatTensor;
use graft_kernels::adamw::blockwise::{BLOCK, Blocks, Map, SIGNED, UNSIGNED};
use graft_kernels::adamw::{
    AdamWConfig, AdamWState, GradientSums, Moments, Rule, StateFormat, Trained,
};

use super::*;

const TOLERANCE: f64 = 1e-6;

const CONFIG: AdamWConfig =
    AdamWConfig { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, states: StateFormat::F32 };
const STEP: u64 = 3;
const CLIP: f32 = 0.7;
const RATE: f64 = 1e-2;

/// Tensors in order; every other one decays, and they learn at other rates.
fn tensors(lengths: &[usize]) -> Vec<Trained> {
    let mut end = 0;
    let ranges = lengths.iter().map(|len| {
        end += len;
        end - len..end
    });
    let rates = [1.0, 16.0, 0.5];
    let trained = |(i, range)| Trained { range, decays: i % 2 == 0, rate: rates[i % rates.len()] };
    ranges.enumerate().map(trained).collect()
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1_usize..300, 4_000_usize..5_000, 15_000_usize..40_000], 1..5)
}

fn device_tensor(values: &[f32], shape: &[usize]) -> FloatTensor<Backend> {
    let data = TensorData::new(values.to_vec(), shape.to_vec());
    Tensor::<Backend, 2>::from_data(data, &Default::default()).into_primitive().tensor()
}

fn row(values: &[f32]) -> FloatTensor<Backend> {
    device_tensor(values, &[1, values.len()])
}

fn values_of(tensor: FloatTensor<Backend>) -> Vec<f32> {
    to_vec(Tensor::<Backend, 2>::from_primitive(TensorPrimitive::Float(tensor)))
}

fn sums_of(tensors: &[Trained], gradients: &[Vec<f32>]) -> <Backend as Kernels>::GradientSums {
    let mut sums = <Backend as Kernels>::GradientSums::zeros(tensors, &Default::default());
    // As blocks give them on the way back.
    for (index, tensor) in tensors.iter().enumerate().rev() {
        for gradient in gradients {
            sums.add(index, row(&gradient[tensor.range.clone()]));
        }
    }
    sums
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Random moments of a tensor that has taken steps.
fn moments(format: StateFormat, seed: u64, len: usize) -> Moments {
    let numbers = |seed, len| values(seed, len).into_iter();
    if !format.is_blockwise(len) {
        let first = numbers(seed, len).map(|value| value * 0.1);
        return Moments::F32([first.collect(), numbers(seed + 1, len).map(|v| v * v).collect()]);
    }
    let blocks = |seed| Blocks {
        codes: numbers(seed, len).map(|value| (value * 128.0 + 128.0) as u8).collect(),
        absmax: numbers(seed + 1, len.div_ceil(BLOCK)).map(|v| v.abs() * 0.1).collect(),
    };
    Moments::Blockwise8([blocks(seed + 2), blocks(seed + 4)])
}

/// The numbers that moments stand for.
fn decoded(moments: &Moments) -> [Vec<f64>; 2] {
    let exact = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect();
    match moments {
        Moments::F32(both) => both.each_ref().map(|values| exact(values)),
        Moments::Blockwise8([first, second]) => {
            let of = |map: &Map, blocks: &Blocks| {
                let value = |(i, &code): (usize, &u8)| {
                    f64::from(map.values()[usize::from(code)] * blocks.absmax[i / BLOCK])
                };
                blocks.codes.iter().enumerate().map(value).collect()
            };
            [of(&SIGNED, first), of(&UNSIGNED, second)]
        }
    }
}

/// A number, and the magnitudes that were added for it.
type Exact = (f64, f64);

/// One value's step: both moments, and the value.
fn stepped(
    value: f32,
    gradient: f32,
    [first, second]: [f64; 2],
    of_tensor: &Trained,
) -> [Exact; 3] {
    let rate = RATE * of_tensor.rate;
    let gradient = f64::from(gradient) * f64::from(CLIP);
    let AdamWConfig { beta1, beta2, eps, weight_decay, .. } = CONFIG;
    let mean = [beta1 * first, (1.0 - beta1) * gradient];
    let square = [beta2 * second, (1.0 - beta2) * gradient * gradient];
    let of = |terms: [f64; 2]| (terms[0] + terms[1], terms[0].abs() + terms[1].abs());
    let (mean, square) = (of(mean), of(square));
    // PyTorch's `lerp_` subtracts before it adds.
    let mean = (mean.0, mean.1 + first.abs() + gradient.abs());
    let power = STEP as i32;
    let denominator = (square.0 / (1.0 - beta2.powi(power))).sqrt() + eps;
    let scale = rate / (1.0 - beta1.powi(power)) / denominator;
    let kept = f64::from(value) * if of_tensor.decays { 1.0 - rate * weight_decay } else { 1.0 };
    [mean, square, (kept - scale * mean.0, kept.abs() + scale * mean.1)]
}

fn check(what: &str, found: f32, (expected, magnitude): Exact) {
    let off = (f64::from(found) - expected).abs();
    assert!(off <= TOLERANCE * magnitude, "{what}: {found} is not {expected} ({magnitude})");
}

/// Checks a moment in 8 bits: scales to rounding, and every code to be the nearest one, or the other of two
/// whose middle is so near that rounding decides.
fn check_blocks(what: &str, map: &Map, found: &Blocks, expected: &[Exact]) {
    for (block, values) in expected.chunks(BLOCK).enumerate() {
        let (largest, magnitude) = values
            .iter()
            .map(|(value, magnitude)| (value.abs(), *magnitude))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .expect("a block has values");
        check(&format!("{what}: scale {block}"), found.absmax[block], (largest, magnitude));
        for (i, (value, magnitude)) in values.iter().enumerate() {
            let [value, slack] = [*value, 2.0 * TOLERANCE * magnitude].map(|v| v / largest);
            let slack = slack + 2.0 * TOLERANCE * value.abs() * (1.0 + magnitude / largest);
            let code = usize::from(found.codes[block * BLOCK + i]);
            // The middles on both sides of what the code stands for.
            let below = if code == 0 { -2.0 } else { f64::from(map.midpoints()[code - 1]) };
            let above = f64::from(map.midpoints()[code]);
            assert!(
                (below - slack..=above + slack).contains(&value),
                "{what}: code {code} of block {block} for {value}, between {below} and {above}"
            );
        }
    }
}

/// Checks values and moments after a step against those before it.
fn check_step(
    tensor: &Trained,
    gradient: &[f32],
    [before, after]: [&[f32]; 2],
    [old, new]: [&Moments; 2],
) {
    let [first, second] = decoded(old);
    let expected: Vec<[Exact; 3]> = (0..before.len())
        .map(|i| stepped(before[i], gradient[i], [first[i], second[i]], tensor))
        .collect();
    let of = |which: usize| -> Vec<Exact> { expected.iter().map(|all| all[which]).collect() };
    for (i, expected) in of(2).into_iter().enumerate() {
        check(&format!("value {i} of {}", before.len()), after[i], expected);
    }
    match new {
        Moments::F32(both) => {
            for (which, found) in both.iter().enumerate() {
                for (i, expected) in of(which).into_iter().enumerate() {
                    check(&format!("moment {which}, value {i}"), found[i], expected);
                }
            }
        }
        Moments::Blockwise8([first, second]) => {
            check_blocks("mean", &SIGNED, first, &of(0));
            check_blocks("square", &UNSIGNED, second, &of(1));
        }
    }
}

/// One step of all tensors: values and moments.
fn take_step(
    format: StateFormat,
    tensors: &[Trained],
    start: &[f32],
    old: &[Moments],
    sums: &<Backend as Kernels>::GradientSums,
) -> Vec<(Vec<f32>, Moments)> {
    let mut state =
        <Backend as Kernels>::AdamWState::new(format, tensors.to_vec(), &Default::default());
    for (index, moments) in old.iter().enumerate() {
        state.set_moments(index, moments.clone());
        assert!(*state.moments(index) == *moments, "moments come back as they went");
    }
    let given = |range: &Range<usize>| row(&start[range.clone()]);
    let values = tensors.iter().map(|tensor| given(&tensor.range)).collect();
    let rule = Rule::new(AdamWConfig { states: format, ..CONFIG }, STEP, CLIP, RATE);
    let values = state.step(values, sums, &rule).into_iter().map(values_of);
    values.enumerate().map(|(i, values)| (values, state.moments(i).into_owned())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gradients_are_summed_in_their_order_and_the_norm_is_that_of_the_sums(lengths in lengths()) {
        let tensors = tensors(&lengths);
        let all = tensors.last().unwrap().range.end;
        let gradients = [31, 32, 33].map(|seed| values(seed, all));
        let sums = sums_of(&tensors, &gradients);
        let [a, b, c] = &gradients;
        let expected: Vec<f32> = (0..all).map(|i| a[i] + b[i] + c[i]).collect();
        // Additions alone: every device rounds them alike.
        prop_assert_eq!(bits(&sums.values()), bits(&expected));
        let square = |&value: &f32| f64::from(value) * f64::from(value);
        let norm = expected.iter().map(square).sum::<f64>().sqrt();
        prop_assert!((sums.norm() - norm).abs() <= TOLERANCE * norm, "{} is not {norm}", sums.norm());
        prop_assert_eq!(sums_of(&tensors, &gradients).norm().to_bits(), sums.norm().to_bits());
        // What nobody adds to is zero.
        let none = <Backend as Kernels>::GradientSums::zeros(&tensors, &Default::default());
        prop_assert_eq!((none.values(), none.norm()), (vec![0.0; all], 0.0));
    }

    #[test]
    fn a_gradient_takes_in_another_times_a_factor(
        lengths in lengths(), factor in prop::sample::select(vec![1.0_f32, 0.37, -2.5, 0.0]),
    ) {
        let tensors = tensors(&lengths);
        let all = tensors.last().unwrap().range.end;
        let gradients = [34, 35].map(|seed| values(seed, all));
        let [mut sums, other] = gradients.each_ref().map(|one| sums_of(&tensors, std::slice::from_ref(one)));
        sums.add_scaled(&other, factor);
        let [a, b] = &gradients;
        for (i, found) in sums.values().into_iter().enumerate() {
            let [a, b] = [a[i], b[i] * factor].map(f64::from);
            let within = TOLERANCE * (a.abs() + b.abs());
            prop_assert!((f64::from(found) - a - b).abs() <= within, "{i}: {found} is not {a} + {b}");
        }
        prop_assert_eq!(bits(&other.values()), bits(b));
        // Nothing in, and into nothing.
        let none = || <Backend as Kernels>::GradientSums::zeros(&tensors, &Default::default());
        let before = sums.values();
        sums.add_scaled(&none(), factor);
        prop_assert_eq!(bits(&sums.values()), bits(&before));
        let mut fresh = none();
        fresh.add_scaled(&other, 1.0);
        prop_assert_eq!(bits(&fresh.values()), bits(b));
    }

    #[test]
    fn every_value_of_a_gradient_can_be_changed_in_its_place(lengths in lengths()) {
        let tensors = tensors(&lengths);
        let all = tensors.last().unwrap().range.end;
        let gradient = values(36, all);
        for (mut sums, before) in [
            (sums_of(&tensors, std::slice::from_ref(&gradient)), gradient),
            (sums_of(&tensors, &[]), vec![0.0; all]),
        ] {
            let added = values(37, all);
            let mut next = 0;
            sums.change(&mut |first, values| {
                assert_eq!(first, next, "in order, none left out");
                assert_eq!(bits(values), bits(&before[first..first + values.len()]));
                values.iter_mut().zip(&added[first..]).for_each(|(value, add)| *value += add);
                next += values.len();
            });
            assert_eq!(next, all);
            let expected: Vec<f32> = before.iter().zip(&added).map(|(a, b)| a + b).collect();
            prop_assert_eq!(bits(&sums.values()), bits(&expected));
            let square = |&value: &f32| f64::from(value) * f64::from(value);
            let norm = expected.iter().map(square).sum::<f64>().sqrt();
            prop_assert!((sums.norm() - norm).abs() <= TOLERANCE * norm);
            // What comes after goes to the same place.
            sums.add(0, row(&vec![1.0; tensors[0].range.len()]));
            prop_assert_eq!(sums.values()[0].to_bits(), (expected[0] + 1.0).to_bits());
        }
    }

    #[test]
    fn rows_of_a_gradient_go_to_their_rows_of_a_table(
        rows in 1_usize..60, table in 1_usize..50, width in 1_usize..70, before in 0_usize..90,
    ) {
        let tensors = tensors(&[before, table * width]);
        let mut sums = <Backend as Kernels>::GradientSums::zeros(&tensors, &Default::default());
        let earlier = values(41, table * width);
        sums.add(1, row(&earlier));
        let ids: Vec<u32> = values(42, rows).iter().map(|v| ((v + 1.0) / 2.0 * table as f32) as u32).collect();
        let gradient = values(43, rows * width);
        sums.add_rows(1, &ids, device_tensor(&gradient, &[rows, width]));
        let mut expected = vec![0.0; table * width];
        for (&id, row) in ids.iter().zip(gradient.chunks(width)) {
            for (column, value) in row.iter().enumerate() {
                expected[id as usize * width + column] += value;
            }
        }
        let expected: Vec<f32> = expected.iter().zip(&earlier).map(|(new, old)| old + new).collect();
        prop_assert_eq!(bits(&sums.values()[before..]), bits(&expected));
    }

    #[test]
    fn a_step_is_that_of_the_formulas_in_either_form_of_the_moments(lengths in lengths()) {
        let tensors = tensors(&lengths);
        let all = tensors.last().unwrap().range.end;
        let (start, gradient) = (values(51, all), values(52, all));
        let sums = sums_of(&tensors, std::slice::from_ref(&gradient));
        for format in [StateFormat::F32, StateFormat::Blockwise8] {
            let old = |(i, tensor): (usize, &Trained)| moments(format, 60 + 10 * i as u64, tensor.range.len());
            let old: Vec<Moments> = tensors.iter().enumerate().map(old).collect();
            let new = take_step(format, &tensors, &start, &old, &sums);
            for ((tensor, old), (values, new)) in tensors.iter().zip(&old).zip(&new) {
                let [before, gradient] = [&start, &gradient].map(|all| &all[tensor.range.clone()]);
                check_step(tensor, gradient, [before, values], [old, new]);
            }
            prop_assert!(take_step(format, &tensors, &start, &old, &sums) == new, "other bits again");
        }
    }
}

/// Nothing was remembered before the first step; a block of zeros has a scale that no code can be
/// divided by.
#[test]
fn first_steps_begin_with_nothing_and_gradients_of_zero_change_nothing() {
    let tensors = tensors(&[5_000, 300]);
    let (start, none) = (values(71, 5_300), vec![0.0; 5_300]);
    for format in [StateFormat::F32, StateFormat::Blockwise8] {
        let fresh: Vec<Moments> =
            tensors.iter().map(|tensor| Moments::zeros(format, tensor.range.len())).collect();
        let mut state =
            <Backend as Kernels>::AdamWState::new(format, tensors.clone(), &Default::default());
        let config = AdamWConfig { weight_decay: 0.0, ..CONFIG };
        let rule = Rule::new(config, 1, 1.0, RATE);
        let given = tensors.iter().map(|tensor| row(&start[tensor.range.clone()]));
        let values =
            state.step(given.collect(), &sums_of(&tensors, std::slice::from_ref(&none)), &rule);
        for (index, (tensor, values)) in tensors.iter().zip(values).enumerate() {
            assert!(*values_of(values) == start[tensor.range.clone()], "{format:?}");
            let zeros =
                |moments: &Moments| decoded(moments).map(|all| all.iter().all(|v| *v == 0.0));
            assert_eq!(zeros(&state.moments(index)), zeros(&fresh[index]), "{format:?}");
        }
    }
}

/// A device keeps the sums of large models in several buffers.
#[test]
fn tensors_beside_one_that_fills_a_buffer_have_sums_of_their_own() {
    let tensors = tensors(&[(1 << 24) - 5, 4_100, 300]);
    let [large, middle, small] = [0, 1, 2].map(|i| tensors[i].range.clone());
    let mut sums = <Backend as Kernels>::GradientSums::zeros(&tensors, &Default::default());
    let [few, many] = [vec![2.0; small.len()], vec![1.0; large.len()]];
    sums.add(2, row(&few));
    sums.add(0, row(&many));
    sums.add(2, row(&few));
    let found = sums.values();
    assert_eq!(found.len(), small.end);
    for (range, value) in [(&large, 1.0), (&middle, 0.0), (&small, 4.0)] {
        let expected = vec![value; range.len()];
        assert!(bits(&found[range.clone()]) == bits(&expected), "{value} in {range:?}");
    }
    let norm = (many.len() as f64 + 16.0 * few.len() as f64).sqrt();
    assert!((sums.norm() - norm).abs() <= TOLERANCE * norm, "{} is not {norm}", sums.norm());
    // The middle one lies with the small one.
    let mut other = <Backend as Kernels>::GradientSums::zeros(&tensors, &Default::default());
    other.add(1, row(&vec![3.0; middle.len()]));
    sums.add_scaled(&other, 0.5);
    let mut seen = Vec::new();
    sums.change(&mut |first, values| {
        seen.push(first..first + values.len());
        for value in values {
            *value = -*value;
        }
    });
    assert!(seen.windows(2).all(|two| two[0].end == two[1].start), "{seen:?}");
    assert_eq!((seen[0].start, seen.last().unwrap().end), (0, small.end));
    let found = sums.values();
    for (range, value) in [(large, -1.0), (middle, -1.5), (small, -4.0)] {
        let expected = vec![value; range.len()];
        assert!(bits(&found[range.clone()]) == bits(&expected), "{value} in {range:?}");
    }
}
