//! The tensors of a synthetic model: names, types and shapes, and how each comes to its bytes.

use std::fmt::Write as _;

use graft_kernels::nf4;
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::checkpoint::{Dtype, Expected, TensorSpec};
use half::bf16;

use super::pool::{Form, Pool};

/// How a tensor comes to its bytes.
pub(super) enum Maker {
    /// From the pool, as blocks of the weight's stream.
    Weight { weight: String, form: Form, blocks: usize },
    /// f32 values that are zero in a model of holes.
    Scales(Vec<f32>),
    /// These bytes, in every model.
    Fixed(Vec<u8>),
}

/// A tensor as bf16: weights from the pool, the scales of norms one.
pub(super) fn dense(tensor: &Expected) -> (TensorSpec, Maker) {
    let Expected { name, shape, site: _ } = tensor;
    let elements: usize = shape.iter().product();
    let maker = if shape.len() == 1 {
        Maker::Fixed(bf16::ONE.to_le_bytes().repeat(elements))
    } else {
        Maker::Weight { weight: name.clone(), form: Form::Dense, blocks: blocks(name, elements) }
    };
    (TensorSpec { name: name.clone(), dtype: Dtype::BF16, shape: shape.clone() }, maker)
}

/// A projection in NF4 with its companions, as `graft quantize` lays them out.
pub(super) fn quantised(
    tensor: &Expected,
    absmax: AbsmaxFormat,
    pool: &Pool,
    offset: f32,
) -> Vec<(TensorSpec, Maker)> {
    let Expected { name: weight, shape, site: _ } = tensor;
    let elements: usize = shape.iter().product();
    let blocks = blocks(weight, elements);
    let from_pool = |form| Maker::Weight { weight: weight.clone(), form, blocks };
    let part = |suffix: &str, dtype, shape, maker| {
        (TensorSpec { name: format!("{weight}{suffix}"), dtype, shape }, maker)
    };
    let map = |values: &[f32]| Maker::Fixed(f32_bytes(values));
    let (scales, form) = if absmax.is_double() {
        (Dtype::U8, Form::AbsmaxCodes)
    } else {
        (Dtype::F32, Form::Absmax)
    };
    let mut parts = vec![
        part("", Dtype::U8, vec![elements / 2, 1], from_pool(Form::Codes)),
        part(".absmax", scales, vec![blocks], from_pool(form)),
        part(".quant_map", Dtype::F32, vec![nf4::CODE.len()], map(&nf4::CODE)),
    ];
    let mut state = format!(
        r#"{{"quant_type": "nf4", "blocksize": {}, "dtype": "bfloat16", "shape": {shape:?}"#,
        nf4::BLOCK
    );
    if absmax.is_double() {
        let nested = vec![pool.nested_absmax(); blocks.div_ceil(nf4::NESTED_BLOCK)];
        let shape = vec![nested.len()];
        parts.push(part(".nested_absmax", Dtype::F32, shape, Maker::Scales(nested)));
        let shape = vec![nf4::DYNAMIC_MAP.len()];
        parts.push(part(".nested_quant_map", Dtype::F32, shape, map(&nf4::DYNAMIC_MAP)));
        let (block, offset) = (nf4::NESTED_BLOCK, serde_json::Value::from(f64::from(offset)));
        let _ = write!(
            state,
            r#", "nested_blocksize": {block}, "nested_dtype": "float32", "nested_offset": {offset}"#
        );
    }
    state.push('}');
    let (shape, state) = (vec![state.len()], Maker::Fixed(state.into_bytes()));
    parts.push(part(".quant_state.bitsandbytes__nf4", Dtype::U8, shape, state));
    parts
}

/// The weight in blocks.
///
/// # Panics
/// If it is no whole number of blocks: no shape of a Llama is like that.
fn blocks(name: &str, elements: usize) -> usize {
    assert!(elements.is_multiple_of(nf4::BLOCK), "`{name}` has {elements} values");
    elements / nf4::BLOCK
}

pub(super) fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
