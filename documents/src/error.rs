//! Why a file gave no document.

use std::path::PathBuf;

use graft_files::plain_file::Unreadable;

use crate::kind::Kind;

/// A file, and why it gave no document.
#[derive(Debug, thiserror::Error)]
#[error("`{}`: {why}", path.display())]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub why: Why,
}

/// Why a file gave no document, without its name.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// The disk, or what lies there.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Not a kind that is read; what it is instead, and the way out.
    #[error("it is {0}")]
    Unknown(String),
    /// It has no text at all.
    #[error("{0}")]
    Empty(String),
    /// A password keeps it shut.
    #[error("this {kind} is encrypted: save it without a password")]
    Encrypted {
        /// What it is.
        kind: Kind,
    },
    /// It is not what it says that it is.
    #[error("this {kind} is broken: {what}")]
    Broken {
        /// What it is.
        kind: Kind,
        /// Where, and what is wrong there.
        what: String,
    },
    /// More than is read.
    #[error("this {kind} has {found} {what}; allowed: at most {limit}")]
    Limit {
        /// What it is.
        kind: Kind,
        /// What there is too much of.
        what: &'static str,
        /// How much was found; it may be more.
        found: String,
        /// The most that is read.
        limit: u64,
    },
    /// It keeps its reader busy.
    #[error(
        "reading this {kind} took longer than {seconds} seconds: it is damaged, or made to keep readers busy"
    )]
    OutOfTime {
        /// What it is.
        kind: Kind,
        /// The most that it may take.
        seconds: u64,
    },
    /// The library that reads this kind gave up.
    #[error("this {kind} is broken: its reader gave up on it")]
    GaveUp {
        /// What it is.
        kind: Kind,
    },
    /// The system has no thread to read it on.
    #[error("cannot start a thread to read it: {0}")]
    NoThread(std::io::Error),
}
