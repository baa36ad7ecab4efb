//! Which tokens of a flat run belong together, and where each stands.

use std::ops::Range;
use std::sync::Arc;

use graft_kernels::{AttentionShape, Rotation, Span};

use crate::config::LlamaConfig;
use crate::rope::Rope;

/// What every block of a pass needs to know about its tokens.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Rotary angles of every token.
    pub rotation: Arc<Rotation>,
    /// Heads and sequences.
    pub attention: AttentionShape,
    /// Epsilon of the norms.
    pub eps: f32,
}

impl Layout {
    /// Independent documents in one run of tokens, each starting over at its first position.
    pub fn of_documents(
        config: &LlamaConfig,
        rope: &Rope,
        positions: &[u32],
        documents: &[Range<usize>],
    ) -> Self {
        let spans = documents
            .iter()
            .map(|range| Span { queries: range.clone(), keys: range.clone() })
            .collect();
        Self::new(config, rope, positions, spans)
    }

    /// `new[i]` more tokens of sequence `i` after `cached[i]` ones, lying one after another. A cache has places
    /// of its own for the keys, see [`crate::Cached`].
    pub fn continuation(
        config: &LlamaConfig,
        rope: &Rope,
        cached: &[usize],
        new: &[usize],
    ) -> Self {
        let mut positions = Vec::new();
        let mut spans = Vec::with_capacity(new.len());
        let (mut query, mut key) = (0, 0);
        for (&cached, &new) in cached.iter().zip(new) {
            positions.extend((cached..cached + new).map(|position| position as u32));
            spans.push(Span { queries: query..query + new, keys: key..key + cached + new });
            query += new;
            key += cached + new;
        }
        Self::new(config, rope, &positions, spans)
    }

    fn new(config: &LlamaConfig, rope: &Rope, positions: &[u32], spans: Vec<Span>) -> Self {
        Self {
            rotation: Arc::new(rope.rotation(positions)),
            attention: AttentionShape {
                heads: config.heads,
                kv_heads: config.kv_heads,
                head_dim: config.head_dim,
                spans: spans.into(),
            },
            eps: config.rms_norm_eps as f32,
        }
    }
}
