//! Where sequences lie in a flat run of tokens, and how far each token is rotated.

use std::ops::Range;
use std::sync::Arc;

/// One sequence: its queries attend to its keys, causally; nothing crosses spans.
///
/// The last query stands at the last key: with a cache there are more keys than queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Rows of the query matrix.
    pub queries: Range<usize>,
    /// Rows of the key and value matrices.
    pub keys: Range<usize>,
}

/// Heads and sequences of an attention.
#[derive(Clone, Debug)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// The sequences. Rows outside every span get zeros.
    pub spans: Arc<[Span]>,
}

impl AttentionShape {
    /// The factor on `q·kᵀ`.
    pub fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// Cosines and sines of every token's rotary angles, `[tokens, head_dim / 2]` each.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotation {
    /// Half the head's width.
    pub half: usize,
    /// `cos(position * frequency)`.
    pub cos: Vec<f32>,
    /// `sin(position * frequency)`.
    pub sin: Vec<f32>,
}

/// Which way to rotate: backward is the transpose of forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// By the angle.
    Forward,
    /// By minus the angle: the gradient.
    Backward,
}
