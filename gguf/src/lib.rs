//! GGUF, the file that llama.cpp runs: metadata, tensors and the blocks that they are quantised in.
//!
//! Follows llama.cpp's `docs/gguf.md` and `ggml/src/gguf.cpp` for the file, `ggml/src/ggml-quants.c` for the blocks
//! and `src/llama-quant.cpp` for which tensor of a mixture gets which. A stranger's file is read from a memory map:
//! every count, length and place is compared with what is there before anything is made of it. Nothing here knows
//! burn, a model or an adapter; names and shapes are the caller's.

pub mod blocks;
pub mod hugging_face;
pub mod mixture;
mod problem;
mod read;
pub mod rope;
mod tensor_type;
pub mod tokenizer;
mod value;
mod write;

pub use problem::Problem;
pub use read::{File, MAGIC, Tensor};
pub use tensor_type::TensorType;
pub use value::{Array, Value, ValueType};
pub use write::{TensorSpec, Writer};

/// Where tensors begin, unless `general.alignment` says otherwise: at multiples of so many bytes.
pub const ALIGNMENT: usize = 32;
