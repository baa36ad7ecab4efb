//! Promises between crates; see the `[[test]]` entries.
