//! Where a projection stands, and what that is called: the one vocabulary for targets, checkpoint tensors and
//! GGUF tensors, from which methods make the names of their own tensors.
//!
//! Names follow transformers (`modeling_llama.py`) and llama.cpp (`gguf-py/gguf/tensor_mapping.py`).

use std::fmt;
use std::str::FromStr;

use crate::block::Branch;
use crate::config::LlamaConfig;

/// One of the seven linear maps of a decoder block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProjectionKind {
    /// Query, `d_model → heads · head_dim`.
    Q,
    /// Key, `d_model → kv_heads · head_dim`.
    K,
    /// Value, `d_model → kv_heads · head_dim`.
    V,
    /// Attention output, `heads · head_dim → d_model`.
    O,
    /// Gate of the feed-forward, `d_model → d_ff`.
    Gate,
    /// Input of the feed-forward, `d_model → d_ff`.
    Up,
    /// Output of the feed-forward, `d_ff → d_model`.
    Down,
}

impl ProjectionKind {
    /// All seven, in the order of a block's forward pass.
    pub const ALL: [Self; 7] =
        [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// The checkpoint's name, `q_proj` … `down_proj`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The branch of the block that it is part of.
    pub fn branch(self) -> Branch {
        match self {
            Self::Q | Self::K | Self::V | Self::O => Branch::Attention,
            Self::Gate | Self::Up | Self::Down => Branch::FeedForward,
        }
    }

    /// Whether what it gives is the branch itself, which is added to the residual stream.
    pub fn ends_a_branch(self) -> bool {
        matches!(self, Self::O | Self::Down)
    }

    /// The submodule of the block that holds it.
    fn parent(self) -> &'static str {
        match self.branch() {
            Branch::Attention => "self_attn",
            Branch::FeedForward => "mlp",
        }
    }

    /// Whether a GGUF file has the rows of its heads in another order.
    pub fn is_turned_in_gguf(self) -> bool {
        matches!(self, Self::Q | Self::K)
    }

    fn gguf(self) -> &'static str {
        match self {
            Self::Q => "attn_q",
            Self::K => "attn_k",
            Self::V => "attn_v",
            Self::O => "attn_output",
            Self::Gate => "ffn_gate",
            Self::Up => "ffn_up",
            Self::Down => "ffn_down",
        }
    }

    /// Length of an input row.
    pub fn in_features(self, config: &LlamaConfig) -> usize {
        match self {
            Self::Q | Self::K | Self::V | Self::Gate | Self::Up => config.d_model,
            Self::O => config.heads * config.head_dim,
            Self::Down => config.d_ff,
        }
    }

    /// Length of an output row.
    pub fn out_features(self, config: &LlamaConfig) -> usize {
        match self {
            Self::Q => config.heads * config.head_dim,
            Self::K | Self::V => config.kv_heads * config.head_dim,
            Self::O | Self::Down => config.d_model,
            Self::Gate | Self::Up => config.d_ff,
        }
    }
}

impl fmt::Display for ProjectionKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The name is none of the seven projections.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a projection: the seven are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, \
     down_proj"
)]
pub struct UnknownProjection(pub String);

impl FromStr for ProjectionKind {
    type Err = UnknownProjection;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownProjection(name.to_owned()))
    }
}

/// One projection of one block. Sites order by layer, then in the block's forward order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// Block number, from 0 at the embedding's side.
    pub layer: usize,
    /// Which projection of the block.
    pub kind: ProjectionKind,
}

impl Site {
    /// Every site of a model in order.
    pub fn all(config: &LlamaConfig) -> impl Iterator<Item = Self> + use<> {
        (0..config.layers)
            .flat_map(|layer| ProjectionKind::ALL.into_iter().map(move |kind| Self { layer, kind }))
    }

    /// Shape of the weight as a checkpoint stores it, `[out, in]`.
    pub fn weight_shape(self, config: &LlamaConfig) -> [usize; 2] {
        [self.kind.out_features(config), self.kind.in_features(config)]
    }

    /// `model.layers.3.self_attn.q_proj`.
    pub fn module_name(self) -> String {
        format!("model.layers.{}.{}.{}", self.layer, self.kind.parent(), self.kind.name())
    }

