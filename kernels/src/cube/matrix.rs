//! Frozen weights in device memory, in the form their file has them, and how values come out of it.
//!
//! NF4 stays at half a byte a weight, its scales at a byte a block where they are quantised themselves; see
//! [`crate::nf4`]. A product that wants whole operands decodes a weight into a buffer that lives as long as
//! the product.

use std::ops::Range;

use burn::tensor::{DType, Shape};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use bytes::Bytes;
use cubecl::prelude::*;

use super::launch::OnDevice;
use crate::frozen::{FrozenMatrix, Storage};
use crate::nf4::{self, Absmax};

/// How values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    F32,
    F16,
    Bf16,
    Nf4,
    /// NF4 with quantised scales.
    Nf4Double,
}

impl Form {
    fn dtype(self) -> Option<DType> {
        match self {
            Self::F32 => Some(DType::F32),
            Self::F16 => Some(DType::F16),
            Self::Bf16 => Some(DType::BF16),
            Self::Nf4 | Self::Nf4Double => None,
        }
    }
}

/// A frozen weight `[out, in]` on a device.
#[derive(Clone, Debug)]
pub struct DeviceMatrix<R: CubeRuntime> {
    shape: [usize; 2],
    /// Index of its first value; a band begins inside the buffers.
    first: usize,
    form: Form,
    /// The values, or NF4's codes, as 32-bit words.
    words: CubeTensor<R>,
    /// f32: NF4's scales, or the scales of the scales.
    scales: CubeTensor<R>,
    /// The scales' own codes as 32-bit words.
    scale_codes: CubeTensor<R>,
    /// The sixteen values of NF4 and, from 16 on, what the scales' codes stand for.
    tables: CubeTensor<R>,
    /// What is added to every quantised scale.
    offset: f32,
}

/// What a kernel reads of a frozen weight.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Stored {
    words: Array<u32>,
    scales: Array<f32>,
    scale_codes: Array<u32>,
    tables: Array<f32>,
    offset: f32,
    #[cube(comptime)]
    form: Form,
}

#[cube]
impl Stored {
    /// The scale of an NF4 block.
    fn scale(&self, block: usize) -> f32 {
        if comptime!(self.form == Form::Nf4Double) {
            let code = (self.scale_codes[block / 4] >> (8 * (block as u32 % 4))) & 255u32;
            self.tables[16 + code as usize] * self.scales[block / nf4::NESTED_BLOCK] + self.offset
        } else {
            self.scales[block]
        }
    }

    /// Value `index` of the flattened matrix.
    pub(super) fn value(&self, index: usize) -> f32 {
        if comptime!(self.form == Form::F32) {
            f32::reinterpret(self.words[index])
        } else if comptime!(self.form == Form::Bf16) {
            f32::reinterpret(self.half(index) << 16u32)
        } else if comptime!(self.form == Form::F16) {
            ieee_half(self.half(index))
        } else {
            // Two codes a byte, the first in the high nibble.
            let place = index as u32 % 8;
            let shift = 8 * (place / 2) + 4 * (1 - place % 2);
            let code = (self.words[index / 8] >> shift) & 15u32;
            self.tables[code as usize] * self.scale(index / nf4::BLOCK)
        }
    }

    fn half(&self, index: usize) -> u32 {
        (self.words[index / 2] >> (16 * (index as u32 % 2))) & 65535u32
    }
}

/// The value of a half's bits, without asking the device for that type.
#[cube]
fn ieee_half(bits: u32) -> f32 {
    let sign = (bits & 32768u32) << 16u32;
    let exponent = (bits >> 10u32) & 31u32;
    let fraction = bits & 1023u32;
    let mut magnitude = f32::reinterpret(((exponent + 112u32) << 23u32) | (fraction << 13u32));
    if exponent == 0u32 {
        magnitude = f32::cast_from(fraction) * 5.960_464_5e-8f32;
    }
    if exponent == 31u32 {
        magnitude = f32::reinterpret((255u32 << 23u32) | (fraction << 13u32));
    }
    f32::reinterpret(u32::reinterpret(magnitude) | sign)
}

#[cube(launch)]
fn decode<F: Float>(
    stored: &Stored,
    out: &mut Array<F>,
    first: u32,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = F::cast_from(stored.value(first as usize + ABSOLUTE_POS));
    }
}

/// NF4 from its first value on, a word of eight codes a unit.
#[cube(launch)]
fn decode_words<F: Float>(stored: &Stored, out: &mut Array<F>, #[define(F)] _dtype: StorageType) {
    let first = ABSOLUTE_POS * 8;
    if first < out.len() {
        let word = stored.words[ABSOLUTE_POS];
        let scale = stored.scale(first / nf4::BLOCK);
        #[unroll]
        for place in 0..8u32 {
            let shift = comptime!(8 * (place / 2) + 4 * (1 - place % 2));
            let index = first + place as usize;
            if index < out.len() {
                let code = (word >> shift) & 15u32;
                out[index] = F::cast_from(stored.tables[code as usize] * scale);
            }
        }
    }
}

