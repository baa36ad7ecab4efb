//! Low-rank update of one projection: `y = x·Wᵀ + scale · (drop(x)·Aᵀ)·Bᵀ`, Hu et al. 2021, section
//! 4.1, in the layout of PEFT: `A` `[rank, in]`, `B` `[out, rank]`. What dropout keeps is not multiplied
//! with `1 / (1 − rate)` itself: the scale is.
//!
//! With magnitudes it is DoRA, see `lora/magnitude.rs`.

mod linear;
mod magnitude;
mod part;
mod start;
mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use graft_kernels::Precision;
use graft_model::{LlamaConfig, Seat, Site};

pub use linear::{LoraFactory, LoraLinear};
pub(crate) use magnitude::row_norm;
pub(crate) use part::largest_part;
pub use part::{Began, Part, Parts};
pub use start::{Beginning, Fresh, Start};
pub use table::{TableBeginning, TableMethod, TableName, tensors as table_tensors};

use crate::method::{Learns, Learnt, Method, TokenBytes, TrainedTensor};
use crate::peft;

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

/// Adds one row of `B·A` to `row`: what a row `[rank]` of `B` makes of `A` `[rank, in]`.
pub(crate) fn add_update_row(b: &[f32], a: &[f32], row: &mut [f32]) {
    for (factor, a) in b.iter().zip(a.chunks_exact(row.len())) {
        for (sum, a) in row.iter_mut().zip(a) {
            *sum += factor * a;
        }
    }
}

/// Which projections are adapted, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Kind of scale.
    pub scaling: Scaling,
    /// Probability that an input of `A` is dropped in training.
    pub dropout: f64,
    /// Whether the length of each row of the adapted weight is trained apart from its direction: DoRA.
    pub dora: bool,
    /// How many times the learning rate of `A` that of `B` is, and of magnitudes: LoRA+, Hayou et al. 2024. It is a
    /// matter of training alone; no file says it.
    pub b_rate: f64,
    /// The part of each weight that its update begins as, and that the weight goes without; else it begins as nothing.
    /// A matter of training alone, too.
    pub part: Option<Part>,
    /// The adapted projections.
    pub sites: BTreeMap<Site, Size>,
    /// What is trained of embedding and head.
    pub tables: BTreeMap<TableName, TableMethod>,
}

impl Default for LoraConfig {
    /// No update yet, of plain LoRA without dropout.
    fn default() -> Self {
        Self {
            scaling: Scaling::Standard,
            dropout: 0.0,
            dora: false,
            b_rate: 1.0,
            part: None,
            sites: BTreeMap::new(),
            tables: BTreeMap::new(),
        }
    }
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
        Self { scaling, dropout, sites, ..Self::default() }
    }

    /// The factor on a projection's update; `None` where it has none.
    pub fn scale(&self, site: Site) -> Option<f64> {
        self.sites.get(&site).map(|&size| self.scaling.factor(size))
    }

    /// The size of each update, of projections and tables.
    pub fn sizes(&self) -> impl Iterator<Item = Size> {
        let of_tables = self.tables.values().filter_map(TableMethod::size);
        self.sites.values().copied().chain(of_tables)
    }

    /// The size of most updates, the smallest of several; `None` without any update.
    pub fn usual_size(&self) -> Option<Size> {
        // Alphas are above 0, and such floats order as their bits do.
        let mut counts: BTreeMap<(Rank, u64), usize> = BTreeMap::new();
        for Size { rank, alpha } in self.sizes() {
            *counts.entry((rank, alpha.to_bits())).or_default() += 1;
        }
        let (&(rank, alpha), _) = counts.iter().rev().max_by_key(|(_, count)| **count)?;
        Some(Size { rank, alpha: f64::from_bits(alpha) })
    }

    /// The size of every update, where they are of one size.
    pub fn one_size(&self) -> Option<Size> {
        let usual = self.usual_size()?;
        self.sizes().all(|size| size == usual).then_some(usual)
    }

    /// It without tables that are trained whole, for a base that has them in the place of its own.
    #[must_use]
    pub fn without_whole_tables(&self) -> Self {
        let mut other = self.clone();
        other.tables.retain(|_, method| *method != TableMethod::Whole);
        other
    }

    /// It without tables, for a base whose own have in them what is trained.
    #[must_use]
    pub fn without_tables(&self) -> Self {
        Self { tables: BTreeMap::new(), ..self.clone() }
    }

    /// The configuration of a model with it: where the base's head is its embedding and something is trained of one of
    /// them that is not of both, the head is another table.
    pub fn model_config(&self, base: &LlamaConfig) -> LlamaConfig {
        let parts = |method: &TableMethod| !matches!(method, TableMethod::Rows(_));
        let mut config = base.clone();
        if config.tied && self.tables.values().any(parts) {
            config.tied = false;
            config.raw.insert("tie_word_embeddings".to_owned(), false.into());
        }
        config
    }
}

