//! Base and adapter together as weights: what an adapter brings of embedding and head in the place of the base's.
//!
//! Follows PEFT 0.21.2 (`utils/other.py`, `ModulesToSaveWrapper`): the saved table takes the place of
//! the base's in its own use only. Where the base's head is its embedding, the two part: the use
//! without a saved table keeps the base's values, and the merged model is no longer tied.

use std::collections::BTreeMap;
use std::ops::Range;

use graft_kernels::FrozenMatrix;
use graft_model::checkpoint::TensorView;
use graft_model::load::{Weights, dense};
use graft_model::pages::Mapped;
use graft_model::site::{EMBED_TOKENS, LM_HEAD};
use graft_model::{Error, LlamaConfig};

use super::PeftAdapter;
use crate::lora::TableName;
use crate::merged::Change;

impl PeftAdapter {
    /// What stands in the place of the base's table.
    pub fn table(&self, table: TableName) -> Option<&TensorView> {
        self.tables.get(&table)
    }

    /// The configuration of base and adapter together: as the base's, but with a head of its own
    /// where the adapter parts it from the embedding.
    pub fn model_config(&self, base: &LlamaConfig) -> LlamaConfig {
        self.config.model_config(base)
    }

    /// The weights of base and adapter together, for [`PeftAdapter::model_config`]: with the tables that the adapter
    /// brings whole. What else it trains is beside them.
    pub fn weights<'a, W: Weights>(
        &'a self,
        base: &'a W,
        config: &LlamaConfig,
    ) -> WithTables<'a, W> {
        WithTables { adapter: Some(self), ..WithTables::of_base(base, config) }
    }

    /// As [`PeftAdapter::weights`], with everything in the tables that is trained of them.
    pub fn weights_with_tables<'a, W: Weights>(
        &'a self,
        base: &'a W,
        config: &LlamaConfig,
    ) -> WithTables<'a, W> {
        let change = |table| Some((table, Change::of_table(self, table)?));
        let changes = TableName::ALL.into_iter().filter_map(change).collect();
        WithTables { changes, ..self.weights(base, config) }
    }
}

/// A base with an adapter's tables in the place of its own.
#[derive(Debug)]
pub struct WithTables<'a, W> {
    base: &'a W,
    adapter: Option<&'a PeftAdapter>,
    /// What is added to tables, or replaces rows of them.
    changes: BTreeMap<TableName, Change>,
    /// Whether the base's head is its embedding.
    tied: bool,
}

impl<'a, W: Weights> WithTables<'a, W> {
    /// The base as it is, for a model whose head may be another table than its embedding where the base's is not.
    pub fn of_base(base: &'a W, config: &LlamaConfig) -> Self {
        Self { base, adapter: None, changes: BTreeMap::new(), tied: config.tied }
    }

    /// The name of the base's tensor that stands for this one.
    pub(crate) fn base_name<'n>(&self, name: &'n str) -> &'n str {
        if self.tied && name == LM_HEAD { EMBED_TOKENS } else { name }
    }

    /// What the adapter has in the place of the base's tensor of this name.
    fn own(&self, name: &str) -> Option<&'a TensorView> {
        self.adapter?.table(TableName::from_checkpoint_name(name)?)
    }

    /// `matrix`, whose rows begin with row `first` of the table of this name, with what is trained of that.
    fn changed(&self, name: &str, first: usize, matrix: FrozenMatrix) -> FrozenMatrix {
        let table = TableName::from_checkpoint_name(name);
        let Some(change) = table.and_then(|table| self.changes.get(&table)) else { return matrix };
        let [rows, inner] = matrix.shape();
        let (mut values, mut room) = (matrix.to_f32(), vec![0.0; inner]);
        for (row, values) in values.chunks_exact_mut(inner).enumerate() {
            change.apply(first + row, values, &mut room);
        }
        FrozenMatrix::from_f32(rows, inner, &values)
    }
}

impl<W: Weights> Weights for WithTables<'_, W> {
    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<FrozenMatrix, Error> {
        let matrix = match self.own(name) {
            Some(view) => dense(view.clone(), shape),
            None => self.base.matrix(self.base_name(name), shape),
        };
        Ok(self.changed(name, 0, matrix?))
    }

    fn band(
        &self,
        name: &str,
        shape: [usize; 2],
        rows: Range<usize>,
    ) -> Result<FrozenMatrix, Error> {
        let first = rows.start;
        let band = match self.own(name) {
            Some(view) => {
                let whole = dense(view.clone(), shape)?;
                whole.band(rows).expect("a dense matrix is cut between any two rows")
            }
            None => self.base.band(self.base_name(name), shape, rows)?,
        };
        Ok(self.changed(name, first, band))
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        self.base.vector(name, len)
    }

    fn pages(&self, name: &str) -> Vec<Mapped> {
        match self.own(name) {
            Some(_) => Vec::new(),
            None => self.base.pages(self.base_name(name)),
        }
    }

    fn release(&self, name: &str) {
        self.base.release(name);
    }

    fn release_all(&self) {
        self.base.release_all();
    }
}
