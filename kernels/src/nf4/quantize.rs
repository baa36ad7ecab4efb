//! Into NF4: the `quantize_4bit` kernel of bitsandbytes' `backends/default/ops.py`, which is the one
//! that runs on a CPU. Blocks are independent, so any number of threads gives the same bytes.

use rayon::prelude::*;

use super::{Absmax, AbsmaxFormat, BLOCK, CODE, Element, Nf4Error, Quantized, blocks};

/// Blocks that one task of the thread pool takes: 1 MiB of f32.
const BLOCKS_A_TASK: usize = 4_096;

/// The reference divides by no absmax below this. It is subnormal in f32.
const SMALLEST_ABSMAX: f32 = 1e-38;

/// Values that are compared at once. Their counts stay in registers.
const GROUP: usize = 16;

/// Midpoints between neighbouring codes. A value on a midpoint takes the lower code.
#[expect(clippy::manual_midpoint, reason = "written as the reference computes it")]
const BOUNDS: [f32; 15] = {
    let mut bounds = [0.0; 15];
    let mut index = 0;
    while index < 15 {
        // Exact halving: rounding happens in the sum only, as in the reference.
        bounds[index] = (CODE[index] + CODE[index + 1]) / 2.0;
        index += 1;
    }
    bounds
};

/// Quantises a tensor, flattened row-major, in parallel.
///
/// # Errors
/// As [`quantize_runs`].
pub fn quantize<E: Element>(values: &[E], format: AbsmaxFormat) -> Result<Quantized, Nf4Error> {
    let run = |start: usize, out: &mut [f32]| E::widen(&values[start..start + out.len()], out);
    quantize_runs(values.len(), format, run)
}

/// Quantises a tensor of so many elements that need not lie in memory: `run(start, out)` fills `out` with the
/// values from `start` on of the flattened tensor. A thread holds 1 MiB of them at a time.
///
/// The last block may be short. The reference divides there where it multiplies by the reciprocal
/// elsewhere, and never stores an absmax below 1e-38 for it; both are followed.
///
/// # Errors
/// [`Nf4Error::NonFinite`] for the first NaN or infinity; [`Nf4Error::Overflow`] when double
/// quantisation is asked for and the absmax sum past the largest f32.
pub fn quantize_runs(
    elements: usize,
    format: AbsmaxFormat,
    run: impl Fn(usize, &mut [f32]) + Sync,
) -> Result<Quantized, Nf4Error> {
    const TASK: usize = BLOCKS_A_TASK * BLOCK;
    let mut codes = vec![0; elements.div_ceil(2)];
    let mut absmax = vec![0.0; blocks(elements)];
    let tasks = codes.par_chunks_mut(TASK / 2).zip(absmax.par_chunks_mut(BLOCKS_A_TASK));
    tasks.enumerate().for_each_init(Vec::new, |values, (task, (codes, absmax))| {
        let start = task * TASK;
        values.resize(TASK.min(elements - start), 0.0);
        run(start, values);
        quantize_blocks(values, codes, absmax);
    });
    if let Some(block) = absmax.iter().position(|absmax| !absmax.is_finite()) {
        let start = block * BLOCK;
        let mut values = vec![0.0; BLOCK.min(elements - start)];
        run(start, &mut values);
        return Err(first_non_finite(&values, start));
    }
    Ok(Quantized { codes, absmax: Absmax::keep(&absmax, format)?, elements })
}

fn quantize_blocks(values: &[f32], codes: &mut [u8], absmax: &mut [f32]) {
    let mut wide = [0.0; BLOCK];
    let blocks = values.chunks(BLOCK).zip(codes.chunks_mut(BLOCK / 2));
    for ((values, codes), absmax) in blocks.zip(absmax) {
        if let Ok(codes) = <&mut [u8; BLOCK / 2]>::try_from(&mut *codes)
            && values.len() == BLOCK
        {
            wide.copy_from_slice(values);
            *absmax = largest(&wide);
            let scale = 1.0 / absmax.max(SMALLEST_ABSMAX);
            pack(&wide.map(|value| value * scale), codes);
        } else {
            wide = [0.0; BLOCK];
            wide[..values.len()].copy_from_slice(values);
            // `max` would drop a NaN, which the caller still has to see.
            let found = largest(&wide);
            *absmax = if found < SMALLEST_ABSMAX { SMALLEST_ABSMAX } else { found };
            let mut whole = [0; BLOCK / 2];
            pack(&wide.map(|value| value / *absmax), &mut whole);
            codes.copy_from_slice(&whole[..codes.len()]);
        }
    }
}

/// Largest magnitude; NaN if there is one.
fn largest(values: &[f32; BLOCK]) -> f32 {
    // Without the sign, the bit patterns of floats are ordered as integers, with NaN on top.
    let bits =
        values.iter().fold(0, |top: i32, value| top.max((value.to_bits() & !(1 << 31)) as i32));
    f32::from_bits(bits as u32)
}

/// Codes of values in [-1, 1], two a byte. The reference also clamps, which moves no code.
fn pack(scaled: &[f32; BLOCK], codes: &mut [u8; BLOCK / 2]) {
    let mut wide = [0_u8; BLOCK];
    for (group, wide) in scaled.as_chunks::<GROUP>().0.iter().zip(wide.as_chunks_mut::<GROUP>().0) {
        let mut counts = [0_i32; GROUP];
        for bound in BOUNDS {
            for (count, value) in counts.iter_mut().zip(group) {
                *count += i32::from(*value > bound);
            }
        }
        *wide = counts.map(|count| count as u8);
    }
    for (byte, [high, low]) in codes.iter_mut().zip(wide.as_chunks::<2>().0) {
        *byte = (high << 4) | low;
    }
}

#[cold]
fn first_non_finite(values: &[f32], start: usize) -> Nf4Error {
    let offset = values
        .iter()
        .position(|value| !value.is_finite())
        .expect("the block's absmax is not finite, so one of its values is not");
    Nf4Error::NonFinite { index: start + offset, value: values[offset] }
}
