//! Back from NF4: `CODE[index] · absmax` in f32, then one rounding; `dequantizeBlockwise4bitCpu` of
//! `csrc/cpu_ops.cpp`.

use super::{Absmax, BLOCK, CODE, Element};

/// Decodes values `start..start + out.len()` of a flattened tensor from the codes and scales of all of it.
pub fn decode_run<E: Element>(codes: &[u8], absmax: &Absmax, start: usize, out: &mut [E]) {
    block_runs(start, out, |block, offset, run| {
        let scale = absmax.scale(block);
        // Sixteen products serve the block's 64 values, and each value is rounded as by itself.
        look_up(codes, &CODE.map(|code| E::round(code * scale)), offset, run);
    });
}

/// Cuts a run of a flattened tensor where blocks begin: `work(block, first index, part of out)`.
pub(crate) fn block_runs<T>(
    start: usize,
    out: &mut [T],
    mut work: impl FnMut(usize, usize, &mut [T]),
) {
    let (mut index, mut rest) = (start, out);
    while !rest.is_empty() {
        let len = (BLOCK - index % BLOCK).min(rest.len());
        let (run, tail) = rest.split_at_mut(len);
        work(index / BLOCK, index, run);
        index += len;
        rest = tail;
    }
}

/// `out[i] = table[code of value offset + i]`.
#[inline(always)]
pub(crate) fn look_up<T: Copy>(codes: &[u8], table: &[T; 16], offset: usize, out: &mut [T]) {
    for (i, out) in out.iter_mut().enumerate() {
        let index = offset + i;
        let byte = codes[index / 2];
        let code = if index.is_multiple_of(2) { byte >> 4 } else { byte & 15 };
        *out = table[usize::from(code)];
    }
}
