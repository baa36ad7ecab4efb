//! Blocks to numbers, each product and sum in f32 in the order of `dequantize_row_…` of llama.cpp's
//! `ggml/src/ggml-quants.c`.

use half::{bf16, f16};

use crate::tensor_type::TensorType;

/// Decodes whole blocks of `kind`.
///
/// # Panics
/// `bytes` does not hold as many numbers as `values` has room for.
pub fn decode(kind: TensorType, bytes: &[u8], values: &mut [f32]) {
    assert_eq!(kind.row_bytes(values.len()), Some(bytes.len()), "numbers of {kind}");
    match kind {
        TensorType::F32 => blocks(bytes, values, |bytes: &[u8; 4], [value]: &mut [f32; 1]| {
            *value = f32::from_le_bytes(*bytes);
        }),
        TensorType::F16 => blocks(bytes, values, |bytes: &[u8; 2], [value]: &mut [f32; 1]| {
            *value = f16::from_le_bytes(*bytes).to_f32();
        }),
        TensorType::Bf16 => blocks(bytes, values, |bytes: &[u8; 2], [value]: &mut [f32; 1]| {
            *value = bf16::from_le_bytes(*bytes).to_f32();
        }),
        TensorType::Q8_0 => blocks(bytes, values, q8_0),
        TensorType::Q4_0 => blocks(bytes, values, q4_0),
        TensorType::Q4_1 => blocks(bytes, values, q4_1),
        TensorType::Q5_0 => blocks(bytes, values, q5_0),
        TensorType::Q5_1 => blocks(bytes, values, q5_1),
        TensorType::Q4K => blocks(bytes, values, q4_k),
        TensorType::Q5K => blocks(bytes, values, q5_k),
        TensorType::Q6K => blocks(bytes, values, q6_k),
    }
}

fn blocks<const N: usize, const M: usize>(
    bytes: &[u8],
    values: &mut [f32],
    block: impl Fn(&[u8; M], &mut [f32; N]),
) {
    for (bytes, values) in bytes.as_chunks().0.iter().zip(values.as_chunks_mut().0) {
        block(bytes, values);
    }
}

/// The f16 at byte `at`.
fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

fn q8_0(bytes: &[u8; 34], values: &mut [f32; 32]) {
    let scale = half_at(bytes, 0);
    for (value, &byte) in values.iter_mut().zip(&bytes[2..]) {
        *value = f32::from(byte as i8) * scale;
    }
}

fn q4_0(bytes: &[u8; 18], values: &mut [f32; 32]) {
    let scale = half_at(bytes, 0);
    let (low, high) = values.split_at_mut(16);
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(&bytes[2..]) {
        *low = f32::from((byte & 15) as i8 - 8) * scale;
        *high = f32::from((byte >> 4) as i8 - 8) * scale;
    }
}

fn q4_1(bytes: &[u8; 20], values: &mut [f32; 32]) {
    let (scale, least) = (half_at(bytes, 0), half_at(bytes, 2));
    let (low, high) = values.split_at_mut(16);
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(&bytes[4..]) {
        *low = f32::from(byte & 15) * scale + least;
        *high = f32::from(byte >> 4) * scale + least;
    }
}

/// 32 codes of five bits: the fifth bits of all, then pairs of the other four.
fn five_bits(bytes: &[u8; 20]) -> [u8; 32] {
    let fifth = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    std::array::from_fn(|place| {
        let byte = bytes[4 + place % 16];
        let low = if place < 16 { byte & 15 } else { byte >> 4 };
        low | ((fifth >> place & 1) as u8) << 4
    })
}

fn q5_0(bytes: &[u8; 22], values: &mut [f32; 32]) {
    let scale = half_at(bytes, 0);
    let codes = five_bits(bytes.last_chunk().expect("20 of 22"));
    for (value, code) in values.iter_mut().zip(codes) {
        *value = f32::from(code as i8 - 16) * scale;
    }
}

fn q5_1(bytes: &[u8; 24], values: &mut [f32; 32]) {
    let (scale, least) = (half_at(bytes, 0), half_at(bytes, 2));
    let codes = five_bits(bytes.last_chunk().expect("20 of 24"));
    for (value, code) in values.iter_mut().zip(codes) {
        *value = f32::from(code) * scale + least;
    }
}

/// Scale and least number of group `group` of eight, six bits each in twelve bytes.
fn six_bits(bytes: &[u8], group: usize) -> (f32, f32) {
    let (scale, least) = if group < 4 {
        (bytes[group] & 63, bytes[group + 4] & 63)
    } else {
        let low = bytes[group + 4];
        (low & 15 | bytes[group - 4] >> 6 << 4, low >> 4 | bytes[group] >> 6 << 4)
    };
    (f32::from(scale), f32::from(least))
}

fn q4_k(bytes: &[u8; 144], values: &mut [f32; 256]) {
    let (scale, least) = (half_at(bytes, 0), half_at(bytes, 2));
    for (group, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (part, below) = six_bits(&bytes[4..16], group);
        let (step, below) = (scale * part, least * below);
        let shift = 4 * (group % 2);
        let pairs = &bytes[16 + group / 2 * 32..];
        for (value, &byte) in values.iter_mut().zip(pairs) {
            *value = step * f32::from(byte >> shift & 15) - below;
        }
    }
}

fn q5_k(bytes: &[u8; 176], values: &mut [f32; 256]) {
    let (scale, least) = (half_at(bytes, 0), half_at(bytes, 2));
    for (group, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (part, below) = six_bits(&bytes[4..16], group);
        let (step, below) = (scale * part, least * below);
        let shift = 4 * (group % 2);
        let pairs = bytes[48 + group / 2 * 32..].iter().zip(&bytes[16..48]);
        for (value, (&byte, &fifth)) in values.iter_mut().zip(pairs) {
            let code = byte >> shift & 15 | (fifth >> group & 1) << 4;
            *value = step * f32::from(code) - below;
        }
    }
}

fn q6_k(bytes: &[u8; 210], values: &mut [f32; 256]) {
    let scale = half_at(bytes, 208);
    for (half, values) in values.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let (low, high) = (&bytes[half * 64..], &bytes[128 + half * 32..]);
        for (place, value) in values.iter_mut().enumerate() {
            let (quarter, at) = (place / 32, place % 32);
            let four = low[at + 32 * (quarter % 2)] >> (4 * (quarter / 2)) & 15;
            let two = high[at] >> (2 * quarter) & 3;
            let code = (four | two << 4) as i8 - 32;
            let part = bytes[192 + half * 8 + place / 16] as i8;
            *value = scale * f32::from(part) * f32::from(code);
        }
    }
}
