//! Numbers behind flags, refused in words that say what is allowed.

use std::num::NonZeroUsize;
use std::str::FromStr;

/// A number of things, at least one.
pub(super) fn count(text: &str) -> Result<NonZeroUsize, String> {
    read(text, format!("a whole number from 1 to {}", usize::MAX))
}

/// A whole number, 0 included.
pub(super) fn whole<N: FromStr>(text: &str) -> Result<N, String> {
    read(text, format!("a whole number from 0 to {}", u64::MAX))
}

fn read<N: FromStr>(text: &str, allowed: String) -> Result<N, String> {
    text.parse().map_err(|_| format!("expected {allowed}"))
}

/// Blocks of a model.
pub(super) fn blocks(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number| (1..=4_096).contains(number));
    number.ok_or_else(|| "expected a whole number from 1 to 4096".to_owned())
}
