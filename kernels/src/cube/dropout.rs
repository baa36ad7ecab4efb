//! Dropout on a device: each unit draws one block of bits and takes the eight values that it decides. The
//! bits are those that [`Dropout::keeps`] defines.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{OnDevice, contiguous, rows_cols};
use crate::dropout::{BLOCKS, Dropout, GROUP, MULTIPLIERS, ROUNDS, WEYL};

const MULTIPLIER0: u32 = MULTIPLIERS[0];
const MULTIPLIER1: u32 = MULTIPLIERS[1];
const WEYL0: u32 = WEYL[0];
const WEYL1: u32 = WEYL[1];

/// Columns beside each other that a block decides, in either half of its group.
const SIDE: usize = 4;

/// What a kernel needs of a [`Dropout`].
#[derive(CubeType, CubeLaunch)]
struct Noise {
    key0: u32,
    key1: u32,
    stream0: u32,
    stream1: u32,
    threshold: u32,
}

#[cube]
impl Noise {
    /// The words of a block.
    fn block(&self, row: u32, block: u32, words: &mut Array<u32>) {
        let mut c0 = block;
        let mut c1 = row;
        let mut c2 = self.stream0;
        let mut c3 = self.stream1;
        let mut key0 = self.key0;
        let mut key1 = self.key1;
        #[unroll]
        for _round in 0..ROUNDS {
            let high0 = u32::mul_hi(c0, MULTIPLIER0);
            let low0 = c0 * MULTIPLIER0;
            let high1 = u32::mul_hi(c2, MULTIPLIER1);
            let low1 = c2 * MULTIPLIER1;
            c0 = high1 ^ c1 ^ key0;
            c1 = low1;
            c2 = high0 ^ c3 ^ key1;
            c3 = low0;
            key0 += WEYL0;
            key1 += WEYL1;
        }
        words[0] = c0;
        words[1] = c1;
        words[2] = c2;
        words[3] = c3;
    }
}

/// What is kept of `part`, added to `sums` where there are any.
#[cube(launch)]
fn dropped_kernel<F: Float>(
    part: &Array<F>,
    sums: &Array<f32>,
    out: &mut Array<F>,
    noise: &Noise,
    cols: u32,
    #[comptime] adds: bool,
    #[define(F)] _dtype: StorageType,
) {
    let cols = cols as usize;
    let blocks = cols.div_ceil(GROUP) * BLOCKS;
    let (row, block) = (ABSOLUTE_POS / blocks, ABSOLUTE_POS % blocks);
    if (row + 1) * cols <= out.len() {
        let mut words = Array::<u32>::new(SIDE);
        noise.block(row as u32, block as u32, &mut words);
        let first = block / BLOCKS * GROUP + block % BLOCKS * SIDE;
        #[unroll]
        for half in 0..2usize {
            #[unroll]
            for place in 0..SIDE {
                let column = first + half * (GROUP / 2) + place;
                let shift = comptime!(16 * (place % 2) as u32);
                let bits = (words[half * 2 + place / 2] >> shift) & 65535u32;
                if column < cols {
                    let at = row * cols + column;
                    let mut value = F::cast_from(0.0f32);
                    if bits >= noise.threshold {
                        value = part[at];
                    }
                    if comptime!(adds) {
                        value += F::cast_from(sums[at]);
                    }
                    out[at] = value;
                }
            }
        }
    }
}

fn launch<R: CubeRuntime>(
    part: &CubeTensor<R>,
    sums: Option<&CubeTensor<R>>,
    dropout: &Dropout,
) -> CubeTensor<R> {
    let (place, shape @ [rows, cols]) = (OnDevice::of(part), rows_cols(part));
    let out = place.empty(shape, part.dtype);
    let Dropout { key, stream, threshold } = *dropout;
    let noise = NoiseLaunch::new(key[0], key[1], stream[0], stream[1], u32::from(threshold));
    let part = contiguous(part);
    let (count, dim) = place.each(rows * cols.div_ceil(GROUP) * BLOCKS);
    dropped_kernel::launch(
        &place.client,
        count,
        dim,
        part.clone().into_array_arg(),
        sums.map_or_else(|| part.clone(), contiguous).into_array_arg(),
        out.clone().into_array_arg(),
        noise,
        cols as u32,
        sums.is_some(),
        part.dtype.into(),
    );
    out
}

/// The values that are kept, zeros in place of the others.
pub(super) fn dropped<R: CubeRuntime>(x: &CubeTensor<R>, dropout: &Dropout) -> CubeTensor<R> {
    launch(x, None, dropout)
}

/// `sums` and what is kept of `part`, all f32.
pub(super) fn with_dropped<R: CubeRuntime>(
    sums: &CubeTensor<R>,
    part: &CubeTensor<R>,
    dropout: &Dropout,
) -> CubeTensor<R> {
    assert_eq!((sums.dtype, rows_cols(sums)), (part.dtype, rows_cols(part)), "terms of a sum");
    launch(part, Some(sums), dropout)
}
