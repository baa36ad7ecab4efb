//! Where the first values of an adapter come from.

use graft_kernels::FrozenMatrix;
use graft_model::{Seat, Site};

use super::table::{self, TableBeginning, TableMethod, TableName};

/// Where the first values of an adapter come from.
pub trait Start {
    /// What the update of a projection begins as, and what stays below it of `weight` `[out, in]`, which is as
    /// it is stored: quantised it is afterwards.
    fn begin(&mut self, site: Site, rank: usize, weight: FrozenMatrix) -> Beginning;

    /// What that begins as which is trained of a table: asked where a configuration has any. Beside `weight` `[vocab, d_model]` as it is stored.
    fn begin_table(
        &mut self,
        name: TableName,
        method: &TableMethod,
        weight: &FrozenMatrix,
    ) -> TableBeginning {
        let _ = (name, method, weight);
        TableBeginning::new()
    }

    /// Whether it gives every weight back as it came, so that it can be read where it is stored.
    fn keeps_weights(&self) -> bool {
        true
    }
}

/// What a projection begins as: `weight + scale · B·A`, or with magnitudes that in rows of their length.
pub struct Beginning {
    /// `A` `[rank, in]`, row-major.
    pub a: Vec<f32>,
    /// `B` `[out, rank]`, row-major.
    pub b: Vec<f32>,
    /// Magnitudes `[out]`, where it has any; those that change nothing, where none are given.
    pub magnitude: Option<Vec<f32>>,
    /// The frozen part, `[out, in]`.
    pub weight: FrozenMatrix,
}

/// PEFT's initialisation: `A` uniform in `±1/√in` (Kaiming with a = √5), `B` zero, so that the first
/// model is the base.
pub struct Fresh<F>(
    /// `uniform(seat, len)`: values in `[0, 1)`, a function of the seat alone.
    pub F,
);

impl<F: FnMut(Seat, usize) -> Vec<f32>> Start for Fresh<F> {
    fn begin(&mut self, site: Site, rank: usize, weight: FrozenMatrix) -> Beginning {
        let [out, inner] = weight.shape();
        let bound = 1.0 / (inner as f32).sqrt();
        let mut a = (self.0)(Seat::Projection(site), rank * inner);
        for value in &mut a {
            *value = (2.0 * *value - 1.0) * bound;
        }
        Beginning { a, b: vec![0.0; out * rank], magnitude: None, weight }
    }
    fn begin_table(
        &mut self,
        name: TableName,
        method: &TableMethod,
        weight: &FrozenMatrix,
    ) -> TableBeginning {
        table::fresh(name, method, weight, |len| (self.0)(name.seat(), len))
    }
}
