//! An adapter in the plainest form that there is: one rank for all updates, alpha equal to it, no scale but 1, no
//! magnitudes. What other programs read of PEFT's files differs; this all of them do.
//!
//! Scales go into `B` and narrow updates are filled with zeros: nothing is lost. A rank below that of an update keeps the largest
//! singular values of it. Magnitudes (DoRA) are a change of the whole weight, `W' − W` with `W' = m ⊙ (W + ΔW) / ‖W + ΔW‖`, of
//! which the largest part is taken. Of the base one projection is in memory at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use graft_kernels::FrozenMatrix;
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::checkpoint::Checkpoint;
use graft_model::load::{Weights, left_to_quantise, quantise};
use graft_model::{LlamaConfig, ProjectionKind, Site, stop};
use rayon::prelude::*;

use crate::algebra::{Product, of_scale_one, truncated};
use crate::error::Error;
use crate::lora::{Beginning, LoraConfig, Rank, Start, add_update_row, largest_part, row_norm};
use crate::peft::{Made, Pair, PeftAdapter};

/// The weights that an adapter was trained beside.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    /// As they are stored.
    pub checkpoint: &'a Checkpoint,
    /// The model's configuration.
    pub config: &'a LlamaConfig,
    /// How NF4 kept their scales; `None` without NF4.
    pub nf4: Option<AbsmaxFormat>,
}

/// An adapter about to be written in its plainest form.
#[derive(Debug)]
pub struct Fold<'a> {
    adapter: &'a PeftAdapter,
    base: Base<'a>,
    rank: Rank,
    config: LoraConfig,
}

impl<'a> Fold<'a> {
    /// The adapter in the plainest form, of a rank or else of its largest one. Where `together` is told, every block
    /// with one of q, k and v has all three.
    ///
    /// # Errors
    /// The adapter is another model's; something is trained of its tables; it has magnitudes and no rank is told.
    pub fn of(
        adapter: &'a PeftAdapter,
        base: Base<'a>,
        rank: Option<Rank>,
        together: bool,
    ) -> Result<Self, Error> {
        adapter.check_model(base.config)?;
        let refused = |reason: String| Error::NoPlain { file: adapter.file().to_owned(), reason };
        if let Some((table, _)) = adapter.config().tables.first_key_value() {
            return Err(refused(format!(
                "it trains `{table}`, which no update of a projection can say: merge it into the base (`graft merge`)"
            )));
        }
        let lora = adapter.config();
        let largest = lora.sites.values().map(|size| size.rank).max();
        let rank = match (rank, largest) {
            (Some(rank), _) => rank,
            (None, Some(_)) if lora.dora => {
                return Err(refused(
                    "it is DoRA, which changes the whole weight: say of which rank the part is that is kept, with \
                     --rank N; what is lost is told"
                        .to_owned(),
                ));
            }
            (None, Some(largest)) => largest,
            (None, None) => return Err(refused("it holds no update".to_owned())),
        };
        let mut sites: BTreeSet<Site> = lora.sites.keys().copied().collect();
        if together {
            let kinds = [ProjectionKind::Q, ProjectionKind::K, ProjectionKind::V];
            let any = sites.iter().filter(|site| kinds.contains(&site.kind)).map(|site| site.layer);
            let blocks: Vec<usize> = any.collect();
            let all = |layer| kinds.map(|kind| Site { layer, kind });
            sites.extend(blocks.into_iter().flat_map(all));
        }
        let sites = sites.into_iter().map(|site| (site, of_scale_one(rank.get()))).collect();
        let config = LoraConfig { dropout: lora.dropout, sites, ..LoraConfig::default() };
        Ok(Self { adapter, base, rank, config })
    }

    /// Whether something may be lost: of magnitudes, and of updates that are wider than the rank.
    pub fn loses(&self) -> bool {
        let lora = self.adapter.config();
        lora.dora || lora.sites.values().any(|size| size.rank > self.rank)
    }

    /// What is written.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The matrices; `progress` is told the projections done and those in all.
    ///
    /// # Errors
    /// Those of the base's weights; the process was asked to stop.
    pub fn made(self, progress: &mut dyn FnMut(u64, u64)) -> Result<Folded, Error> {
        let total = self.config.sites.len() as u64;
        let mut pairs = BTreeMap::new();
        for &site in self.config.sites.keys() {
            stop::check().map_err(graft_model::Error::from)?;
            pairs.insert(site, self.pair(site)?);
            progress(pairs.len() as u64, total);
        }
        let base = self.adapter.base().unwrap_or_default().to_owned();
        Ok(Folded { config: self.config, base, layers: self.base.config.layers, pairs })
    }

