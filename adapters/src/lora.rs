//! Low-rank update of one projection: `y = x·Wᵀ + scale · (drop(x)·Aᵀ)·Bᵀ`, Hu et al. 2021, section
//! 4.1, in the layout of PEFT: `A` `[rank, in]`, `B` `[out, rank]`. What dropout keeps is not multiplied
//! with `1 / (1 − rate)` itself: the scale is.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::ops::FloatTensor;
use graft_kernels::nf4::AbsmaxFormat;
use graft_kernels::{FrozenMatrix, Home, Kernels, LowRank, Ops, Precision};
use graft_model::load::{Factory, is_kept, quantise};
use graft_model::{
    Error, FrozenLinear, LlamaConfig, OwnOutput, Param, Pass, Projection, ProjectionKind, Seat,
    Site, Table,
};

use crate::method::{Learns, Learnt, Method, TokenBytes, Trainable, TrainedTensor};
use crate::peft;
use crate::peft::names::{LoraMatrix, tensor_name};

/// Width of an update; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(pub NonZeroUsize);

impl Rank {
    /// The number.
    pub fn get(self) -> usize {
        self.0.get()
    }
}

/// How the update is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// `alpha / rank`, the paper's.
    Standard,
    /// `alpha / sqrt(rank)`, Kalajdzievski 2023.
    RankStabilised,
}

impl Scaling {
    /// The factor on an update.
    pub fn factor(self, Size { rank, alpha }: Size) -> f64 {
        let rank = rank.get() as f64;
        match self {
            Self::Standard => alpha / rank,
            Self::RankStabilised => alpha / rank.sqrt(),
        }
    }
}

/// How large one projection's update is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// Width of the update.
    pub rank: Rank,
    /// Numerator of the scale.
    pub alpha: f64,
}

/// Which projections are adapted, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Kind of scale.
    pub scaling: Scaling,
    /// Probability that an input of `A` is dropped in training.
    pub dropout: f64,
    /// The adapted projections.
    pub sites: BTreeMap<Site, Size>,
}

impl LoraConfig {
    /// Updates of one size on all these projections.
    pub fn uniform(
        size: Size,
        scaling: Scaling,
        dropout: f64,
        sites: impl IntoIterator<Item = Site>,
    ) -> Self {
        let sites = sites.into_iter().map(|site| (site, size)).collect();
        Self { scaling, dropout, sites }
    }

    /// The factor on a projection's update; `None` where it has none.
    pub fn scale(&self, site: Site) -> Option<f64> {
        self.sites.get(&site).map(|&size| self.scaling.factor(size))
    }

    /// The size of most updates, the smallest of several; `None` without any update.
    pub fn usual_size(&self) -> Option<Size> {
        // Alphas are above 0, and such floats order as their bits do.
        let mut counts: BTreeMap<(Rank, u64), usize> = BTreeMap::new();
        for Size { rank, alpha } in self.sites.values() {
            *counts.entry((*rank, alpha.to_bits())).or_default() += 1;
        }
        let (&(rank, alpha), _) = counts.iter().rev().max_by_key(|(_, count)| **count)?;
        Some(Size { rank, alpha: f64::from_bits(alpha) })
    }

    /// The size of every update, where they are of one size.
    pub fn one_size(&self) -> Option<Size> {
        let usual = self.usual_size()?;
        self.sites.values().all(|size| *size == usual).then_some(usual)
    }
}

impl Method for LoraConfig {
    fn name(&self) -> &'static str {
        "lora"
    }

    fn phrase(&self) -> String {
        let rank = self.usual_size().map_or(0, |size| size.rank.get());
        format!("lora of rank {rank} on {} projections", self.sites.len())
    }

    fn learns(&self) -> Learns {
        Learns::Adapter
    }

    fn merges(&self) -> bool {
        true
    }

    fn trained(&self, model: &LlamaConfig) -> Vec<TrainedTensor> {
        let matrices = |(&site, size): (&Site, &Size)| {
            let ([out, inner], rank) = (site.weight_shape(model), size.rank.get());
            let at = move |shape: [usize; 2]| TrainedTensor {
                seat: Seat::Projection(site),
                shape: shape.to_vec(),
            };
            [at([rank, inner]), at([out, rank])]
        };
        self.sites.iter().flat_map(matrices).collect()
    }

    fn token_bytes(&self, site: Site, _: &LlamaConfig, _: Precision) -> TokenBytes {
        // The narrow product, in f32. Inputs are counted without looking which projections have updates.
        let low = self.sites.get(&site).map_or(0, |size| size.rank.get());
        TokenBytes { reads_input: true, beside: 4 * low, ..TokenBytes::default() }
    }

    fn drops(&self, site: Site) -> bool {
        self.dropout > 0.0 && self.sites.contains_key(&site)
    }

    fn rank(&self) -> Option<usize> {
        self.one_size().map(|size| size.rank.get())
    }

    fn of_rank(&self, rank: usize) -> Option<Arc<dyn Method>> {
        let rank = Rank(NonZeroUsize::new(rank)?);
        let mut other = self.clone();
        other.sites.values_mut().for_each(|size| size.rank = rank);
        Some(Arc::new(other))
    }

    fn write(&self, out: &Path, learnt: &Learnt<'_>) -> Result<(), crate::Error> {
        let Learnt { base, config, tensors, values, metadata } = learnt;
        // An adapter gets published: it names its base, not where that lay on this machine.
        let base = base.published_name();
        peft::save_from(out, self, config.layers, &base, tensors, values, metadata.clone())
    }
}

