//! Matrices added up place by place: which of their values stay, and which signs.
//!
//! Follows PEFT 0.21.2, `utils/merge_utils.py`. What PEFT draws from torch's generator is drawn here from a hash of seed, adapter and
//! tensor, so that it is the same again in any order.

use graft_files::sha256::sha256_hex;

use super::{Draws, Share};

/// How the sign of most is found at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// That of the sum.
    Total,
    /// That of more values.
    Frequency,
}

impl Sign {
    /// PEFT's names.
    pub const ALL: &[(&str, Self)] = &[("total", Self::Total), ("frequency", Self::Frequency)];

    /// What PEFT calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Frequency => "frequency",
        }
    }
}

/// Leaves the largest values, and zeros in the place of the others; of equal ones the first stay.
pub(super) fn keep_largest(values: &mut [f32], share: Share) {
    let kept = (share.get() * values.len() as f64) as usize;
    if kept >= values.len() {
        return;
    }
    let mut order: Vec<usize> = (0..values.len()).collect();
    let larger_first =
        |&i: &usize, &j: &usize| values[j].abs().total_cmp(&values[i].abs()).then(i.cmp(&j));
    order.select_nth_unstable_by(kept, larger_first);
    for &index in &order[kept..] {
        values[index] = 0.0;
    }
}

/// Leaves each value by chance, larger by as much as there are fewer, and zeros in the place of the others. `of` is the place of the
/// adapter among the others.
pub(super) fn keep_drawn(values: &mut [f32], share: Share, draws: Draws, of: usize, name: &str) {
    if share.get() >= 1.0 {
        return;
    }
    let Draws(seed) = draws;
    let hash = sha256_hex(format!("{seed} {of} {name}").as_bytes());
    let key = u64::from_str_radix(&hash[..16], 16).expect("a hash is of hexadecimal digits");
    for (index, value) in values.iter_mut().enumerate() {
        let is_kept = fraction(key, index as u64) < share.get();
        *value = if is_kept { *value / share.get() as f32 } else { 0.0 };
    }
}

/// A number from 0 to below 1: `SplitMix64` at a place of its sequence.
fn fraction(key: u64, place: u64) -> f64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = key.wrapping_add((place + 1).wrapping_mul(STEP));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// `task_arithmetic`: `Σ weight · tensor`.
pub(super) fn weighted(tensors: &[Vec<f32>], weights: &[f32]) -> Vec<f32> {
    let mut sum = vec![0.0; tensors.first().map_or(0, Vec::len)];
    for (tensor, weight) in tensors.iter().zip(weights) {
        sum.iter_mut().zip(tensor).for_each(|(sum, value)| *sum += value * weight);
    }
    sum
}

/// At each place the mean of `weight · tensor` over those with the sign of most (`disjoint_merge`).
pub(super) fn elected(tensors: &[Vec<f32>], weights: &[f32], sign: Sign) -> Vec<f32> {
    let len = tensors.first().map_or(0, Vec::len);
    let vote = |value: f32| match sign {
        Sign::Total => value,
        Sign::Frequency if value == 0.0 => 0.0,
        Sign::Frequency => value.signum(),
    };
    let at = |place: usize| {
        let votes: f32 = tensors.iter().map(|tensor| vote(tensor[place])).sum();
        let of_most = if votes >= 0.0 { 1.0 } else { -1.0 };
        let (mut sum, mut count) = (0.0, 0_u16);
        for (tensor, weight) in tensors.iter().zip(weights) {
            if tensor[place] * of_most > 0.0 {
                sum += tensor[place] * weight;
                count += 1;
            }
        }
        sum / f32::from(count.max(1))
    };
    (0..len).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_stay_and_of_equal_ones_the_first() {
        let kept = |share| {
            let mut values = [1.0, -3.0, 2.0, -2.0, 0.5, 2.0];
            keep_largest(&mut values, Share::new(share).unwrap());
            values.map(|value| (value * 2.0) as i32)
        };
        assert_eq!(kept(0.5), [0, -6, 4, -4, 0, 0]);
        assert_eq!(kept(1.0), [2, -6, 4, -4, 1, 4]);
        assert_eq!(kept(0.1), [0; 6]);
        assert_eq!([0.0, -0.1, 1.01, f64::NAN].map(Share::new), [None; 4]);
    }

    #[test]
    fn draws_are_a_function_of_seed_adapter_and_name_and_keep_the_mean() {
        let drawn = |seed, of, name| {
            let mut values = vec![1.0; 4_000];
            keep_drawn(&mut values, Share::new(0.25).unwrap(), Draws(seed), of, name);
            values
        };
        let first = drawn(7, 0, "a");
        assert_eq!(first, drawn(7, 0, "a"));
        for other in [drawn(8, 0, "a"), drawn(7, 1, "a"), drawn(7, 0, "b")] {
            assert_ne!(first, other);
        }
        let mean = first.iter().sum::<f32>() / 4_000.0;
        assert!((mean - 1.0).abs() < 0.1, "{mean}");
        assert!(first.iter().all(|value| [0.0, 4.0].map(f32::to_bits).contains(&value.to_bits())));
    }

    #[test]
    fn those_with_the_sign_of_most_are_averaged() {
        let tensors =
            [vec![3.0, -1.0, 0.0, 1.0], vec![-1.0, -2.0, 0.0, 1.0], vec![-1.0, 4.0, 5.0, -2.0]];
        let weights = [1.0, 0.5, 2.0];
        let elected = |sign| super::elected(&tensors, &weights, sign);
        assert_eq!(elected(Sign::Total), [3.0, 8.0, 10.0, 0.75]);
        assert_eq!(elected(Sign::Frequency), [-1.25, -1.0, 10.0, 0.75]);
    }
}
