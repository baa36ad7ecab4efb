//! The projection that computes, and what makes one of a stored weight.

use burn::tensor::ops::{FloatTensor, FloatTensorOps as _};
use graft_kernels::nf4::AbsmaxFormat;
use graft_kernels::{FrozenMatrix, Home, Kernels, LowRank, Ops};
use graft_model::load::{Factory, is_kept, quantise};
use graft_model::{
    Error, FrozenLinear, OwnOutput, Param, Pass, Projection, ProjectionKind, Seat, Site, Table,
};

use super::LoraConfig;
use super::magnitude::{Magnitude, row_norms};
use super::start::{Beginning, Start};
use super::table::{self, TableName};
use crate::method::Trainable;
use crate::peft::names::{LoraMatrix, magnitude_name, tensor_name};

/// A frozen projection with a low-rank update, or without one where none was asked for.
#[derive(Clone, Debug)]
pub struct LoraLinear<B: Kernels> {
    base: FrozenLinear<B>,
    update: Option<Update<B>>,
}

/// What is trained.
#[derive(Clone, Debug)]
struct Update<B: Kernels> {
    a: Param<B>,
    b: Param<B>,
    magnitude: Option<Magnitude<B>>,
    scale: f32,
    dropout: f64,
}

impl<B: Kernels> LoraLinear<B> {
    /// The projection underneath.
    pub fn base(&self) -> &FrozenLinear<B> {
        &self.base
    }
}

impl<B: Kernels> Projection<B> for LoraLinear<B> {
    fn forward<R: Pass<Inner = B>>(
        &self,
        x: FloatTensor<R::On>,
        kind: ProjectionKind,
        pass: &mut R,
    ) -> FloatTensor<R::On> {
        let Some(update) = &self.update else {
            return self.base.forward(x, kind, pass);
        };
        let (a, b) = (pass.param(&update.a), pass.param(&update.b));
        let factors = update.magnitude.as_ref().map(|magnitude| {
            let [a, b] = [&update.a, &update.b].map(Param::tensor);
            let lengths = magnitude.lengths(self.base.weight(), a, b, update.scale);
            R::On::float_div(pass.param(&magnitude.param), pass.constant(lengths))
        });
        let (scale, rate, site) = (update.scale, update.dropout, self.base.site());
        let dropout = pass.context().noise.and_then(|noise| noise.dropout(site, rate));
        let scale = dropout.as_ref().map_or(scale, |dropout| scale * dropout.factor());
        let update = LowRank { a, b, scale, dropout };
        let precision = pass.context().precision;
        let low = pass.beside(kind, "low", || R::On::lora_low(&x, &update, precision));
        let own = if factors.is_some() { OwnOutput::ReadBeside } else { OwnOutput::Unread };
        let product = pass.output(kind, own, |output| {
            R::On::lora_linear(x, self.base.weight(), update, low, precision, output)
        });
        let Some(factors) = factors else { return product };
        // The gradient of magnitudes reads what they give. Where nobody else does, that is kept as an operand.
        let in_place = kind.ends_a_branch().then(|| {
            let scaled = || R::On::scaled_columns(&product, &factors, precision);
            pass.beside(kind, "scaled", scaled)
        });
        R::On::scale_columns(product, factors, in_place)
    }

    fn frozen(&self) -> Option<&B::Frozen> {
        self.base.frozen()
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&mut Param<B>)) {
        if let Some(update) = &mut self.update {
            visit(&mut update.a);
            visit(&mut update.b);
            if let Some(magnitude) = &mut update.magnitude {
                visit(&mut magnitude.param);
                magnitude.forget();
            }
        }
    }
}

impl<B: Kernels> Trainable<B> for LoraLinear<B> {
    fn trains(seat: Seat) -> bool {
        // A table has a dense tensor where it is trained only.
        matches!(seat, Seat::Projection(_) | Seat::Embedding | Seat::Head)
    }
}

/// Makes a model with adapters: projections frozen, and quantised if asked, with updates beside them.
pub struct LoraFactory<'a, B: Kernels, S> {
    /// Which projections, and how.
    pub config: &'a LoraConfig,
    /// First values.
    pub start: S,
    /// To quantise dense projections to NF4: how it keeps scales.
    pub nf4: Option<AbsmaxFormat>,
    /// Where projections live.
    pub home: Home,
    /// Where the model goes.
    pub device: &'a B::Device,
}

impl<B: Kernels, S: Start> Factory<B> for LoraFactory<'_, B, S> {
    type Projection = LoraLinear<B>;

    fn projection(&mut self, site: Site, weight: FrozenMatrix) -> Result<LoraLinear<B>, Error> {
        let [out, inner] = weight.shape();
        let (weight, begun) = match self.config.sites.get(&site) {
            None => (weight, None),
            Some(&size) => {
                let Beginning { a, b, magnitude, weight } =
                    self.start.begin(site, size.rank.get(), weight);
                (weight, Some((size, a, b, magnitude)))
            }
        };
        let weight = match self.nf4 {
            Some(format) => quantise(&site.checkpoint_name(), weight, format)?,
            None => weight,
        };
        let update = begun.map(|(size, a, b, magnitude)| {
            let (rank, scale) = (size.rank.get(), self.config.scaling.factor(size) as f32);
            let seat = Seat::Projection(site);
            let magnitude = self.config.dora.then(|| {
                let lengths = row_norms(&weight, &[], &[], 0.0);
                let found = || {
                    let is_nothing = b.iter().all(|&value| value == 0.0);
                    if is_nothing { lengths.clone() } else { row_norms(&weight, &a, &b, scale) }
                };
                let values = magnitude.unwrap_or_else(found);
                let param = Param::new(magnitude_name(site), seat, values, &[out], self.device);
                Magnitude::new(param.at_rate(self.config.b_rate), &lengths, self.device)
            });
            let param = |matrix, values, shape: [usize; 2]| {
                Param::new(tensor_name(site, matrix), seat, values, &shape, self.device)
            };
            Update {
                a: param(LoraMatrix::A, a, [rank, inner]),
                b: param(LoraMatrix::B, b, [out, rank]).at_rate(self.config.b_rate),
                magnitude,
                scale,
                dropout: self.config.dropout,
            }
        });
        let base = FrozenLinear::new(site, weight, self.home, self.device);
        Ok(LoraLinear { base, update })
    }

    fn keeps(&self, weight: &FrozenMatrix) -> bool {
        self.start.keeps_weights() && is_kept::<B>(self.nf4, self.home, weight)
    }

    fn table(&mut self, seat: Seat, weight: FrozenMatrix) -> Result<Table<B>, Error> {
        let name = if seat == Seat::Head { TableName::Head } else { TableName::Embedding };
        let method = self.config.tables.get(&name);
        let begun = method.map(|method| self.start.begin_table(name, method, &weight));
        Ok(table::build(self.config, name, begun.unwrap_or_default(), weight, self.device))
    }
}
