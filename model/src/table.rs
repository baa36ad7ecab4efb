//! The two tables of a model, embedding and output head: rows of a matrix, or products with it.
//!
//! No tape runs over a table: what is trained of one gives its gradients by hand, see [`TableGradient`].

mod own_rows;
mod update;

use std::ops::Range;

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Int, Tensor, TensorData, TensorPrimitive};
use graft_kernels::{FrozenMatrix, Kernels, Precision, Rounding};

pub use self::own_rows::OwnRows;
pub use self::update::TableUpdate;
use crate::param::Param;
use crate::seat::Seat;

/// Values of a band of a table: 32 MiB of bf16.
pub const BAND: usize = 1 << 24;

/// Values of a band of a table of which something is trained: logits of one are there more than once.
pub const NARROW_BAND: usize = BAND / 8;

/// The bands of rows that a `[vocab, d_model]` table is read in.
pub fn bands(shape: [usize; 2]) -> Vec<Range<usize>> {
    bands_of(shape, BAND)
}

fn bands_of([vocab, d_model]: [usize; 2], values: usize) -> Vec<Range<usize>> {
    let rows = (values / d_model).max(1);
    (0..vocab).step_by(rows).map(|first| first..vocab.min(first + rows)).collect()
}

/// A `[vocab, d_model]` matrix, frozen or trained.
#[derive(Clone, Debug)]
pub enum Table<B: Kernels> {
    /// Read only.
    Frozen(B::Frozen),
    /// Dense and trainable.
    Dense(Param<B>),
    /// A frozen one with a low-rank update beside it.
    Updated(B::Frozen, TableUpdate<B>),
    /// A frozen one, some of whose rows are trained.
    WithRows(B::Frozen, OwnRows<B>),
}

/// A gradient of what is trained of a table.
#[derive(Debug)]
pub struct TableGradient<'t, B: Kernels> {
    /// The tensor's name.
    pub name: &'t str,
    /// The rows of the tensor that `values` are gradients of, one each, an id perhaps more than once; `None` where
    /// they are all of it.
    pub rows: Option<Vec<u32>>,
    /// The gradient.
    pub values: FloatTensor<B>,
}

impl<B: Kernels> Table<B> {
    /// A frozen table.
    pub fn frozen(matrix: FrozenMatrix, device: &B::Device) -> Self {
        Self::Frozen(B::freeze(matrix, device))
    }

    /// A trainable table at `seat` with the values of `matrix`.
    pub fn dense(seat: Seat, matrix: &FrozenMatrix, device: &B::Device) -> Self {
        let name = seat.checkpoint_name();
        Self::Dense(Param::new(name, seat, matrix.to_f32(), &matrix.shape(), device))
    }

    /// Rows `ids`: `[ids, d_model]`.
    pub fn rows(&self, ids: &[u32], device: &B::Device) -> FloatTensor<B> {
        match self {
            Self::Frozen(weight) => B::frozen_rows(weight, ids, device),
            Self::Dense(param) => selected::<B>(param.tensor(), 0, ids),
            Self::Updated(weight, update) => {
                B::add(update.rows(ids), &B::frozen_rows(weight, ids, device))
            }
            Self::WithRows(weight, own) => own.in_rows(B::frozen_rows(weight, ids, device), ids),
        }
    }

