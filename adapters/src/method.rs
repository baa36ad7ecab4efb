//! What a training method makes of a model's projections, and which tensors it trains.

use graft_kernels::Kernels;
use graft_model::Projection;

/// A projection that can be trained; a plain one cannot.
pub trait Trainable<B: Kernels>: Projection<B> {
    /// Whether the tensor of this name is trained.
    fn trains(name: &str) -> bool;
}
