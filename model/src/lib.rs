//! Llama 3.x.

pub mod atomic;
pub mod config;
mod error;
pub mod site;

pub use error::Error;
