//! The float types that weights come in and are decoded to.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
    impl Sealed for half::f16 {}
}

/// A type of weight: `f32`, [`half::bf16`] or [`half::f16`].
pub trait Element: sealed::Sealed + Copy + Send + Sync + 'static {
    /// Widens `from` into `to`, of the same length; exact.
    fn widen(from: &[Self], to: &mut [f32]);

    /// Rounds to the nearest, ties to even; beyond the range it is infinite.
    fn round(value: f32) -> Self;
}

impl Element for f32 {
    fn widen(from: &[Self], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    fn round(value: f32) -> Self {
        value
    }
}

impl Element for bf16 {
    fn widen(from: &[Self], to: &mut [f32]) {
        // Plain shifts: the compiler vectorises them, which it cannot do to a NaN-checking call.
        for (to, from) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(from.to_bits()) << 16);
        }
    }

    fn round(value: f32) -> Self {
        // Never a NaN here: codes and scales are finite or the product is infinite.
        let bits = value.to_bits();
        Self::from_bits(((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
    }
}

impl Element for f16 {
    fn widen(from: &[Self], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }

    fn round(value: f32) -> Self {
        Self::from_f32(value)
    }
}
