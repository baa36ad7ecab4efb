//! An adapter that begins as a part of each weight, which keeps the rest: `W = (W − scale · B·A) + scale · B·A`. What is
//! frozen, and quantised, is the rest.
//!
//! - PiSSA, Meng et al. 2024: the largest singular values and their vectors, `B = U·√S`, `A = √S·Vᵀ`.
//! - OLoRA, Büyükakyüz 2024: an orthonormal basis of the first columns, and what the weight is in it, `W ≈ Q·(Qᵀ·W)`.
//!
//! What was learnt is written as PEFT converts it (`subtract_mutated_init`): an ordinary adapter of twice the rank for
//! the weights as they were, `scale · (B·A − B₀·A₀)`.

use std::collections::BTreeMap;

use burn::tensor::TensorData;
use burn::tensor::ops::FloatTensorOps as _;
use burn_flex::{Flex, FlexTensor};
use bytes::Bytes;
use graft_kernels::frozen::Storage;
use graft_kernels::{FrozenMatrix, Kernels, Precision, Rounding};
use graft_model::Site;
use graft_model::param::host_values;
use half::{bf16, f16};
use rayon::prelude::*;

use super::start::{Beginning, Start};
use super::{LoraConfig, Scaling, Size};
use crate::largest;

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
pub struct Parts<'a> {
    part: Part,
    config: &'a LoraConfig,
    began: Began,
}

impl<'a> Parts<'a> {
    /// None yet.
    pub fn new(part: Part, config: &'a LoraConfig) -> Self {
        Self { part, config, began: Began::new() }
    }

    /// What the adapters began as.
    pub fn into_began(self) -> Began {
        self.began
    }
}

impl Start for &mut Parts<'_> {
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
    let width = match weight.storage() {
        Storage::F16(_) | Storage::Bf16(_) => 2,
        Storage::F32(_) | Storage::Nf4 { .. } => 4,
    };
    let mut bytes = vec![0; out * inner * width];
    bytes.par_chunks_exact_mut((inner * width).max(1)).enumerate().for_each_init(
        || (vec![0.0; inner], vec![0.0; inner]),
        |(values, part), (row, bytes)| {
            weight.decode(row, 0, values);
            part.fill(0.0);
            for (&b, a) in b[row * rank..][..rank].iter().zip(a.chunks_exact(inner)) {
                for (part, &a) in part.iter_mut().zip(a) {
                    *part += b * a;
                }
            }
            let rest = values.iter().zip(part.iter()).map(|(value, part)| value - scale * part);
            match weight.storage() {
                Storage::Bf16(_) => put(bytes, rest.map(|rest| bf16::from_f32(rest).to_le_bytes())),
                Storage::F16(_) => put(bytes, rest.map(|rest| f16::from_f32(rest).to_le_bytes())),
                Storage::F32(_) | Storage::Nf4 { .. } => put(bytes, rest.map(f32::to_le_bytes)),
            }
        },
    );
    let bytes = Bytes::from(bytes);
    let storage = match weight.storage() {
        Storage::Bf16(_) => Storage::Bf16(bytes),
        Storage::F16(_) => Storage::F16(bytes),
        Storage::F32(_) | Storage::Nf4 { .. } => Storage::F32(bytes),
    };
    FrozenMatrix::new(out, inner, storage).expect("as many values as the weight has")
}

fn put<const N: usize>(bytes: &mut [u8], values: impl Iterator<Item = [u8; N]>) {
    for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
        *bytes = value;
    }
}

/// The size of an update that is written with what it began as: twice the rank at the same scale.
pub(super) fn doubled(Size { rank, alpha }: Size, scaling: Scaling) -> Size {
    let alpha = match scaling {
        Scaling::Standard => 2.0 * alpha,
        Scaling::RankStabilised => std::f64::consts::SQRT_2 * alpha,
    };
    let rank = super::Rank(rank.0.saturating_mul(std::num::NonZeroUsize::MIN.saturating_add(1)));
    Size { rank, alpha }
}

/// `[A; A₀]`, row-major.
pub(super) fn with_first_rows(mut a: Vec<f32>, first: &[f32]) -> Vec<f32> {
    a.extend_from_slice(first);
    a
}

/// `[B, −B₀]`, row-major, of `rank` columns each.
pub(super) fn with_first_columns(b: &[f32], first: &[f32], rank: usize) -> Vec<f32> {
    let rows = b.chunks_exact(rank).zip(first.chunks_exact(rank));
    rows.flat_map(|(b, first)| b.iter().copied().chain(first.iter().map(|value| -value))).collect()
}
