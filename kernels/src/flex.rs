//! The kernels on the CPU: rayon over tiles and rows, SIMD chosen at run time.
//!
//! Results do not depend on the number of threads: every element is computed by one task, in a fixed
//! order.

mod attention;
mod cross_entropy;
mod decode;
mod elementwise;
mod few_rows;
mod fresh;
mod gemm;
mod rms_norm;
mod simd;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{Flex, FlexDevice, FlexTensor, Layout};
use half::bf16;

use self::gemm::{ByInput, ByOutput, Left, Operand, Product, Right, View, gemm_new, low_rank};
use crate::frozen::FrozenMatrix;
use crate::kernels::{AttentionSaved, Kernels, LoraGradients, LoraSaved, LowRank};
use crate::layout::{AttentionShape, Direction, Rotation};
use crate::precision::{Precision, Rounding};

/// Whether this processor multiplies pairs of bf16.
pub(crate) fn bf16_is_native() -> bool {
    gemm::bf16_is_native()
}

/// A row-major f32 tensor.
fn tensor(values: Vec<f32>, shape: [usize; 2]) -> FlexTensor {
    debug_assert_eq!(values.len(), shape[0] * shape[1], "values of a {shape:?} tensor");
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(Shape::new(shape)), DType::F32)
}

/// A tensor whose values can be borrowed as one row-major slice.
struct Dense(FlexTensor);

impl Dense {
    /// Views `tensor`, copying only if its layout is not contiguous.
    fn new(tensor: &FlexTensor) -> Self {
        assert_eq!(tensor.dtype(), DType::F32, "kernels take f32 tensors");
        Self(tensor.to_contiguous())
    }

    fn values(&self) -> &[f32] {
        let start = self.0.layout().start_offset();
        let len = self.0.layout().num_elements();
        &self.0.storage::<f32>()[start..start + len]
    }

    /// Rows and the last dimension.
    fn rows_cols(&self) -> [usize; 2] {
        let shape = self.0.layout().shape();
        let cols = shape.as_slice().last().copied().unwrap_or(1);
        [self.0.layout().num_elements() / cols.max(1), cols]
    }
}

thread_local! {
    /// The last input that was packed, with its packed form: the projections of a layer share theirs.
    /// Holding the tensor keeps others from writing to its memory.
    static LAST: RefCell<Option<(FlexTensor, Rc<Left>)>> = RefCell::default();
}

/// An input `[rows, depth]`, packed for products like `product`, maybe by the one before.
fn packed_input(x: &Dense, product: Product) -> Rc<Left> {
    LAST.with_borrow_mut(|last| {
        if let Some((seen, left)) = last
            && left.serves(product)
            && Arc::ptr_eq(&seen.data_arc(), &x.0.data_arc())
            && seen.layout() == x.0.layout()
        {
            return left.clone();
        }
        *last = None; // Its memory serves the next one.
        let view = View::rows(x.values(), product.depth);
        let left = Rc::new(Left::packed(product, &view, product.is_large()));
        *last = Some((x.0.clone(), left.clone()));
        left
    })
}

/// A gradient, packed; no other product shares it.
fn packed_gradient(dy: &Dense, product: Product) -> Left {
    LAST.set(None);
    Left::packed(product, &View::rows(dy.values(), product.depth), product.is_large())
}

fn rounded(precision: Precision, rounding: Rounding) -> bool {
    (precision, rounding) == (Precision::Bf16, Rounding::Operand)
}

/// `x·Wᵀ` for any right side, rounded if asked.
fn linear(
    x: &Dense,
    weight: &impl Operand,
    [cols, in_features]: [usize; 2],
    precision: Precision,
    rounding: Rounding,
) -> FlexTensor {
    let [rows, depth] = x.rows_cols();
    assert_eq!(depth, in_features, "x of a linear layer [{cols}, {in_features}]");
    let rounded = rounded(precision, rounding);
    let product = Product { rounded, ..Product::new(rows, cols, depth, precision) };
    let left = packed_input(x, product);
    tensor(left.multiply_new(product, &Right::of(weight)), [rows, cols])
}

fn scale(values: &mut [f32], factor: f32) {
    for value in values {
        *value *= factor;
    }
}

impl Kernels for Flex {
    type Frozen = Arc<FrozenMatrix>;

