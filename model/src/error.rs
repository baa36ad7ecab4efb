//! What can go wrong between a model's files and a model in memory.

use std::path::PathBuf;

use crate::config::ConfigProblem;

/// The errors of this crate: each names the file, the place in it, both values and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused an action on a file.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried, as an English verb: `read`, `map`.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Writing failed; the text names the file.
    #[error(transparent)]
    Write(#[from] std::io::Error),
    /// A JSON file that is none.
    #[error("`{file}` is not valid JSON: {source}")]
    Json {
        /// The file.
        file: String,
        /// Line, column and reason.
        source: serde_json::Error,
    },
    /// A config.json of a model that Graft does not compute, or that is inconsistent.
    #[error("`{file}` does not describe a model that Graft can run:{}", lines(problems))]
    Config {
        /// The file.
        file: String,
        /// Everything that is wrong with it.
        problems: Vec<ConfigProblem>,
    },
}

/// One indented line an item.
fn lines<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(|item| format!("\n  {item}")).collect()
}
