//! What somebody asked for in a way that cannot be done, as a sentence.

/// A command line that clap cannot refuse by itself, or an input without an error type of its own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUse(pub String);

/// The first of many things that are told.
pub(crate) fn some_of(told: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = told.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("; ");
    match told.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}