    fn freeze(matrix: FrozenMatrix, _device: &FlexDevice) -> Self::Frozen {
        Arc::new(matrix)
    }

    fn frozen_shape(weight: &Self::Frozen) -> [usize; 2] {
        weight.shape()
    }

    fn frozen_rows(weight: &Self::Frozen, ids: &[u32], _device: &FlexDevice) -> FlexTensor {
        let [_, cols] = weight.shape();
        let mut values = vec![0.0; ids.len() * cols];
        for (row, &id) in values.chunks_exact_mut(cols).zip(ids) {
            decode::f32_run(weight, id as usize, 0, row);
        }
        tensor(values, [ids.len(), cols])
    }

    fn frozen_linear(
        x: &FlexTensor,
        weight: &Self::Frozen,
        precision: Precision,
        rounding: Rounding,
    ) -> FlexTensor {
        linear(&Dense::new(x), &ByOutput(weight), weight.shape(), precision, rounding)
    }

    fn frozen_linear_decode(
        x: &FlexTensor,
        weight: &Self::Frozen,
        precision: Precision,
    ) -> FlexTensor {
        let dense = Dense::new(x);
        let [rows, _] = dense.rows_cols();
        let few = (precision == Precision::Bf16)
            .then(|| few_rows::linear(dense.values(), rows, weight))
            .flatten();
        match few {
            Some(y) => tensor(y, [rows, weight.shape()[0]]),
            None => <Self as Kernels>::frozen_linear(x, weight, precision, Rounding::Exact),
        }
    }

    fn frozen_linear_dx(
        dy: &FlexTensor,
        weight: &Self::Frozen,
        precision: Precision,
    ) -> FlexTensor {
        let dy = Dense::new(dy);
        let [rows, depth] = dy.rows_cols();
        let [out_features, cols] = weight.shape();
        assert_eq!(depth, out_features, "dy of a linear layer [{out_features}, {cols}]");
        let product = Product::new(rows, cols, depth, precision);
        let left = packed_gradient(&dy, product);
        tensor(left.multiply_new(product, &Right::of(&ByInput(weight))), [rows, cols])
    }

    fn lora_low(x: &FlexTensor, update: &LowRank<Self>, precision: Precision) -> FlexTensor {
        let x = Dense::new(update.input.as_ref().unwrap_or(x));
        let a = Dense::new(&update.a);
        let ([rows, depth], [rank, in_features]) = (x.rows_cols(), a.rows_cols());
        assert_eq!(depth, in_features, "x of an update [{rank}, {in_features}]");
        let product = Product::new(rows, rank, depth, precision);
        let view = View::rows(a.values(), depth);
        let mut low = packed_input(&x, product).multiply_new(product, &Right::of(&view));
        scale(&mut low, update.scale);
        tensor(low, [rows, rank])
    }

    fn lora_linear(
        x: &FlexTensor,
        weight: &Self::Frozen,
        update: &LowRank<Self>,
        low: &FlexTensor,
        precision: Precision,
        rounding: Rounding,
    ) -> FlexTensor {
        let (x, low, b) = (Dense::new(x), Dense::new(low), Dense::new(&update.b));
        let ([rows, depth], [_, rank]) = (x.rows_cols(), b.rows_cols());
        let [cols, in_features] = weight.shape();
        assert_eq!(depth, in_features, "x of a linear layer [{cols}, {in_features}]");
        let rounded = rounded(precision, rounding);
        let product = Product { rounded, ..Product::new(rows, cols, depth, precision) };
        let left = packed_input(&x, product);
        let narrow = View::rows(low.values(), rank);
        let low = Left::packed(Product { depth: rank, ..product }, &narrow, false);
        let high = View::rows(b.values(), rank);
        let right = Right { matrix: &ByOutput(weight), update: Some((&low, high, rank)) };
        tensor(left.multiply_new(product, &right), [rows, cols])
    }

