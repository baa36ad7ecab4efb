//! The engine: from a batch to the gradient of every trainable tensor.
//!
//! [`Walk`] runs the blocks forward without a tape, keeping their inputs, and backward by replaying one
//! block at a time; [`loss`] turns last hidden states into a loss and their gradient; [`parameters`] has
//! the sums in which gradients leave the blocks by name.

pub mod loss;
mod noise;
mod offload;
pub mod parameters;
mod walk;

pub use noise::DropoutNoise;
pub use offload::{Offload, OffloadError};
pub use parameters::{Gradient, Parameters};
pub use walk::{Checkpointing, Walk};
