//! Where a parameter stands in a decoder.

use crate::block::Branch;
use crate::site::{EMBED_TOKENS, LM_HEAD, NORM, Site, input_layernorm, post_attention_layernorm};

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