/// A frozen projection with a low-rank update, or without one where none was asked for.
#[derive(Clone, Debug)]
pub struct LoraLinear<B: Kernels> {
    base: FrozenLinear<B>,
    update: Option<Update<B>>,
}

/// The two trained matrices.
#[derive(Clone, Debug)]
struct Update<B: Kernels> {
    a: Param<B>,
    b: Param<B>,
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
        let (scale, rate, site) = (update.scale, update.dropout, self.base.site());
        let dropout = pass.context().noise.and_then(|noise| noise.dropout(site, rate));
        let scale = dropout.as_ref().map_or(scale, |dropout| scale * dropout.factor());
        let update = LowRank { a, b, scale, dropout };
        let precision = pass.context().precision;
        let low = pass.beside(kind, "low", || R::On::lora_low(&x, &update, precision));
        pass.output(kind, OwnOutput::Unread, |output| {
            R::On::lora_linear(x, self.base.weight(), update, low, precision, output)
        })
    }

    fn frozen(&self) -> Option<&B::Frozen> {
        self.base.frozen()
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&mut Param<B>)) {
        if let Some(update) = &mut self.update {
            visit(&mut update.a);
            visit(&mut update.b);
        }
    }
}

impl<B: Kernels> Trainable<B> for LoraLinear<B> {
    fn trains(seat: Seat) -> bool {
        matches!(seat, Seat::Projection(_))
    }
}

/// Where the first values of an adapter come from.
pub trait Start {
    /// What the update of a projection begins as, and what stays below it of `weight` `[out, in]`, which is as
    /// it is stored: quantised it is afterwards.
    fn begin(&mut self, site: Site, rank: usize, weight: FrozenMatrix) -> Beginning;

    /// Whether it gives every weight back as it came, so that it can be read where it is stored.
    fn keeps_weights(&self) -> bool {
        true
    }
}

/// What a projection begins as: `weight + scale · B·A`.
pub struct Beginning {
    /// `A` `[rank, in]`, row-major.
    pub a: Vec<f32>,
    /// `B` `[out, rank]`, row-major.
    pub b: Vec<f32>,
    /// The frozen part, `[out, in]`.
    pub weight: FrozenMatrix,
}

/// PEFT's initialisation: `A` uniform in `±1/√in` (Kaiming with a = √5), `B` zero, so that the first
/// model is the base.
pub struct Fresh<F>(
    /// `uniform(site, len)`: values in `[0, 1)`, a function of the site alone.
    pub F,
);

impl<F: FnMut(Site, usize) -> Vec<f32>> Start for Fresh<F> {
    fn begin(&mut self, site: Site, rank: usize, weight: FrozenMatrix) -> Beginning {
        let [out, inner] = weight.shape();
        let bound = 1.0 / (inner as f32).sqrt();
        let mut a = (self.0)(site, rank * inner);
        for value in &mut a {
            *value = (2.0 * *value - 1.0) * bound;
        }
        Beginning { a, b: vec![0.0; out * rank], weight }
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
                let Beginning { a, b, weight } = self.start.begin(site, size.rank.get(), weight);
                (weight, Some((size, a, b)))
            }
        };
        let weight = match self.nf4 {
            Some(format) => quantise(&site.checkpoint_name(), weight, format)?,
            None => weight,
        };
        let base = FrozenLinear::new(site, weight, self.home, self.device);
        let update = begun.map(|(size, a, b)| {
            let rank = size.rank.get();
            let param = |matrix, values, shape: [usize; 2]| {
                let seat = Seat::Projection(site);
                Param::new(tensor_name(site, matrix), seat, values, &shape, self.device)
            };
            Update {
                a: param(LoraMatrix::A, a, [rank, inner]),
                b: param(LoraMatrix::B, b, [out, rank]),
                scale: self.config.scaling.factor(size) as f32,
                dropout: self.config.dropout,
            }
        });
        Ok(LoraLinear { base, update })
    }

    fn keeps(&self, weight: &FrozenMatrix) -> bool {
        self.start.keeps_weights() && is_kept::<B>(self.nf4, self.home, weight)
    }

    fn table(&mut self, _seat: Seat, weight: FrozenMatrix) -> Result<Table<B>, Error> {
        Ok(Table::frozen(weight, self.device))
    }
}
