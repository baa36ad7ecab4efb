//! Which tensors a model has, and how a checkpoint differs from that.

use std::collections::BTreeSet;
use std::fmt;

use safetensors::Dtype;

use super::{Checkpoint, Nf4Tensor};
use crate::config::LlamaConfig;
use crate::error::Error;
use crate::site::{self, Site};

/// A tensor that a model has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Name in a checkpoint.
    pub name: String,
    /// Shape when dense; matrices are `[out, in]`.
    pub shape: Vec<usize>,
    /// Set for a projection: these alone may be quantised.
    pub site: Option<Site>,
}

/// Every tensor of the dense model: the embedding, both norms of every block, the projections of every block, the
/// last norm, and a head that is no embedding.
pub fn expected(config: &LlamaConfig) -> Vec<Expected> {
    let plain = |name: String, shape: Vec<usize>| Expected { name, shape, site: None };
    let table = vec![config.vocab_size, config.d_model];
    let scale = vec![config.d_model];
    let mut tensors = vec![plain(site::EMBED_TOKENS.to_owned(), table.clone())];
    for layer in 0..config.layers {
        tensors.push(plain(site::input_layernorm(layer), scale.clone()));
        tensors.push(plain(site::post_attention_layernorm(layer), scale.clone()));
    }
    tensors.extend(Site::all(config).map(|site| Expected {
        name: site.checkpoint_name(),
        shape: site.weight_shape(config).to_vec(),
        site: Some(site),
    }));
    tensors.push(plain(site::NORM.to_owned(), scale));
    if !config.tied {
        tensors.push(plain(site::LM_HEAD.to_owned(), table));
    }
    tensors
}

/// One way in which a checkpoint's tensors are not those of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TensorProblem {
    /// The model needs it, the files lack it.
    Missing {
        /// The tensor.
        name: String,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// The files have it, the model does not.
    Extra {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: Dtype,
        /// Its shape.
        found: Vec<usize>,
    },
    /// It has another shape.
    Shape {
        /// The tensor.
        name: String,
        /// Its shape in the files.
        found: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// Its numbers are of a type that Graft does not read as a weight.
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        found: Dtype,
    },
    /// A tied model's head that is not its embedding: it would be ignored.
    OtherHead {
        /// The head.
        name: String,
        /// Place of the first byte that differs.
        byte: usize,
    },
    /// It is quantised, and config.json does not say so: other tools would misread the folder.
    Unannounced {
        /// The tensor.
        name: String,
    },
}

impl fmt::Display for TensorProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name, expected } => {
                write!(formatter, "`{name}` is missing; the model needs it as {expected:?}")
            }
            Self::Extra { name, dtype, found } => {
                write!(formatter, "`{name}` ({dtype} {found:?}) is not of this model")
            }
            Self::Shape { name, found, expected } => {
                write!(formatter, "`{name}` is {found:?}, but the model needs {expected:?}")
            }
            Self::Type { name, found } => {
                write!(formatter, "`{name}` holds {found}, but must hold F32, F16 or BF16")
            }
            Self::OtherHead { name, byte } => write!(
                formatter,
                "`{name}` differs from `{}` from byte {byte} on, but config.json says that the \
                 embedding is the head: set tie_word_embeddings to false there, or leave the \
                 tensor out of the files",
                site::EMBED_TOKENS
            ),
            Self::Unannounced { name } => write!(
                formatter,
                "`{name}` is stored in NF4, but config.json has no quantization_config"
            ),
        }
    }
}

impl Checkpoint {
    /// Checks that the tensors are those of the model, quantised projections included.
    ///
    /// Left alone: `rotary_emb.inv_freq` buffers of old files, and in a tied model a copy of the
    /// embedding under the head's name. Such a copy is read whole; of all else headers are.
    ///
    /// # Errors
    /// [`Error::Tensors`] with every difference at once; [`Error::Nf4`] for an unreadable one.
    pub fn verify(&self, config: &LlamaConfig) -> Result<(), Error> {
        let other_head = self.other_head(config);
        self.scattered(|| self.compare(config, other_head))
    }

    fn compare(
        &self,
        config: &LlamaConfig,
        other_head: Option<TensorProblem>,
    ) -> Result<(), Error> {
        let mut problems: Vec<TensorProblem> = other_head.into_iter().collect();
        let mut known = BTreeSet::new();
        for Expected { name, shape: expected, site } in expected(config) {
            let quantised = if site.is_some() { self.nf4(&name)? } else { None };
            if let Some(nf4) = quantised {
                known.extend(Nf4Tensor::companions(&name));
                if nf4.shape.as_slice() != expected {
                    let found = nf4.shape.to_vec();
                    problems.push(TensorProblem::Shape { name: name.clone(), found, expected });
                }
                if config.quantization.is_none() {
                    problems.push(TensorProblem::Unannounced { name: name.clone() });
                }
            } else {
                problems.extend(self.dense_problem(&name, expected));
            }
            known.insert(name);
        }
        let copied_head = self.copied_head(config);
        for (name, entry) in &self.tensors {
            let tolerated =
                name.ends_with("rotary_emb.inv_freq") || (copied_head && name == site::LM_HEAD);
            if !known.contains(name) && !tolerated {
                let (name, found) = (name.clone(), entry.shape.clone());
                problems.push(TensorProblem::Extra { name, dtype: entry.dtype, found });
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::Tensors { folder: self.folder.clone(), problems })
    }

    fn dense_problem(&self, name: &str, expected: Vec<usize>) -> Option<TensorProblem> {
        let name = name.to_owned();
        let Some(entry) = self.tensors.get(&name) else {
            return Some(TensorProblem::Missing { name, expected });
        };
        if !matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Some(TensorProblem::Type { name, found: entry.dtype });
        }
        if entry.shape != expected {
            return Some(TensorProblem::Shape { name, found: entry.shape.clone(), expected });
        }
        None
    }

    /// A tied model's head, where stored, must be the embedding, to the last row: heads are often
    /// trained for a few new tokens only.
    fn other_head(&self, config: &LlamaConfig) -> Option<TensorProblem> {
        if !self.copied_head(config) {
            return None;
        }
        let [head, table] =
            [site::LM_HEAD, site::EMBED_TOKENS].map(|name| &self.tensors[name].bytes);
        // A comparison of slices is quick; the place is looked for where there is one.
        let differs = head != table;
        let byte = differs.then(|| head.iter().zip(table).position(|(a, b)| a != b));
        self.release(site::LM_HEAD);
        self.release(site::EMBED_TOKENS);
        let name = site::LM_HEAD.to_owned();
        byte.flatten().map(|byte| TensorProblem::OtherHead { name, byte })
    }

    /// Whether a tied model's files hold a head that can be its embedding.
    fn copied_head(&self, config: &LlamaConfig) -> bool {
        let head = self.tensors.get(site::LM_HEAD);
        let table = self.tensors.get(site::EMBED_TOKENS);
        let (Some(head), Some(table)) = (head, table) else { return false };
        config.tied && head.dtype == table.dtype && head.shape == table.shape
    }
}
