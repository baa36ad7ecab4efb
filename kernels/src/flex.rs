//! The kernels on the CPU: rayon over tiles and rows, SIMD chosen at run time.
//!
//! Results do not depend on the number of threads: every element is computed by one task, in a fixed
//! order.

mod attention;
mod cross_entropy;
mod decode;
mod elementwise;
mod few_rows;
mod gemm;
mod rms_norm;
mod simd;

use std::sync::Arc;

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{Flex, FlexDevice, FlexTensor, Layout};

use self::gemm::{ByInput, ByOutput, Left, Product, View, gemm, gemm_new};
use crate::frozen::FrozenMatrix;
use crate::kernels::{AttentionSaved, Kernels, LoraSaved, LowRank};
use crate::layout::{AttentionShape, Direction, Rotation};
use crate::precision::Precision;

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

    fn frozen_linear(x: &FlexTensor, weight: &Self::Frozen, precision: Precision) -> FlexTensor {
        let x = Dense::new(x);
        let [rows, depth] = x.rows_cols();
        let [cols, in_features] = weight.shape();
        assert_eq!(depth, in_features, "x of a linear layer [{cols}, {in_features}]");
        let product = Product::new(rows, cols, depth, precision);
        let y = gemm_new(product, &View::rows(x.values(), depth), &ByOutput(weight));
        tensor(y, [rows, cols])
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
            None => <Self as Kernels>::frozen_linear(x, weight, precision),
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
        let dx = gemm_new(product, &View::rows(dy.values(), depth), &ByInput(weight));
        tensor(dx, [rows, cols])
    }

    fn lora_linear(
        x: &FlexTensor,
        weight: &Self::Frozen,
        update: &LowRank<Self>,
        precision: Precision,
    ) -> [FlexTensor; 2] {
        let (x, a, b) = (Dense::new(x), Dense::new(&update.a), Dense::new(&update.b));
        let ([rows, depth], [rank, _]) = (x.rows_cols(), a.rows_cols());
        let [cols, in_features] = weight.shape();
        assert_eq!(depth, in_features, "x of a linear layer [{cols}, {in_features}]");
        let to_y = Product::new(rows, cols, depth, precision);
        let to_low = Product { cols: rank, ldc: rank, ..to_y };
        let left = Left::packed(to_y, &View::rows(x.values(), depth), to_y.is_large());
        let mut low = left.multiply_new(to_low, &View::rows(a.values(), depth));
        scale(&mut low, update.scale);
        let mut y = left.multiply_new(to_y, &ByOutput(weight));
        drop(left);
        let add = Product { depth: rank, accumulate: true, ..to_y };
        gemm(add, &View::rows(&low, rank), &View::rows(b.values(), rank), &mut y);
        [tensor(y, [rows, cols]), tensor(low, [rows, rank])]
    }

    fn lora_linear_backward(
        dy: &FlexTensor,
        saved: &LoraSaved<Self>,
        wants_dx: bool,
        precision: Precision,
    ) -> (Option<FlexTensor>, [FlexTensor; 2]) {
        let LoraSaved { x, low, weight, update } = saved;
        let (dy, x, low) = (Dense::new(dy), Dense::new(x), Dense::new(low));
        let (a, b) = (Dense::new(&update.a), Dense::new(&update.b));
        let ([rows, depth], [_, rank]) = (dy.rows_cols(), low.rows_cols());
        let [_, cols] = weight.shape();
        let to_dx = Product::new(rows, cols, depth, precision);
        let to_low = Product { cols: rank, ldc: rank, ..to_dx };
        let left = Left::packed(to_dx, &View::rows(dy.values(), depth), to_dx.is_large());
        let mut d_low = left.multiply_new(to_low, &View::transposed(b.values(), rank));
        scale(&mut d_low, update.scale);
        let dx = wants_dx.then(|| left.multiply_new(to_dx, &ByInput(weight)));
        drop(left);
        let dx = dx.map(|mut dx| {
            let add = Product { depth: rank, accumulate: true, ..to_dx };
            gemm(add, &View::rows(&d_low, rank), &View::transposed(a.values(), cols), &mut dx);
            tensor(dx, [rows, cols])
        });
        let to_da = Product::new(rank, cols, rows, precision);
        let low_across = View::transposed(&d_low, rank);
        let da = gemm_new(to_da, &low_across, &View::transposed(x.values(), cols));
        let to_db = Product::new(depth, rank, rows, precision);
        let dy_across = View::transposed(dy.values(), depth);
        let db = gemm_new(to_db, &dy_across, &View::transposed(low.values(), rank));
        (dx, [tensor(da, [rank, cols]), tensor(db, [depth, rank])])
    }

    fn dense_linear(x: &FlexTensor, weight: &FlexTensor, precision: Precision) -> FlexTensor {
        let (x, weight) = (Dense::new(x), Dense::new(weight));
        let ([rows, depth], [cols, in_features]) = (x.rows_cols(), weight.rows_cols());
        assert_eq!(depth, in_features, "x of a linear layer [{cols}, {in_features}]");
        let product = Product::new(rows, cols, depth, precision);
        let (a, b) = (View::rows(x.values(), depth), View::rows(weight.values(), depth));
        tensor(gemm_new(product, &a, &b), [rows, cols])
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
        let mut logits = logits.to_contiguous();
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
