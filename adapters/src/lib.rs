//! What adapts, merges or exports a projection.
//!
//! A model of [`LoraLinear`] or [`DenseLinear`] can be trained ([`Trainable`]); one of plain frozen
//! projections cannot. [`peft`] reads and writes the field's adapter folders;
//! [`algebra`] makes one of several; [`merge`] and [`quantize`] write model folders, [`gguf`] files of llama.cpp's.

pub mod algebra;
mod error;
pub mod fold;
pub mod full;
pub mod gguf;
mod largest;
pub mod lora;
pub mod merge;
pub mod merged;
mod method;
mod out_folder;
pub mod peft;
pub mod quantize;

pub use error::Error;
pub use full::{DenseLinear, Full, FullFactory};
pub use lora::{
    Began, Beginning, Fresh, LoraConfig, LoraFactory, LoraLinear, Part, Parts, Rank, Scaling, Size,
    Start, TableBeginning, TableMethod, TableName,
};
pub use method::{AnyMethod, Learns, Learnt, Method, TokenBytes, Trainable, TrainedTensor};
pub use out_folder::{Summary, companions};
pub use peft::PeftAdapter;