    fn lora_linear_backward(
        dy: &FlexTensor,
        saved: &LoraSaved<Self>,
        wants_dx: bool,
        precision: Precision,
    ) -> LoraGradients<Self> {
        let LoraSaved { x, low, weight, update } = saved;
        let input = Dense::new(update.input.as_ref().unwrap_or(x));
        let (dy, low) = (Dense::new(dy), Dense::new(low));
        let (a, b) = (Dense::new(&update.a), Dense::new(&update.b));
        let ([rows, depth], [_, rank]) = (dy.rows_cols(), low.rows_cols());
        let [_, cols] = weight.shape();
        let to_dx = Product::new(rows, cols, depth, precision);
        let to_low = Product { cols: rank, ldc: rank, ..to_dx };
        let left = packed_gradient(&dy, to_dx);
        let across = View::transposed(b.values(), rank);
        let mut d_low = left.multiply_new(to_low, &Right::of(&across));
        scale(&mut d_low, update.scale);
        let (mut dx, mut d_input) = (None, None);
        if wants_dx {
            let through_low = Product { depth: rank, ..to_dx };
            let view = View::rows(&d_low, rank);
            let low_left = Left::packed(through_low, &view, false);
            let across = View::transposed(a.values(), cols);
            let matrix = &ByInput(weight);
            // An update with an input of its own has a gradient of its own.
            let update = if update.input.is_some() {
                let values = low_left.multiply_new(through_low, &Right::of(&across));
                d_input = Some(tensor(values, [rows, cols]));
                None
            } else {
                Some((&low_left, across, rank))
            };
            let values = left.multiply_new(to_dx, &Right { matrix, update });
            dx = Some(tensor(values, [rows, cols]));
        }
        let da = low_rank::across(&d_low, rank, input.values(), cols);
        let db = low_rank::across(low.values(), rank, dy.values(), depth);
        LoraGradients {
            x: dx,
            input: d_input,
            a: tensor(da, [rank, cols]),
            b: tensor(low_rank::transposed(&db, depth), [depth, rank]),
        }
    }

    fn dense_linear(
        x: &FlexTensor,
        weight: &FlexTensor,
        precision: Precision,
        rounding: Rounding,
    ) -> FlexTensor {
        let weight = Dense::new(weight);
        let shape @ [_, in_features] = weight.rows_cols();
        let view = View::rows(weight.values(), in_features);
        linear(&Dense::new(x), &view, shape, precision, rounding)
    }

    fn dense_linear_dx(dy: &FlexTensor, weight: &FlexTensor, precision: Precision) -> FlexTensor {
        let (dy, weight) = (Dense::new(dy), Dense::new(weight));
        let ([rows, depth], [out_features, cols]) = (dy.rows_cols(), weight.rows_cols());
        assert_eq!(depth, out_features, "dy of a linear layer [{out_features}, {cols}]");
        let product = Product::new(rows, cols, depth, precision);
        let (a, b) = (View::rows(dy.values(), depth), View::transposed(weight.values(), cols));
        tensor(gemm_new(product, &a, &b), [rows, cols])
    }

    fn dense_linear_dw(dy: &FlexTensor, x: &FlexTensor, precision: Precision) -> FlexTensor {
        let (dy, x) = (Dense::new(dy), Dense::new(x));
        let ([depth, rows], [tokens, cols]) = (dy.rows_cols(), x.rows_cols());
        assert_eq!(depth, tokens, "tokens of dy and x");
        let product = Product::new(rows, cols, depth, precision);
        let (a, b) = (View::transposed(dy.values(), rows), View::transposed(x.values(), cols));
        tensor(gemm_new(product, &a, &b), [rows, cols])
    }

    fn rms_norm(x: &FlexTensor, weight: &FlexTensor, eps: f32) -> FlexTensor {
        let (x, weight) = (Dense::new(x), Dense::new(weight));
        tensor(rms_norm::forward(x.values(), weight.values(), eps), x.rows_cols())
    }

    fn rms_norm_dx(x: &FlexTensor, weight: &FlexTensor, eps: f32, dy: &FlexTensor) -> FlexTensor {
        let (x, weight, dy) = (Dense::new(x), Dense::new(weight), Dense::new(dy));
        tensor(rms_norm::dx(x.values(), weight.values(), eps, dy.values()), x.rows_cols())
    }

    fn rms_norm_dw(x: &FlexTensor, eps: f32, dy: &FlexTensor) -> FlexTensor {
        let (x, dy) = (Dense::new(x), Dense::new(dy));
        let [_, cols] = x.rows_cols();
        let values = rms_norm::dw(x.values(), cols, eps, dy.values());
        FlexTensor::new(
            Bytes::from_elems(values),
            Layout::contiguous(Shape::new([cols])),
            DType::F32,
        )
    }

