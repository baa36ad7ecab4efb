//! Whether two models say the same: the divergence of their next-token distributions on a probe.

use burn::tensor::{Tensor, TensorPrimitive};
use graft_data::Sample;
use graft_kernels::{Kernels, Ops, Precision};
use graft_model::param::host_values;
use graft_model::{Context, Layout, Llama, Projection};

/// Tokens of the probe: enough to see a wrong weight, few enough for a 70B model on a CPU.
const TOKENS: usize = 512;

/// Rows of tokens that models are compared on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe(Vec<Vec<u32>>);

/// How far two models' distributions are apart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Divergence {
    /// Mean Kullback–Leibler divergence from the first to the second, nats a token.
    pub mean: f64,
    /// The largest.
    pub max: f64,
    /// Share of positions where both find the same token likeliest.
    pub agreement: f64,
    /// Positions compared.
    pub tokens: usize,
}

impl Probe {
    /// The first rows of some samples, up to a bounded number of tokens; at least one row.
    pub fn of(samples: &[Sample]) -> Self {
        let mut left = TOKENS;
        let mut rows = Vec::new();
        for sample in samples {
            let row = &sample.tokens[..sample.tokens.len().min(left)];
            if !row.is_empty() {
                rows.push(row.to_vec());
            }
            left -= row.len();
        }
        Self(rows)
    }

    /// A row of tokens spread over the vocabulary, where there is no data.
    pub fn spread(vocab_size: usize) -> Self {
        let tokens = TOKENS.min(vocab_size) / 4;
        // A prime stride visits the vocabulary without repeating a neighbourhood.
        Self(vec![(0..tokens).map(|i| ((i * 7_919 + 13) % vocab_size) as u32).collect()])
    }

    /// The log-probabilities of a model, `[tokens, vocab]` flattened, a row of the probe each.
    pub fn log_probabilities<B, P>(
        &self,
        model: &Llama<B, P>,
        precision: Precision,
    ) -> Vec<Vec<f32>>
    where
        B: Kernels + Ops<Inner = B>,
        P: Projection<B>,
    {
        let one = |tokens: &Vec<u32>| {
            let positions: Vec<u32> = (0..tokens.len() as u32).collect();
            let document = 0..tokens.len();
            let layout = Layout::of_documents(&model.config, &model.rope, &positions, &[document]);
            let hidden = model.hidden(tokens, &layout, Context::evaluation(precision));
            let logits = model.logits(&hidden, precision);
            let logits = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(logits));
            let log = burn::tensor::activation::log_softmax(logits, 1);
            host_values::<B>(log.into_primitive().tensor())
        };
        self.0.iter().map(one).collect()
    }
}

impl Divergence {
    /// Whether the mean is a number and at most `tolerance`.
    pub fn is_within(&self, tolerance: f64) -> bool {
        self.mean <= tolerance
    }

    /// Compares log-probabilities of two models on one probe.
    pub fn between(first: &[Vec<f32>], second: &[Vec<f32>], vocab_size: usize) -> Self {
        let mut sum = Self::default();
        let rows = |all: &[Vec<f32>]| -> Vec<Vec<f32>> {
            all.iter().flat_map(|row| row.chunks_exact(vocab_size).map(<[f32]>::to_vec)).collect()
        };
        let best = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
        let mut agreed = 0_usize;
        for (p, q) in rows(first).iter().zip(&rows(second)) {
            let term = |(p, q): (&f32, &f32)| f64::from(*p).exp() * f64::from(p - q);
            let divergence: f64 = p.iter().zip(q).map(term).sum();
            sum.mean += divergence;
            sum.max = sum.max.max(divergence);
            sum.tokens += 1;
            agreed += usize::from(best(p) == best(q));
        }
        let tokens = sum.tokens.max(1) as f64;
        Self { mean: sum.mean / tokens, agreement: agreed as f64 / tokens, ..sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_models_do_not_diverge_and_others_do() {
        let p = vec![vec![0.5_f32.ln(), 0.5_f32.ln(), 0.9_f32.ln(), 0.1_f32.ln()]];
        let q = vec![vec![0.5_f32.ln(), 0.5_f32.ln(), 0.1_f32.ln(), 0.9_f32.ln()]];
        let same = Divergence::between(&p, &p, 2);
        assert!(same.mean.abs() < 1e-9 && (same.agreement - 1.0).abs() < 1e-9);
        let other = Divergence::between(&p, &q, 2);
        // 0.8 · ln 9 over two positions.
        assert!((other.mean - 0.4 * 9.0_f64.ln()).abs() < 1e-6, "{other:?}");
        assert!((other.agreement - 0.5).abs() < 1e-9 && other.tokens == 2);
    }
}
