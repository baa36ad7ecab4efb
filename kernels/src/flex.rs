//! The kernels on the CPU: rayon over tiles and rows, SIMD chosen at run time.
//!
//! Results do not depend on the number of threads: every element is computed by one task, in a fixed
//! order.

mod adamw;
mod attention;
mod cross_entropy;
mod decode;
mod dense;
mod dropout;
mod elementwise;
mod few_rows;
mod fresh;
mod gemm;
pub mod isa;
mod matrix;
mod rms_norm;
mod simd;
mod sums;

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{Flex, FlexDevice, FlexTensor, Layout};
use half::bf16;
use half::slice::HalfFloatSliceExt;
use half::vec::HalfBitsVecExt;

pub use self::adamw::HostAdamW;
use self::dense::{Dense, tensor};
use self::dropout::{Dropped, Kept};
use self::gemm::{ByInput, ByOutput, Left, Operand, Product, Right, View, gemm_new, low_rank};
use self::matrix::Matrix;
pub use self::sums::HostSums;
use crate::dropout::Dropout;
use crate::frozen::FrozenMatrix;
use crate::kernels::{AttentionSaved, Kernels, LoraGradients, LoraSaved, LowRank};
use crate::layout::{AttentionShape, Direction, Rotation};
use crate::precision::{Precision, Rounding};

/// Whether this processor has instructions for bf16.
pub(crate) fn bf16_is_native() -> bool {
    isa::Isa::get() == isa::Isa::Avx512Bf16
}

thread_local! {
    /// The last input that was packed, with its packed form: the projections of a layer share theirs. Without it a step
    /// of 512 tokens of the 100M shape takes 1.1 % longer.
    /// Holding the tensor keeps others from writing to its memory, so that the pair is right for this tensor
    /// alone, of whatever model.
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
        let view = View::rows(x.matrix(), product.depth);
        let left = Rc::new(Left::packed(product, &view, product.is_large()));
        *last = Some((x.0.clone(), left.clone()));
        left
    })
}

/// A gradient, packed; no other product shares it.
fn packed_gradient(dy: &Dense, product: Product) -> Left {
    LAST.set(None);
    Left::packed(product, &View::rows(dy.matrix(), product.depth), product.is_large())
}

/// A product in the form that is asked for.
fn product_of<B: Operand>(
    left: &Left,
    product: Product,
    right: &Right<'_, B>,
    rounding: Rounding,
) -> FlexTensor {
    let shape = [product.rows, product.cols];
    match (product.precision, rounding) {
        (Precision::Bf16, Rounding::Operand) => {
            tensor(left.multiply_rounded(product, right), shape)
        }
        _ => tensor(left.multiply_new(product, right), shape),
    }
}

/// `x·Wᵀ` for any right side.
fn linear(
    x: &Dense,
    weight: &impl Operand,
    [cols, in_features]: [usize; 2],
    precision: Precision,
    rounding: Rounding,
) -> FlexTensor {
    let [rows, depth] = x.rows_cols();
    assert_eq!(depth, in_features, "x of a linear layer [{cols}, {in_features}]");
    let product = Product::new(rows, cols, depth, precision);
    product_of(&packed_input(x, product), product, &Right::of(weight), rounding)
}

fn scale(values: &mut [f32], factor: f32) {
    for value in values {
        *value *= factor;
    }
}

impl Kernels for Flex {
    type Frozen = Arc<FrozenMatrix>;

    type GradientSums = HostSums;

    type AdamWState = HostAdamW;

    fn freeze(matrix: FrozenMatrix, _device: &FlexDevice) -> Self::Frozen {
        Arc::new(matrix)
    }

    fn frozen_shape(weight: &Self::Frozen) -> [usize; 2] {
        weight.shape()
    }

    fn frozen_band(weight: &Self::Frozen, rows: Range<usize>) -> Option<Self::Frozen> {
        weight.band(rows).map(Arc::new)
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
            .then(|| few_rows::linear(dense.matrix(), rows, weight))
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
        let (x, a) = (Dense::new(x), Dense::new(&update.a));
        let ([rows, depth], [rank, in_features]) = (x.rows_cols(), a.rows_cols());
        assert_eq!(depth, in_features, "x of an update [{rank}, {in_features}]");
        let product = Product::new(rows, rank, depth, precision);
        let mut low = match &update.dropout {
            None => {
                let view = View::rows(a.values(), depth);
                packed_input(&x, product).multiply_new(product, &Right::of(&view))
            }
            Some(dropout) => {
                let kept = &Kept::of(dropout, rows, depth);
                let x = Dropped { data: x.matrix(), cols: depth, kept };
                dropout::low(&x, product, a.values())
            }
        };
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
        let product = Product::new(rows, cols, depth, precision);
        let left = packed_input(&x, product);
        let narrow = View::rows(low.values(), rank);
        let low = Left::packed(Product { depth: rank, ..product }, &narrow, false);
        let high = View::rows(b.values(), rank);
        let update = Some((&low, high, rank));
        let right = Right { matrix: &ByOutput(weight), update, kept: None };
        product_of(&left, product, &right, rounding)
    }

