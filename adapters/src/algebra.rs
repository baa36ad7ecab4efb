//! Several adapters as one: weighted, concatenated, pruned and elected, or of another rank.
//!
//! Names and arithmetic are those of PEFT 0.21.2's `add_weighted_adapter` (`tuners/lora/model.py`,
//! `utils/merge_utils.py`), with two differences: the scale of what comes out is always 1, where PEFT keeps
//! `use_rslora` of the first adapter beside `alpha = rank`; and ranks may differ from projection to projection.
//! A projection that only some of the adapters have gets what these say of it. One update is in memory at a time.

mod low_rank;
mod prune;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use graft_kernels::FrozenMatrix;
use graft_model::Site;

pub(crate) use low_rank::{Product, truncated};
pub use prune::Sign;

use crate::error::Error;
use crate::lora::{Beginning, LoraConfig, Rank, Scaling, Size, Start};
use crate::peft::names::{LoraMatrix, tensor_name};
use crate::peft::{Made, Pair, PeftAdapter};

/// How adapters become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// `A` and `B` are added up apart, each with the root of its weight: products of one adapter's `A` with
    /// another's `B` come in, so that this is near the sum of the updates only where adapters are near each other.
    Linear,
    /// All matrices side by side: the sum of the updates itself, of the ranks together.
    Cat,
    /// The best update of this rank for the sum.
    Svd(Rank),
    /// As [`Method::Linear`], of the largest values of each matrix.
    MagnitudePrune(Share),
    /// As [`Method::Linear`], of the largest values of each matrix, and at each place of those with the sign of most: TIES,
    /// Yadav et al. 2023.
    Ties(Share, Sign),
    /// As [`Method::Linear`], of values drawn by chance, which stand for the others, too: DARE, Yu et al. 2024.
    DareLinear(Share, Draws),
    /// As [`Method::DareLinear`], at each place of the values with the sign of most.
    DareTies(Share, Draws, Sign),
}

/// The share of values that stay: above 0, at most 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(f64);

impl Share {
    /// `None` for what is no such share.
    pub fn new(share: f64) -> Option<Self> {
        (share > 0.0 && share <= 1.0).then_some(Self(share))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// The root of draws: the same one draws the same values, whatever the threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws(pub u64);

impl Method {
    /// What PEFT calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Cat => "cat",
            Self::Svd(_) => "svd",
            Self::MagnitudePrune(_) => "magnitude_prune",
            Self::Ties(..) => "ties",
            Self::DareLinear(..) => "dare_linear",
            Self::DareTies(..) => "dare_ties",
        }
    }

    /// It with its numbers.
    pub fn in_words(self) -> String {
        let name = self.name();
        match self {
            Self::Linear | Self::Cat => name.to_owned(),
            Self::Svd(rank) => format!("{name} rank={}", rank.get()),
            Self::MagnitudePrune(share) => format!("{name} density={}", share.get()),
            Self::Ties(share, sign) => {
                format!("{name} density={} majority_sign_method={}", share.get(), sign.name())
            }
            Self::DareLinear(share, Draws(seed)) => {
                format!("{name} density={} seed={seed}", share.get())
            }
            Self::DareTies(share, Draws(seed), sign) => format!(
                "{name} density={} majority_sign_method={} seed={seed}",
                share.get(),
                sign.name()
            ),
        }
    }

    /// Whether matrices are added up place by place, so that they must be of one rank.
    fn adds_matrices(self) -> bool {
        !matches!(self, Self::Cat | Self::Svd(_))
    }
}

/// One of the adapters, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    /// It.
    pub adapter: &'a PeftAdapter,
    /// What its updates are multiplied with.
    pub weight: f64,
}

/// Adapters that can be made one.
#[derive(Debug)]
pub struct Combination<'a> {
    parents: Vec<Parent<'a>>,
    method: Method,
    config: LoraConfig,
    /// `[out, in]` of every projection that has an update.
    shapes: BTreeMap<Site, [usize; 2]>,
}

