//! Blocks of 256 numbers, to the byte as `quantize_row_q4_K_ref`, `quantize_row_q5_K_ref` and `quantize_row_q6_K_ref`
//! of llama.cpp's `ggml/src/ggml-quants.c` write them.

use half::f16;

use super::group::{self, Found, NOTHING, Search, nearest};

/// Scales and least numbers of the groups are kept in so many parts of the largest.
const PARTS: f32 = 63.0;

/// `f16 scale, f16 least, [12] scales and leasts of six bits, [128] pairs of four bits`.
pub(super) fn q4_k(values: &[f32; 256], bytes: &mut [u8; 144]) {
    let search = Search { most: 15, first: -1.0, step: 0.1, steps: 20 };
    let codes = groups_of_32(values, search, &mut bytes[..16]);
    for (pair, bytes) in codes.as_chunks::<64>().0.iter().zip(bytes[16..].as_chunks_mut::<32>().0) {
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = pair[place] | pair[place + 32] << 4;
        }
    }
}

/// `f16 scale, f16 least, [12] scales and leasts of six bits, [32] fifth bits, [128] pairs of four bits`.
pub(super) fn q5_k(values: &[f32; 256], bytes: &mut [u8; 176]) {
    let search = Search { most: 31, first: -0.5, step: 0.1, steps: 15 };
    let (head, rest) = bytes.split_at_mut(16);
    let codes = groups_of_32(values, search, head);
    let (fifth, low) = rest.split_at_mut(32);
    fifth.fill(0);
    let pairs = codes.as_chunks::<64>().0.iter().zip(low.as_chunks_mut::<32>().0);
    for (number, (pair, bytes)) in pairs.enumerate() {
        for (place, byte) in bytes.iter_mut().enumerate() {
            let (first, second) = (pair[place], pair[place + 32]);
            *byte = first & 15 | (second & 15) << 4;
            fifth[place] |= (first >> 4 | second >> 4 << 1) << (2 * number);
        }
    }
}

/// Fills the first 16 bytes of a block of eight groups, and gives the codes.
fn groups_of_32(values: &[f32; 256], search: Search, head: &mut [u8]) -> [u8; 256] {
    let found: [Found<32>; 8] =
        std::array::from_fn(|at| group::scale_and_least(&values.as_chunks().0[at], search));
    let largest = |part: fn(&Found<32>) -> f32| {
        found.iter().map(part).fold(0.0f32, |most, part| if part > most { part } else { most })
    };
    let (scale, least) = (largest(|found| found.scale), largest(|found| found.least));
    let parts = |most: f32| if most > 0.0 { PARTS / most } else { 0.0 };
    let (scale_parts, least_parts) = (parts(scale), parts(least));
    let (scale, least) = (f16::from_f32(scale / PARTS), f16::from_f32(least / PARTS));
    head[..2].copy_from_slice(&scale.to_le_bytes());
    head[2..4].copy_from_slice(&least.to_le_bytes());
    let whole = |part: f32| (nearest(part) as u8).min(63);
    let sixes = found.map(|it| (whole(scale_parts * it.scale), whole(least_parts * it.least)));
    let mut codes = [0; 256];
    let groups = codes.as_chunks_mut::<32>().0.iter_mut().zip(values.as_chunks::<32>().0);
    for ((codes, group), (found, six)) in groups.zip(found.iter().zip(&sixes)) {
        let step = scale.to_f32() * f32::from(six.0);
        let below = least.to_f32() * f32::from(six.1);
        // Of a group whose scale is too small to be kept the codes stay as they were found.
        *codes = found.codes;
        if step != 0.0 {
            let code = |value| nearest((value + below) / step).clamp(0, i32::from(search.most));
            *codes = group.map(|value| code(value) as u8);
        }
    }
    put_sixes(&sixes, &mut head[4..16]);
    codes
}

/// Eight scales and eight least numbers of six bits in twelve bytes: the first four of each with the two high bits
/// of one of the last four, whose low bits share four bytes.
fn put_sixes(sixes: &[(u8, u8); 8], bytes: &mut [u8]) {
    for place in 0..4 {
        let ((scale, least), (later_scale, later_least)) = (sixes[place], sixes[place + 4]);
        bytes[place] = scale | later_scale >> 4 << 6;
        bytes[place + 4] = least | later_least >> 4 << 6;
        bytes[place + 8] = later_scale & 15 | (later_least & 15) << 4;
    }
}

/// `[128] low four bits, [64] high two bits, [16] i8 scales, f16 scale`.
pub(super) fn q6_k(values: &[f32; 256], bytes: &mut [u8; 210]) {
    let found: [Found<16>; 16] = std::array::from_fn(|at| group::scale(&values.as_chunks().0[at]));
    let farther =
        |far: f32, it: &Found<16>| if it.scale.abs() > far.abs() { it.scale } else { far };
    let farthest = found.iter().fold(0.0, farther);
    if farthest.abs() < NOTHING {
        bytes.fill(0);
        return;
    }
    let inverse = -128.0 / farthest;
    let scale = f16::from_f32(1.0 / inverse);
    bytes[208..].copy_from_slice(&scale.to_le_bytes());
    let mut codes = [0u8; 256];
    let groups = codes.as_chunks_mut::<16>().0.iter_mut().zip(values.as_chunks::<16>().0);
    for ((codes, group), (found, byte)) in groups.zip(found.iter().zip(&mut bytes[192..208])) {
        let part = nearest(inverse * found.scale).min(127) as i8;
        *byte = part as u8;
        let step = scale.to_f32() * f32::from(part);
        *codes = found.codes;
        if step != 0.0 {
            *codes = group.map(|value| (nearest(value / step).clamp(-32, 31) + 32) as u8);
        }
    }
    put_six_bits(&codes, bytes);
}

/// Halves of 128 codes; in each the codes `i`, `i + 32`, `i + 64`, `i + 96` share three bytes.
fn put_six_bits(codes: &[u8; 256], bytes: &mut [u8; 210]) {
    let (low, high) = bytes.split_at_mut(128);
    let halves = codes.as_chunks::<128>().0.iter();
    for ((codes, low), high) in
        halves.zip(low.as_chunks_mut::<64>().0).zip(high.as_chunks_mut::<32>().0)
    {
        for place in 0..32 {
            let [a, b, c, d] = [0, 32, 64, 96].map(|after| codes[place + after]);
            low[place] = a & 15 | (c & 15) << 4;
            low[place + 32] = b & 15 | (d & 15) << 4;
            high[place] = a >> 4 | b >> 4 << 2 | c >> 4 << 4 | d >> 4 << 6;
        }
    }
}
