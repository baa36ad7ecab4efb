//! Text in, token batches out.

pub mod quickstart;
