//! The optimizer's memory of a tensor: means of its gradients and of their squares.

use super::blockwise::{BLOCK, Blocks};

/// How the moments are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFormat {
    /// f32: 8 bytes a trained value.
    F32,
    /// 8 bits and an absmax every 256 values, in tensors of at least [`StateFormat::SMALLEST`] values:
    /// about 2 bytes a trained value.
    Blockwise8,
}

impl StateFormat {
    /// Tensors below this stay f32; `min_8bit_size` of bitsandbytes.
    pub const SMALLEST: usize = 4_096;

    /// Whether the moments of a tensor of `len` values are in 8 bits.
    pub fn is_blockwise(self, len: usize) -> bool {
        self == Self::Blockwise8 && len >= Self::SMALLEST
    }

    /// Bytes of both moments of a tensor of `len` values.
    pub fn bytes(self, len: usize) -> u64 {
        let blocks = len.div_ceil(BLOCK);
        2 * if self.is_blockwise(len) { len + 4 * blocks } else { 4 * len } as u64
    }
}

/// The moments of one tensor: of the gradients, then of their squares.
#[derive(Clone, Debug, PartialEq)]
pub enum Moments {
    /// In f32.
    F32([Vec<f32>; 2]),
    /// In 8 bits, with the signed and the unsigned map.
    Blockwise8([Blocks; 2]),
}

impl Moments {
    /// Nothing remembered yet, of a tensor of `len` values.
    pub fn zeros(format: StateFormat, len: usize) -> Self {
        if format.is_blockwise(len) {
            Self::Blockwise8([Blocks::zeros(len), Blocks::zeros(len)])
        } else {
            Self::F32([vec![0.0; len], vec![0.0; len]])
        }
    }

    /// Asserts that they are those of a tensor of `len` values, kept as `format` says.
    pub(crate) fn check(&self, format: StateFormat, len: usize) {
        let (found, blocks) = match self {
            Self::F32(both) => (both.each_ref().map(Vec::len), None),
            Self::Blockwise8(both) => (
                both.each_ref().map(|blocks| blocks.codes.len()),
                Some(both.each_ref().map(|blocks| blocks.absmax.len())),
            ),
        };
        let expected = format.is_blockwise(len).then(|| [len.div_ceil(BLOCK); 2]);
        assert_eq!((found, blocks), ([len; 2], expected), "values and blocks of both moments");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(moments: &Moments) -> u64 {
        let bytes = match moments {
            Moments::F32(both) => both.iter().map(|values| 4 * values.len()).sum::<usize>(),
            Moments::Blockwise8(both) => {
                both.iter().map(|blocks| blocks.codes.len() + 4 * blocks.absmax.len()).sum()
            }
        };
        bytes as u64
    }

    #[test]
    fn the_bytes_are_those_that_are_held() {
        for format in [StateFormat::F32, StateFormat::Blockwise8] {
            for len in [1, 4_095, 4_096, 4_097, 100_000] {
                assert_eq!(held(&Moments::zeros(format, len)), format.bytes(len), "{len}");
            }
        }
    }
}
