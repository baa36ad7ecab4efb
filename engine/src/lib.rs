//! From a batch to the gradient of every trainable tensor, and from a prompt to its answer.
//!
//! Training: [`step::Trainer`] holds a model and its optimizer, and takes steps. In each, [`Walk`] runs the
//! blocks forward without a tape, keeping their inputs, and backward by replaying one block at a time;
//! between them a [`loss::LossHead`] turns last hidden states into a loss and their gradient; gradients leave
//! the blocks by example and name into a [`sink::Sink`], of which [`parameters`] has the one that sums them up;
//! [`optimizer`] turns the sums into the next values.
//!
//! Measuring: [`generate`] writes answers, [`score`] says how likely rows are, [`probe`] how far two models
//! are apart.
//!
//! The crate knows no recipe, no run folder and no command.

pub mod by_blocks;
pub mod generate;
pub mod learning_rate;
pub mod loss;
mod noise;
mod offload;
pub mod optimizer;
pub mod parameters;
pub mod probe;
pub mod score;
pub mod sink;
pub mod step;
mod walk;

pub use noise::DropoutNoise;
pub use offload::{Offload, OffloadError};
pub use parameters::{Gradient, Parameters};
pub use walk::{Checkpointing, MicroBatch, Walk};
