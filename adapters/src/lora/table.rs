//! What LoRA trains of a model's two tables, embedding and head: the table itself, a low-rank update of it, or some
//! rows.
//!
//! Follows PEFT 0.21.2: `modules_to_save` (`utils/other.py`), `Embedding` and `Linear` of `tuners/lora/layer.py`, and
//! `trainable_token_indices` (`tuners/trainable_tokens/layer.py`). Where the base's head is its embedding, what is
//! trained of one of them parts the two, but for rows: those are rows of both.

use graft_kernels::{FrozenMatrix, Kernels};
use graft_model::{LlamaConfig, OwnRows, Param, Seat, Table, TableUpdate};

use super::{LoraConfig, Size};
use crate::method::TrainedTensor;
use crate::peft::names::TableTensor;

/// One of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableName {
    /// What turns tokens into rows.
    Embedding,
    /// What turns hidden states into logits.
    Head,
}

impl TableName {
    /// Both, in the order in which parameters are visited.
    pub const ALL: [Self; 2] = [Self::Embedding, Self::Head];

    /// Where it stands.
    pub fn seat(self) -> Seat {
        match self {
            Self::Embedding => Seat::Embedding,
            Self::Head => Seat::Head,
        }
    }

    /// What PEFT's lists of modules call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embed_tokens",
            Self::Head => "lm_head",
        }
    }

    /// Its whole name as a module.
    pub fn module_name(self) -> &'static str {
        match self {
            Self::Embedding => "model.embed_tokens",
            Self::Head => "lm_head",
        }
    }

    /// What a checkpoint calls it.
    pub fn checkpoint_name(self) -> &'static str {
        match self {
            Self::Embedding => graft_model::site::EMBED_TOKENS,
            Self::Head => graft_model::site::LM_HEAD,
        }
    }

    /// That of this name in a checkpoint.
    pub fn from_checkpoint_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.checkpoint_name() == name)
    }

    /// That of this name in a list of modules.
    pub fn from_list(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name || table.module_name() == name)
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What is trained of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum TableMethod {
    /// All of it, in the place of the base's: `modules_to_save`.
    Whole,
    /// A low-rank update beside it: it is one of `target_modules`.
    LowRank(Size),
    /// The rows of these tokens, each of which comes once: `trainable_token_indices`.
    Rows(Vec<u32>),
}

impl TableMethod {
    /// The size of its update, where that is one of low rank.
    pub fn size(&self) -> Option<Size> {
        match self {
            Self::LowRank(size) => Some(*size),
            Self::Whole | Self::Rows(_) => None,
        }
    }
}

/// What a table begins as: the values of its tensors, in the order of [`tensors`], row-major as they are there.
pub type TableBeginning = Vec<Vec<f32>>;

/// The tensors that are trained of a table `[vocab, d_model]`, with their shapes inside a model. The two matrices of an
/// update, `W + scale · V·M`, are `V` `[vocab, rank]` and `M` `[rank, d_model]`.
pub fn tensors(
    method: &TableMethod,
    [vocab, d_model]: [usize; 2],
) -> Vec<(TableTensor, Vec<usize>)> {
    match method {
        TableMethod::Whole => vec![(TableTensor::Whole, vec![vocab, d_model])],
        TableMethod::LowRank(size) => {
            let rank = size.rank.get();
            let narrow = (TableTensor::Narrow, vec![rank, d_model]);
            vec![(TableTensor::Wide, vec![vocab, rank]), narrow]
        }
        TableMethod::Rows(ids) => vec![(TableTensor::Rows, vec![ids.len(), d_model])],
    }
}

/// As a [`TrainedTensor`] each.
pub(super) fn trained(
    lora: &LoraConfig,
    name: TableName,
    model: &LlamaConfig,
) -> impl Iterator<Item = TrainedTensor> {
    let sizes = [model.vocab_size, model.d_model];
    let all = lora.tables.get(&name).map(|method| tensors(method, sizes)).unwrap_or_default();
    all.into_iter().map(move |(_, shape)| TrainedTensor { seat: name.seat(), shape })
}

/// A new adapter's first values: an update begins as nothing with one matrix uniform, as wide as PEFT's, rows as
/// the base's. `uniform(len)` gives values in `[0, 1)`.
pub(super) fn fresh(
    name: TableName,
    method: &TableMethod,
    weight: &FrozenMatrix,
    uniform: impl FnOnce(usize) -> Vec<f32>,
) -> TableBeginning {
    let [vocab, d_model] = weight.shape();
    match method {
        TableMethod::Whole => vec![weight.to_f32()],
        TableMethod::LowRank(size) => {
            let rank = size.rank.get();
            // Kaiming's bound for a head; a variance of 1 for an embedding.
            let bound = match name {
                TableName::Head => 1.0 / (d_model as f32).sqrt(),
                TableName::Embedding => 3.0_f32.sqrt(),
            };
            let narrow = uniform(rank * d_model).into_iter();
            let narrow = narrow.map(|value| (2.0 * value - 1.0) * bound).collect();
            vec![vec![0.0; vocab * rank], narrow]
        }
        TableMethod::Rows(ids) => {
            let mut rows = vec![0.0; ids.len() * d_model];
            for (&id, row) in ids.iter().zip(rows.chunks_exact_mut(d_model)) {
                weight.decode(id as usize, 0, row);
            }
            vec![rows]
        }
    }
}

/// A table with what is trained of it, which begins as `begun`.
pub(super) fn build<B: Kernels>(
    lora: &LoraConfig,
    name: TableName,
    begun: TableBeginning,
    weight: FrozenMatrix,
    device: &B::Device,
) -> Table<B> {
    let Some(method) = lora.tables.get(&name) else { return Table::frozen(weight, device) };
    let shapes = tensors(method, weight.shape());
    let mut params = shapes.into_iter().zip(begun).map(|((tensor, shape), values)| {
        Param::new(tensor.name(name), name.seat(), values, &shape, device)
    });
    let mut next = || params.next().expect("as many values as tensors");
    match method {
        TableMethod::Whole => Table::Dense(next()),
        TableMethod::Rows(ids) => {
            Table::WithRows(B::freeze(weight, device), OwnRows::new(ids, next()))
        }
        TableMethod::LowRank(size) => {
            let (wide, narrow) = (next(), next());
            // LoRA+ speeds up what begins as nothing beside a projection, of a head alone.
            let wide = if name == TableName::Head { wide.at_rate(lora.b_rate) } else { wide };
            let scale = lora.scaling.factor(*size) as f32;
            Table::Updated(B::freeze(weight, device), TableUpdate::new(wide, narrow, scale))
        }
    }
}
