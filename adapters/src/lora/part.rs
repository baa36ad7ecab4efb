//! An adapter that begins as a part of each weight, which keeps the rest: `W = (W − scale · B·A) + scale · B·A`. What is
//! frozen, and quantised, is the rest.
//!
//! - PiSSA, Meng et al. 2024: the largest singular values and their vectors, `B = U·√S`, `A = √S·Vᵀ`.
//! - OLoRA, Büyükakyüz 2024: an orthonormal basis of the first columns, and what the weight is in it, `W ≈ Q·(Qᵀ·W)`.
//!
//! What was learnt is written as PEFT converts it (`subtract_mutated_init`): an ordinary adapter of twice the rank for
//! the weights as they were, `scale · (B·A − B₀·A₀)`.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::TensorData;
use burn::tensor::ops::FloatTensorOps as _;
use burn_flex::{Flex, FlexTensor};
use bytes::Bytes;
use graft_kernels::frozen::Storage;
use graft_kernels::{FrozenMatrix, Kernels, Precision, Rounding};
use graft_model::Site;
use graft_model::checkpoint::Dtype;
use graft_model::param::host_values;
use rayon::prelude::*;

use super::start::{Beginning, Start};
use super::table::{TableBeginning, TableMethod, TableName};
use super::{LoraConfig, Rank, Scaling, Size, add_update_row};
use crate::error::Error;
use crate::merge::round;
use crate::method::Learnt;
use crate::peft::names::{self, LoraMatrix};
use crate::{largest, peft};

/// Which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// PiSSA's.
    Principal,
    /// OLoRA's.
    Orthogonal,
}

/// What adapters began as: `A` `[rank, in]` and `B` `[out, rank]` of each site, row-major.
pub type Began = BTreeMap<Site, [Vec<f32>; 2]>;

/// Begins each adapter of a configuration as such a part, and remembers what it began as.
#[derive(Debug)]
pub struct Parts<'a, S> {
    part: Part,
    config: &'a LoraConfig,
    tables: S,
    began: Began,
}

impl<'a, S> Parts<'a, S> {
    /// None yet. What is trained of tables begins as `tables` has it.
    pub fn new(part: Part, config: &'a LoraConfig, tables: S) -> Self {
        Self { part, config, tables, began: Began::new() }
    }

    /// What the adapters began as.
    pub fn into_began(self) -> Began {
        self.began
    }
}

impl<S: Start> Start for &mut Parts<'_, S> {
    fn begin(&mut self, site: Site, rank: usize, weight: FrozenMatrix) -> Beginning {
        let scale = self.config.scale(site).unwrap_or_else(|| panic!("{site} is not adapted"));
        let product = WeightProducts(weight);
        let [a, b] = match self.part {
            Part::Principal => principal(&product, rank, scale),
            Part::Orthogonal => orthogonal(&product, rank),
        };
        let weight = without(&product.0, &a, &b, scale as f32);
        self.began.insert(site, [a.clone(), b.clone()]);
        Beginning { a, b, magnitude: None, weight }
    }

    fn begin_table(
        &mut self,
        name: TableName,
        method: &TableMethod,
        weight: &FrozenMatrix,
    ) -> TableBeginning {
        self.tables.begin_table(name, method, weight)
    }

    fn keeps_weights(&self) -> bool {
        false
    }
}

/// Products with a weight as it is stored.
struct WeightProducts(FrozenMatrix);

impl WeightProducts {
    /// `[rows, in]` → `[rows, out]`.
    fn times(&self, x: &[f32]) -> Vec<f32> {
        let [_, inner] = self.0.shape();
        let weight = Flex::freeze(self.0.clone(), &Default::default());
        let x = rows(x, inner);
        host_values::<Flex>(Flex::frozen_linear(&x, &weight, Precision::F32, Rounding::Exact))
    }

    /// `[rows, out]` → `[rows, in]`.
    fn back(&self, y: &[f32]) -> Vec<f32> {
        let [out, _] = self.0.shape();
        let weight = Flex::freeze(self.0.clone(), &Default::default());
        host_values::<Flex>(Flex::frozen_linear_dx(&rows(y, out), &weight, Precision::F32))
    }
}

impl largest::Map for WeightProducts {
    fn sizes(&self) -> [usize; 2] {
        let [out, inner] = self.0.shape();
        [inner, out]
    }

    fn there(&self, x: &[f32]) -> Vec<f32> {
        self.times(x)
    }

    fn back(&self, y: &[f32]) -> Vec<f32> {
        WeightProducts::back(self, y)
    }
}

fn rows(values: &[f32], width: usize) -> FlexTensor {
    let shape = [values.len() / width.max(1), width];
    Flex::float_from_data(TensorData::new(values.to_vec(), shape), &Default::default())
}

/// `√S·Vᵀ` and `U·√S` of the largest singular values of a matrix.
pub(crate) fn largest_part(matrix: FrozenMatrix, rank: usize) -> [Vec<f32>; 2] {
    principal(&WeightProducts(matrix), rank, 1.0)
}