    /// The inverse of [`Site::module_name`].
    pub fn from_module_name(name: &str) -> Option<Self> {
        let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let (parent, kind) = rest.split_once('.')?;
        let kind: ProjectionKind = kind.parse().ok()?;
        (parent == kind.parent()).then_some(Self { layer: layer_number(layer)?, kind })
    }

    /// `model.layers.3.self_attn.q_proj.weight`.
    pub fn checkpoint_name(self) -> String {
        self.module_name() + ".weight"
    }

    /// The inverse of [`Site::checkpoint_name`].
    pub fn from_checkpoint_name(name: &str) -> Option<Self> {
        Self::from_module_name(name.strip_suffix(".weight")?)
    }

    /// `blk.3.attn_q.weight`.
    pub fn gguf_name(self) -> String {
        format!("blk.{}.{}.weight", self.layer, self.kind.gguf())
    }

    /// The inverse of [`Site::gguf_name`].
    pub fn from_gguf_name(name: &str) -> Option<Self> {
        let (layer, kind) = name.strip_prefix("blk.")?.strip_suffix(".weight")?.split_once('.')?;
        let kind = ProjectionKind::ALL.into_iter().find(|found| found.gguf() == kind)?;
        Some(Self { layer: layer_number(layer)?, kind })
    }
}

impl fmt::Display for Site {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.module_name())
    }
}

/// Only the spelling that a name is written with: `3`, never `03` or `+3`.
pub(crate) fn layer_number(text: &str) -> Option<usize> {
    let layer: usize = text.parse().ok()?;
    (layer.to_string() == text).then_some(layer)
}

/// Token embedding, `[vocab, d_model]`.
pub const EMBED_TOKENS: &str = "model.embed_tokens.weight";
/// Scale of the last RMS norm, `[d_model]`.
pub const NORM: &str = "model.norm.weight";
/// Output head, `[vocab, d_model]`; absent where the embedding is tied to it.
pub const LM_HEAD: &str = "lm_head.weight";

/// Scale of the RMS norm before a block's attention, `[d_model]`.
pub fn input_layernorm(layer: usize) -> String {
    format!("model.layers.{layer}.input_layernorm.weight")
}

/// Scale of the RMS norm before a block's feed-forward, `[d_model]`.
pub fn post_attention_layernorm(layer: usize) -> String {
    format!("model.layers.{layer}.post_attention_layernorm.weight")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back() {
        for layer in [0, 3, 10, 125] {
            for kind in ProjectionKind::ALL {
                let site = Site { layer, kind };
                assert_eq!(kind.name().parse(), Ok(kind));
                assert_eq!(Site::from_module_name(&site.module_name()), Some(site));
                assert_eq!(Site::from_checkpoint_name(&site.checkpoint_name()), Some(site));
                assert_eq!(Site::from_gguf_name(&site.gguf_name()), Some(site));
            }
        }
    }

    #[test]
    fn names_are_those_of_the_field() {
        let q = Site { layer: 3, kind: ProjectionKind::Q };
        let down = Site { layer: 10, kind: ProjectionKind::Down };
        insta::assert_snapshot!(
            [
                q.checkpoint_name(),
                q.gguf_name(),
                down.checkpoint_name(),
                down.gguf_name(),
                input_layernorm(3),
                post_attention_layernorm(3),
            ]
            .join("\n"),
            @"
        model.layers.3.self_attn.q_proj.weight
        blk.3.attn_q.weight
        model.layers.10.mlp.down_proj.weight
        blk.10.ffn_down.weight
        model.layers.3.input_layernorm.weight
        model.layers.3.post_attention_layernorm.weight
        "
        );
    }

    #[test]
    fn other_spellings_are_no_sites() {
        for name in [
            "",
            "model.layers.3.mlp.q_proj.weight",
            "model.layers.03.self_attn.q_proj.weight",
            "model.layers.+3.self_attn.q_proj.weight",
            "model.layers.3.self_attn.q_proj",
            "model.layers.3.self_attn.q_proj.weight.absmax",
            "model.layers.99999999999999999999999.self_attn.q_proj.weight",
            "model.layers.3.input_layernorm.weight",
        ] {
            assert_eq!(Site::from_checkpoint_name(name), None, "{name}");
        }
    }
}
