//! The adapted projection against its formulas in plain burn, over random shapes, in every stored form
//! of the weight and both precisions: output, `low`, and the gradients of `x`, `A` and `B`.
//!
//! Operands are small whole numbers plus a quarter of bf16's step. Rounded to bf16 they are whole, so
//! that `low` and its gradient are exact whatever the order of their sums, and their own rounding to
//! bf16 cannot fall to the other side. An operand that is not rounded shows at once.

use burn::tensor::backend::BackendTypes;
use burn::tensor::ops::FloatTensor;
use burn_flex::Flex;
use graft_kernels::{Dropout, LoraGradients, LoraSaved, LowRank, Values};

use super::*;

/// `k · (1 + 2⁻⁹)` for whole `k` between -7 and 7.
fn near_whole(seed: u64, shape: [usize; 2]) -> Tensor<Backend, 2> {
    let whole = |value: f32| (value * 7.5).trunc() * (1.0 + 2.0_f32.powi(-9));
    let data: Vec<f32> = values(seed, shape[0] * shape[1]).into_iter().map(whole).collect();
    Tensor::from_data(TensorData::new(data, shape), &Default::default())
}

fn primitive(tensor: &Tensor<Backend, 2>) -> <Backend as BackendTypes>::FloatTensorPrimitive {
    tensor.clone().into_primitive().tensor()
}

fn tensor(primitive: <Backend as BackendTypes>::FloatTensorPrimitive) -> Tensor<Backend, 2> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// The operand as a product of this precision takes it.
fn rounded(precision: Precision, tensor: &Tensor<Flex, 2>) -> Tensor<Flex, 2> {
    if precision == Precision::F32 {
        return tensor.clone();
    }
    let round = |value: f32| half::bf16::from_f32(value).to_f32();
    let data: Vec<f32> = to_vec(tensor.clone()).into_iter().map(round).collect();
    Tensor::from_data(TensorData::new(data, tensor.dims()), &tensor.device())
}

struct Case {
    x: Tensor<Backend, 2>,
    a: Tensor<Backend, 2>,
    b: Tensor<Backend, 2>,
    dy: Tensor<Backend, 2>,
    scale: f32,
}

impl Case {
    fn new([tokens, depth, out, rank]: [usize; 4], scale: f32) -> Self {
        Self {
            x: near_whole(21, [tokens, depth]),
            a: near_whole(22, [rank, depth]),
            b: near_whole(23, [out, rank]),
            dy: near_whole(24, [tokens, out]),
            scale,
        }
    }

    fn update(&self) -> LowRank<Backend> {
        LowRank { a: primitive(&self.a), b: primitive(&self.b), scale: self.scale, dropout: None }
    }

    /// `y`, `low`, `dx`, `dA` and `dB` by their formulas.
    fn expected(&self, weight: &Tensor<Flex, 2>, precision: Precision) -> [Tensor<Flex, 2>; 5] {
        let scale = &self.scale;
        let exact = [&self.x, &self.a, &self.b, &self.dy].map(|tensor| {
            let data = TensorData::new(to_vec(tensor.clone()), tensor.dims());
            Tensor::<Flex, 2>::from_data(data, &Default::default())
        });
        let [x, a, b, dy] = &exact;
        let [exact_x, .., exact_dy] = &exact;
        let of = |tensor| rounded(precision, tensor);
        let [w, x, a, b, dy] = [weight, x, a, b, dy].map(of);
        let low = x.clone().matmul(a.clone().transpose()) * *scale;
        let y = x.clone().matmul(w.clone().transpose()) + of(&low).matmul(b.clone().transpose());
        let d_low = dy.clone().matmul(b) * *scale;
        let dx = dy.clone().matmul(w) + of(&d_low).matmul(a);
        // The gradients of `A` and `B` round nothing.
        let da = d_low.transpose().matmul(exact_x.clone());
        let db = exact_dy.clone().transpose().matmul(low.clone());
        [y, low, dx, da, db]
    }

