//! The distribution that a token is drawn from is that of transformers' processors, and draws follow it.

use std::collections::BTreeMap;

use graft_engine::generate::Sampling;
use graft_tests::parity::Deviations;

use super::fixture::Answers;

/// The reference sums probabilities in f32.
const PROBABILITY: f64 = 1e-6;
/// What f32 holds as zero, with room for the sum that it is divided by.
const ZERO_IN_F32: f64 = 1e-36;
/// Rows that the committed fixture has, and at least what a fresh one must have.
const ROWS: usize = 160;

struct Row {
    sampling: Sampling,
    logits: Vec<f32>,
    history: Vec<u32>,
    scores: Vec<f32>,
    probabilities: Vec<f32>,
}

fn rows() -> Vec<Row> {
    let answers = Answers::of_sampling();
    let [logits, scores, probabilities] = ["logits", "scores", "probabilities"]
        .map(|name| answers.float_rows(name, "vocabularies").into_iter());
    let history = answers.rows("history", "history_lengths");
    let [temperature, top_p, min_p, penalty] =
        ["temperature", "top_p", "min_p", "penalty"].map(|name| answers.floats(name));
    let top_k = answers.integers("top_k");
    let rows = logits.zip(scores).zip(probabilities).zip(history).enumerate();
    let rows = rows.map(|(row, (((logits, scores), probabilities), history))| {
        let sampling = Sampling {
            temperature: temperature[row],
            top_k: top_k[row] as usize,
            top_p: top_p[row],
            min_p: min_p[row],
            repetition_penalty: penalty[row],
            seed: 3,
        };
        Row { sampling, logits, history, scores, probabilities }
    });
    rows.collect()
}

/// Probabilities of every token, sorted within those of equal scores: which of these top-p cuts, the
/// reference's sort decides as it likes.
fn by_score(scores: &[f32], probabilities: &[f64]) -> Vec<f64> {
    let mut groups: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for (score, &probability) in scores.iter().zip(probabilities) {
        // `+ 0.0` makes one of the two zeros.
        groups.entry((score + 0.0).to_bits()).or_default().push(probability);
    }
    for group in groups.values_mut() {
        group.sort_by(f64::total_cmp);
    }
    groups.into_values().flatten().collect()
}

#[test]
fn probabilities_are_those_of_transformers() {
    let mut deviations = Deviations::of("generation");
    let rows = rows();
    assert!(rows.len() >= ROWS, "{} rows", rows.len());
    let compared = 2 * rows.len();
    for (place, row) in rows.into_iter().enumerate() {
        let Row { sampling, logits, history, scores, probabilities } = row;
        let mut found = vec![0.0; logits.len()];
        for (id, probability) in sampling.probabilities(&logits, &history) {
            found[id as usize] += probability;
        }
        let expected: Vec<f64> = probabilities.into_iter().map(f64::from).collect();
        let [found, expected] = [found, expected].map(|row| by_score(&scores, &row));
        let what = format!("row {place} of {}, {sampling:?}", logits.len());
        let pairs = || found.iter().zip(&expected);
        let off = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        deviations.note("sampling probabilities", &what, off, PROBABILITY);
        let same = pairs().all(|(&a, &b)| if b > 0.0 { a > 0.0 } else { a < ZERO_IN_F32 });
        deviations.exact("tokens that may be drawn", &what, same);
    }
    deviations.finish(compared);
}

/// What a chi-square of `freedom` degrees stays under but once in fifty million draws: five and a half
/// standard deviations after Wilson and Hilferty 1931.
fn chi_square_bound(freedom: f64) -> f64 {
    let part = 2.0 / (9.0 * freedom);
    freedom * (1.0 - part + 5.5 * part.sqrt()).powi(3)
}

#[test]
fn draws_follow_the_probabilities_of_transformers() {
    const DRAWS: u64 = 10_000;
    let mut tested = 0;
    for (place, row) in rows().into_iter().enumerate().filter(|(place, _)| place % 4 == 0) {
        let Row { sampling, logits, history, probabilities, .. } = row;
        let mut counts = vec![0_u32; logits.len()];
        for draw in 0..DRAWS {
            counts[sampling.choose(&logits, &history, place as u64, draw) as usize] += 1;
        }
        // Rare tokens together, so that every part expects a few.
        let (mut statistic, mut parts) = (0.0, 0);
        let (mut rare, mut rare_count) = (0.0, 0);
        let mut add = |expected: f64, count: u32| {
            statistic += (f64::from(count) - expected).powi(2) / expected;
            parts += 1;
        };
        for (&probability, &count) in probabilities.iter().zip(&counts) {
            assert!(probability > 0.0 || count == 0, "row {place} draws what is cut");
            let expected = f64::from(probability) * DRAWS as f64;
            if expected < 8.0 {
                rare += expected;
                rare_count += count;
            } else {
                add(expected, count);
            }
        }
        if rare >= 8.0 {
            add(rare, rare_count);
        }
        if parts > 1 {
            let bound = chi_square_bound(f64::from(parts - 1));
            assert!(statistic < bound, "row {place}: {statistic} of {parts} parts, under {bound}");
            tested += 1;
        }
    }
    assert!(tested >= 8, "only {tested} rows leave a choice");
}

#[test]
fn every_kind_of_setting_is_among_the_rows() {
    let rows = rows();
    let some = |what: &str, holds: &dyn Fn(&Row) -> bool| {
        assert!(rows.iter().filter(|row| holds(row)).count() >= 3, "{what}");
    };
    some("top-k cuts", &|row| (1..row.logits.len()).contains(&row.sampling.top_k));
    some("top-k above the vocabulary", &|row| row.sampling.top_k > row.logits.len());
    some("top-p 0", &|row| row.sampling.top_p <= 0.0);
    some("top-p 1", &|row| row.sampling.top_p >= 1.0);
    some("top-p between", &|row| row.sampling.top_p > 0.0 && row.sampling.top_p < 1.0);
    some("min-p", &|row| row.sampling.min_p > 0.0);
    some("a low temperature", &|row| row.sampling.temperature < 0.05);
    some("a high temperature", &|row| row.sampling.temperature > 10.0);
    some("a penalty under 1", &|row| row.sampling.repetition_penalty < 1.0);
    some("a penalty above 1", &|row| row.sampling.repetition_penalty > 1.0);
    some("tokens that are out", &|row| row.logits.contains(&f32::NEG_INFINITY));
    some("ties", &|row| {
        let mut scores: Vec<f32> = row.scores.iter().copied().filter(|s| s.is_finite()).collect();
        scores.sort_by(f32::total_cmp);
        scores.windows(2).any(|pair| pair[0] >= pair[1])
    });
}
