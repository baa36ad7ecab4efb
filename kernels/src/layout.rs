//! Where sequences lie in a flat run of tokens, and how far each token is rotated.

#[cfg(feature = "cube")]
use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
#[cfg(feature = "cube")]
use std::sync::{Mutex, PoisonError};

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
#[derive(Debug)]
pub struct Rotation {
    /// Half the head's width.
    pub half: usize,
    /// `cos(position * frequency)`.
    pub cos: Vec<f32>,
    /// `sin(position * frequency)`.
    pub sin: Vec<f32>,
    /// Both where they were needed.
    #[cfg(feature = "cube")]
    pub(crate) on_devices: OnDevices,
}

impl Rotation {
    /// Of angles whose cosines and sines these are.
    pub fn new(half: usize, cos: Vec<f32>, sin: Vec<f32>) -> Self {
        #[cfg(feature = "cube")]
        return Self { half, cos, sin, on_devices: OnDevices::default() };
        #[cfg(not(feature = "cube"))]
        Self { half, cos, sin }
    }
}

/// Copies on devices, each made once and given back with what it copies.
#[cfg(feature = "cube")]
#[derive(Default)]
pub(crate) struct OnDevices(Mutex<Vec<Box<dyn Any + Send>>>);

#[cfg(feature = "cube")]
impl std::fmt::Debug for OnDevices {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("OnDevices")
    }
}

#[cfg(feature = "cube")]
impl OnDevices {
    /// What `make` gives, or gave for this device before.
    pub(crate) fn get<D: PartialEq + Clone + Send + 'static, T: Clone + Send + 'static>(
        &self,
        device: &D,
        make: impl FnOnce() -> T,
    ) -> T {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_kind = known.iter().filter_map(|known| known.downcast_ref::<(D, T)>());
        if let Some((_, copy)) = of_kind.find(|(of, _)| of == device) {
            return copy.clone();
        }
        let copy = make();
        known.push(Box::new((device.clone(), copy.clone())));
        copy
    }
}

/// Which way to rotate: backward is the transpose of forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// By the angle.
    Forward,
    /// By minus the angle: the gradient.
    Backward,
}
