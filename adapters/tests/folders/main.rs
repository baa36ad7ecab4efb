//! Promises of the model folders that are written: merged ones and quantised ones.
#![expect(clippy::disallowed_methods, reason = "the tests prepare plain files")]
#![allow(clippy::unwrap_used, reason = "a failing test is the place to panic")]

mod merge;
mod quantize;
mod tiny;
