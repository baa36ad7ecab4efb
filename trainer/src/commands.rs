//! What each command of `graft` does.

pub mod adapters;
pub mod chat;
pub mod data;
pub mod doctor;
pub mod documents;
pub mod eval;
pub mod export;
pub mod generate;
pub mod inspect;
pub mod merge;
pub mod open;
pub mod plan;
pub mod quantize;
pub mod recipes;
mod speech;
pub mod synth_model;
pub mod train;
pub mod validate;
