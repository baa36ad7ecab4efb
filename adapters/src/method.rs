//! A training method: what it makes of a model's projections, which tensors it trains, what it takes, and how
//! what was learnt is written.
//!
//! A method is two things. Its [`Trainable`] projection computes; a factory makes a model of it. Its [`Method`]
//! is a value that everything else asks: the plan of a run what it takes, the manifest what it is called, the
//! end of a run to write what was learnt. Nobody else tells methods apart: a new one is a file beside `lora.rs`,
//! and an entry in [`AnyMethod`].

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use graft_kernels::{Kernels, Precision};
use graft_model::folder::ModelFolder;
use graft_model::{LlamaConfig, Projection, Seat, Site};

use crate::error::Error;
use crate::full::Full;
use crate::lora::{Began, LoraConfig};

/// A projection that can be trained; a plain one cannot.
pub trait Trainable<B: Kernels>: Projection<B> {
    /// Whether the dense tensors at this seat are trained.
    fn trains(seat: Seat) -> bool;
}

/// What a run learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learns {
    /// Something beside a base whose weights stay as they are.
    Adapter,
    /// A model in the place of the base.
    Model,
}

/// A tensor that a method trains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainedTensor {
    /// Where it stands.
    pub seat: Seat,
    /// Its sizes.
    pub shape: Vec<usize>,
}

impl TrainedTensor {
    /// Number of its values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a projection takes of a token, in bytes, beyond a frozen one, of which all is 0. What burn's tape keeps is what
/// the way back of an op reads: of a product each factor whose other one has a gradient, of a cast nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenBytes {
    /// Whether its gradient reads its input, so that this is kept.
    pub reads_input: bool,
    /// What goes through [`graft_model::Pass::beside`].
    pub beside: usize,
    /// Whether it says [`graft_model::OwnOutput::Read`], so that its product is kept wherever products are.
    pub reads_product: bool,
    /// What its own ops keep on a whole tape (`block`, `none`). Of q, k, v, gate and up the values that it gives
    /// are counted already; of o and down its product, where that is read, is not.
    pub tape: usize,
    /// What its own ops keep on a tape of which the products were kept (`selective`), without these: also the
    /// values that it gives, where they are others than the product.
    pub beside_products: usize,
    /// The most that its ops have for a moment besides, on the way there or back, gradients included.
    pub moment: usize,
}

/// What a run has learnt, to be written.
pub struct Learnt<'a> {
    /// The base's folder.
    pub base: &'a ModelFolder,
    /// The base's configuration.
    pub config: &'a LlamaConfig,
    /// Name and shape of each trained tensor.
    pub tensors: &'a [(String, Vec<usize>)],
    /// The values of the tensor of a name, row-major.
    pub values: &'a dyn Fn(&str) -> Vec<f32>,
    /// What adapters began as that are parts of the base's weights, which keep the rest; else nothing.
    pub began: &'a Began,
    /// What the files say of it beside the values.
    pub metadata: BTreeMap<String, String>,
}

/// A training method with its sizes.
pub trait Method: Debug {
    /// What recipes call it.
    fn name(&self) -> &'static str;

    /// What it does to the model, in a phrase: `lora of rank 16 on 210 projections`.
    fn phrase(&self) -> String;

    /// What is there when it is done.
    fn learns(&self) -> Learns;

    /// Whether what is written can be added to the base's weights: an adapter in PEFT's files can
    /// ([`crate::PeftAdapter`] reads it). Where it cannot, `finish.merge` is refused.
    fn merges(&self) -> bool;

    /// The configuration of a model with what it trains, beside that of the base.
    fn model_config(&self, base: &LlamaConfig) -> LlamaConfig {
        base.clone()
    }

    /// The tensors that it trains in a model, in the order in which they are visited.
    fn trained(&self, model: &LlamaConfig) -> Vec<TrainedTensor>;

    /// What this projection takes of a token.
    fn token_bytes(&self, site: Site, model: &LlamaConfig, precision: Precision) -> TokenBytes;

    /// Whether the frozen weights of what it trains are others than the base's, because a part of them is in what is
    /// trained. What it began as is then kept in memory, as large as the matrices that are trained.
    fn takes_from_weights(&self) -> bool {
        false
    }

    /// Whether its update of this projection leaves out values of the input by chance.
    fn drops(&self, site: Site) -> bool;

    /// Its size as `adapter.rank`, where one number is the size of all updates.
    fn rank(&self) -> Option<usize> {
        None
    }

    /// It in this `adapter.rank`, which takes less memory than a larger one.
    fn of_rank(&self, rank: usize) -> Option<Arc<dyn Method>> {
        let _ = rank;
        None
    }

    /// A recipe's keys that take much less memory than the method does, and what they do.
    fn way_out(&self) -> Option<&'static str> {
        None
    }

    /// Writes what was learnt into the folder `out`, whole or not at all: an adapter in the place of one that a
    /// run wrote there before (`graft_files::atomic::replace_folder`), a model where nothing is.
    ///
    /// # Errors
    /// `out` cannot be written; a value is not finite in the type that is written.
    fn write(&self, out: &Path, learnt: &Learnt<'_>) -> Result<(), Error>;
}

/// The table of all methods.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyMethod {
    /// Low-rank updates beside frozen weights.
    Lora(LoraConfig),
    /// Every weight.
    Full(Full),
}

impl Deref for AnyMethod {
    type Target = dyn Method;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Lora(method) => method,
            Self::Full(method) => method,
        }
    }
}

impl From<AnyMethod> for Arc<dyn Method> {
    fn from(method: AnyMethod) -> Self {
        match method {
            AnyMethod::Lora(method) => Arc::new(method),
            AnyMethod::Full(method) => Arc::new(method),
        }
    }
}