impl Method for LoraConfig {
    fn name(&self) -> &'static str {
        "lora"
    }

    fn phrase(&self) -> String {
        let rank = self.usual_size().map_or(0, |size| size.rank.get());
        let kind = if self.dora { "dora" } else { "lora" };
        let mut phrase = format!("{kind} of rank {rank} on {} projections", self.sites.len());
        for (name, method) in &self.tables {
            match method {
                TableMethod::Whole => _ = write!(phrase, ", {name} whole"),
                TableMethod::LowRank(_) => _ = write!(phrase, ", {name}"),
                TableMethod::Rows(ids) => _ = write!(phrase, ", {} rows of {name}", ids.len()),
            }
        }
        phrase
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
            let at = move |shape: &[usize]| TrainedTensor {
                seat: Seat::Projection(site),
                shape: shape.to_vec(),
            };
            let magnitude = self.dora.then(|| at(&[out]));
            [at(&[rank, inner]), at(&[out, rank])].into_iter().chain(magnitude)
        };
        let of = |name| table::trained(self, name, model);
        let projections = self.sites.iter().flat_map(matrices);
        of(TableName::Embedding).chain(projections).chain(of(TableName::Head)).collect()
    }

    fn model_config(&self, base: &LlamaConfig) -> LlamaConfig {
        Self::model_config(self, base)
    }

    fn token_bytes(&self, site: Site, model: &LlamaConfig, precision: Precision) -> TokenBytes {
        // The narrow product, in f32. Inputs are counted without looking which projections have updates.
        let low = self.sites.get(&site).map_or(0, |size| size.rank.get());
        let plain = TokenBytes { reads_input: true, beside: 4 * low, ..TokenBytes::default() };
        if !self.dora || low == 0 {
            return plain;
        }
        let out = site.kind.out_features(model);
        let operand = if precision == Precision::F32 { 4 * out } else { 2 * out };
        if site.kind.ends_a_branch() {
            // What is given, as an operand; for a moment that, the product, and both gradients.
            return TokenBytes { beside: 4 * low + operand, moment: 16 * out, ..plain };
        }
        // What is given, in the place of the product that was kept; for a moment the product, both gradients, and what is
        // cast of one. In one run of ten, by which thread comes first, the allocator holds more of it.
        TokenBytes { beside_products: operand, moment: 4 * operand + 4 * out, ..plain }
    }

    fn takes_from_weights(&self) -> bool {
        self.part.is_some()
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
        for method in other.tables.values_mut() {
            if let TableMethod::LowRank(size) = method {
                size.rank = rank;
            }
        }
        Some(Arc::new(other))
    }

    fn write(&self, out: &Path, learnt: &Learnt<'_>) -> Result<(), crate::Error> {
        let Learnt { base, config, tensors, values, began, metadata } = learnt;
        // An adapter gets published: it names its base, not where that lay on this machine.
        let base = base.published_name();
        if !began.is_empty() {
            return part::write(self, out, &base, learnt);
        }
        peft::save_from(out, self, config.layers, &base, tensors, values, metadata.clone())
    }
}
