//! Moments in 8 bits: Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization", section 2.
//!
//! 256 values share one absmax, and each keeps the nearest entry of a map of 256 numbers: the dynamic
//! tree of bitsandbytes (`create_dynamic_map` in `functional.py`), signed for the mean of the gradients,
//! unsigned for their mean square. The nearest entry is that of the CUDA kernels and of
//! `backends/default/ops.py`; the CPU kernel of bitsandbytes sorts into 65,536 equal bins first, and so
//! loses all that is below 1.5e-5 of the largest.

use std::sync::LazyLock;

use crate::nf4::DYNAMIC_MAP;

/// Values that share one absmax.
pub const BLOCK: usize = 256;

/// A tensor in 8 bits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Blocks {
    /// One entry of the map a value.
    pub codes: Vec<u8>,
    /// The largest magnitude of each block.
    pub absmax: Vec<f32>,
}

impl Blocks {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self { codes: vec![0; len], absmax: vec![0.0; len.div_ceil(BLOCK)] }
    }
}

/// The numbers that codes stand for, and the way back.
pub struct Map {
    values: [f32; 256],
    midpoints: [f32; 256],
    /// Code of the least number that begins with the 15 leading bits.
    start: Box<[u8]>,
}

/// Bits of an f32 that do not choose its place in [`Map::start`]: 6 of the mantissa do.
const REST: u32 = 17;
/// Midpoints that at most lie among numbers with the same leading bits.
const AMONG: usize = 2;

/// For numbers of both signs, `create_dynamic_map(signed=True)`.
pub static SIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(&DYNAMIC_MAP));
/// For numbers from 0, `create_dynamic_map(signed=False)`.
pub static UNSIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(&unsigned()));

/// Seven decades, each with twice the values of the one before: middles of equal parts of
/// `[0.1, 1]`, times the decade; `torch.linspace` goes from both ends to the middle.
fn unsigned() -> [f32; 256] {
    let (first, last) = (0.1_f32, 1.0_f32);
    let mut values = vec![0.0, 1.0];
    for decade in 0..7 {
        let parts = 2_usize << decade;
        let step = (last - first) / parts as f32;
        let boundary = |i: usize| {
            if i < parts.div_ceil(2) {
                step.mul_add(i as f32, first)
            } else {
                (-step).mul_add((parts - i) as f32, last)
            }
        };
        let scale = 10.0_f64.powi(decade - 6) as f32;
        values.extend((0..parts).map(|i| scale * f32::midpoint(boundary(i), boundary(i + 1))));
    }
    values.sort_by(f32::total_cmp);
    values.try_into().expect("2 and 2 + 4 + … + 128 values")
}

impl Map {
    fn new(values: &[f32; 256]) -> Self {
        let midpoint = |code: usize| match values.get(code + 1) {
            Some(next) => f32::midpoint(values[code], *next),
            None => f32::INFINITY,
        };
        let midpoints: [f32; 256] = std::array::from_fn(midpoint);
        let below = |value: f32| midpoints.partition_point(|midpoint| *midpoint < value) as u8;
        let start = (0..1_u32 << (32 - REST)).map(|leading| {
            let bits = leading << REST;
            let ends = [bits, bits | ((1 << REST) - 1)].map(f32::from_bits);
            below(ends[0].min(ends[1]))
        });
        Self { values: *values, midpoints, start: start.collect() }
    }

    /// What the codes stand for, ascending.
    pub fn values(&self) -> &[f32; 256] {
        &self.values
    }

    /// What lies between each code and the next; infinite behind the last.
    pub fn midpoints(&self) -> &[f32; 256] {
        &self.midpoints
    }

    /// The code nearest to a number from -1 to 1, the lower of two that are.
    #[inline]
    fn nearest(&self, value: f32) -> u8 {
        let mut code = usize::from(self.start[(value.to_bits() >> REST) as usize]);
        for _ in 0..AMONG {
            code += usize::from(self.midpoints[code] < value);
        }
        code as u8
    }

    /// The numbers of a block.
    #[inline]
    pub fn decode(&self, codes: &[u8], absmax: f32, values: &mut [f32]) {
        for (value, &code) in values.iter_mut().zip(codes) {
            *value = self.values[usize::from(code)] * absmax;
        }
    }

    /// Quantises a block and returns its absmax.
    #[inline]
    pub fn encode(&self, values: &[f32], codes: &mut [u8]) -> f32 {
        // Below it the inverse is infinite.
        const LEAST: f32 = 1e-38;
        let absmax = values.iter().fold(0.0, |top: f32, value| top.max(value.abs()));
        let inverse = 1.0 / absmax.max(LEAST);
        for (code, value) in codes.iter_mut().zip(values) {
            *code = self.nearest((value * inverse).clamp(-1.0, 1.0));
        }
        absmax
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_gets_the_nearest_code() {
        for map in [&*SIGNED, &*UNSIGNED] {
            let searched = |value: f32| map.midpoints.partition_point(|m| *m < value) as u8;
            let check = |value: f32| {
                assert_eq!(map.nearest(value), searched(value), "{value}");
                let off = |code: u8| (map.values[usize::from(code)] - value).abs();
                let nearest = map.nearest(value);
                assert!(
                    [nearest.saturating_sub(1), nearest.saturating_add(1)]
                        .iter()
                        .all(|&other| off(nearest) <= off(other) * (1.0 + 1e-4)),
                    "{value} is nearer to a neighbour of {nearest}"
                );
            };
            let around = |value: f32| [value.next_down(), value, value.next_up()];
            let places = map.midpoints[..255].iter().chain(&map.values);
            places.flat_map(|&value| around(value)).filter(|v| v.abs() <= 1.0).for_each(check);
            let least = if map.values[0] < 0.0 { -1.0 } else { 0.0 };
            (0..100_000).map(|i| i as f32 * 1e-5).map(|v| v.max(least)).for_each(check);
            (0..4_000).map(|i| (i as f32 * -0.01).exp()).for_each(check);
            if least < 0.0 {
                (0..4_000).map(|i| -(i as f32 * -0.01).exp()).for_each(check);
            }
        }
    }

    #[test]
    fn no_more_midpoints_share_leading_bits_than_are_looked_at() {
        for map in [&*SIGNED, &*UNSIGNED] {
            let mut found = std::collections::BTreeMap::new();
            for midpoint in &map.midpoints[..255] {
                *found.entry(midpoint.to_bits() >> REST).or_insert(0) += 1;
            }
            assert!(found.values().all(|&count| count <= AMONG), "{found:?}");
        }
    }

    #[test]
    fn codes_come_back_as_themselves_and_zeros_as_zeros() {
        for map in [&*SIGNED, &*UNSIGNED] {
            let codes: Vec<u8> = (0..=255).collect();
            let (mut values, mut back) = ([0.0; BLOCK], [0; BLOCK]);
            map.decode(&codes, 0.37, &mut values);
            let absmax = map.encode(&values, &mut back);
            assert_eq!((absmax, &back[..]), (0.37, &codes[..]));
            assert_eq!(map.encode(&[0.0; BLOCK], &mut back).to_bits(), 0);
            map.decode(&back, 0.0, &mut values);
            assert!(values.iter().all(|value| *value == 0.0));
            // As small as an f32 is.
            let tiny = [f32::from_bits(1); BLOCK];
            let absmax = map.encode(&tiny, &mut back);
            map.decode(&back, absmax, &mut values);
            assert!(values.iter().all(|value| value.is_finite()));
        }
    }
}
