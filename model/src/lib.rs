//! Llama 3.x.

pub mod atomic;
mod builtin;
pub mod checkpoint;
pub mod config;
mod error;
pub mod folder;
pub mod presets;
pub mod site;

pub use error::Error;