    /// The gradients of what is trained, where `dy` is that of [`Table::rows`].
    pub fn rows_gradients(&self, ids: &[u32], dy: FloatTensor<B>) -> Vec<TableGradient<'_, B>> {
        match self {
            Self::Frozen(_) => Vec::new(),
            Self::Dense(param) => {
                let rows = Some(ids.to_vec());
                vec![TableGradient { name: param.name(), rows, values: dy }]
            }
            Self::Updated(_, update) => update.rows_gradients(ids, &dy),
            Self::WithRows(_, own) => own.rows_gradient(ids, &dy).into_iter().collect(),
        }
    }

    /// `x·Wᵀ`: `[rows, d_model]` → `[rows, vocab]`.
    pub fn logits(&self, x: &FloatTensor<B>, precision: Precision) -> FloatTensor<B> {
        match self {
            Self::Dense(param) => B::dense_linear(x, param.tensor(), precision, Rounding::Exact),
            Self::Frozen(weight) | Self::Updated(weight, _) | Self::WithRows(weight, _) => {
                let logits = B::frozen_linear(x, weight, precision, Rounding::Exact);
                self.beside(logits, x, precision)
            }
        }
    }

    /// Logits of the frozen part become those of the table.
    fn beside(
        &self,
        logits: FloatTensor<B>,
        x: &FloatTensor<B>,
        precision: Precision,
    ) -> FloatTensor<B> {
        match self {
            Self::Frozen(_) | Self::Dense(_) => logits,
            Self::Updated(_, update) => B::add(update.logits(x), &logits),
            Self::WithRows(_, own) => own.in_logits(logits, x, precision),
        }
    }

    /// `x·Wᵀ` for the next token of a few sequences: `[sequences, d_model]` → `[sequences, vocab]`. The sums may
    /// run in another order than those of [`Table::logits`].
    pub fn next_logits(&self, x: &FloatTensor<B>, precision: Precision) -> FloatTensor<B> {
        match self {
            Self::Dense(_) => self.logits(x, precision),
            Self::Frozen(weight) | Self::Updated(weight, _) | Self::WithRows(weight, _) => {
                self.beside(B::frozen_linear_decode(x, weight, precision), x, precision)
            }
        }
    }

    /// The table in bands of rows: what a product with one of them packs and touches stays small. Each with
    /// its first row.
    pub fn bands(&self) -> Vec<(usize, Self)> {
        let Some(weight) = self.weight() else { return vec![(0, self.clone())] };
        let values = if let Self::Frozen(_) = self { BAND } else { NARROW_BAND };
        let cut = bands_of(B::frozen_shape(weight), values).into_iter().map(|band| {
            let weight = B::frozen_band(weight, band.clone())?;
            let part = match self {
                Self::Updated(_, update) => Self::Updated(weight, update.band(band.clone())),
                Self::WithRows(_, own) => match own.band(band.clone()) {
                    Some(own) => Self::WithRows(weight, own),
                    None => Self::Frozen(weight),
                },
                Self::Frozen(_) | Self::Dense(_) => Self::Frozen(weight),
            };
            Some((band.start, part))
        });
        cut.collect::<Option<_>>().unwrap_or_else(|| vec![(0, self.clone())])
    }

    /// Number of rows.
    pub fn vocab(&self) -> usize {
        match self {
            Self::Dense(param) => param.shape()[0],
            Self::Frozen(weight) | Self::Updated(weight, _) | Self::WithRows(weight, _) => {
                B::frozen_shape(weight)[0]
            }
        }
    }

    /// `dy·W`: the gradient of [`Table::logits`] with respect to `x`.
    pub fn logits_dx(&self, dy: &FloatTensor<B>, precision: Precision) -> FloatTensor<B> {
        match self {
            Self::Frozen(weight) => B::frozen_linear_dx(dy, weight, precision),
            Self::Dense(param) => B::dense_linear_dx(dy, param.tensor(), precision),
            Self::Updated(weight, update) => {
                let dx = B::frozen_linear_dx(dy, weight, precision);
                B::add(update.logits_dx(dy), &dx)
            }
            Self::WithRows(weight, own) => {
                let dx = B::frozen_linear_dx(&own.without(dy), weight, precision);
                B::add(own.logits_dx(dy, precision), &dx)
            }
        }
    }

    /// The gradients of what is trained, where `dy` is that of [`Table::logits`] of `x`, and this table the band that
    /// begins with row `first` of the whole one.
    pub fn logits_gradients(
        &self,
        first: usize,
        dy: &FloatTensor<B>,
        x: &FloatTensor<B>,
        precision: Precision,
    ) -> Vec<TableGradient<'_, B>> {
        match self {
            Self::Frozen(_) => Vec::new(),
            Self::Dense(param) => {
                let values = B::dense_linear_dw(dy, x, precision);
                vec![TableGradient { name: param.name(), rows: None, values }]
            }
            Self::Updated(_, update) => update.logits_gradients(first, dy, x),
            Self::WithRows(_, own) => vec![own.logits_gradient(dy, x, precision)],
        }
    }

    /// The frozen matrix, where it is one or has something beside it.
    fn weight(&self) -> Option<&B::Frozen> {
        match self {
            Self::Frozen(weight) | Self::Updated(weight, _) | Self::WithRows(weight, _) => {
                Some(weight)
            }
            Self::Dense(_) => None,
        }
    }

    /// Whether the stored matrix is still read.
    pub fn reads_stored(&self) -> bool {
        self.weight().is_some()
    }

    /// Names of what is trained of it.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Frozen(_) => Vec::new(),
            Self::Dense(param) => vec![param.name()],
            Self::Updated(_, update) => update.params().map(Param::name).to_vec(),
            Self::WithRows(_, own) => vec![own.param().name()],
        }
    }

    /// Visits every dense tensor, in a fixed order.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&mut Param<B>)) {
        match self {
            Self::Frozen(_) => {}
            Self::Dense(param) => visit(param),
            Self::Updated(_, update) => update.params_mut().into_iter().for_each(visit),
            Self::WithRows(_, own) => visit(own.param_mut()),
        }
    }
}

/// The rows (`dimension` 0) or columns (1) `ids` of a matrix, in their order.
fn selected<B: Kernels>(matrix: &FloatTensor<B>, dimension: usize, ids: &[u32]) -> FloatTensor<B> {
    let device = B::float_device(matrix);
    let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let ids = Tensor::<B, 1, Int>::from_data(TensorData::from(ids.as_slice()), &device);
    let matrix = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(matrix.clone()));
    matrix.select(dimension, ids).into_primitive().tensor()
}
