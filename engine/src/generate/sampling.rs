//! The distribution that the next token is drawn from, and the draw.
//!
//! Follows transformers' `generation/logits_process.py` and the order in which its `generate` applies
//! them: repetition penalty, temperature, top-k, top-p, min-p, each on what the one before left. Scores
//! are f32 as there, sums f64. Where equal scores compete for the last place of top-p, the lower id
//! has it; transformers leaves that to its sort.

use graft_data::{CounterRng, Purpose};

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token; else scores are divided by it.
    pub temperature: f32,
    /// Keeps the `k` likeliest tokens and those as likely as the last of them; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest tokens that together reach this probability, at least one; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens that are at least this times as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens already seen; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Names the draws.
    pub seed: u64,
}

/// A token with its score or its weight.
type Candidate = (u32, f32);

impl Sampling {
    /// Always the likeliest token.
    pub fn greedy() -> Self {
        let (temperature, top_k, top_p, min_p) = (0.0, 0, 1.0, 0.0);
        Self { temperature, top_k, top_p, min_p, repetition_penalty: 1.0, seed: 0 }
    }

    /// Chooses from one row of logits; `seen` is the sequence so far, `draw` numbers the choice.
    pub fn choose(&self, logits: &[f32], seen: &[u32], sequence: u64, draw: u64) -> u32 {
        let probabilities = self.probabilities(logits, seen);
        let random = CounterRng::new(self.seed, Purpose::Generation, sequence, 0);
        let point = random.uniform_f64_at(draw);
        let mut reached = 0.0;
        for &(id, probability) in &probabilities {
            reached += probability;
            if point < reached {
                return id;
            }
        }
        // Roundings left the sum just below the point.
        probabilities[probabilities.len() - 1].0
    }

    /// What [`Sampling::choose`] draws from: tokens with their probabilities, likeliest first, equally
    /// likely ones by id; those that cannot be drawn are left out, and one at least is there.
    ///
    /// # Panics
    /// If `logits` is empty or `seen` has an id that `logits` has not.
    pub fn probabilities(&self, logits: &[f32], seen: &[u32]) -> Vec<(u32, f64)> {
        let mut scores = self.penalised(logits, seen);
        let best = likeliest(&scores);
        if self.temperature > 0.0 {
            for score in &mut scores {
                *score /= self.temperature;
            }
        }
        let max = scores[best];
        // So small a temperature that scores overflow is as good as none.
        if self.temperature <= 0.0 || !max.is_finite() {
            return vec![(best as u32, 1.0)];
        }
        let kept = self.top_k_of(&scores);
        let mut weights: Vec<f64> =
            kept.iter().map(|&(_, score)| (f64::from(score) - f64::from(max)).exp()).collect();
        weights.truncate(self.top_p_of(&weights));
        // Weights are relative to the likeliest one's.
        let likely = weights.partition_point(|&weight| weight >= f64::from(self.min_p));
        weights.truncate(likely.max(1));
        let total: f64 = weights.iter().sum();
        kept.into_iter().zip(weights).map(|((id, _), weight)| (id, weight / total)).collect()
    }

    /// Each token that was seen is penalised once, however often it was.
    fn penalised(&self, logits: &[f32], seen: &[u32]) -> Vec<f32> {
        let mut scores = logits.to_vec();
        if (self.repetition_penalty - 1.0).abs() > f32::EPSILON {
            for &id in seen {
                let (logit, score) = (logits[id as usize], &mut scores[id as usize]);
                *score = if logit < 0.0 {
                    logit * self.repetition_penalty
                } else {
                    logit / self.repetition_penalty
                };
            }
        }
        scores
    }

    /// Likeliest first; only tokens that can be drawn.
    fn top_k_of(&self, scores: &[f32]) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> =
            (0..).zip(scores.iter().copied()).filter(|&(_, s)| s > f32::NEG_INFINITY).collect();
        if (1..candidates.len()).contains(&self.top_k) {
            let descending = |a: &Candidate, b: &Candidate| b.1.total_cmp(&a.1);
            let (_, &mut (_, last), _) =
                candidates.select_nth_unstable_by(self.top_k - 1, descending);
            candidates.retain(|&(_, score)| score >= last);
        }
        candidates.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        candidates
    }

    /// How many of the likeliest are needed to reach `top_p`.
    fn top_p_of(&self, weights: &[f64]) -> usize {
        if self.top_p >= 1.0 {
            return weights.len();
        }
        let needed = f64::from(self.top_p) * weights.iter().sum::<f64>();
        let mut reached = 0.0;
        let short_of = |&weight: &f64| {
            let before = reached;
            reached += weight;
            before < needed
        };
        weights.iter().copied().take_while(short_of).count().max(1)
    }
}