/// `√(S/scale)·Vᵀ` and `U·√(S/scale)` of the largest singular values.
fn principal(weight: &WeightProducts, rank: usize, scale: f64) -> [Vec<f32>; 2] {
    let [out, inner] = weight.0.shape();
    let triples = largest::singular_triples(weight, rank);
    let (mut a, mut b) = (vec![0.0; rank * inner], vec![0.0; out * rank]);
    for (index, largest::Triple { value, right, left }) in triples.into_iter().enumerate() {
        let root = (value / scale).sqrt();
        for (a, right) in a[index * inner..][..inner].iter_mut().zip(right) {
            *a = (root * right) as f32;
        }
        for (b, left) in b.chunks_exact_mut(rank).zip(left) {
            b[index] = (root * left) as f32;
        }
    }
    [a, b]
}

/// `Qᵀ·W` and `Q`, an orthonormal basis of the first `rank` columns; LAPACK's has other signs, in both alike.
fn orthogonal(weight: &WeightProducts, rank: usize) -> [Vec<f32>; 2] {
    let [out, _] = weight.0.shape();
    let mut columns = vec![vec![0.0; out]; rank];
    let mut row = vec![0.0; rank];
    for index in 0..out {
        weight.0.decode(index, 0, &mut row);
        for (column, &value) in columns.iter_mut().zip(&row) {
            column[index] = f64::from(value);
        }
    }
    let basis = largest::orthonormal(columns);
    let flat: Vec<f32> = basis.iter().flatten().map(|&value| value as f32).collect();
    let a = weight.back(&flat);
    let mut b = vec![0.0; out * rank];
    for (index, column) in flat.chunks_exact(out.max(1)).enumerate() {
        for (b, &value) in b.chunks_exact_mut(rank).zip(column) {
            b[index] = value;
        }
    }
    [a, b]
}

/// `W − scale · B·A`, in the type that the weight is stored in.
fn without(weight: &FrozenMatrix, a: &[f32], b: &[f32], scale: f32) -> FrozenMatrix {
    let [out, inner] = weight.shape();
    let rank = a.len() / inner.max(1);
    let dtype = match weight.storage() {
        Storage::F16(_) => Dtype::F16,
        Storage::Bf16(_) => Dtype::BF16,
        Storage::F32(_) | Storage::Nf4 { .. } => Dtype::F32,
    };
    let row_bytes = inner * dtype.bitsize() / 8;
    let mut bytes = vec![0; out * row_bytes];
    bytes.par_chunks_exact_mut(row_bytes.max(1)).enumerate().for_each_init(
        || (vec![0.0; inner], vec![0.0; inner]),
        |(rest, part), (row, bytes)| {
            weight.decode(row, 0, rest);
            part.fill(0.0);
            add_update_row(&b[row * rank..][..rank], a, part);
            for (rest, part) in rest.iter_mut().zip(part.iter()) {
                *rest -= scale * part;
            }
            // One that is no number is found where the model is asked.
            let _ = round(rest, dtype, bytes);
        },
    );
    let bytes = Bytes::from(bytes);
    let storage = match dtype {
        Dtype::BF16 => Storage::Bf16(bytes),
        Dtype::F16 => Storage::F16(bytes),
        _ => Storage::F32(bytes),
    };
    FrozenMatrix::new(out, inner, storage).expect("as many values as the weight has")
}

/// Writes what was learnt with what it began as beside it: of twice the rank at the same scale, for the weights as they
/// were.
pub(super) fn write(
    lora: &LoraConfig,
    out: &Path,
    base: &str,
    learnt: &Learnt<'_>,
) -> Result<(), Error> {
    let Learnt { base: _, config, tensors, values, began, metadata } = learnt;
    let twice = |(name, shape): &(String, Vec<usize>)| {
        let mut shape = shape.clone();
        match names::from_name(name) {
            Some((_, LoraMatrix::A)) => shape[0] *= 2,
            Some((_, LoraMatrix::B)) => shape[1] *= 2,
            None => {}
        }
        (name.clone(), shape)
    };
    let tensors: Vec<_> = tensors.iter().map(twice).collect();
    let with_first = |name: &str| {
        let values = values(name);
        let first =
            names::from_name(name).and_then(|(site, of)| Some((site, of, began.get(&site)?)));
        match first {
            Some((_, LoraMatrix::A, [first, _])) => [&values[..], first].concat(),
            Some((site, LoraMatrix::B, [_, first])) => {
                with_first_columns(&values, first, lora.sites[&site].rank.get())
            }
            None => values,
        }
    };
    let mut doubled = lora.clone();
    for size in doubled.sites.values_mut() {
        *size = twice_as_wide(*size, lora.scaling);
    }
    peft::save_from(out, &doubled, config.layers, base, &tensors, &with_first, metadata.clone())
}

/// Twice the rank at the same scale.
fn twice_as_wide(Size { rank, alpha }: Size, scaling: Scaling) -> Size {
    let alpha = match scaling {
        Scaling::Standard => 2.0 * alpha,
        Scaling::RankStabilised => std::f64::consts::SQRT_2 * alpha,
    };
    Size { rank: Rank(rank.0.saturating_add(rank.get())), alpha }
}

/// `[B, −B₀]`, row-major, of `rank` columns each.
fn with_first_columns(b: &[f32], first: &[f32], rank: usize) -> Vec<f32> {
    let rows = b.chunks_exact(rank).zip(first.chunks_exact(rank));
    rows.flat_map(|(b, first)| b.iter().copied().chain(first.iter().map(|value| -value))).collect()
}
