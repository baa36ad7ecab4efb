//! The mean of f32 values in the order in which PyTorch adds them on a CPU: the cascade sum of
//! `aten/src/ATen/native/cpu/SumKernel.cpp`, with AVX2's eight lanes (PyTorch has no wider variant
//! of this kernel) and one thread. Double quantisation subtracts this mean, so its last bit counts.

/// f32 lanes of an AVX2 register.
const LANES: usize = 8;
/// Independent partial sums that the reference keeps in flight.
const IN_FLIGHT: usize = 4;
/// Levels of the cascade: each collects whole sums of the one below.
const LEVELS: usize = 4;

/// Sum of `values`, to the bit as `torch.sum` on one thread.
pub(super) fn sum(values: &[f32]) -> f32 {
    if values.len() < LANES {
        return row_sum::<1, IN_FLIGHT>(values)[0];
    }
    let (vectors, tail) = values.split_at(values.len() / LANES * LANES);
    let lanes = row_sum::<LANES, { LANES * IN_FLIGHT }>(vectors);
    let tail = tail.iter().fold(0.0, |sum: f32, value| sum + value);
    lanes.iter().fold(tail, |sum, lane| sum + lane)
}

/// `row_sum` of the reference: `L` lanes, `N = L · IN_FLIGHT` accumulators. `values` are whole vectors.
fn row_sum<const L: usize, const N: usize>(values: &[f32]) -> [f32; L] {
    let (rows, rest) = values.as_chunks::<N>();
    let partial = cascade(rows);
    let (parts, _) = partial.as_chunks::<L>();
    let mut total = parts[0];
    for vector in rest.as_chunks::<L>().0 {
        add(&mut total, vector);
    }
    for part in &parts[1..] {
        add(&mut total, part);
    }
    total
}

/// `multi_row_sum` of the reference: sums rows, moving a level's sum up whenever it has collected
/// `2^power` terms, so that only numbers of like size are added.
fn cascade<const N: usize>(rows: &[[f32; N]]) -> [f32; N] {
    let power = (ceil_log2(rows.len()) / LEVELS).max(4);
    let step = 1 << power;
    let mut levels = [[0.0; N]; LEVELS];
    let (steps, rest) = rows.split_at(rows.len() / step * step);
    for (index, rows) in steps.chunks_exact(step).enumerate() {
        for row in rows {
            add(&mut levels[0], row);
        }
        let done = (index + 1) * step;
        for level in 1..LEVELS {
            let below = std::mem::replace(&mut levels[level - 1], [0.0; N]);
            add(&mut levels[level], &below);
            if done & ((step - 1) << (level * power)) != 0 {
                break;
            }
        }
    }
    for row in rest {
        add(&mut levels[0], row);
    }
    let [mut total, upper @ ..] = levels;
    for level in &upper {
        add(&mut total, level);
    }
    total
}

fn add<const N: usize>(to: &mut [f32; N], values: &[f32; N]) {
    for (to, value) in to.iter_mut().zip(values) {
        *to += value;
    }
}

fn ceil_log2(count: usize) -> usize {
    if count <= 1 { 0 } else { (count - 1).ilog2() as usize + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference's exact value of `rand(n).sum()` stands in the fixtures; here, the sizes at
    /// which the shape of the cascade changes must still sum everything once.
    #[test]
    fn every_value_is_added_exactly_once() {
        for count in (0..200).chain([511, 512, 513, 4_095, 8_191, 8_192, 65_537]) {
            let values = vec![1.0; count];
            assert_eq!(sum(&values).to_bits(), (count as f32).to_bits(), "{count} ones");
        }
    }

    #[test]
    fn ceil_log2_is_that_of_the_reference() {
        let expected = [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1 << 20, 20)];
        for (count, log) in expected {
            assert_eq!(ceil_log2(count), log, "{count}");
        }
    }
}
