//! Back from NF4: `CODE[index] · absmax` in f32, then one rounding; `dequantizeBlockwise4bitCpu` of
//! `csrc/cpu_ops.cpp`.

use super::{BLOCK, CODE, Element, blocks};

/// Decodes whole blocks into `out`, on the calling thread.
///
/// # Shapes
/// - `out`: `[elements]`, starting at the start of a block; only the last block may be short
/// - `codes`: `[ceil(elements / 2)]`, of those elements alone
/// - `absmax`: `[ceil(elements / 64)]`, likewise
///
/// # Panics
/// If the three lengths disagree.
pub fn dequantize_into<E: Element>(codes: &[u8], absmax: &[f32], out: &mut [E]) {
    let elements = out.len();
    assert!(
        codes.len() == elements.div_ceil(2) && absmax.len() == blocks(elements),
        "{} bytes of codes and {} absmax for {elements} values",
        codes.len(),
        absmax.len(),
    );
    let codes = codes.chunks(BLOCK / 2);
    for ((out, codes), &absmax) in out.chunks_mut(BLOCK).zip(codes).zip(absmax) {
        // Sixteen products serve the block's 64 values, and each value is rounded as by itself.
        let table = CODE.map(|code| E::round(code * absmax));
        let (pairs, last) = out.as_chunks_mut::<2>();
        for ([first, second], byte) in pairs.iter_mut().zip(codes) {
            *first = table[usize::from(byte >> 4)];
            *second = table[usize::from(byte & 0x0f)];
        }
        if let ([last], Some(byte)) = (last, codes.last()) {
            *last = table[usize::from(byte >> 4)];
        }
    }
}
