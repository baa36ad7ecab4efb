//! Rows of a table that are trained, in the place of the frozen ones.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorData, TensorPrimitive};
use graft_kernels::{Kernels, Precision, Rounding};

use super::{TableGradient, selected};
use crate::param::Param;

/// Some rows of a `[vocab, d_model]` matrix.
#[derive(Clone, Debug)]
pub struct OwnRows<B: Kernels> {
    /// Where in `values` each row of the table is.
    places: BTreeMap<u32, u32>,
    /// `[rows, d_model]`
    values: Param<B>,
}

impl<B: Kernels> OwnRows<B> {
    /// The rows `ids`, each of which comes once, with `values` `[ids, d_model]`.
    pub fn new(ids: &[u32], values: Param<B>) -> Self {
        let places = ids.iter().zip(0..).map(|(&id, place)| (id, place)).collect();
        Self { places, values }
    }

    pub(super) fn param(&self) -> &Param<B> {
        &self.values
    }

    pub(super) fn param_mut(&mut self) -> &mut Param<B> {
        &mut self.values
    }

    /// Those of a band of the table, by their places in it; `None` where it has none.
    pub(super) fn band(&self, rows: Range<usize>) -> Option<Self> {
        let (first, end) = (rows.start as u32, rows.end as u32);
        let places = self.places.range(first..end);
        let places: BTreeMap<_, _> = places.map(|(&id, &place)| (id - first, place)).collect();
        (!places.is_empty()).then(|| Self { places, values: self.values.clone() })
    }

    /// `frozen` `[ids, d_model]` with these rows in the places of theirs.
    pub(super) fn in_rows(&self, frozen: FloatTensor<B>, ids: &[u32]) -> FloatTensor<B> {
        let own = |place: &u32| ids.len() as u32 + place;
        let from = ids.iter().zip(0..).map(|(id, row)| self.places.get(id).map_or(row, own));
        self.one_of(0, frozen, self.values.tensor().clone(), &from.collect::<Vec<_>>())
    }

    /// What `from` says of both behind one another.
    fn one_of(
        &self,
        dimension: usize,
        frozen: FloatTensor<B>,
        own: FloatTensor<B>,
        from: &[u32],
    ) -> FloatTensor<B> {
        if self.places.is_empty() {
            return frozen;
        }
        let both = [frozen, own].map(|t| Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(t)));
        let both = Tensor::cat(both.to_vec(), dimension).into_primitive().tensor();
        selected::<B>(&both, dimension, from)
    }

    /// `None` where none of the rows is one of these.
    pub(super) fn rows_gradient(
        &self,
        ids: &[u32],
        dy: &FloatTensor<B>,
    ) -> Option<TableGradient<'_, B>> {
        let places = ids.iter().zip(0..).filter_map(|(id, row)| Some((row, *self.places.get(id)?)));
        let (rows, places): (Vec<u32>, Vec<u32>) = places.unzip();
        let values = |()| selected::<B>(dy, 0, &rows);
        let some = (!rows.is_empty()).then_some(()).map(values)?;
        Some(TableGradient { name: self.values.name(), rows: Some(places), values: some })
    }

    /// Rows of the table.
    fn ids(&self) -> Vec<u32> {
        self.places.keys().copied().collect()
    }

    /// The values of [`OwnRows::ids`], in their order: `[ids, d_model]`.
    fn sorted(&self) -> FloatTensor<B> {
        let places: Vec<u32> = self.places.values().copied().collect();
        selected::<B>(self.values.tensor(), 0, &places)
    }

    /// `frozen` logits `[rows, vocab]` of `x` with those of these rows in their places.
    pub(super) fn in_logits(
        &self,
        frozen: FloatTensor<B>,
        x: &FloatTensor<B>,
        precision: Precision,
    ) -> FloatTensor<B> {
        let own = B::dense_linear(x, &self.sorted(), precision, Rounding::Exact);
        let mut from: Vec<u32> = (0..width::<B>(&frozen) as u32).collect();
        for (id, place) in self.ids().into_iter().zip(from.len() as u32..) {
            from[id as usize] = place;
        }
        self.one_of(1, frozen, own, &from)
    }

    /// The gradient `dy` of logits without that of these rows.
    pub(super) fn without(&self, dy: &FloatTensor<B>) -> FloatTensor<B> {
        let mut kept = vec![1.0_f32; width::<B>(dy)];
        self.ids().into_iter().for_each(|id| kept[id as usize] = 0.0);
        let kept = TensorData::new(kept, [1, width::<B>(dy)]);
        let kept = Tensor::<B, 2>::from_data(kept, &B::float_device(dy));
        let dy = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(dy.clone()));
        (dy * kept).into_primitive().tensor()
    }

    pub(super) fn logits_dx(&self, dy: &FloatTensor<B>, precision: Precision) -> FloatTensor<B> {
        B::dense_linear_dx(&selected::<B>(dy, 1, &self.ids()), &self.sorted(), precision)
    }

    pub(super) fn logits_gradient(
        &self,
        dy: &FloatTensor<B>,
        x: &FloatTensor<B>,
        precision: Precision,
    ) -> TableGradient<'_, B> {
        let values = B::dense_linear_dw(&selected::<B>(dy, 1, &self.ids()), x, precision);
        let rows = Some(self.places.values().copied().collect());
        TableGradient { name: self.values.name(), rows, values }
    }
}

fn width<B: Kernels>(matrix: &FloatTensor<B>) -> usize {
    burn::tensor::TensorMetadata::shape(matrix).as_slice()[1]
}
