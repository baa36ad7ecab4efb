//! Weights that wait on the host give the bits of those on the device, copied ahead or not.

use burn::tensor::ops::{FloatTensor, FloatTensorOps};
use burn::tensor::{Tensor, TensorData, TensorPrimitive};
use graft_kernels::{Home, Kernels, Precision, Rounding};

use super::Backend;
use super::ops::{all_forms, to_vec, values};

type Weight = <Backend as Kernels>::Frozen;

const BLOCKS: usize = 5;
const ROWS: usize = 96;
const SIDE: usize = 256;

/// Blocks of one weight in each form.
fn blocks(freeze: impl Fn(graft_kernels::FrozenMatrix) -> Weight) -> Vec<Vec<Weight>> {
    let block = |block: usize| {
        let forms = all_forms(80 + block as u64, SIDE, SIDE).into_iter();
        forms.map(|(_, matrix)| freeze(matrix)).collect()
    };
    (0..BLOCKS).map(block).collect()
}

/// What a walk over these blocks gives: a chain of products, back and forth through every weight, that is
/// read when all of it was asked for.
fn walk(blocks: &[Vec<Weight>], order: &[usize], is_told: bool) -> Vec<Vec<u32>> {
    let x = TensorData::new(values(90, ROWS * SIDE), [ROWS, SIDE]);
    let mut x: FloatTensor<Backend> =
        Tensor::<Backend, 2>::from_data(x, &Default::default()).into_primitive().tensor();
    let mut all = Vec::new();
    for (place, &block) in order.iter().enumerate() {
        let of = |block: &usize| blocks[*block].iter().collect::<Vec<_>>();
        if is_told {
            let next = order.get(place + 1).map(of).unwrap_or_default();
            Backend::visit(&of(&block), &next);
        }
        for weight in &blocks[block] {
            let y = Backend::frozen_linear(&x, weight, Precision::F32, Rounding::Exact);
            x = Backend::frozen_linear_dx(&y, weight, Precision::F32);
            // So that values stay of one size.
            x = Backend::float_mul_scalar(x, 1e-2.into());
            all.push(x.clone());
        }
    }
    let bits = |x| {
        let x = to_vec(Tensor::<Backend, 2>::from_primitive(TensorPrimitive::Float(x)));
        x.into_iter().map(f32::to_bits).collect()
    };
    all.into_iter().map(bits).collect()
}

#[test]
fn weights_that_wait_on_the_host_give_the_bits_of_those_on_the_device() {
    let device = Default::default();
    let here = blocks(|matrix| Backend::freeze(matrix, &device));
    let there = blocks(|matrix| Backend::freeze_at(Home::Host, matrix, &device));
    // Up and down as in training, up again, and where nobody would expect it.
    let orders: [&[usize]; 4] =
        [&[0, 1, 2, 3, 4], &[4, 3, 2, 1], &[0, 1, 2, 3, 4, 4, 3, 2, 1, 0], &[3, 0, 4, 1, 1]];
    for order in orders {
        let expected = walk(&here, order, false);
        assert!(walk(&there, order, true) == expected, "{order:?}, told");
        assert!(walk(&there, order, false) == expected, "{order:?}, untold");
    }
    // Another thread has copies of its own.
    let other = std::thread::scope(|scope| {
        scope.spawn(|| walk(&there, orders[0], true)).join().expect("no panic")
    });
    assert!(other == walk(&here, orders[0], false), "on another thread");
}
