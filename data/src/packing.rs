//! Rows into bins of `max_seq_len` tokens, few bins and little room left: best-fit decreasing
//! (Johnson 1973), which uses at most 11/9 of the best possible number of bins.

/// Tokens of a row, as they are kept.
pub trait Length: Copy {
    /// How many.
    fn tokens(self) -> usize;
}

impl Length for usize {
    fn tokens(self) -> usize {
        self
    }
}

impl Length for u32 {
    fn tokens(self) -> usize {
        self as usize
    }
}

/// Puts every row, by index, into exactly one bin of at most `max_seq_len` tokens.
///
/// Each row goes into the fullest bin that still has room, longest row first; among equals the
/// lowest index decides, so the result is the same everywhere. Indices in a bin ascend, and so do the bins' first ones.
/// A row longer than `max_seq_len` is left to the overlong policy and has a bin of its own here.
pub fn pack(lengths: &[impl Length], max_seq_len: usize) -> Vec<Vec<usize>> {
    let Bins { rows, ends } = Bins::of(lengths, max_seq_len);
    let mut begin = 0;
    let bin = |&end: &u32| {
        let rows = &rows[begin..end as usize];
        begin = end as usize;
        rows.iter().map(|&row| row as usize).collect()
    };
    ends.iter().map(bin).collect()
}

/// The rows of bins, one bin after the other. Time and memory grow with the rows and with the longest bin, and with
/// nothing faster: what is packed are millions of rows.
#[derive(Debug, Default)]
pub(crate) struct Bins {
    /// Of all bins.
    pub(crate) rows: Vec<u32>,
    /// Where those of each bin end.
    pub(crate) ends: Vec<u32>,
}

impl Bins {
    /// See [`pack`].
    pub(crate) fn of(lengths: &[impl Length], max_seq_len: usize) -> Self {
        let bins = assigned(lengths, max_seq_len);
        // Bins are numbered by their first rows.
        let (mut number_of, mut ends) = (Vec::new(), Vec::<u32>::new());
        number_of.resize(bins.iter().max().map_or(0, |&last| last as usize + 1), u32::MAX);
        for &bin in &bins {
            let number = &mut number_of[bin as usize];
            if *number == u32::MAX {
                *number = ends.len() as u32;
                ends.push(0);
            }
            ends[*number as usize] += 1;
        }
        let mut behind = 0;
        for end in &mut ends {
            (*end, behind) = (behind, behind + *end);
        }
        let mut rows = vec![0; bins.len()];
        for (row, &bin) in (0..).zip(&bins) {
            // Where the next row of the bin belongs; when all are there, where they end.
            let next = &mut ends[number_of[bin as usize] as usize];
            rows[*next as usize] = row;
            *next += 1;
        }
        Self { rows, ends }
    }
}

/// The bin of every row.
///
/// Rows of one length are alike, so the bins of each length are found first, and then dealt out in the order of the
/// rows: memory is walked through forwards.
fn assigned(lengths: &[impl Length], max_seq_len: usize) -> Vec<u32> {
    let known = Known::of(lengths);
    // Behind which place in `dealt` the bins of each length end: longest first.
    let mut next = vec![0_u32; known.count()];
    let mut all = 0_usize;
    for length in lengths.iter().map(|length| length.tokens()) {
        next[known.at(length)] += 1;
        all = all.saturating_add(length);
    }
    // More room than for all rows together is never looked at.
    let most = max_seq_len.min(all);
    let (mut dealt, mut rooms, mut bins) = (Vec::with_capacity(lengths.len()), Rooms::new(most), 0);
    for (at, rows) in next.iter_mut().enumerate().rev() {
        let length = known.length(at);
        let first = dealt.len() as u32;
        for _ in 0..*rows {
            let (bin, room) = rooms.take(length).unwrap_or_else(|| {
                rooms.below.push(NONE);
                bins += 1;
                (bins - 1, most)
            });
            dealt.push(bin);
            match room.saturating_sub(length) {
                0 => {}
                left => rooms.put(bin, left),
            }
        }
        *rows = first;
    }
    let mut deal = |length: usize| {
        let next = &mut next[known.at(length)];
        *next += 1;
        dealt[*next as usize - 1]
    };
    lengths.iter().map(|length| deal(length.tokens())).collect()
}

/// The lengths that rows have, each with a place.
enum Known {
    /// All up to the longest: a place is the length itself.
    UpTo(usize),
    /// These, in order: where there are far fewer rows than lengths.
    These(Vec<usize>),
}

