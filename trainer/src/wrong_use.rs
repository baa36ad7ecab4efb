//! What somebody asked for in a way that cannot be done, as a sentence.

/// A command line that clap cannot refuse by itself, or an input without an error type of its own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUse(pub String);
