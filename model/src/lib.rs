//! Llama 3.x and nothing else: configuration, checkpoint reading, names, and the decoder.
//!
//! The decoder is generic over its [`projection::Projection`]: it has never heard of adapters or
//! quantisation. [`pass`] runs its blocks with or without a tape.

pub mod block;
mod builtin;
pub mod cache;
pub mod checkpoint;
pub mod config;
mod error;
pub mod folder;
pub mod layout;
pub mod llama;
pub mod load;
mod own_file;
pub mod pages;
pub mod param;
pub mod pass;
pub mod presets;
pub mod projection;
pub mod releases;
pub mod residency;
pub mod rope;
pub mod seat;
pub mod site;
pub mod stop;
pub mod system_memory;
pub mod table;

pub use block::{Block, Branch};
pub use cache::{Cache, Cached};
pub use config::LlamaConfig;
pub use error::Error;
pub use layout::Layout;
pub use llama::Llama;
pub use param::Param;
pub use pass::{Context, Keeping, Noise, OwnOutput, Pass, Plain, Products, Taped};
pub use projection::{FrozenLinear, Projection};
pub use rope::Rope;
pub use seat::Seat;
pub use site::{ProjectionKind, Site};
pub use system_memory::SystemMemory;
pub use table::{OwnRows, Table, TableGradient, TableUpdate};
