//! An adapter that brings the embedding or the head whole: PEFT's `modules_to_save`.
//!
//! Follows PEFT 0.21.2 (`utils/other.py`, `ModulesToSaveWrapper`): the saved table takes the place of
//! the base's in its own use only. Where the base's head is its embedding, the two part: the use
//! without a saved table keeps the base's values, and the merged model is no longer tied.

use std::ops::Range;

use graft_kernels::FrozenMatrix;
use graft_model::checkpoint::TensorView;
use graft_model::load::{Weights, dense};
use graft_model::pages::Mapped;
use graft_model::site::{EMBED_TOKENS, LM_HEAD};
use graft_model::{Error, LlamaConfig};

use super::PeftAdapter;

impl PeftAdapter {
    /// The table of this name in a checkpoint, where the adapter brings one.
    pub fn table(&self, name: &str) -> Option<&TensorView> {
        self.tables.get(name)
    }

    /// Names in a checkpoint of the tables that the adapter brings.
    pub fn table_names(&self) -> impl Iterator<Item = &'static str> {
        self.tables.keys().copied()
    }

    /// The configuration of base and adapter together: as the base's, but with a head of its own
    /// where the adapter brings a table.
    pub fn model_config(&self, base: &LlamaConfig) -> LlamaConfig {
        let mut config = base.clone();
        if config.tied && !self.tables.is_empty() {
            config.tied = false;
            config.raw.insert("tie_word_embeddings".to_owned(), false.into());
        }
        config
    }

    /// The weights of base and adapter together, for [`PeftAdapter::model_config`].
    pub fn weights<'a, W: Weights>(
        &'a self,
        base: &'a W,
        config: &LlamaConfig,
    ) -> WithTables<'a, W> {
        WithTables { base, adapter: self, tied: config.tied }
    }
}

/// A base with an adapter's tables in the place of its own.
#[derive(Clone, Copy, Debug)]
pub struct WithTables<'a, W> {
    base: &'a W,
    adapter: &'a PeftAdapter,
    /// Whether the base's head is its embedding.
    tied: bool,
}

impl<W: Weights> WithTables<'_, W> {
    /// The name of the base's tensor that stands for this one.
    pub(crate) fn base_name<'a>(&self, name: &'a str) -> &'a str {
        if self.tied && name == LM_HEAD { EMBED_TOKENS } else { name }
    }
}

impl<W: Weights> Weights for WithTables<'_, W> {
    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<FrozenMatrix, Error> {
        match self.adapter.table(name) {
            Some(view) => dense(view.clone(), shape),
            None => self.base.matrix(self.base_name(name), shape),
        }
    }

    fn band(
        &self,
        name: &str,
        shape: [usize; 2],
        rows: Range<usize>,
    ) -> Result<FrozenMatrix, Error> {
        match self.adapter.table(name) {
            Some(view) => {
                let whole = dense(view.clone(), shape)?;
                Ok(whole.band(rows).expect("a dense matrix is cut between any two rows"))
            }
            None => self.base.band(self.base_name(name), shape, rows),
        }
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        self.base.vector(name, len)
    }

    fn pages(&self, name: &str) -> Vec<Mapped> {
        match self.adapter.table(name) {
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
