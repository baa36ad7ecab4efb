//! The scales of the blocks, plain or double-quantised: `quantize_4bit(compress_statistics=True)` of
//! bitsandbytes' `functional.py` and `quantize_cpu_impl` of its `csrc/cpu_ops.cpp`.
//!
//! `absmax ≈ DYNAMIC_MAP[code] · nested[block / 256] + offset`, two f32 roundings.

use std::sync::LazyLock;

use bytes::Bytes;

use super::cascade;
use super::{AbsmaxFormat, NESTED_BLOCK, Nf4Error};

/// Positive half of [`DYNAMIC_MAP`] without its 1: seven decades, each with twice the values of
/// the one before (8-bit Approximations, Dettmers 2015).
#[rustfmt::skip]
#[expect(clippy::unreadable_literal, reason = "shortest digits of each f32, to be compared with a printed map")]
const POSITIVE: [f32; 127] = [
    5.5000004e-7, 3.2500002e-6, 7.75e-6, 2.1249998e-5, 4.375e-5, 6.625e-5,
    8.875e-5, 0.00015625001, 0.00026875004, 0.00038125002, 0.00049375003, 0.0006062501,
    0.00071875006, 0.00083125, 0.0009437501, 0.0012812499, 0.00184375, 0.00240625,
    0.00296875, 0.0035312497, 0.00409375, 0.0046562497, 0.0052187503, 0.00578125,
    0.00634375, 0.00690625, 0.00746875, 0.00803125, 0.00859375, 0.009156249,
    0.00971875, 0.01140625, 0.01421875, 0.01703125, 0.019843752, 0.02265625,
    0.02546875, 0.028281251, 0.03109375, 0.03390625, 0.036718752, 0.03953125,
    0.042343747, 0.04515625, 0.04796875, 0.05078125, 0.05359375, 0.05640625,
    0.059218753, 0.06203125, 0.06484375, 0.067656256, 0.070468746, 0.07328125,
    0.07609375, 0.07890625, 0.08171876, 0.08453125, 0.08734375, 0.09015625,
    0.092968754, 0.09578126, 0.09859375, 0.107031256, 0.12109375, 0.13515624,
    0.14921875, 0.16328125, 0.17734376, 0.19140625, 0.20546874, 0.21953125,
    0.23359375, 0.24765624, 0.26171875, 0.27578127, 0.28984374, 0.30390626,
    0.31796873, 0.33203125, 0.34609374, 0.36015624, 0.37421876, 0.38828123,
    0.40234375, 0.41640624, 0.43046874, 0.44453126, 0.45859373, 0.47265625,
    0.4867187, 0.50078124, 0.5148437, 0.5289062, 0.54296875, 0.5570313,
    0.5710938, 0.58515626, 0.5992187, 0.61328125, 0.6273438, 0.6414063,
    0.65546876, 0.6695312, 0.68359375, 0.6976563, 0.7117188, 0.72578126,
    0.7398437, 0.75390625, 0.7679688, 0.78203124, 0.79609376, 0.8101562,
    0.82421875, 0.8382813, 0.85234374, 0.86640626, 0.8804687, 0.89453125,
    0.9085938, 0.92265624, 0.93671876, 0.9507812, 0.96484375, 0.9789063,
    0.99296874,
];

/// What the 256 codes of double quantisation stand for, ascending: `create_dynamic_map` of the
/// reference. A file brings its own copy; see [`Absmax::Double`].
pub const DYNAMIC_MAP: [f32; 256] = {
    let mut map = [0.0; 256];
    let mut index = 0;
    while index < 127 {
        map[126 - index] = -POSITIVE[index];
        map[128 + index] = POSITIVE[index];
        index += 1;
    }
    map[255] = 1.0;
    map
};

/// Bins into which the reference cuts [-1, 1] before it looks for the nearest code.
const BINS: usize = 1 << 16;

