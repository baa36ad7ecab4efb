//! What a training method makes of a model's projections, and which tensors it trains.

use graft_kernels::Kernels;
use graft_model::{Projection, Seat};

/// A projection that can be trained; a plain one cannot.
pub trait Trainable<B: Kernels>: Projection<B> {
    /// Whether the dense tensors at this seat are trained.
    fn trains(seat: Seat) -> bool;
}