#[cube(launch)]
fn gather(stored: &Stored, ids: &Array<u32>, out: &mut Array<f32>, first: u32, width: u32) {
    if ABSOLUTE_POS < out.len() {
        let width = width as usize;
        let row = ids[ABSOLUTE_POS / width] as usize;
        out[ABSOLUTE_POS] = stored.value(first as usize + row * width + ABSOLUTE_POS % width);
    }
}

impl<R: CubeRuntime> DeviceMatrix<R> {
    /// Copies a host matrix to the device, as it is stored.
    pub(super) fn new(matrix: &FrozenMatrix, place: &OnDevice<R>) -> Self {
        let none = || place.upload_u32(&[0]);
        let (mut offset, mut tables) = (0.0, nf4::CODE.to_vec());
        let (form, bytes, scales, scale_codes) = match matrix.storage() {
            Storage::F32(bytes) => (Form::F32, bytes, vec![0.0], none()),
            Storage::F16(bytes) => (Form::F16, bytes, vec![0.0], none()),
            Storage::Bf16(bytes) => (Form::Bf16, bytes, vec![0.0], none()),
            Storage::Nf4 { codes, absmax: Absmax::Plain(scales) } => {
                let scales = scales.as_chunks::<4>().0.iter().map(|&le| f32::from_le_bytes(le));
                (Form::Nf4, codes, scales.collect(), none())
            }
            Storage::Nf4 {
                codes,
                absmax: Absmax::Double { codes: of, nested, map, offset: add },
            } => {
                offset = *add;
                tables.extend_from_slice(map);
                (Form::Nf4Double, codes, nested.clone(), words(place, of))
            }
        };
        Self {
            shape: matrix.shape(),
            first: 0,
            form,
            words: words(place, bytes),
            scales: place.upload_f32(&scales),
            scale_codes,
            tables: place.upload_f32(&tables),
            offset,
        }
    }

    /// `[out, in]`.
    pub(super) fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Some of its rows, in the same memory.
    pub(super) fn band(&self, rows: Range<usize>) -> Self {
        let [_, width] = self.shape;
        Self { shape: [rows.len(), width], first: self.first + rows.start * width, ..self.clone() }
    }

    /// Index of the first value.
    pub(super) fn first(&self) -> usize {
        self.first
    }

    /// Where it is.
    pub(super) fn place(&self) -> OnDevice<R> {
        OnDevice::of(&self.words)
    }

    /// What a kernel reads.
    pub(super) fn stored(&self) -> StoredLaunch<R> {
        StoredLaunch::new(
            self.words.clone().into_array_arg(),
            self.scales.clone().into_array_arg(),
            self.scale_codes.clone().into_array_arg(),
            self.tables.clone().into_array_arg(),
            self.offset,
            self.form,
        )
    }

    /// All values as `dtype`: `[out, in]`. Where they are kept so, this is their own memory.
    pub(super) fn values(&self, dtype: DType) -> CubeTensor<R> {
        let (place, [out, width]) = (self.place(), self.shape);
        let count = out * width;
        let size = dtype.size();
        // A device binds buffers from such places on.
        let is_bound = (self.first * size).is_multiple_of(256);
        if self.form.dtype() == Some(dtype) && is_bound {
            let end = self.words.meta.num_elements() * 4;
            let handle = self.words.handle.clone().offset_start((self.first * size) as u64);
            let handle = handle.offset_end((end - (self.first + count) * size) as u64);
            let (client, device) = (self.words.client.clone(), self.words.device.clone());
            let shape = Shape::new(self.shape);
            return CubeTensor::new_contiguous(client, device, shape, handle, dtype);
        }
        let values = place.empty(self.shape, dtype);
        let (arg, stored) = (values.clone().into_array_arg(), self.stored());
        let is_nf4 = matches!(self.form, Form::Nf4 | Form::Nf4Double);
        if is_nf4 && self.first == 0 {
            let (count, dim) = place.each(count.div_ceil(8));
            decode_words::launch(&place.client, count, dim, stored, arg, dtype.into());
        } else {
            let ((count, dim), first) = (place.each(count), self.first as u32);
            decode::launch(&place.client, count, dim, stored, arg, first, dtype.into());
        }
        values
    }

    /// Rows `ids` as f32: `[ids, in]`.
    pub(super) fn rows(&self, ids: &[u32]) -> CubeTensor<R> {
        let (place, [_, width]) = (self.place(), self.shape);
        let rows = place.empty([ids.len(), width], DType::F32);
        let (count, dim) = place.each(ids.len() * width);
        gather::launch(
            &place.client,
            count,
            dim,
            self.stored(),
            place.upload_u32(ids).into_array_arg(),
            rows.clone().into_array_arg(),
            self.first as u32,
            width as u32,
        );
        rows
    }
}

/// Bytes as 32-bit words, the last one filled up.
fn words<R: CubeRuntime>(place: &OnDevice<R>, bytes: &Bytes) -> CubeTensor<R> {
    if bytes.len().is_multiple_of(4) {
        return place.upload_mapped(bytes, DType::U32);
    }
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(4), 0);
    place.upload(&padded, DType::U32)
}