/// Code of the middle of each bin; `build_quantize_lut` of the reference.
static CODE_OF_BIN: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    let midpoint = |code: usize| 0.5 * (DYNAMIC_MAP[code] + DYNAMIC_MAP[code + 1]);
    let mut code = 0;
    (0..BINS)
        .map(|bin| {
            let value = -1.0 + (2.0 * bin as f32) / (BINS - 1) as f32;
            while code < 255 && midpoint(code) < value {
                code += 1;
            }
            code as u8
        })
        .collect()
});

/// The scales of a tensor's blocks, as files have them. Lengths that do not belong together are the reader's to
/// refuse.
#[derive(Debug, Clone, PartialEq)]
pub enum Absmax {
    /// f32, little-endian, 4 bytes a block.
    Plain(Bytes),
    /// Quantised themselves: `map[code] · nested[block / 256] + offset`.
    Double {
        /// One byte a block.
        codes: Bytes,
        /// One scale for 256 blocks.
        nested: Vec<f32>,
        /// What the 256 codes stand for; the last bits of another machine's may differ from [`DYNAMIC_MAP`].
        map: Vec<f32>,
        /// Mean of the scales, taken off before they were quantised.
        offset: f32,
    },
}

impl Absmax {
    /// Keeps scales in a format.
    ///
    /// # Errors
    /// [`Nf4Error::Overflow`] when double quantisation is asked for and their sum is beyond f32.
    pub fn keep(absmax: &[f32], format: AbsmaxFormat) -> Result<Self, Nf4Error> {
        match format {
            AbsmaxFormat::Plain => {
                let bytes = absmax.iter().flat_map(|value| value.to_le_bytes());
                Ok(Self::Plain(bytes.collect::<Vec<u8>>().into()))
            }
            AbsmaxFormat::Double => Self::quantised(absmax),
        }
    }

    fn quantised(absmax: &[f32]) -> Result<Self, Nf4Error> {
        let sum = cascade::sum(absmax);
        if !sum.is_finite() {
            return Err(Nf4Error::Overflow { blocks: absmax.len(), sum });
        }
        // An empty tensor has no mean; zero keeps the manifest free of NaN.
        let offset = if absmax.is_empty() { 0.0 } else { sum / absmax.len() as f32 };
        let mut codes = Vec::with_capacity(absmax.len());
        let mut nested = Vec::with_capacity(absmax.len().div_ceil(NESTED_BLOCK));
        for block in absmax.chunks(NESTED_BLOCK) {
            let scale = block.iter().fold(0.0, |top: f32, value| top.max((value - offset).abs()));
            nested.push(scale);
            if scale == 0.0 {
                codes.extend(block.iter().map(|_| 0));
            } else {
                let inverse = 1.0 / scale;
                let bins = block.iter().map(|value| bin_of((value - offset) * inverse));
                codes.extend(bins.map(|bin| CODE_OF_BIN[usize::from(bin)]));
            }
        }
        Ok(Self::Double { codes: codes.into(), nested, map: DYNAMIC_MAP.to_vec(), offset })
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len() / 4,
            Self::Double { codes, .. } => codes.len(),
        }
    }

    /// The scale of one block: under double quantisation the product in f32, then the offset.
    #[inline]
    pub fn scale(&self, block: usize) -> f32 {
        match self {
            Self::Plain(bytes) => f32::from_le_bytes(bytes.as_chunks::<4>().0[block]),
            Self::Double { codes, nested, map, offset } => {
                map[usize::from(codes[block])] * nested[block / NESTED_BLOCK] + offset
            }
        }
    }

    /// The scale of every block.
    pub fn decode(&self) -> Vec<f32> {
        (0..self.blocks()).map(|block| self.scale(block)).collect()
    }
}

/// `norm_to_lut_index` of the reference. A NaN, from a scale too small to invert, is bin 0 in both.
fn bin_of(value: f32) -> u16 {
    ((value.clamp(-1.0, 1.0) + 1.0) * 0.5 * (BINS - 1) as f32 + 0.5) as u16
}
