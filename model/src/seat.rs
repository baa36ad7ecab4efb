//! Where a parameter stands in a decoder.

use crate::block::Branch;
use crate::config::LlamaConfig;
use crate::site::{
    EMBED_TOKENS, LM_HEAD, NORM, ProjectionKind, Site, input_layernorm, post_attention_layernorm,
};

/// Where a parameter stands: what it is called decides nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// The table that turns tokens into rows.
    Embedding,
    /// The scales of the norm that a branch of this block begins with.
    Norm(usize, Branch),
    /// At a projection: its own weight, or what a method puts beside it.
    Projection(Site),
    /// The scales of the norm before the head.
    LastNorm,
    /// The table that turns hidden states into logits, where it is not the embedding.
    Head,
}

impl Seat {
    /// Every seat of a model's own tensors, in the order in which parameters are visited.
    pub fn all(config: &LlamaConfig) -> Vec<Self> {
        let of_block = |layer| {
            let norm = move |branch| Self::Norm(layer, branch);
            let projections = move |branch| {
                let kinds = ProjectionKind::ALL.into_iter();
                let of_branch = kinds.filter(move |kind| kind.branch() == branch);
                of_branch.map(move |kind| Self::Projection(Site { layer, kind }))
            };
            Branch::BOTH
                .into_iter()
                .flat_map(move |branch| std::iter::once(norm(branch)).chain(projections(branch)))
        };
        let head = (!config.tied).then_some(Self::Head);
        std::iter::once(Self::Embedding)
            .chain((0..config.layers).flat_map(of_block))
            .chain([Self::LastNorm])
            .chain(head)
            .collect()
    }

    /// The sizes of the model's own tensor there.
    pub fn shape(self, config: &LlamaConfig) -> Vec<usize> {
        match self {
            Self::Embedding | Self::Head => vec![config.vocab_size, config.d_model],
            Self::Norm(..) | Self::LastNorm => vec![config.d_model],
            Self::Projection(site) => site.weight_shape(config).to_vec(),
        }
    }

    /// What a checkpoint calls the model's own tensor there.
    pub fn checkpoint_name(self) -> String {
        match self {
            Self::Embedding => EMBED_TOKENS.to_owned(),
            Self::Norm(layer, Branch::Attention) => input_layernorm(layer),
            Self::Norm(layer, Branch::FeedForward) => post_attention_layernorm(layer),
            Self::Projection(site) => site.checkpoint_name(),
            Self::LastNorm => NORM.to_owned(),
            Self::Head => LM_HEAD.to_owned(),
        }
    }

    /// The block and the branch of it that the parameter is part of; `None` outside of the blocks.
    pub fn branch(self) -> Option<(usize, Branch)> {
        match self {
            Self::Embedding | Self::LastNorm | Self::Head => None,
            Self::Norm(layer, branch) => Some((layer, branch)),
            Self::Projection(Site { layer, kind }) => Some((layer, kind.branch())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::checkpoint::expected;
    use crate::presets::{llama3_1_8b, llama3_2_1b};

    #[test]
    fn seats_are_those_of_every_tensor_that_a_checkpoint_holds() {
        for config in [llama3_1_8b(), llama3_2_1b()] {
            let seats = Seat::all(&config);
            let named: BTreeMap<_, _> =
                seats.iter().map(|seat| (seat.checkpoint_name(), seat.shape(&config))).collect();
            let stored: BTreeMap<_, _> =
                expected(&config).into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
            assert_eq!(named, stored);
            assert_eq!(named.len(), seats.len());
        }
    }
}
