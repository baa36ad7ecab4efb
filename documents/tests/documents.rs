//! Documents of every kind: their Markdown, what was left out, and the places of their texts.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

#[path = "documents/hostile.rs"]
mod hostile;
#[path = "documents/kinds.rs"]
mod kinds;
#[path = "documents/malformed.rs"]
mod malformed;

use std::path::PathBuf;

/// A small document of `tests/kinds`.
fn kind(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/kinds").join(name)
}
