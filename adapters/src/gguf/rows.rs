//! The rows of a tensor of a model, with or without an adapter, one at a time.

use graft_kernels::FrozenMatrix;
use graft_model::checkpoint::Checkpoint;
use graft_model::load::Weights;
use graft_model::{LlamaConfig, Site};

use crate::error::Error;
use crate::merged::{MergedTensor, MergedWeights, Sum};

/// Where the rows of a tensor come from.
pub(super) enum Rows<'a> {
    /// Base and adapter together.
    Sum(Sum),
    /// A matrix in NF4.
    Matrix(FrozenMatrix),
    /// As the base holds it.
    Stored { checkpoint: &'a Checkpoint, name: String },
}

impl<'a> Rows<'a> {
    /// Those of the tensor of this name in a checkpoint.
    pub(super) fn of(
        name: &str,
        config: &LlamaConfig,
        checkpoint: &'a Checkpoint,
        merged: Option<&MergedWeights<'_>>,
    ) -> Result<Self, Error> {
        let kept = match merged {
            None => name,
            Some(merged) => match merged.kept(name) {
                Some(kept) => kept,
                None => match merged.tensor(name)? {
                    MergedTensor::Sum(sum) => return Ok(Self::Sum(sum)),
                    MergedTensor::Stored(view) => return Self::stored(checkpoint, &view.name),
                },
            },
        };
        match Site::from_checkpoint_name(kept) {
            Some(site) if checkpoint.nf4(kept)?.is_some() => {
                Ok(Self::Matrix(checkpoint.matrix(kept, site.weight_shape(config))?))
            }
            _ => Self::stored(checkpoint, kept),
        }
    }

    fn stored(checkpoint: &'a Checkpoint, name: &str) -> Result<Self, Error> {
        let missing = || graft_model::Error::NoTensor { tensor: name.to_owned() };
        checkpoint.spec(name).ok_or_else(missing)?;
        Ok(Self::Stored { checkpoint, name: name.to_owned() })
    }

    /// The base's tensor that this is, where it is one.
    pub(super) fn stored_name(&self) -> Option<&str> {
        match self {
            Self::Stored { name, .. } => Some(name),
            Self::Sum(_) | Self::Matrix(_) => None,
        }
    }

    /// Row `row` in f32; `room` is as long as a row, and holds nothing afterwards.
    pub(super) fn row(&self, row: usize, values: &mut [f32], room: &mut [f32]) {
        match self {
            Self::Sum(sum) => sum.row(row, values, room),
            Self::Matrix(matrix) => matrix.decode(row, 0, values),
            Self::Stored { checkpoint, name } => {
                let row = checkpoint.band(name, [row + 1, values.len()], row..row + 1);
                row.expect("`verify` lets float tensors through only").decode(0, 0, values);
            }
        }
    }
}