impl<'a> Combination<'a> {
    /// The adapters as one.
    ///
    /// # Errors
    /// [`Error::NotCombined`] with everything that stands in the way.
    ///
    /// # Panics
    /// Without any adapter.
    pub fn of(parents: Vec<Parent<'a>>, method: Method) -> Result<Self, Error> {
        assert!(!parents.is_empty(), "adapters to combine");
        let mut problems: Vec<String> = parents.iter().flat_map(unusable).collect();
        let mut shapes: BTreeMap<Site, [usize; 2]> = BTreeMap::new();
        let mut ranks: BTreeMap<Site, Vec<usize>> = BTreeMap::new();
        for Parent { adapter, .. } in &parents {
            for (&site, size) in &adapter.config().sites {
                let Some(shape) = adapter.shape(site) else { continue };
                let known = *shapes.entry(site).or_insert(shape);
                if known != shape {
                    let file = adapter.file();
                    problems.push(format!(
                        "`{file}` adapts `{site}` as a weight of {shape:?}, the one before as one of {known:?}: they \
                         are of different models"
                    ));
                }
                ranks.entry(site).or_default().push(size.rank.get());
            }
        }
        if method.adds_matrices() {
            let apart = |ranks: &Vec<usize>| ranks.iter().any(|rank| *rank != ranks[0]);
            if let Some((site, ranks)) = ranks.iter().find(|(_, ranks)| apart(ranks)) {
                let ranks: Vec<String> = ranks.iter().map(usize::to_string).collect();
                problems.push(format!(
                    "`{site}` has the ranks {}, and {} adds matrices of one rank: give them one with `--method \
                     rerank` first, or take `cat` or `svd`",
                    ranks.join(" and "),
                    method.name()
                ));
            }
        }
        if let Method::Svd(rank) = method {
            let widest = shapes.values().map(|shape| shape[0].min(shape[1])).max().unwrap_or(0);
            if rank.get() > widest {
                problems.push(format!(
                    "the rank {} is more than {widest}, the smaller side of the widest weight that is adapted: a larger one \
                     says nothing more",
                    rank.get()
                ));
            }
        }
        if !problems.is_empty() {
            return Err(Error::NotCombined { method: method.name(), problems });
        }
        let size = |(site, ranks): (Site, Vec<usize>)| {
            let rank = match method {
                Method::Cat => ranks.iter().sum(),
                Method::Svd(rank) => rank.get(),
                _ => ranks[0],
            };
            (site, of_scale_one(rank))
        };
        let sites = ranks.into_iter().map(size).collect();
        let config = LoraConfig { scaling: Scaling::Standard, sites, ..LoraConfig::default() };
        Ok(Self { parents, method, config, shapes })
    }

    /// What comes out.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// Whether every block of a model has updates, as far as the adapters say so.
    fn layers(&self) -> usize {
        let blocks = self.config.sites.keys().map(|site| site.layer + 1).max().unwrap_or(0);
        let is_whole = |parent: &Parent<'_>| parent.adapter.is_of_every_block(blocks);
        if self.parents.iter().any(is_whole) { blocks } else { 0 }
    }

    /// Writes what comes out into a folder that is not there yet, whole or not at all. `check` is given the folder
    /// before it takes its place, and keeps it from there with an error.
    ///
    /// # Errors
    /// Those of the disk and of `check`; a value is not finite; the process was asked to stop.
    pub fn write<E: From<Error> + From<std::io::Error>>(
        &self,
        out: &Path,
        base: &str,
        metadata: BTreeMap<String, String>,
        progress: &mut dyn FnMut(u64, u64),
        check: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let made = Made {
            config: &self.config,
            layers: self.layers(),
            base,
            metadata,
            shape: &|site| self.shapes[&site],
            pair: &|site| Ok(self.pair(site)),
        };
        made.create(out, progress, check)
    }

    /// `A` and `B` of a projection as they come out.
    fn pair(&self, site: Site) -> Pair {
        let [rows, columns] = self.shapes[&site];
        match self.method {
            Method::Cat => self.sum_of(site).into_pair(),
            Method::Svd(rank) => truncated(&self.sum_of(site), [rows, columns], rank.get()),
            _ => [LoraMatrix::A, LoraMatrix::B].map(|matrix| self.added(site, matrix)),
        }
    }

    /// The sum of the updates of a projection, exactly: as PEFT's `cat` has it.
    pub(crate) fn sum_of(&self, site: Site) -> Product {
        let [rows, columns] = self.shapes[&site];
        let mut sum = Product::nothing([rows, columns]);
        for Parent { adapter, weight } in &self.parents {
            let Some([mut a, b]) = adapter.values(site) else { continue };
            let scale = adapter.config().scale(site).expect("what has values has a size");
            for value in &mut a {
                *value = *value * *weight as f32 * scale as f32;
            }
            sum = sum.beside(a, &b);
        }
        sum
    }