    /// Outputs and gradients as the kernels give them.
    fn found(&self, weight: &<Backend as Kernels>::Frozen, precision: Precision) -> [Vec<f32>; 5] {
        let [x, dy] = [&self.x, &self.dy].map(primitive);
        let update = self.update();
        let low = <Backend as Kernels>::lora_low(&x, &update, precision);
        let exact = Rounding::Exact;
        let y = <Backend as Kernels>::lora_linear(&x, weight, &update, &low, precision, exact);
        let saved = LoraSaved { x, low: low.clone(), weight: weight.clone(), update };
        let LoraGradients { x: dx, a, b } =
            Backend::lora_linear_backward(&dy, &saved, true, precision);
        [y, low, dx.expect("dx was asked for"), a, b].map(|found| to_vec(tensor(found)))
    }

    /// The gradients of leaves on a tape; `x` is one where asked for.
    fn on_tape(
        &self,
        weight: &<Backend as Kernels>::Frozen,
        precision: Precision,
        values: Values<Backend>,
        wants_dx: bool,
    ) -> (Option<Vec<f32>>, [Vec<f32>; 2]) {
        let x = Tensor::<Tape, 2>::from_inner(self.x.clone());
        let x = if wants_dx { x.require_grad() } else { x };
        let leaf = |tensor: &Tensor<Backend, 2>| {
            Tensor::<Tape, 2>::from_inner(tensor.clone()).require_grad()
        };
        let (a, b) = (leaf(&self.a), leaf(&self.b));
        let update = LowRank { a: raw(&a), b: raw(&b), scale: self.scale, dropout: None };
        let output = Output { values, rounding: Rounding::Exact };
        let y = lora_on_tape(raw(&x), weight, update, precision, output);
        let gradients = backward_from::<Backend>(y, primitive(&self.dy));
        let of = |leaf: &Tensor<Tape, 2>| leaf.grad(&gradients).map(to_vec);
        (of(&x), [of(&a).unwrap(), of(&b).unwrap()])
    }
}

