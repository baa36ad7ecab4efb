//! What each command of `graft` does.

pub mod data;
pub mod inspect;
pub mod recipes;
pub mod train;
pub mod validate;
