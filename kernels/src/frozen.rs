//! A frozen weight `[out, in]` in host memory, in the form its file has it.
//!
//! The bytes are reference-counted slices of a memory map: loading copies nothing, and training never
//! writes to them. Values are decoded a run at a time while a product packs its panels.

use std::ops::Range;

use bytes::Bytes;
use half::{bf16, f16};

use crate::nf4::{self, Absmax};

/// A weight matrix that is only ever read.
#[derive(Clone, Debug)]
pub struct FrozenMatrix {
    out_features: usize,
    in_features: usize,
    storage: Storage,
}

/// How the values are stored, row-major and little-endian.
#[derive(Clone, Debug)]
pub enum Storage {
    /// 4 bytes a value.
    F32(Bytes),
    /// 2 bytes a value, IEEE half.
    F16(Bytes),
    /// 2 bytes a value, bfloat16.
    Bf16(Bytes),
    /// Half a byte a value, high nibble first, with a scale for every 64 values.
    Nf4 {
        /// `out * in / 2` bytes.
        codes: Bytes,
        /// One scale a block.
        absmax: Absmax,
    },
}

/// A buffer that does not hold what its shape needs.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{what} of a [{out_features}, {in_features}] weight: {found} bytes, expected {expected}")]
pub struct SizeMismatch {
    /// Which buffer.
    pub what: &'static str,
    /// Rows.
    pub out_features: usize,
    /// Columns.
    pub in_features: usize,
    /// Bytes found.
    pub found: usize,
    /// Bytes expected.
    pub expected: usize,
}

impl FrozenMatrix {
    /// Checks every buffer against the shape.
    pub fn new(
        out_features: usize,
        in_features: usize,
        storage: Storage,
    ) -> Result<Self, SizeMismatch> {
        let values = out_features * in_features;
        let blocks = values.div_ceil(nf4::BLOCK);
        let check = |what, found, expected| {
            if found == expected {
                return Ok(());
            }
            Err(SizeMismatch { what, out_features, in_features, found, expected })
        };
        match &storage {
            Storage::F32(bytes) => check("f32 values", bytes.len(), values * 4)?,
            Storage::F16(bytes) => check("f16 values", bytes.len(), values * 2)?,
            Storage::Bf16(bytes) => check("bf16 values", bytes.len(), values * 2)?,
            Storage::Nf4 { codes, absmax } => {
                check("NF4 codes", codes.len(), values.div_ceil(2))?;
                match absmax {
                    Absmax::Plain(bytes) => check("NF4 scales", bytes.len(), blocks * 4)?,
                    Absmax::Double { codes, nested, map, offset: _ } => {
                        check("NF4 scale codes", codes.len(), blocks)?;
                        let groups = blocks.div_ceil(nf4::NESTED_BLOCK);
                        check("nested NF4 scales", nested.len() * 4, groups * 4)?;
                        check("8-bit code", map.len() * 4, 256 * 4)?;
                    }
                }
            }
        }
        Ok(Self { out_features, in_features, storage })
    }