    /// `A` and `B` of a projection as they are written.
    fn pair(&self, site: Site) -> Result<Pair, Error> {
        let (shape, rank) = (site.weight_shape(self.base.config), self.rank.get());
        let [rows, columns] = shape;
        let (Some([a, mut b]), Some(scale)) =
            (self.adapter.values(site), self.adapter.config().scale(site))
        else {
            return Ok([vec![0.0; rank * columns], vec![0.0; rows * rank]]);
        };
        for value in &mut b {
            *value *= scale as f32;
        }
        if let Some(magnitude) = self.adapter.magnitude(site) {
            let change = change(&self.weight(site)?, &a, &b, &magnitude);
            return Ok(largest_part(FrozenMatrix::from_f32(rows, columns, &change), rank));
        }
        let own = a.len() / columns;
        if own > rank {
            return Ok(truncated(&Product::of(a, b, shape), shape, rank));
        }
        Ok(filled(a, &b, [rows, columns], [own, rank]))
    }

    /// The weight that the update was trained beside.
    fn weight(&self, site: Site) -> Result<FrozenMatrix, Error> {
        let Base { checkpoint, config, nf4 } = self.base;
        let name = site.checkpoint_name();
        let weight = checkpoint.matrix(&name, site.weight_shape(config))?;
        Ok(match left_to_quantise(config, nf4) {
            Some(scales) => quantise(&name, weight, scales)?,
            None => weight,
        })
    }
}

/// An adapter in its plainest form.
#[derive(Debug)]
pub struct Folded {
    config: LoraConfig,
    base: String,
    layers: usize,
    pairs: BTreeMap<Site, Pair>,
}

impl Folded {
    /// Its sizes.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// `A` and `B` of a projection; `None` where it has no update.
    pub fn pair(&self, site: Site) -> Option<&Pair> {
        self.pairs.get(&site)
    }

    /// Writes it in PEFT's files, into a folder that is not there yet, whole or not at all. `check` is given the folder
    /// before it takes its place, and keeps it from there with an error.
    ///
    /// # Errors
    /// Those of the disk and of `check`; a value is not finite.
    pub fn write<E: From<Error> + From<std::io::Error>>(
        &self,
        out: &Path,
        metadata: BTreeMap<String, String>,
        check: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let pair = |site| &self.pairs[&site];
        let of_rank = |values: &[f32], rank: usize| values.len() / rank.max(1);
        let made = Made {
            config: &self.config,
            layers: self.layers,
            base: &self.base,
            metadata,
            shape: &|site| {
                let ([a, b], rank) = (pair(site), self.config.sites[&site].rank.get());
                [of_rank(b, rank), of_rank(a, rank)]
            },
            pair: &|site| Ok(pair(site).clone()),
        };
        made.create(out, &mut |_, _| (), check)
    }
}

impl Start for &Folded {
    fn begin(&mut self, site: Site, _rank: usize, weight: FrozenMatrix) -> Beginning {
        let [a, b] = self.pairs[&site].clone();
        Beginning { a, b, magnitude: None, weight }
    }
}

/// An update of rank `own` as one of a larger `rank`, with zeros.
fn filled(
    mut a: Vec<f32>,
    b: &[f32],
    [rows, columns]: [usize; 2],
    [own, rank]: [usize; 2],
) -> Pair {
    a.resize(rank * columns, 0.0);
    let mut wide = vec![0.0; rows * rank];
    for (wide, row) in wide.chunks_exact_mut(rank).zip(b.chunks_exact(own)) {
        wide[..own].copy_from_slice(row);
    }
    [a, wide]
}

/// `W' − W` `[out, in]`, `W' = m ⊙ (W + B·A) / ‖W + B·A‖`.
fn change(weight: &FrozenMatrix, a: &[f32], b: &[f32], magnitude: &[f32]) -> Vec<f32> {
    let [rows, columns] = weight.shape();
    let rank = a.len() / columns;
    let mut change = vec![0.0; rows * columns];
    change.par_chunks_exact_mut(columns).enumerate().for_each_init(
        || (vec![0.0; columns], vec![0.0; columns]),
        |(own, sum), (row, change)| {
            weight.decode(row, 0, own);
            sum.fill(0.0);
            add_update_row(&b[row * rank..][..rank], a, sum);
            for (sum, own) in sum.iter_mut().zip(own.iter()) {
                *sum += own;
            }
            let factor = magnitude[row] / row_norm(sum);
            for ((change, sum), own) in change.iter_mut().zip(sum.iter()).zip(own.iter()) {
                *change = factor * sum - own;
            }
        },
    );
    change
}