/// The op with its own narrow product.
fn lora_on_tape(
    x: FloatTensor<Tape>,
    weight: &<Backend as Kernels>::Frozen,
    update: LowRank<Tape>,
    precision: Precision,
    output: Output<Backend>,
) -> FloatTensor<Tape> {
    let low = Tape::lora_low(&x, &update, precision);
    Tape::lora_linear(x, weight, update, low, precision, output)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_adapted_projection_follows_its_formulas(
        tokens in 1_usize..70, depth in 1_usize..300, out in 1_usize..70, rank in 1_usize..20,
        scale in prop::sample::select(vec![0.5_f32, 1.0, 2.0]),
    ) {
        let case = Case::new([tokens, depth, out, rank], scale);
        for (form, matrix) in all_forms(20, out, depth) {
            let dense = dense(&matrix).inner();
            let weight = Backend::freeze(matrix, &Default::default());
            for precision in PRECISIONS {
                let found = case.found(&weight, precision);
                let expected = case.expected(&dense, precision);
                let names = ["y", "low", "dx", "dA", "dB"];
                for ((name, found), expected) in names.into_iter().zip(found).zip(expected) {
                    let what = format!("{name}, {form}, {}", precision.name());
                    close(&what, &found, &to_vec(expected));
                }
            }
        }
    }

    #[test]
    fn what_nobody_reads_changes_no_bit_of_the_rest(
        tokens in 1_usize..40, depth in 1_usize..200, out in 1_usize..50, rank in 1_usize..20,
    ) {
        let case = Case::new([tokens, depth, out, rank], 2.0);
        for (form, matrix) in all_forms(20, out, depth) {
            let weight = Backend::freeze(matrix, &Default::default());
            for precision in PRECISIONS {
                let [_, _, dx, da, db] = case.found(&weight, precision);
                // Wrong on purpose: no gradient depends on the values.
                let known = Tensor::<Backend, 2>::zeros([tokens, out], &Default::default());
                for values in [Values::Computed, Values::Unread, Values::Known(primitive(&known))] {
                    let what = format!("{form}, {}, {values:?}", precision.name());
                    let with = case.on_tape(&weight, precision, values.clone(), true);
                    prop_assert_eq!(&with, &(Some(dx.clone()), [da.clone(), db.clone()]), "{}", &what);
                    let without = case.on_tape(&weight, precision, values, false);
                    prop_assert_eq!(without, (None, with.1), "{}", what);
                }
            }
        }
    }

    #[test]
    fn an_update_does_not_see_what_dropout_leaves_out(
        tokens in 1_usize..40, depth in 1_usize..300, out in 1_usize..50, rank in 1_usize..20,
        rate in prop::sample::select(vec![0.05, 0.5, 0.9]), name in any::<[u32; 4]>(),
    ) {
        let [x, a, b] = [(25, [tokens, depth]), (26, [rank, depth]), (27, [out, rank])]
            .map(|(seed, shape)| leaf(seed, shape));
        let dropout = Dropout::new(name, rate);
        for (form, matrix) in all_forms(20, out, depth) {
            let whole = dense(&matrix);
            let weight = Backend::freeze(matrix, &Default::default());
            let update = LowRank { a: raw(&a), b: raw(&b), scale: 2.0, dropout };
            let ours = lora_on_tape(raw(&x), &weight, update, Precision::F32, computed());
            let within = Within::sums_of_sums(tokens, depth);
            compare_within(within, form, [&x, &a, &b], wrap(ours), |[x, a, b]| {
                let none = Tensor::zeros([out, depth], &Default::default());
                let seen = reference::dropped(x.clone(), &dropout.unwrap());
                x.matmul(whole.transpose()) + reference::lora_linear(seen, none, a, b, 2.0)
            });
        }
    }

    #[test]
    fn what_is_dropped_is_a_function_of_its_place(
        tokens in 1_usize..70, depth in 1_usize..300,
        rate in prop::sample::select(vec![1e-9, 0.05, 0.5, 0.9999]), name in any::<[u32; 4]>(),
    ) {
        // No value is zero itself.
        let x = inner(30, [tokens, depth]).inner().abs() + 1.0;
        let dropout = Dropout::new(name, rate).unwrap();
        let expected = to_vec(reference::dropped(x.clone(), &dropout));
        for precision in PRECISIONS {
            let operand = Backend::operand(primitive(&x), precision);
            let found = to_vec(tensor(Backend::dropped(&operand, &dropout)));
            for (found, operand, expected) in
                found.iter().zip(to_vec(tensor(operand))).zip(&expected).map(|((f, o), e)| (f, o, e))
            {
                let expected = if *expected == 0.0 { 0.0 } else { operand };
                prop_assert_eq!(found.to_bits(), expected.to_bits());
            }
        }
    }

    #[test]
    fn the_formulas_are_those_of_the_tape(
        tokens in 1_usize..40, depth in 1_usize..200, out in 1_usize..50, rank in 1_usize..20,
    ) {
        let [x, a, b] = [(25, [tokens, depth]), (26, [rank, depth]), (27, [out, rank])]
            .map(|(seed, shape)| leaf(seed, shape));
        for (form, matrix) in all_forms(20, out, depth) {
            let whole = dense(&matrix);
            let weight = Backend::freeze(matrix, &Default::default());
            let update = LowRank { a: raw(&a), b: raw(&b), scale: 0.5, dropout: None };
            let ours = lora_on_tape(raw(&x), &weight, update, Precision::F32, computed());
            let within = Within::sums_of_sums(tokens, depth);
            compare_within(within, form, [&x, &a, &b], wrap(ours), |[x, a, b]| {
                reference::lora_linear(x, whole, a, b, 0.5)
            });
        }
    }
}