impl Known {
    fn of(lengths: &[impl Length]) -> Self {
        let longest = lengths.iter().map(|length| length.tokens()).max().unwrap_or(0);
        if longest <= 4 * lengths.len() + 1_024 {
            return Self::UpTo(longest);
        }
        let mut these: Vec<usize> = lengths.iter().map(|length| length.tokens()).collect();
        these.sort_unstable();
        these.dedup();
        Self::These(these)
    }

    fn count(&self) -> usize {
        match self {
            Self::UpTo(longest) => longest + 1,
            Self::These(these) => these.len(),
        }
    }

    fn at(&self, length: usize) -> usize {
        match self {
            Self::UpTo(_) => length,
            Self::These(these) => these.partition_point(|known| *known < length),
        }
    }

    fn length(&self, at: usize) -> usize {
        match self {
            Self::UpTo(_) => at,
            Self::These(these) => these[at],
        }
    }
}

const NONE: u32 = u32::MAX;

/// Bins by the room that they have left: of those with the same, the last one that came is the first to go.
struct Rooms {
    /// The last bin with each room.
    last: Vec<u32>,
    /// What came before each bin.
    below: Vec<u32>,
    /// Which rooms there are, a bit each; and a bit for each word of these that is not zero, and so on.
    levels: Vec<Vec<u64>>,
}

impl Rooms {
    fn new(most: usize) -> Self {
        let mut levels = Vec::new();
        let mut bits = most + 1;
        loop {
            bits = bits.div_ceil(64);
            levels.push(vec![0; bits]);
            if bits == 1 {
                return Self { last: vec![NONE; most + 1], below: Vec::new(), levels };
            }
        }
    }

    fn put(&mut self, bin: u32, room: usize) {
        self.below[bin as usize] = self.last[room];
        self.last[room] = bin;
        let mut at = room;
        for level in &mut self.levels {
            level[at / 64] |= 1 << (at % 64);
            at /= 64;
        }
    }

    /// The bin with the least room of those that have this much, and its room.
    fn take(&mut self, length: usize) -> Option<(u32, usize)> {
        let room = self.least(length)?;
        let bin = self.last[room];
        self.last[room] = self.below[bin as usize];
        if self.last[room] == NONE {
            let mut at = room;
            for level in &mut self.levels {
                level[at / 64] &= !(1 << (at % 64));
                if level[at / 64] != 0 {
                    break;
                }
                at /= 64;
            }
        }
        Some((bin, room))
    }

    /// The least room there is, from `at` on.
    fn least(&self, mut at: usize) -> Option<usize> {
        for (height, level) in self.levels.iter().enumerate() {
            let word = level.get(at / 64)? & (u64::MAX << (at % 64));
            if word != 0 {
                at = at / 64 * 64 + word.trailing_zeros() as usize;
                // Down again, where the first bit of each word leads.
                for level in self.levels[..height].iter().rev() {
                    at = at * 64 + level[at].trailing_zeros() as usize;
                }
                return Some(at);
            }
            at = at / 64 + 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::{CounterRng, Purpose};

    /// The rule as it reads: slow, and sure.
    fn by_the_rule(lengths: &[usize], max_seq_len: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&row| (std::cmp::Reverse(lengths[row]), row));
        let mut bins: Vec<Vec<usize>> = Vec::new();
        let mut by_room: std::collections::BTreeMap<usize, Vec<usize>> = Default::default();
        for row in order {
            let length = lengths[row];
            let room = by_room.range(length..).next().map(|(&room, _)| room);
            let (bin, room) = if let Some(room) = room {
                let bin = by_room.get_mut(&room).unwrap().pop().unwrap();
                by_room.retain(|_, bins| !bins.is_empty());
                (bin, room)
            } else {
                bins.push(Vec::new());
                (bins.len() - 1, max_seq_len)
            };
            bins[bin].push(row);
            match room.saturating_sub(length) {
                0 => {}
                left => by_room.entry(left).or_default().push(bin),
            }
        }
        for bin in &mut bins {
            bin.sort_unstable();
        }
        bins.sort();
        bins
    }

    proptest! {
        #[test]
        fn bins_are_those_of_the_rule(
            lengths in proptest::collection::vec(1_usize..=9_000, 0..200), scale in 1_usize..200,
            max in 1_usize..10_000,
        ) {
            let lengths: Vec<usize> = lengths.iter().map(|length| length / scale + 1).collect();
            for max in [max, max / scale + 1, usize::MAX] {
                prop_assert_eq!(pack(&lengths, max), by_the_rule(&lengths, max));
            }
        }

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
        assert_eq!(pack(&[3_u32, 12, 7], 10), [vec![0, 2], vec![1]]);
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
