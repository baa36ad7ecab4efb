//! How much of each source an epoch has.

use std::num::NonZeroUsize;

/// How much of a source an epoch has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Take {
    /// Every sample so often: 1 is each once, 2 each twice, 0.5 one half, and in the next epoch the other.
    Epochs(f64),
    /// About so many samples.
    Rows(NonZeroUsize),
    /// As large a part of what all weighted sources have together, in samples, as this is of their weights.
    Weight(f64),
    /// This share of the epoch's tokens.
    Replay(f64),
}

/// What a source has, and how much of it an epoch is asked to have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Portion {
    /// Its samples; at least one.
    pub samples: usize,
    /// Tokens of its samples.
    pub tokens: usize,
    /// How much of it is taken.
    pub take: Take,
}

/// So many samples that stand together, and how often an epoch has each of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// How many.
    pub samples: usize,
    /// How often an epoch has each, on average; above 0.
    pub times: f64,
}

/// The parts of an epoch, one for each source. The shares of replayed sources are together below 1, and some
/// source is not replayed.
pub fn mixture(portions: &[Portion]) -> Vec<Part> {
    let weighted = || {
        portions.iter().filter_map(|portion| match portion.take {
            Take::Weight(weight) => Some((weight, portion.samples)),
            _ => None,
        })
    };
    let weights: f64 = weighted().map(|(weight, _)| weight).sum();
    let samples: usize = weighted().map(|(_, samples)| samples).sum();
    let own = |portion: &Portion| {
        let of = portion.samples as f64;
        match portion.take {
            Take::Epochs(times) => times,
            Take::Rows(rows) => rows.get() as f64 / of,
            Take::Weight(weight) => samples as f64 * (weight / weights) / of,
            Take::Replay(_) => 0.0,
        }
    };
    let tokens: f64 = portions.iter().map(|portion| own(portion) * portion.tokens as f64).sum();
    let share = |portion: &Portion| match portion.take {
        Take::Replay(share) => share,
        _ => 0.0,
    };
    let left = 1.0 - portions.iter().map(share).sum::<f64>();
    let part = |portion: &Portion| {
        let times = match portion.take {
            Take::Replay(share) => tokens * (share / left) / portion.tokens.max(1) as f64,
            _ => own(portion),
        };
        Part { samples: portion.samples, times }
    };
    portions.iter().map(part).collect()
}

/// Whether an epoch has every sample once.
pub fn is_plain(parts: &[Part]) -> bool {
    #[expect(clippy::float_cmp, reason = "what was asked for is 1, or it is not")]
    parts.iter().all(|part| part.times == 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(portions: &[(usize, usize, Take)]) -> Vec<f64> {
        let portion = |&(samples, tokens, take)| Portion { samples, tokens, take };
        let portions: Vec<Portion> = portions.iter().map(portion).collect();
        mixture(&portions).iter().map(|part| part.times).collect()
    }

    #[test]
    fn each_source_has_the_part_that_it_is_asked_for() {
        use Take::{Epochs, Replay, Rows, Weight};
        let rows = |count| Rows(NonZeroUsize::new(count).unwrap());
        assert_eq!(times(&[(10, 100, Epochs(1.0)), (20, 400, Epochs(0.5))]), [1.0, 0.5]);
        assert_eq!(times(&[(10, 100, rows(5)), (20, 400, rows(60))]), [0.5, 3.0]);
        // 40 samples, three quarters of them of the first.
        assert_eq!(times(&[(10, 100, Weight(3.0)), (30, 900, Weight(1.0))]), [3.0, 10.0 / 30.0]);
        // 900 tokens of the domain, and 100 of the general text's 400.
        assert_eq!(times(&[(10, 900, Epochs(1.0)), (20, 400, Replay(0.1))]), [1.0, 0.25]);
        // Twice the domain needs twice the replay.
        assert_eq!(times(&[(10, 900, Epochs(2.0)), (20, 400, Replay(0.1))]), [2.0, 0.5]);
        let two = times(&[(10, 500, Epochs(1.0)), (1, 100, Replay(0.25)), (1, 500, Replay(0.25))]);
        assert_eq!(two, [1.0, 2.5, 0.5]);
    }

    #[test]
    fn plain_is_every_sample_once() {
        let part = |times| Part { samples: 3, times };
        assert!(is_plain(&[part(1.0), part(1.0)]) && is_plain(&[]));
        assert!(!is_plain(&[part(1.0), part(2.0)]));
    }
}