    fn lora_linear_backward(
        dy: &FlexTensor,
        saved: &LoraSaved<Self>,
        wants_dx: bool,
        precision: Precision,
    ) -> LoraGradients<Self> {
        let LoraSaved { x, low, weight, update } = saved;
        let (x, dy, low) = (Dense::new(x), Dense::new(dy), Dense::new(low));
        let (a, b) = (Dense::new(&update.a), Dense::new(&update.b));
        let ([rows, depth], [_, rank]) = (dy.rows_cols(), low.rows_cols());
        let [_, cols] = weight.shape();
        let kept = update.dropout.as_ref().map(|dropout| Kept::of(dropout, rows, cols));
        let to_dx = Product::new(rows, cols, depth, precision);
        let to_low = Product { cols: rank, ldc: rank, ..to_dx };
        let left = packed_gradient(&dy, to_dx);
        let across = View::transposed(b.values(), rank);
        let mut d_low = left.multiply_new(to_low, &Right::of(&across));
        scale(&mut d_low, update.scale);
        let dx = wants_dx.then(|| {
            let through_low = Product { depth: rank, ..to_dx };
            let view = View::rows(&d_low, rank);
            let low_left = Left::packed(through_low, &view, false);
            let update = Some((&low_left, View::transposed(a.values(), cols), rank));
            let right = Right { matrix: &ByInput(weight), update, kept: kept.as_deref() };
            tensor(left.multiply_new(to_dx, &right), [rows, cols])
        });
        let da = low_rank::across(&d_low, rank, x.matrix(), cols, kept.as_deref());
        let db = low_rank::across(low.values(), rank, dy.matrix(), depth, None);
        LoraGradients {
            x: dx,
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
        let (a, b) = (View::rows(dy.matrix(), depth), View::transposed(weight.values(), cols));
        tensor(gemm_new(product, &a, &b), [rows, cols])
    }

    fn dense_linear_dw(dy: &FlexTensor, x: &FlexTensor, precision: Precision) -> FlexTensor {
        let (dy, x) = (Dense::new(dy), Dense::new(x));
        let ([depth, rows], [tokens, cols]) = (dy.rows_cols(), x.rows_cols());
        assert_eq!(depth, tokens, "tokens of dy and x");
        let product = Product::new(rows, cols, depth, precision);
        let (a, b) = (View::transposed(dy.matrix(), rows), View::transposed(x.matrix(), cols));
        tensor(gemm_new(product, &a, &b), [rows, cols])
    }

    fn rms_norm(x: &FlexTensor, weight: &FlexTensor, eps: f32, operands: Precision) -> FlexTensor {
        let (x, weight, shape) = (Dense::new(x), Dense::new(weight), Dense::new(x).rows_cols());
        let (x, weight) = (x.values(), weight.values());
        match operands {
            Precision::F32 => tensor(rms_norm::forward::<f32>(x, weight, eps), shape),
            Precision::Bf16 => tensor(rms_norm::forward::<bf16>(x, weight, eps), shape),
        }
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

    fn rope(
        x: &FlexTensor,
        rotation: &Arc<Rotation>,
        direction: Direction,
        operands: Precision,
    ) -> FlexTensor {
        let x = Dense::new(x);
        let shape @ [_, width] = x.rows_cols();
        match (x.matrix(), operands) {
            (Matrix::F32(x), Precision::F32) => {
                tensor(elementwise::rope::<_, f32>(x, width, rotation, direction), shape)
            }
            (Matrix::F32(x), Precision::Bf16) => {
                tensor(elementwise::rope::<_, bf16>(x, width, rotation, direction), shape)
            }
            (Matrix::Bf16(x), _) => {
                tensor(elementwise::rope::<_, bf16>(x, width, rotation, direction), shape)
            }
        }
    }

    fn causal_attention(
        q: &FlexTensor,
        k: &FlexTensor,
        v: &FlexTensor,
        shape: &AttentionShape,
        precision: Precision,
    ) -> (FlexTensor, FlexTensor) {
        let [q, k, v] = [q, k, v].map(Dense::new);
        let sizes @ [queries, _] = q.rows_cols();
        let qkv = [q.matrix(), k.matrix(), v.matrix()];
        let (out, lse) = match precision {
            Precision::F32 => {
                let (out, lse) = attention::forward::<f32>(qkv, queries, shape, precision);
                (tensor(out, sizes), lse)
            }
            Precision::Bf16 => {
                let (out, lse) = attention::forward::<bf16>(qkv, queries, shape, precision);
                (tensor(out, sizes), lse)
            }
        };
        (out, tensor(lse, [shape.heads, queries]))
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
                q: q.matrix(),
                k: k.matrix(),
                v: v.matrix(),
                out: out.matrix(),
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

    fn set_rows(into: FlexTensor, first: usize, rows: &FlexTensor) -> FlexTensor {
        dense::set_rows(into, first, rows)
    }

    fn operand(x: FlexTensor, precision: Precision) -> FlexTensor {
        if precision == Precision::F32 || x.dtype() == DType::BF16 {
            return x;
        }
        let x = Dense::new(&x);
        tensor(elementwise::rounded(x.values()), x.rows_cols())
    }

    fn dropped(x: &FlexTensor, dropout: &Dropout) -> FlexTensor {
        let x = Dense::new(x);
        let shape @ [rows, cols] = x.rows_cols();
        let kept = &*Kept::of(dropout, rows, cols);
        match x.matrix() {
            Matrix::F32(x) => tensor(dropout::dropped(x, cols, kept), shape),
            Matrix::Bf16(x) => {
                let y = dropout::dropped::<u16>(x.reinterpret_cast(), cols, kept);
                tensor(y.reinterpret_into::<bf16>(), shape)
            }
        }
    }

    fn scale_columns(x: &FlexTensor, factors: &FlexTensor) -> FlexTensor {
        let (x, factors) = (Dense::new(x), Dense::new(factors));
        let (shape, factors) = (x.rows_cols(), factors.values());
        match x.matrix() {
            Matrix::F32(x) => tensor(elementwise::scale_columns(x, factors), shape),
            Matrix::Bf16(x) => tensor(elementwise::scale_columns(x, factors), shape),
        }
    }

    fn scale_columns_backward(
        y: &FlexTensor,
        factors: &FlexTensor,
        dy: &FlexTensor,
    ) -> [FlexTensor; 2] {
        let (y, dy) = (Dense::new(y), Dense::new(dy));
        let cols = dy.rows_cols()[1];
        let mut sums = match (y.matrix(), dy.matrix()) {
            (Matrix::F32(y), Matrix::F32(dy)) => elementwise::column_products(y, dy, cols),
            (Matrix::F32(y), Matrix::Bf16(dy)) => elementwise::column_products(y, dy, cols),
            (Matrix::Bf16(y), Matrix::F32(dy)) => elementwise::column_products(y, dy, cols),
            (Matrix::Bf16(y), Matrix::Bf16(dy)) => elementwise::column_products(y, dy, cols),
        };
        for (sum, factor) in sums.iter_mut().zip(Dense::new(factors).values()) {
            *sum /= factor;
        }
        let sums = FlexTensor::new(
            Bytes::from_elems(sums),
            Layout::contiguous(factors.layout().shape().clone()),
            DType::F32,
        );
        [Self::scale_columns(&dy.0, factors), sums]
    }

    fn swiglu(gate: &FlexTensor, up: &FlexTensor) -> FlexTensor {
        let (gate, up) = (Dense::new(gate), Dense::new(up));
        let shape = gate.rows_cols();
        match gate.matrix() {
            Matrix::F32(gate) => tensor(elementwise::swiglu(gate, up.typed()), shape),
            Matrix::Bf16(gate) => tensor(elementwise::swiglu(gate, up.typed()), shape),
        }
    }

    fn swiglu_backward(gate: &FlexTensor, up: &FlexTensor, dy: &FlexTensor) -> [FlexTensor; 2] {
        let (gate, up, dy) = (Dense::new(gate), Dense::new(up), Dense::new(dy));
        let (shape, dy) = (gate.rows_cols(), dy.values());
        match gate.matrix() {
            Matrix::F32(gate) => elementwise::swiglu_backward(gate, up.typed(), dy)
                .map(|values| tensor(values, shape)),
            Matrix::Bf16(gate) => elementwise::swiglu_backward(gate, up.typed(), dy)
                .map(|values| tensor(values, shape)),
        }
    }

    fn cross_entropy(
        logits: Vec<FlexTensor>,
        targets: &[u32],
        factors: &[f32],
    ) -> (Vec<f32>, Vec<FlexTensor>) {
        let owned = |band: FlexTensor| {
            let contiguous = band.to_contiguous();
            // A second handle would make the change below copy the whole band.
            drop(band);
            assert_eq!(Dense::new(&contiguous).rows_cols()[0], targets.len(), "one target a row");
            contiguous
        };
        let mut bands: Vec<FlexTensor> = logits.into_iter().map(owned).collect();
        let values = bands.iter_mut().map(|band| {
            let len = band.layout().num_elements();
            &mut band.storage_mut::<f32>()[..len]
        });
        let losses = cross_entropy::in_place(values.collect(), targets, factors);
        (losses, bands)
    }
}