    fn rope(x: &FlexTensor, rotation: &Arc<Rotation>, direction: Direction) -> FlexTensor {
        let x = Dense::new(x);
        let shape = x.rows_cols();
        tensor(elementwise::rope(x.values(), shape[1], rotation, direction), shape)
    }

    fn causal_attention(
        q: &FlexTensor,
        k: &FlexTensor,
        v: &FlexTensor,
        shape: &AttentionShape,
        precision: Precision,
    ) -> (FlexTensor, FlexTensor) {
        let (q, k, v) = (Dense::new(q), Dense::new(k), Dense::new(v));
        let [queries, width] = q.rows_cols();
        let (out, lse) =
            attention::forward([q.values(), k.values(), v.values()], queries, shape, precision);
        (tensor(out, [queries, width]), tensor(lse, [shape.heads, queries]))
    }

    fn causal_attention_backward(
        saved: &AttentionSaved<Self>,
        d_out: &FlexTensor,
        shape: &AttentionShape,
        precision: Precision,
    ) -> [FlexTensor; 3] {
        let [q, k, v, out, lse, d_out] =
            [&saved.q, &saved.k, &saved.v, &saved.out, &saved.lse, d_out].map(Dense::new);
        let [dq, dk, dv] = attention::backward(
            &attention::Saved {
                q: q.values(),
                k: k.values(),
                v: v.values(),
                out: out.values(),
                lse: lse.values(),
            },
            d_out.values(),
            shape,
            precision,
        );
        [tensor(dq, q.rows_cols()), tensor(dk, k.rows_cols()), tensor(dv, v.rows_cols())]
    }

    fn add(mut a: FlexTensor, b: &FlexTensor) -> FlexTensor {
        if !a.is_contiguous() || !a.is_unique() || a.layout().start_offset() != 0 {
            let (a, b) = (Dense::new(&a), Dense::new(b));
            return tensor(elementwise::sum(a.values(), b.values()), a.rows_cols());
        }
        let b = Dense::new(b);
        let len = b.values().len();
        elementwise::add_to(&mut a.storage_mut::<f32>()[..len], b.values());
        a
    }

    fn round(mut x: FlexTensor, precision: Precision) -> FlexTensor {
        if precision == Precision::Bf16 {
            elementwise::round(x.storage_mut::<f32>());
        }
        x
    }

    fn compact(x: &FlexTensor, precision: Precision) -> FlexTensor {
        let x = Dense::new(x);
        if precision == Precision::F32 {
            return x.0;
        }
        let halves: Vec<bf16> = elementwise::compact(x.values());
        let layout = Layout::contiguous(Shape::new(x.rows_cols()));
        FlexTensor::new(Bytes::from_elems(halves), layout, DType::BF16)
    }

    fn expand(x: FlexTensor) -> FlexTensor {
        if x.dtype() == DType::F32 {
            return x;
        }
        let shape = [x.layout().shape()[0], x.layout().shape()[1]];
        tensor(elementwise::expand(x.storage::<bf16>()), shape)
    }

    fn swiglu(gate: &FlexTensor, up: &FlexTensor) -> FlexTensor {
        let (gate, up) = (Dense::new(gate), Dense::new(up));
        tensor(elementwise::swiglu(gate.values(), up.values()), gate.rows_cols())
    }

    fn swiglu_backward(gate: &FlexTensor, up: &FlexTensor, dy: &FlexTensor) -> [FlexTensor; 2] {
        let (gate, up, dy) = (Dense::new(gate), Dense::new(up), Dense::new(dy));
        let shape = gate.rows_cols();
        elementwise::swiglu_backward(gate.values(), up.values(), dy.values())
            .map(|values| tensor(values, shape))
    }

    fn cross_entropy(logits: FlexTensor, targets: &[u32], scale: f32) -> (Vec<f32>, FlexTensor) {
        let contiguous = logits.to_contiguous();
        // A second handle would make the change below copy the whole chunk.
        drop(logits);
        let mut logits = contiguous;
        let [rows, vocab] = Dense::new(&logits).rows_cols();
        assert_eq!(rows, targets.len(), "one target a row of logits");
        let losses = cross_entropy::in_place(
            &mut logits.storage_mut::<f32>()[..rows * vocab],
            targets,
            scale,
        );
        (losses, logits)
    }
}
