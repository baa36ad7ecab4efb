//! NF4, the 4-bit format that frozen weights are kept in, equal to the bit to bitsandbytes 0.50.2
//! on a CPU (`backends/default/ops.py`, `functional.py`, `csrc/cpu_ops.cpp`); Dettmers et al. 2023,
//! section 3.
//!
//! A tensor is flattened row-major and cut into blocks of [`BLOCK`] values. A block keeps
//! `absmax = max |x|` and, for each value, the index of the entry of [`CODE`] nearest to `x / absmax`;
//! two indices share a byte, the first in the high nibble. Decoding is `CODE[index] · absmax`, one
//! f32 product, then one rounding to the type asked for.
//!
//! Double quantisation also shrinks the absmax: their mean is taken off, and the rest is kept in 8
//! bits, in blocks of [`NESTED_BLOCK`]; see [`Absmax::Double`].
//!
//! Where the reference's own result depends on the machine, this follows one machine for all: an
//! x86-64 processor with AVX2, one thread. The thread count moves the reference's mean by an ulp in
//! tensors of more than two million values, a processor with AVX-512 BF16 flushes subnormal bf16
//! results to zero, and one with AVX-512 decodes wrongly when rows are not whole blocks.

mod absmax;
mod cascade;
mod dequantize;
mod element;
mod quantize;

pub use absmax::{Absmax, DYNAMIC_MAP};
pub use dequantize::decode_run;
pub(crate) use dequantize::{block_runs, look_up};
pub use element::Element;
pub use quantize::{quantize, quantize_runs};

/// Values that share one absmax.
pub const BLOCK: usize = 64;

/// Absmax values that share one scale under double quantisation.
pub const NESTED_BLOCK: usize = 256;

/// What the sixteen codes stand for, before the block's absmax; `_NF4_QUANT_TABLE` of the reference.
#[expect(clippy::excessive_precision, reason = "the digits of the reference, for comparing by eye")]
pub const CODE: [f32; 16] = [
    -1.0,
    -0.696_192_800_998_687_7,
    -0.525_073_051_452_636_7,
    -0.394_917_488_098_144_53,
    -0.284_441_381_692_886_35,
    -0.184_773_430_228_233_34,
    -0.091_050_036_251_544_95,
    0.0,
    0.079_580_299_556_255_34,
    0.160_930_201_411_247_25,
    0.246_112_301_945_686_34,
    0.337_915_241_718_292_24,
    0.440_709_829_330_444_34,
    0.562_617_003_917_694_1,
    0.722_956_836_223_602_3,
    1.0,
];

/// How the absmax of the blocks are to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbsmaxFormat {
    /// One f32 a block: 0.5625 bytes a weight.
    Plain,
    /// Double quantisation, one byte a block: 0.5159 bytes a weight.
    Double,
}

impl AbsmaxFormat {
    /// Of NF4 with or without double quantisation, as recipes and files say it.
    pub fn of(double: bool) -> Self {
        if double { Self::Double } else { Self::Plain }
    }

    /// Whether scales are quantised, too.
    pub fn is_double(self) -> bool {
        self == Self::Double
    }
}

/// A tensor in NF4. The shape is the caller's to keep.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// Two codes a byte, `[ceil(elements / 2)]`; the last low nibble of an odd count is 7, a zero.
    pub codes: Vec<u8>,
    /// Scales of the `ceil(elements / 64)` blocks.
    pub absmax: Absmax,
    /// How many values there are.
    pub elements: usize,
}

/// Why a tensor has no NF4 form. The reference writes one all the same, which decodes to NaN.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Nf4Error {
    /// A weight is NaN or infinite.
    #[error("value {index} is {value}, but NF4 holds finite values only; repair the checkpoint")]
    NonFinite {
        /// Place in the flattened tensor.
        index: usize,
        /// The value there.
        value: f32,
    },
    /// The sum of the absmax, which double quantisation needs, is beyond f32.
    #[error(
        "the absmax of {blocks} blocks sum to {sum}, beyond f32, so they have no mean for double \
         quantisation; keep plain absmax, or repair the checkpoint"
    )]
    Overflow {
        /// How many blocks there are.
        blocks: usize,
        /// What the sum came to.
        sum: f32,
    },
}

/// How many blocks `elements` values fill, the last one perhaps in part.
#[must_use]
pub const fn blocks(elements: usize) -> usize {
    elements.div_ceil(BLOCK)
}
