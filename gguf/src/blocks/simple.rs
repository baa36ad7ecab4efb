//! Blocks of 32 numbers with one scale, to the byte as `quantize_row_q8_0_ref`, `quantize_row_q5_0_ref` and
//! `quantize_row_q5_1_ref` of llama.cpp's `ggml/src/ggml-quants.c` write them.

use half::f16;

/// `f16 scale, i8 [32]`: numbers in parts of the largest, 127 of them.
pub(super) fn q8_0(values: &[f32; 32], bytes: &mut [u8; 34]) {
    let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = inverse(scale);
    bytes[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (byte, value) in bytes[2..].iter_mut().zip(values) {
        // Halves away from zero.
        *byte = (value * inverse).round() as i8 as u8;
    }
}

/// `f16 scale, u32 fifth bits, [16] pairs of four bits`: numbers in parts of the one farthest from zero, which becomes
/// -16.
pub(super) fn q5_0(values: &[f32; 32], bytes: &mut [u8; 22]) {
    let farther = |far: f32, value: &f32| if far.abs() < value.abs() { *value } else { far };
    let scale = values.iter().fold(0.0, farther) / -16.0;
    let inverse = inverse(scale);
    bytes[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    // Cut off after half was added, as an i8.
    let codes = values.map(|value| ((value * inverse + 16.5) as i8 as u8).min(31));
    put_five_bits(&codes, &mut bytes[2..]);
}

/// `f16 scale, f16 least, u32 fifth bits, [16] pairs of four bits`.
pub(super) fn q5_1(values: &[f32; 32], bytes: &mut [u8; 24]) {
    let least =
        values.iter().fold(f32::MAX, |least, &value| if value < least { value } else { least });
    let most = values.iter().fold(f32::MIN, |most, &value| if value > most { value } else { most });
    let scale = (most - least) / 31.0;
    let inverse = inverse(scale);
    bytes[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    bytes[2..4].copy_from_slice(&f16::from_f32(least).to_le_bytes());
    let codes = values.map(|value| ((value - least) * inverse + 0.5) as u8);
    put_five_bits(&codes, &mut bytes[4..]);
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The fifth bits of all, then the other four of number `i` and number `i + 16` in one byte.
fn put_five_bits(codes: &[u8; 32], bytes: &mut [u8]) {
    let fifth = codes
        .iter()
        .enumerate()
        .fold(0u32, |bits, (place, code)| bits | (u32::from(code >> 4 & 1) << place));
    bytes[..4].copy_from_slice(&fifth.to_le_bytes());
    for (place, byte) in bytes[4..20].iter_mut().enumerate() {
        *byte = codes[place] & 15 | (codes[place + 16] & 15) << 4;
    }
}
