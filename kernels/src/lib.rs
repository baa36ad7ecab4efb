//! Frozen weights (NF4, bf16, f16, f32) and the fused ops that a Llama needs.
//!
//! - [`Kernels`] is what an implementation provides: [`flex`] for the CPU. [`mod@reference`] holds the same
//!   ops in plain burn, the oracle of the tests.
//! - [`Ops`] is what a decoder calls: the same kernels with or without burn's tape.
//! - [`FrozenMatrix`] and [`nf4`] are the stored forms of a weight; they live outside any tape.
//! - [`adamw`] is what becomes of gradients, where they were computed.

pub mod adamw;
#[cfg(any(test, feature = "cube"))]
mod arrival;
#[cfg(feature = "cube")]
pub mod cube;
mod dropout;
pub mod flex;
pub mod frozen;
mod kernels;
pub mod layout;
pub mod nf4;
mod precision;
pub mod reference;
mod tape;

/// The release of burn underneath.
pub const BURN_VERSION: &str = "0.21.0";

pub use dropout::Dropout;
pub use frozen::FrozenMatrix;
pub use kernels::{AttentionSaved, Home, Kernels, LoraGradients, LoraSaved, LowRank, in_f32};
pub use layout::{AttentionShape, Direction, Rotation, Span};
pub use precision::{Precision, Rounding};
pub use tape::{Attended, Ops, Output, Values, backward_from};

#[cfg(test)]
mod tests {
    #[test]
    fn the_release_of_burn_is_the_locked_one() {
        let locked = include_str!("../../Cargo.lock");
        let entry = format!("name = \"burn\"\nversion = \"{}\"\n", super::BURN_VERSION);
        assert!(locked.replace('\r', "").contains(&entry), "{entry}");
    }
}
