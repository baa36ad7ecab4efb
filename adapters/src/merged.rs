//! Base and adapter as one model, tensor by tensor: `W' = W + scale · B·A`, Hu et al. 2021, section 4.1; with
//! magnitudes, each row of it in its length.
//!
//! An adapter that was trained over NF4 weights has learnt to correct *those*: merged onto the
//! original weights it gives another model than the one that was trained. [`Onto`] says which `W` is
//! meant. The sum is computed in f32; whoever writes it rounds it. A table that the adapter brings whole takes
//! the place of the base's. Every export of base and adapter reads this; one of a folder that is a model by itself
//! reads its [`Checkpoint`], and through [`Weights`] what may be in NF4.

use std::collections::BTreeMap;

use graft_kernels::FrozenMatrix;
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::checkpoint::{Checkpoint, Dtype, Expected, TensorSpec, TensorView, expected};
use graft_model::config::FloatType;
use graft_model::folder::ModelFolder;
use graft_model::load::{Weights, left_to_quantise, quantise};
use graft_model::pages::Mapped;
use graft_model::{LlamaConfig, Site};

use crate::error::Error;
use crate::lora::{TableMethod, TableName, add_update_row, row_norm};
use crate::peft::names::TableTensor;
use crate::peft::{PeftAdapter, WithTables};

/// Which weights the update is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// What the model computed with in training over NF4: every projection, adapted or not, is
    /// quantised and decoded again. Of a folder that is in NF4 they are decoded as they are.
    Dequantised {
        /// How NF4 keeps the scales of projections that are stored dense.
        scales: AbsmaxFormat,
    },
    /// The weights as stored, which must not be in NF4.
    Original,
}

/// What to merge.
#[derive(Clone, Copy, Debug)]
pub struct Merge<'a> {
    /// The base's folder.
    pub base: &'a ModelFolder,
    /// Its configuration.
    pub config: &'a LlamaConfig,
    /// The adapter.
    pub adapter: &'a PeftAdapter,
    /// Which weights of the base are meant.
    pub onto: Onto,
    /// What the merged model says of the adapter's training.
    pub told: &'a BTreeMap<String, String>,
}

/// The tensors of base and adapter together.
#[derive(Debug)]
pub struct MergedWeights<'a> {
    merge: &'a Merge<'a>,
    checkpoint: &'a Checkpoint,
    /// The base's, with the adapter's tables in the place of its own.
    weights: WithTables<'a, Checkpoint>,
    config: LlamaConfig,
}

/// A tensor of a merged model.
pub enum MergedTensor {
    /// The base's, bit for bit.
    Stored(TensorView),
    /// A matrix that is computed.
    Sum(Sum),
}

/// A matrix `[out, in]` with what is trained of it, where anything is.
pub struct Sum {
    weight: FrozenMatrix,
    change: Option<Change>,
}

impl Sum {
    /// `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        self.weight.shape()
    }

    /// Row `row` in f32; `room` is as long as a row, and holds nothing afterwards. Rows do not depend on each
    /// other.
    pub fn row(&self, row: usize, values: &mut [f32], room: &mut [f32]) {
        self.weight.decode(row, 0, values);
        if let Some(change) = &self.change {
            change.apply(row, values, room);
        }
    }
}

impl<'a> MergedWeights<'a> {
    /// The tensors of `merge`, whose base is `checkpoint`.
    ///
    /// # Errors
    /// Base, configuration and adapter do not belong together; the base is in NF4, and [`Onto::Original`] is asked
    /// for.
    pub fn of(merge: &'a Merge<'a>, checkpoint: &'a Checkpoint) -> Result<Self, Error> {
        checkpoint.verify(merge.config)?;
        merge.adapter.check_model(merge.config)?;
        let weights = merge.adapter.weights(checkpoint, merge.config);
        let config = merge.adapter.model_config(merge.config);
        if merge.onto == Onto::Original {
            for site in Site::all(merge.config) {
                let tensor = site.checkpoint_name();
                if checkpoint.nf4(&tensor)?.is_some() {
                    return Err(Error::NoOriginal { base: merge.base.display(), tensor });
                }
            }
        }
        Ok(Self { merge, checkpoint, weights, config })
    }

    /// The configuration of the merged model.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Name, type and shape of every tensor, in the order of [`expected`]: the types are the base's, or those that
    /// it had before it was quantised.
    ///
    /// # Errors
    /// The base lacks one.
    pub fn specs(&self) -> Result<Vec<TensorSpec>, Error> {
        expected(&self.config).iter().map(|tensor| self.spec(tensor)).collect()
    }

    fn spec(&self, tensor: &Expected) -> Result<TensorSpec, Error> {
        let Expected { name, shape, site } = tensor.clone();
        let nf4 = if site.is_some() { self.checkpoint.nf4(&name)? } else { None };
        if let Some(nf4) = nf4 {
            let dtype = match nf4.dtype {
                FloatType::F32 => Dtype::F32,
                FloatType::F16 => Dtype::F16,
                FloatType::Bf16 => Dtype::BF16,
            };
            return Ok(TensorSpec { name, dtype, shape });
        }
        let stored = self.checkpoint.spec(self.weights.base_name(&name));
        let missing = || graft_model::Error::NoTensor { tensor: name.clone() };
        let dtype = stored.ok_or_else(missing)?.dtype;
        Ok(TensorSpec { name, dtype, shape })
    }

    /// The base's tensor that stands for this one.
    fn stored(&self, name: &str) -> Result<TensorView, Error> {
        let name = self.weights.base_name(name);
        let missing = || graft_model::Error::NoTensor { tensor: name.to_owned() };
        Ok(self.checkpoint.tensor(name).ok_or_else(missing)?)
    }

