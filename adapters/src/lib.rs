//! What adapts, merges or exports a projection.
//!
//! A model of [`LoraLinear`] or [`DenseLinear`] can be trained ([`Trainable`]); one of plain frozen
//! projections cannot.

pub mod full;
pub mod lora;
mod method;

pub use full::{DenseLinear, FullFactory};
pub use lora::{Fresh, LoraConfig, LoraFactory, LoraLinear, Rank, Scaling, Start};
pub use method::Trainable;
