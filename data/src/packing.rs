//! Rows into bins of `max_seq_len` tokens, few bins and little room left: best-fit decreasing
//! (Johnson 1973), which uses at most 11/9 of the best possible number of bins.

use std::collections::BTreeMap;

/// Puts every row, by index, into exactly one bin of at most `max_seq_len` tokens.
///
/// Each row goes into the fullest bin that still has room, longest row first; among equals the
/// lowest index decides, so the result is the same everywhere. Indices in a bin ascend. A row longer
/// than `max_seq_len` is left to the overlong policy and has a bin of its own here.
pub fn pack(lengths: &[usize], max_seq_len: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&row| (std::cmp::Reverse(lengths[row]), row));
    let mut bins: Vec<Vec<usize>> = Vec::new();
    // Bins by the room they have left: one ordered look-up a row.
    let mut by_room: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for row in order {
        let length = lengths[row];
        let room = by_room.range(length..).next().map(|(&room, _)| room);
        let (bin, room) = match room {
            Some(room) => {
                let same = by_room.entry(room).or_default();
                let bin = same.pop().unwrap_or(bins.len());
                if same.is_empty() {
                    by_room.remove(&room);
                }
                (bin, room)
            }
            None => (bins.len(), max_seq_len),
        };
        if bin == bins.len() {
            bins.push(Vec::new());
        }
        bins[bin].push(row);
        match room.saturating_sub(length) {
            0 => {}
            left => by_room.entry(left).or_default().push(bin),
        }
    }
    for bin in &mut bins {
        bin.sort_unstable();
    }
    bins
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::{CounterRng, Purpose};

    proptest! {
        #[test]
        fn every_row_is_in_one_bin_and_no_bin_is_over(
            lengths in proptest::collection::vec(1_usize..=100, 0..300), extra in 0_usize..50,
        ) {
            let max = 100 + extra;
            let bins = pack(&lengths, max);
            let mut rows: Vec<usize> = bins.iter().flatten().copied().collect();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
            let full = |bin: &Vec<usize>| bin.iter().map(|&row| lengths[row]).sum::<usize>();
            prop_assert!(bins.iter().all(|bin| full(bin) <= max));
            // No two bins would fit into one: otherwise the second was opened without need.
            let mut fills: Vec<usize> = bins.iter().map(full).collect();
            fills.sort_unstable();
            prop_assert!(fills.len() < 2 || fills[0] + fills[1] > max);
            prop_assert_eq!(pack(&lengths, max), bins);
        }
    }

    #[test]
    fn a_row_that_is_too_long_stands_alone() {
        assert_eq!(pack(&[3, 12, 7], 10), [vec![1], vec![0, 2]]);
    }

    const MAX: usize = 2_048;

    /// The share of the bins that is filled.
    fn fill(lengths: &[usize]) -> f64 {
        lengths.iter().sum::<usize>() as f64 / (pack(lengths, MAX).len() * MAX) as f64
    }

    #[test]
    fn a_hundred_thousand_rows_are_packed_near_full() {
        let rng = CounterRng::new(1, Purpose::Shuffle, 0, 0);
        let uniform = |i: u64| 1.0 - rng.uniform_f64_at(i);
        let rows = |length: &dyn Fn(u64) -> f64| -> Vec<usize> {
            (0..100_000).map(|i| (length(i) as usize).clamp(1, MAX)).collect()
        };
        let normal = |i: u64| {
            let (radius, turn) = ((-2.0 * uniform(2 * i).ln()).sqrt(), uniform(2 * i + 1));
            radius * (std::f64::consts::TAU * turn).cos()
        };
        for (name, lengths, least) in [
            ("chats", rows(&|i| 300.0 * (0.9 * normal(i)).exp()), 0.999),
            ("skewed", rows(&|i| 2_048.0 * uniform(i).powi(3)), 0.999),
            ("uniform", rows(&|i| 2_048.0 * uniform(i)), 0.99),
            ("pairs", rows(&|i| if i % 2 == 0 { 1_500.0 } else { 548.0 }), 1.0),
            ("single tokens", vec![1; 100_000], 0.99),
            // Two of 700 and one of 1,025 are all that a bin can hold.
            ("thirds and a bit", vec![700; 100_000], 1_400.0 / 2_048.0),
            ("halves and a bit", vec![1_025; 100_000], 1_025.0 / 2_048.0),
        ] {
            let fill = fill(&lengths);
            assert!(fill >= least, "{name}: only {fill} of the bins is filled");
        }
    }
}