/// The first of the largest scores.
fn likeliest(scores: &[f32]) -> usize {
    let mut best = 0;
    for (id, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = id;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling() -> Sampling {
        Sampling { temperature: 1.0, ..Sampling::greedy() }
    }

    fn kept(sampling: &Sampling, logits: &[f32]) -> Vec<u32> {
        sampling.probabilities(logits, &[]).into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(Sampling::greedy().choose(&[0.0, 2.0, 2.0, 1.0], &[], 0, 0), 1);
    }

    #[test]
    fn draws_follow_the_probabilities_and_repeat_with_the_seed() {
        let logits = [0.0_f32, 3.0_f32.ln(), f32::NEG_INFINITY];
        let draw = |i| sampling().choose(&logits, &[], 0, i);
        let ones = (0..4_000).filter(|&i| draw(i) == 1).count();
        // 3,000 expected, standard deviation 27.
        assert!(ones.abs_diff(3_000) < 170, "{ones} of 4000");
        assert_eq!(draw(17), draw(17));
        assert!((0..4_000).all(|i| draw(i) != 2));
    }

    #[test]
    fn top_k_top_p_and_min_p_cut_the_tail() {
        // Probabilities 0.03, 0.64, 0.24, 0.09.
        let logits = [1.0, 4.0, 3.0, 2.0];
        assert_eq!(kept(&Sampling { top_k: 2, ..sampling() }, &logits), [1, 2]);
        assert_eq!(kept(&Sampling { top_k: 9, ..sampling() }, &logits), [1, 2, 3, 0]);
        assert_eq!(kept(&Sampling { top_p: 0.8, ..sampling() }, &logits), [1, 2]);
        assert_eq!(kept(&Sampling { top_p: 0.0, ..sampling() }, &logits), [1]);
        assert_eq!(kept(&Sampling { min_p: 0.1, ..sampling() }, &logits), [1, 2, 3]);
        assert_eq!(kept(&Sampling { min_p: 1.0, ..sampling() }, &logits), [1]);
    }

    #[test]
    fn top_k_keeps_what_is_as_likely_as_its_last() {
        let logits = [2.0, 1.0, 3.0, 2.0, 2.0];
        assert_eq!(kept(&Sampling { top_k: 2, ..sampling() }, &logits), [2, 0, 3, 4]);
    }

    #[test]
    fn top_p_ends_where_the_sum_is_reached() {
        // A half and two quarters, without rounding.
        let logits = [0.0, 2.0_f32.ln(), 0.0];
        assert_eq!(kept(&Sampling { top_p: 0.75, ..sampling() }, &logits), [1, 0]);
    }

    #[test]
    fn repetition_penalty_lowers_what_was_said_once() {
        let penalty = Sampling { repetition_penalty: 2.0, ..Sampling::greedy() };
        assert_eq!(penalty.choose(&[1.0, 1.5], &[1], 0, 0), 0);
        assert_eq!(penalty.choose(&[-1.0, -0.9], &[1, 1], 0, 0), 0);
        assert_eq!(penalty.choose(&[1.0, 2.5], &[1, 1, 1], 0, 0), 1);
    }

    #[test]
    fn numbers_at_the_edge_leave_one_token_to_draw() {
        let tiny = Sampling { temperature: f32::from_bits(1), ..sampling() };
        assert_eq!(tiny.probabilities(&[1.0, 3.0, 2.0], &[]), [(1, 1.0)]);
        assert_eq!(tiny.probabilities(&[-1.0, -3.0, -2.0], &[]), [(0, 1.0)]);
        assert_eq!(sampling().probabilities(&[f32::NEG_INFINITY; 2], &[]), [(0, 1.0)]);
        assert_eq!(kept(&sampling(), &[f32::NAN, 1.0]).len(), 1);
        assert_eq!(kept(&sampling(), &[1.0, f32::NAN]), [0]);
    }
}