    /// `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.out_features, self.in_features]
    }

    /// The stored bytes.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Bytes that the stored form takes.
    pub fn stored_bytes(&self) -> usize {
        match &self.storage {
            Storage::F32(bytes) | Storage::F16(bytes) | Storage::Bf16(bytes) => bytes.len(),
            Storage::Nf4 { codes, absmax } => {
                codes.len()
                    + match absmax {
                        Absmax::Plain(bytes) => bytes.len(),
                        Absmax::Double { codes, nested, map, .. } => {
                            codes.len() + 4 * (nested.len() + map.len())
                        }
                    }
            }
        }
    }

    /// Decodes `out.len()` values of row `row` from column `column` on.
    #[inline]
    pub fn decode(&self, row: usize, column: usize, out: &mut [f32]) {
        debug_assert!(row < self.out_features && column + out.len() <= self.in_features);
        self.decode_run(row * self.in_features + column, out);
    }

    /// Decodes `out.len()` values of the matrix, flattened row-major, from `start` on.
    #[inline]
    pub fn decode_run(&self, start: usize, out: &mut [f32]) {
        match &self.storage {
            Storage::F32(bytes) => {
                let bytes = &bytes[start * 4..(start + out.len()) * 4];
                for (out, value) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *out = f32::from_le_bytes(*value);
                }
            }
            Storage::F16(bytes) => {
                let bytes = &bytes[start * 2..(start + out.len()) * 2];
                for (out, value) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *out = f16::from_le_bytes(*value).to_f32();
                }
            }
            Storage::Bf16(bytes) => {
                let bytes = &bytes[start * 2..(start + out.len()) * 2];
                for (out, value) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *out = f32::from_bits(u32::from(u16::from_le_bytes(*value)) << 16);
                }
            }
            Storage::Nf4 { codes, absmax } => nf4::decode_run(codes, absmax, start, out),
        }
    }

    /// Some of its rows, in the same memory; `None` where a block of scales runs over their ends.
    pub fn band(&self, rows: Range<usize>) -> Option<Self> {
        let values = rows.start * self.in_features..rows.end * self.in_features;
        let part = |bytes: &Bytes, size: usize| bytes.slice(values.start * size..values.end * size);
        let storage = match &self.storage {
            Storage::F32(bytes) => Storage::F32(part(bytes, 4)),
            Storage::F16(bytes) => Storage::F16(part(bytes, 2)),
            Storage::Bf16(bytes) => Storage::Bf16(part(bytes, 2)),
            Storage::Nf4 { .. } if rows == (0..self.out_features) => self.storage.clone(),
            Storage::Nf4 { .. } => return None,
        };
        Some(Self { out_features: rows.len(), in_features: self.in_features, storage })
    }

    /// The whole matrix as f32, row-major: for small ones, tests and exports.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.out_features * self.in_features];
        for (row, out) in values.chunks_exact_mut(self.in_features).enumerate() {
            self.decode(row, 0, out);
        }
        values
    }

    /// A matrix of f32 values, for tests and small models.
    pub fn from_f32(out_features: usize, in_features: usize, values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(out_features, in_features, Storage::F32(bytes.into()))
            .expect("callers pass out * in values")
    }

    /// A matrix of the same values rounded to bf16.
    #[must_use]
    pub fn to_bf16(&self) -> Self {
        let bytes: Vec<u8> = self
            .to_f32()
            .iter()
            .flat_map(|&value| bf16::from_f32(value).to_bits().to_le_bytes())
            .collect();
        Self::new(self.out_features, self.in_features, Storage::Bf16(bytes.into()))
            .expect("two bytes a value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantised(format: nf4::AbsmaxFormat) -> (FrozenMatrix, Vec<f32>) {
        // A width that is no multiple of a block: blocks run over the ends of rows.
        let (out, inner) = (64, 100);
        let values: Vec<f32> = (0..out * inner).map(|i| (i as f32 * 0.7).sin()).collect();
        let packed = nf4::quantize(&values, format).unwrap();
        let scales = packed.absmax.decode();
        let codes = packed.codes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let value = |(at, code)| nf4::CODE[usize::from(code)] * scales[at / nf4::BLOCK];
        let whole = codes.enumerate().map(value).collect();
        let storage = Storage::Nf4 { codes: packed.codes.into(), absmax: packed.absmax };
        (FrozenMatrix::new(out, inner, storage).unwrap(), whole)
    }

    #[test]
    fn a_run_decodes_as_the_whole_does_to_the_bit() {
        for format in [nf4::AbsmaxFormat::Plain, nf4::AbsmaxFormat::Double] {
            let (matrix, whole) = quantised(format);
            for row in 0..64 {
                for (column, len) in [(0, 100), (1, 99), (27, 2), (63, 37), (99, 1), (36, 64)] {
                    let mut run = vec![f32::NAN; len];
                    matrix.decode(row, column, &mut run);
                    let expected = &whole[row * 100 + column..][..len];
                    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&run), bits(expected), "{row}, {column}, {len}");
                }
            }
        }
    }

    #[test]
    fn a_band_is_those_rows() {
        let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let matrix = FrozenMatrix::from_f32(4, 3, &values);
        for matrix in [matrix.to_bf16(), matrix] {
            let band = matrix.band(1..3).unwrap();
            assert_eq!((band.shape(), band.to_f32()), ([2, 3], values[3..9].to_vec()));
        }
        let (nf4, whole) = quantised(nf4::AbsmaxFormat::Double);
        assert!(nf4.band(1..3).is_none());
        assert_eq!(nf4.band(0..64).unwrap().to_f32(), whole);
    }

    #[test]
    fn a_buffer_of_another_size_is_refused_with_both_sizes() {
        let error = FrozenMatrix::new(2, 3, Storage::Bf16(vec![0; 10].into())).unwrap_err();
        assert_eq!((error.found, error.expected), (10, 12));
    }
}
