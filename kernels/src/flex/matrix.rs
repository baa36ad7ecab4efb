//! Values in memory as the kernels take them: f32, or bf16 where they are operands of bf16 products only.

use half::bf16;
use half::slice::HalfFloatSliceExt;

/// A row-major matrix in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Matrix<'a> {
    /// As they were computed.
    F32(&'a [f32]),
    /// Rounded.
    Bf16(&'a [bf16]),
}

impl Matrix<'_> {
    /// How many values.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }
}

impl<'a> Matrix<'a> {
    /// A run as f32: borrowed, or widened into `scratch`, which has its length.
    #[inline(always)]
    pub(crate) fn run<'s>(self, start: usize, scratch: &'s mut [f32]) -> &'s [f32]
    where
        'a: 's,
    {
        let range = start..start + scratch.len();
        match self {
            Self::F32(values) => &values[range],
            Self::Bf16(values) => {
                for (wide, value) in scratch.iter_mut().zip(&values[range]) {
                    *wide = value.get();
                }
                scratch
            }
        }
    }

    /// A run as bf16, if it is kept so.
    #[inline(always)]
    pub(crate) fn halves(self, start: usize, len: usize) -> Option<&'a [u16]> {
        match self {
            Self::F32(_) => None,
            Self::Bf16(values) => Some(values[start..start + len].reinterpret_cast()),
        }
    }
}

impl<'a> From<&'a [f32]> for Matrix<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::F32(values)
    }
}

impl<'a> From<&'a Vec<f32>> for Matrix<'a> {
    fn from(values: &'a Vec<f32>) -> Self {
        Self::F32(values)
    }
}

impl<'a> From<&'a [bf16]> for Matrix<'a> {
    fn from(values: &'a [bf16]) -> Self {
        Self::Bf16(values)
    }
}

/// One value, computed with as f32.
pub(crate) trait Value: Copy + Send + Sync + 'static {
    /// Its f32.
    fn get(self) -> f32;

    /// The nearest to an f32, ties to even. Subnormal values are zero in bf16, as for the processors'
    /// own instructions (`vcvtneps2bf16`, `vdpbf16ps`), so that all kernels multiply the same operands.
    fn of(value: f32) -> Self;
}

impl Value for f32 {
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }

    #[inline(always)]
    fn of(value: f32) -> Self {
        value
    }
}

impl Value for bf16 {
    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// Without branches, so that whole registers can be rounded.
    #[inline(always)]
    fn of(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        // A NaN must not round up to infinity.
        let quiet = bits | 0x0040_0000;
        let rounded = if value.is_nan() { quiet } else { rounded };
        let zero = bits & 0x8000_0000;
        let magnitude = bits & 0x7fff_ffff;
        let is_subnormal = magnitude < f32::MIN_POSITIVE.to_bits();
        Self::from_bits(((if is_subnormal { zero } else { rounded }) >> 16) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_format_for_every_kind_of_value() {
        let patterns = (0..=u16::MAX).flat_map(|high| {
            [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| u32::from(high) << 16 | low)
        });
        for bits in patterns {
            let value = f32::from_bits(bits);
            let (found, nearest) = (<bf16 as Value>::of(value), bf16::from_f32(value).to_bits());
            let expected = if value.is_subnormal() { nearest & 0x8000 } else { nearest };
            assert_eq!(found.to_bits(), expected, "{bits:#010x}");
            assert!(found.get().to_bits() == found.to_f32().to_bits() || value.is_nan());
        }
    }
}
