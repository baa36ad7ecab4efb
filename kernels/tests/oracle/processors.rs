//! The product has the same operands on every processor, and every kernel is held to the oracle.

use std::process::Command;

use graft_kernels::flex::isa::Isa;

use burn::tensor::{Tensor, TensorData, TensorPrimitive};
use burn_flex::Flex;
use graft_kernels::{FrozenMatrix, Kernels, Precision, Rounding};
use proptest::prelude::*;

use super::ops::{to_vec, values};

/// Whole numbers and a half, halfway between two bf16: `128.5` is 128 there, `129.5` is 130.
fn ties(seed: u64, shape: [usize; 2]) -> (Tensor<Flex, 2>, Vec<i64>) {
    let tie = |value: f32| (value * 64.0).trunc() + 191.5;
    let values: Vec<f32> = values(seed, shape[0] * shape[1]).into_iter().map(tie).collect();
    let even = values.iter().map(|value| value.round_ties_even() as i64).collect();
    (Tensor::from_data(TensorData::new(values, shape), &Default::default()), even)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bf16_products_of_ties_are_exact(
        tokens in 1_usize..30, depth in 1_usize..200, out in 1_usize..40,
    ) {
        let ((x, x_even), (w, w_even)) = (ties(31, [tokens, depth]), ties(32, [out, depth]));
        // 255² · 200 is less than 2²⁴: no sum is rounded, in whatever order.
        let product = |i: usize| -> i64 {
            let (row, column) = (i / out * depth, i % out * depth);
            (0..depth).map(|d| x_even[row + d] * w_even[column + d]).sum()
        };
        let expected: Vec<f32> = (0..tokens * out).map(|i| product(i) as f32).collect();
        let [x, w] = [x, w].map(|tensor| tensor.into_primitive().tensor());
        let values = |y| -> Vec<f32> {
            let y = Tensor::<Flex, 2>::from_primitive(TensorPrimitive::Float(y));
            y.into_data().convert::<f32>().to_vec().unwrap()
        };
        let dense = <Flex as Kernels>::dense_linear(&x, &w, Precision::Bf16, Rounding::Exact);
        prop_assert_eq!(values(dense), &expected[..]);
        let w = Tensor::<Flex, 2>::from_primitive(TensorPrimitive::Float(w));
        let matrix = FrozenMatrix::from_f32(out, depth, &to_vec(w));
        let operand = Flex::operand(x.clone(), Precision::Bf16);
        for matrix in [matrix.to_bf16(), matrix] {
            let frozen = Flex::freeze(matrix, &Default::default());
            let y = <Flex as Kernels>::frozen_linear(&x, &frozen, Precision::Bf16, Rounding::Exact);
            prop_assert_eq!(values(y), &expected[..]);
            let y = <Flex as Kernels>::frozen_linear(&x, &frozen, Precision::Bf16, Rounding::Operand);
            let as_operand =
                <Flex as Kernels>::frozen_linear(&operand, &frozen, Precision::Bf16, Rounding::Exact);
            prop_assert_eq!(values(as_operand), &expected[..]);
            let rounded: Vec<f32> =
                expected.iter().map(|&sum| half::bf16::from_f32(sum).to_f32()).collect();
            prop_assert_eq!(values(y), rounded);
            let y = Flex::frozen_linear_decode(&x, &frozen, Precision::Bf16);
            prop_assert_eq!(values(y), &expected[..]);
        }
    }
}

/// Each in a process of its own, since a process chooses once; this one's, too, named: then pairs of bf16
/// are multiplied even where others are faster.
#[test]
fn the_kernels_of_lesser_processors_pass_the_same_tests() {
    let here = std::env::current_exe().unwrap();
    let had = |isa: &Isa| *isa <= Isa::in_use().unwrap();
    for isa in Isa::ALL.into_iter().filter(had) {
        let mut tests = Command::new(&here);
        tests.args(["--skip", "the_kernels_of_lesser_processors"]).env(Isa::VARIABLE, isa.name());
        let output = tests.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {said}", isa.name());
        assert!(said.contains("bf16_products_of_ties_are_exact ... ok"), "{}: {said}", isa.name());
    }
}
