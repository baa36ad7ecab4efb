//! The random blocks that synthetic tensors are made of.
//!
//! A tensor is a row of blocks of 64 weights, each one of 256 that are drawn once. A byte of a
//! counter-based generator chooses the block, so a weight costs no arithmetic and the same tensor can
//! be made again: as bf16, as NF4 codes, and as the codes' scales.

use std::io::{self, Write};

use graft_data::{CounterRng, Purpose};
use graft_kernels::nf4::{self, Absmax, AbsmaxFormat, BLOCK, Quantized};
use half::bf16;

use crate::random_weights::{DEVIATION, name_hash, normal};

/// Blocks to choose from: as many as a byte can name, and as many as share one scale of scales.
const BLOCKS: usize = 256;

/// Bytes made before they are handed on.
const CHUNK: usize = 1 << 20;

/// 256 blocks of normal weights with standard deviation 0.02, in each form that a file has them in.
pub(super) struct Pool {
    seed: u64,
    dense: Box<[[u8; 2 * BLOCK]]>,
    codes: Box<[[u8; BLOCK / 2]]>,
    absmax: Box<[[u8; 4]]>,
    absmax_codes: Box<[[u8; 1]]>,
    nested_absmax: f32,
    offset: f32,
}

/// A tensor's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// bf16 weights.
    Dense,
    /// Two NF4 codes a byte.
    Codes,
    /// The scale of each block, f32.
    Absmax,
    /// The scale of each block as one of 256 codes.
    AbsmaxCodes,
}

impl Pool {
    pub(super) fn new(seed: u64) -> Self {
        let random = CounterRng::new(seed, Purpose::ModelInit, name_hash("synthetic"), 0);
        let draw = |index| bf16::from_f64(normal(&random, index) * DEVIATION);
        let weights: Vec<bf16> = (0..(BLOCKS * BLOCK) as u64).map(draw).collect();
        let quantize = |format| {
            nf4::quantize(&weights, format).expect("normal draws and their sums are finite")
        };
        let Quantized { codes, absmax, .. } = quantize(AbsmaxFormat::Plain);
        let plain = absmax.decode();
        let Absmax::Double { codes: of_absmax, nested, map: _, offset } =
            quantize(AbsmaxFormat::Double).absmax
        else {
            unreachable!("double scales were asked for")
        };
        let dense: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        Self {
            seed,
            dense: dense.as_chunks().0.into(),
            codes: codes.as_chunks().0.into(),
            absmax: plain.iter().map(|scale| scale.to_le_bytes()).collect(),
            absmax_codes: of_absmax.as_chunks().0.into(),
            nested_absmax: nested[0],
            offset,
        }
    }

    /// The scale of the 256 scales.
    pub(super) fn nested_absmax(&self) -> f32 {
        self.nested_absmax
    }

    /// What is added to every scale.
    pub(super) fn offset(&self) -> f32 {
        self.offset
    }

    /// Writes the tensor of the weight `name`, `blocks` blocks long.
    pub(super) fn write(
        &self,
        name: &str,
        form: Form,
        blocks: usize,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let random = CounterRng::new(self.seed, Purpose::ModelInit, name_hash(name), 1);
        let key = random.u64_at(0);
        match form {
            Form::Dense => copy(&self.dense, key, blocks, out),
            Form::Codes => copy(&self.codes, key, blocks, out),
            Form::Absmax => copy(&self.absmax, key, blocks, out),
            Form::AbsmaxCodes => copy(&self.absmax_codes, key, blocks, out),
        }
    }
}

/// Writes `blocks` blocks, each chosen by the next byte of the stream `key`.
fn copy<const N: usize>(
    pool: &[[u8; N]],
    key: u64,
    blocks: usize,
    out: &mut dyn Write,
) -> io::Result<()> {
    let pool: &[[u8; N]; BLOCKS] = pool.try_into().expect("a pool has 256 blocks");
    // Whole words of the generator, so that no chunk begins inside one.
    let at_once = (CHUNK / N).next_multiple_of(8);
    let mut buffer: Vec<[u8; N]> = Vec::with_capacity(at_once);
    let mut word = 0;
    let mut left = blocks;
    while left > 0 {
        buffer.clear();
        for _ in 0..at_once.min(left).div_ceil(8) {
            let choices = split_mix(key, word).to_le_bytes();
            buffer.extend(choices.map(|choice| pool[usize::from(choice)]));
            word += 1;
        }
        buffer.truncate(left);
        out.write_all(buffer.as_flattened())?;
        left -= buffer.len();
    }
    Ok(())
}

/// Number `index` of `SplitMix64` (Steele et al. 2014): a few cycles for eight random bytes.
fn split_mix(key: u64, index: u64) -> u64 {
    let mut z = key.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(pool: &Pool, name: &str, form: Form, blocks: usize) -> Vec<u8> {
        let mut out = Vec::new();
        pool.write(name, form, blocks, &mut out).unwrap();
        out
    }

    #[test]
    fn split_mix_gives_the_known_answers() {
        // The first numbers of the reference implementation from seed 1234567.
        let found = [0, 1, 2].map(|index| split_mix(1_234_567, index));
        assert_eq!(
            found,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn weights_are_normal_and_differ_between_seeds_and_names() {
        let pool = Pool::new(7);
        let dense = bytes(&pool, "a", Form::Dense, 10_001);
        assert_eq!(dense.len(), 10_001 * 2 * BLOCK);
        let values: Vec<f64> =
            dense.as_chunks().0.iter().map(|two| bf16::from_le_bytes(*two).to_f64()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let deviation = (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
        // 16,384 draws: three standard errors of the mean are 0.0005, of the deviation 0.0004.
        assert!(mean.abs() < 5e-4, "mean {mean}");
        assert!((deviation - DEVIATION).abs() < 4e-4, "deviation {deviation}");
        assert_ne!(dense, bytes(&pool, "b", Form::Dense, 10_001));
        assert_ne!(dense, bytes(&Pool::new(8), "a", Form::Dense, 10_001));
    }

    #[test]
    fn a_longer_tensor_begins_like_a_shorter_one_of_its_name() {
        let pool = Pool::new(7);
        // More than one chunk of the buffer, and no multiple of a word's eight blocks.
        let long = bytes(&pool, "a", Form::AbsmaxCodes, CHUNK + 13);
        assert_eq!(long.len(), CHUNK + 13);
        assert_eq!(bytes(&pool, "a", Form::AbsmaxCodes, 100), long[..100]);
    }
}
