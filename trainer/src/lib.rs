//! The training loop, the engine, evaluation, generation, and the only binary, `graft`.
//!
//! Data goes one way: recipe → plan → batch → blocks → gradients → files.

pub mod base_mark;
pub mod beside;
pub mod cli;
pub mod commands;
pub mod device;
mod document_rows;
pub mod exporting;
pub mod gguf_tokenizer;
pub mod last_words;
pub mod ledger;
pub mod lost_pages;
pub mod machine;
pub mod memory;
pub mod merge_bound;
pub mod merging;
pub mod modelfile;
pub mod no_memory;
pub mod parents;
pub mod plan;
pub mod privacy;
pub mod progress;
pub mod quantity;
pub mod random_weights;
pub mod report;
mod row_files;
pub mod run;
pub mod run_folder;
pub mod servers;
pub mod serving;
pub mod signals;
pub mod synthetic;
#[cfg(test)]
mod toy_method;
pub mod trained_with;
pub mod wrong_use;
