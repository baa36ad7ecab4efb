//! Paths behind flags, by the same rule as in recipes: `~/x`, `$NAME` and `${NAME}` are expanded, what
//! cannot be is refused by name.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use graft_recipes::expand;

const EMPTY: &str = "an empty text names no file or folder";

/// Reads a path.
pub(super) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|text: OsString| match text.into_string() {
        Ok(text) if text.is_empty() => Err(EMPTY.to_owned()),
        Ok(text) => expand(&text),
        // A name that is no text has no variable in it.
        Err(name) => Ok(PathBuf::from(name)),
    })
}

/// Reads a path, or `builtin:NAME`.
pub(super) fn place() -> impl TypedValueParser<Value = String> {
    clap::builder::StringValueParser::new().try_map(|text: String| {
        if text.is_empty() {
            return Err(EMPTY.to_owned());
        }
        if text.starts_with("builtin:") {
            return Ok(text);
        }
        expand(&text).map(|path| path.display().to_string())
    })
}