    /// One of the two matrices of a projection, where they are added up apart.
    fn added(&self, site: Site, matrix: LoraMatrix) -> Vec<f32> {
        let side = usize::from(matrix == LoraMatrix::B);
        let (mut tensors, mut weights) = (Vec::new(), Vec::new());
        for (index, Parent { adapter, weight }) in self.parents.iter().enumerate() {
            let Some(mut pair) = adapter.values(site) else { continue };
            let scale = adapter.config().scale(site).expect("what has values has a size");
            let root = (weight * scale).abs().sqrt();
            let is_less = weight * scale < 0.0 && matrix == LoraMatrix::A;
            weights.push(if is_less { -root } else { root } as f32);
            let mut values = std::mem::take(&mut pair[side]);
            match self.method {
                Method::MagnitudePrune(share) | Method::Ties(share, _) => {
                    prune::keep_largest(&mut values, share);
                }
                Method::DareLinear(share, draws) | Method::DareTies(share, draws, _) => {
                    let name = tensor_name(site, matrix);
                    prune::keep_drawn(&mut values, share, draws, index, &name);
                }
                Method::Linear | Method::Cat | Method::Svd(_) => {}
            }
            tensors.push(values);
        }
        match self.method {
            Method::Ties(_, sign) | Method::DareTies(_, _, sign) => {
                prune::elected(&tensors, &weights, sign)
            }
            _ => prune::weighted(&tensors, &weights),
        }
    }

    /// How far the updates of an adapter are from the sum of these ones, as a share of the sum: the length of the
    /// difference of all projections over the length of the sum.
    pub fn distance(&self, from: &PeftAdapter) -> f64 {
        let (mut off, mut whole) = (0.0, 0.0);
        for &site in self.shapes.keys() {
            let sum = self.sum_of(site);
            whole += sum.square();
            let other = match (from.values(site), from.config().scale(site)) {
                (Some([mut a, b]), Some(scale)) => {
                    for value in &mut a {
                        *value *= -scale as f32;
                    }
                    sum.beside(a, &b)
                }
                _ => sum,
            };
            off += other.square();
        }
        if whole > 0.0 { (off / whole).sqrt() } else { 0.0 }
    }

    /// The sum of the updates as an adapter of its own, to be asked beside a base.
    pub fn exact(&self) -> Exact<'_> {
        let count = |site: &Site| {
            let has = self.parents.iter().filter_map(|it| it.adapter.config().sites.get(site));
            has.map(|size| size.rank.get()).sum()
        };
        let sites = self.shapes.keys().map(|site| (*site, of_scale_one(count(site)))).collect();
        Exact { of: self, config: LoraConfig { sites, ..LoraConfig::default() } }
    }
}

/// The sum of the updates itself.
#[derive(Debug)]
pub struct Exact<'a> {
    of: &'a Combination<'a>,
    config: LoraConfig,
}

impl Exact<'_> {
    /// Its sizes.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }
}

impl Start for &Exact<'_> {
    fn begin(&mut self, site: Site, _rank: usize, weight: FrozenMatrix) -> Beginning {
        let [a, b] = self.of.sum_of(site).into_pair();
        Beginning { a, b, magnitude: None, weight }
    }
}

/// A rank with an alpha that makes the scale 1.
pub(crate) fn of_scale_one(rank: usize) -> Size {
    let rank = NonZeroUsize::new(rank).unwrap_or(NonZeroUsize::MIN);
    Size { rank: Rank(rank), alpha: rank.get() as f64 }
}

/// What about an adapter is no plain update.
fn unusable(Parent { adapter, weight }: &Parent<'_>) -> Vec<String> {
    let (file, mut problems) = (adapter.file(), Vec::new());
    if !weight.is_finite() || *weight == 0.0 {
        problems.push(format!("`{file}` has the weight {weight}: give a number other than 0"));
    }
    if adapter.config().dora {
        problems.push(format!(
            "`{file}` is DoRA, whose magnitudes are no update that could be added: fold it into one first, with \
             `graft export --for peft-portable --rank N --model BASE`"
        ));
    }
    if let Some(first) = adapter.holes().first() {
        problems.push(format!(
            "`{file}` holds no update of `{first}`, which its adapter_config.json chooses: half an adapter is another one; copy \
             or save it whole again"
        ));
    }
    problems.extend(adapter.config().tables.keys().map(|table| {
        format!(
            "`{file}` trains `{table}`, which is no update of a projection that could be added: merge it into the base"
        )
    }));
    problems
}