    /// How many weights are not the base's, bit for bit.
    pub fn changed(&self) -> usize {
        let projections = match self.merge.onto {
            Onto::Dequantised { .. } => Site::all(self.merge.config).count(),
            Onto::Original => self.merge.adapter.config().sites.len(),
        };
        projections + self.merge.adapter.config().tables.len()
    }

    /// The name of the base's tensor that the tensor of this name is, bit for bit; `None` for one that is computed.
    pub fn kept<'n>(&self, name: &'n str) -> Option<&'n str> {
        let Merge { adapter, onto, .. } = *self.merge;
        let changed = match Site::from_checkpoint_name(name) {
            Some(site) => onto != Onto::Original || adapter.config().sites.contains_key(&site),
            None => self.table_of(name).is_some(),
        };
        (!changed).then(|| self.weights.base_name(name))
    }

    /// The table of this name, where anything of it is trained.
    fn table_of(&self, name: &str) -> Option<TableName> {
        let table = TableName::from_checkpoint_name(name)?;
        self.merge.adapter.config().tables.contains_key(&table).then_some(table)
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// The base has none of this name; it cannot be quantised.
    pub fn tensor(&self, name: &str) -> Result<MergedTensor, Error> {
        let Merge { config, adapter, onto, .. } = *self.merge;
        let site = Site::from_checkpoint_name(name);
        let table = self.table_of(name);
        let change = match site {
            Some(site) => Change::of_site(adapter, site),
            None => table.and_then(|table| Change::of_table(adapter, table)),
        };
        let weight = match (site, onto) {
            (Some(site), Onto::Dequantised { scales }) => {
                let weight = self.weights.matrix(name, site.weight_shape(config))?;
                match left_to_quantise(config, Some(scales)) {
                    Some(scales) => quantise(name, weight, scales)?,
                    None => weight,
                }
            }
            (Some(site), Onto::Original) if change.is_some() => {
                self.weights.matrix(name, site.weight_shape(config))?
            }
            (None, _) if table.is_some() => {
                self.weights.matrix(name, [config.vocab_size, config.d_model])?
            }
            _ => return Ok(MergedTensor::Stored(self.stored(name)?)),
        };
        Ok(MergedTensor::Sum(Sum { weight, change }))
    }

    /// The mapped pages of a tensor of the base.
    pub fn pages(&self, name: &str) -> Vec<Mapped> {
        self.checkpoint.pages(name)
    }

    /// Hands the pages back that the tensor of this name was read from.
    pub fn release(&self, name: &str) {
        self.checkpoint.release(self.weights.base_name(name));
    }
}

/// What is trained of a matrix.
#[derive(Debug)]
pub(crate) enum Change {
    /// A product is added to it.
    Update(Update),
    /// Some of its rows are others, by their numbers.
    Rows(BTreeMap<usize, Vec<f32>>),
}

impl Change {
    pub(crate) fn of_site(adapter: &PeftAdapter, site: Site) -> Option<Self> {
        let [a, b] = adapter.values(site)?;
        let config = adapter.config();
        let size = *config.sites.get(&site)?;
        let (rank, scale) = (size.rank.get(), config.scaling.factor(size) as f32);
        Some(Self::Update(Update { a, b, rank, scale, magnitude: adapter.magnitude(site) }))
    }

    /// `None` where it is brought whole, or nothing is trained of it.
    pub(crate) fn of_table(adapter: &PeftAdapter, table: TableName) -> Option<Self> {
        let config = adapter.config();
        let values = |tensor| adapter.table_values(table, tensor);
        match config.tables.get(&table)? {
            TableMethod::Whole => None,
            TableMethod::LowRank(size) => {
                let (a, b) = (values(TableTensor::Narrow)?, values(TableTensor::Wide)?);
                let (rank, scale) = (size.rank.get(), config.scaling.factor(*size) as f32);
                Some(Self::Update(Update { a, b, rank, scale, magnitude: None }))
            }
            TableMethod::Rows(ids) => {
                let rows = values(TableTensor::Rows)?;
                let width = rows.len() / ids.len().max(1);
                let rows = ids.iter().zip(rows.chunks_exact(width.max(1)));
                Some(Self::Rows(rows.map(|(&id, row)| (id as usize, row.to_vec())).collect()))
            }
        }
    }

    /// Row `row` of the matrix becomes that of the sum; `room` is as long, and holds nothing afterwards.
    pub(crate) fn apply(&self, row: usize, values: &mut [f32], room: &mut [f32]) {
        match self {
            Self::Update(update) => update.apply(row, values, room),
            Self::Rows(rows) => {
                if let Some(own) = rows.get(&row) {
                    values.copy_from_slice(own);
                }
            }
        }
    }
}

/// The two matrices of an update and their factor.
#[derive(Debug)]
pub(crate) struct Update {
    a: Vec<f32>,
    b: Vec<f32>,
    rank: usize,
    scale: f32,
    magnitude: Option<Vec<f32>>,
}

impl Update {
    fn apply(&self, row: usize, values: &mut [f32], room: &mut [f32]) {
        self.add(row, values, room);
        if let Some(magnitude) = &self.magnitude {
            let factor = magnitude[row] / row_norm(values);
            for value in values {
                *value *= factor;
            }
        }
    }

    /// Adds row `row` of `scale · B·A` to `sum`; `delta` is room for it.
    fn add(&self, row: usize, sum: &mut [f32], delta: &mut [f32]) {
        delta.fill(0.0);
        add_update_row(&self.b[row * self.rank..(row + 1) * self.rank], &self.a, delta);
        for (sum, delta) in sum.iter_mut().zip(delta) {
            let delta = self.scale * *delta;
            // Adding a zero would turn a weight of -0 into +0.
            *sum = if delta == 0.0 { *sum } else { *sum + delta };
        }
    }
}
