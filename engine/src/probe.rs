//! Whether two models say the same: the divergence of their next-token distributions on a probe.
//!
//! `KL(p‖q) = Σ p·(log p − log q)` at every position, `= E_p[a − b] − log Σ e^a + log Σ e^b` for logits `a` and
//! `b`, which is summed band by band of the vocabulary. Of each model the last hidden states are kept, and its
//! head; of their logits there is a piece of both at a time.

use std::ops::Range;
use std::rc::Rc;

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};
use graft_data::SampleList;
use graft_kernels::{Kernels, Ops, Precision};
use graft_model::param::host_values;
use graft_model::residency::Residency;
use graft_model::{Context, Layout, Llama, Projection, Table};
use rayon::prelude::*;

/// Tokens of the probe: enough to see a wrong weight, few enough for a 70B model on a CPU.
pub const TOKENS: usize = 512;

/// Logits of one model that exist at a time, in elements: 16 MiB of f32.
pub const CHUNK: usize = 1 << 22;

/// Rows of tokens that models are compared on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe(pub(crate) Vec<Vec<u32>>);

/// What a model makes of a probe, up to the head. The model itself is not held any more, only its head.
pub struct Heard<B: Kernels> {
    /// After the last norm, `[tokens, d_model]`, one row of the probe behind the other.
    hidden: Tensor<B, 2>,
    head: Table<B>,
    residency: Rc<Residency>,
    precision: Precision,
}

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
    ///
    /// # Errors
    /// A sample cannot be read.
    pub fn of(samples: &(impl SampleList + ?Sized)) -> Result<Self, graft_data::Error> {
        let mut left = TOKENS;
        let mut rows = Vec::new();
        for at in 0..samples.len() {
            if left == 0 {
                break;
            }
            let sample = samples.sample(at)?;
            let row = &sample.tokens[..sample.tokens.len().min(left)];
            if !row.is_empty() {
                rows.push(row.to_vec());
            }
            left -= row.len();
        }
        Ok(Self(rows))
    }

    /// A row of tokens spread over the vocabulary, where there is no data.
    pub fn spread(vocab_size: usize) -> Self {
        let tokens = TOKENS.min(vocab_size) / 4;
        // A prime stride visits the vocabulary without repeating a neighbourhood.
        Self(vec![(0..tokens).map(|i| ((i * 7_919 + 13) % vocab_size) as u32).collect()])
    }

    /// Runs a model over the probe.
    pub fn hear<B, P>(&self, model: &Llama<B, P>, precision: Precision) -> Heard<B>
    where
        B: Kernels + Ops<Inner = B>,
        P: Projection<B>,
    {
        let one = |tokens: &Vec<u32>| {
            let positions: Vec<u32> = (0..tokens.len() as u32).collect();
            let document = 0..tokens.len();
            let layout = Layout::of_documents(&model.config, &model.rope, &positions, &[document]);
            let hidden = model.hidden(tokens, &layout, Context::evaluation(precision));
            numbers::<B>(&hidden, model.normed(&hidden))
        };
        Heard {
            hidden: Tensor::cat(self.0.iter().map(one).collect(), 0),
            head: model.head().clone(),
            residency: Rc::clone(&model.residency),
            precision,
        }
    }
}

/// `normed`, or no numbers where the squares of `hidden` are none: a norm makes zeros of such states, and zeros would
/// agree with those of any other broken model.
pub(crate) fn numbers<B: Kernels>(hidden: &FloatTensor<B>, normed: FloatTensor<B>) -> Tensor<B, 2> {
    /// Its square is a number, and so is a sum of as many as a model is wide.
    const MOST: f32 = 1e16;
    let is_number = host_values::<B>(hidden.clone()).iter().all(|value| value.abs() < MOST);
    let normed = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(normed));
    if is_number { normed } else { normed * f32::NAN }
}

/// What a model makes of a probe.
pub trait Says {
    /// Positions of the probe.
    fn positions(&self) -> usize;

    /// Tokens of the vocabulary.
    fn vocab(&self) -> usize;

    /// The vocabulary in the bands that its head is read in.
    fn bands(&self) -> Vec<Range<usize>>;

    /// Logits of some positions in a band, or in the whole vocabulary, `[positions, band]` flattened.
    fn logits(&self, positions: Range<usize>, band: Range<usize>) -> Vec<f32>;
}

impl<B: Kernels> Says for Heard<B> {
    fn positions(&self) -> usize {
        self.hidden.dims()[0]
    }

    fn vocab(&self) -> usize {
        self.head.vocab()
    }

    fn bands(&self) -> Vec<Range<usize>> {
        let bands = self.head.bands();
        bands.iter().map(|(first, band)| *first..first + band.vocab()).collect()
    }

    fn logits(&self, positions: Range<usize>, band: Range<usize>) -> Vec<f32> {
        let hidden = self.hidden.clone().narrow(0, positions.start, positions.len());
        let cut = self
            .head
            .bands()
            .into_iter()
            .find(|(first, it)| *first == band.start && it.vocab() == band.len());
        let table = cut.map_or_else(|| self.head.clone(), |(_, table)| table);
        let logits = table.logits(&hidden.into_primitive().tensor(), self.precision);
        let logits = host_values::<B>(logits);
        self.residency.leave_head(band, self.head.vocab());
        logits
    }
}

impl Divergence {
    /// Whether the mean is a number and at most `tolerance`.
    pub fn is_within(&self, tolerance: f64) -> bool {
        self.mean <= tolerance
    }

    /// Compares what two models of one vocabulary make of one probe.
    pub fn between(first: &impl Says, second: &impl Says) -> Self {
        let tokens = first.positions();
        assert_eq!(tokens, second.positions(), "tokens of one probe");
        assert_eq!(first.vocab(), second.vocab(), "tokens of both models");
        let mut bands = first.bands();
        // Heads that are held in different forms may be cut elsewhere.
        if bands != second.bands() {
            bands = std::iter::once(0..first.vocab()).collect();
        }
        let widest = bands.iter().map(ExactSizeIterator::len).max().unwrap_or(1);
        let mut found = Vec::with_capacity(tokens);
        let most = (CHUNK / widest).max(1);
        for start in (0..tokens).step_by(most) {
            let positions = start..tokens.min(start + most);
            let mut sums = vec![Sums::default(); positions.len()];
            for band in &bands {
                let p = first.logits(positions.clone(), band.clone());
                let q = second.logits(positions.clone(), band.clone());
                add(&mut sums, &p, &q, band.start);
            }
            found.extend(sums);
        }
        Self::of(&found)
    }

    /// What the positions come to, in their order.
    fn of(positions: &[Sums]) -> Self {
        let mut sum = Self { tokens: positions.len(), ..Self::default() };
        for position in positions {
            let divergence = position.divergence();
            sum.mean += divergence;
            sum.max = sum.max.max(divergence);
            sum.agreement += f64::from(u8::from(position.agrees()));
        }
        let tokens = sum.tokens.max(1) as f64;
        Self { mean: sum.mean / tokens, agreement: sum.agreement / tokens, ..sum }
    }
}

/// Adds logits `[positions, band]` of both models, whose band begins at token `first`.
fn add(sums: &mut [Sums], p: &[f32], q: &[f32], first: usize) {
    let width = p.len() / sums.len().max(1);
    let pairs = p.par_chunks_exact(width).zip(q.par_chunks_exact(width));
    sums.par_iter_mut().zip(pairs).for_each(|(sums, (p, q))| sums.add(p, q, first));
}

/// What the bands so far say of one position.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    p: Level,
    q: Level,
    /// `Σ e^(a − highest)·(a − b)`
    apart: f64,
}

/// Of one model: its highest logit, the token, and `Σ e^(a − highest)`.
#[derive(Clone, Copy, Debug)]
struct Level {
    highest: f32,
    token: usize,
    sum: f64,
}

impl Default for Level {
    fn default() -> Self {
        Self { highest: f32::NEG_INFINITY, token: 0, sum: 0.0 }
    }
}

impl Level {
    /// Takes a band's highest logit in; gives what the sums so far are multiplied with.
    fn rise(&mut self, logits: &[f32], first: usize) -> f64 {
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        let Some(best) = best.filter(|&best| logits[best].total_cmp(&self.highest).is_gt()) else {
            return 1.0;
        };
        let before = std::mem::replace(&mut self.highest, logits[best]);
        self.token = first + best;
        let factor = if self.sum > 0.0 { f64::from(before - self.highest).exp() } else { 1.0 };
        self.sum *= factor;
        factor
    }

    /// `log Σ e^a`
    fn log_sum(&self) -> f64 {
        f64::from(self.highest) + self.sum.ln()
    }
}

impl Sums {
    fn add(&mut self, p: &[f32], q: &[f32], first: usize) {
        self.apart *= self.p.rise(p, first);
        self.q.rise(q, first);
        let (p_highest, q_highest) = (f64::from(self.p.highest), f64::from(self.q.highest));
        for (p, q) in p.iter().zip(q) {
            let (p, q) = (f64::from(*p), f64::from(*q));
            let weight = (p - p_highest).exp();
            self.p.sum += weight;
            self.apart += weight * (p - q);
            self.q.sum += (q - q_highest).exp();
        }
    }

    fn divergence(&self) -> f64 {
        self.apart / self.p.sum - self.p.log_sum() + self.q.log_sum()
    }

    fn agrees(&self) -> bool {
        self.p.token == self.q.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Positions with logits `[positions, vocab]`, in bands of so many tokens.
    fn between(p: &[f32], q: &[f32], vocab: usize, band: usize) -> Divergence {
        let mut sums = vec![Sums::default(); p.len() / vocab];
        for first in (0..vocab).step_by(band) {
            let end = vocab.min(first + band);
            let cut = |logits: &[f32]| -> Vec<f32> {
                logits.chunks_exact(vocab).flat_map(|row| row[first..end].to_vec()).collect()
            };
            add(&mut sums, &cut(p), &cut(q), first);
        }
        Divergence::of(&sums)
    }

    #[test]
    fn equal_models_do_not_diverge_and_others_do() {
        // Logits need not be normed: a constant added to all of them changes nothing.
        let p = [0.5, 0.5, 0.9, 0.1].map(f32::ln);
        let q = [0.5, 0.5, 0.1, 0.9].map(|share: f32| share.ln() + 3.0);
        let same = between(&p, &p, 2, 2);
        assert!(same.mean.abs() < 1e-9 && (same.agreement - 1.0).abs() < 1e-9);
        let other = between(&p, &q, 2, 2);
        // 0.8 · ln 9 over two positions.
        assert!((other.mean - 0.4 * 9.0_f64.ln()).abs() < 1e-6, "{other:?}");
        assert!((other.max - 0.8 * 9.0_f64.ln()).abs() < 1e-6, "{other:?}");
        assert!((other.agreement - 0.5).abs() < 1e-9 && other.tokens == 2);
    }

    #[test]
    fn bands_change_nothing() {
        let logits = |seed: usize| -> Vec<f32> {
            (0..3 * 100).map(|i| ((i * 7_919 + seed * 31) % 997) as f32 * 0.02 - 9.0).collect()
        };
        let (p, q) = (logits(0), logits(1));
        let whole = between(&p, &q, 100, 100);
        assert!(whole.mean > 1e-3, "{whole:?}");
        for band in [1, 7, 64, 99] {
            let found = between(&p, &q, 100, band);
            assert!((found.mean - whole.mean).abs() < 1e-9, "{band}: {found:?}, {whole:?}");
            assert!((found.agreement - whole.agreement).abs() < 1e-9, "{band}");
        }
    }

    #[test]
    fn logits_that_are_no_numbers_are_no_agreement() {
        let p = [0.0, 0.0];
        for q in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [0.0, f32::NAN]] {
            for band in [1, 2] {
                let found = between(&p, &q, 2, band);
                assert!(!found.is_within(f64::INFINITY), "{q:?}: {found:?}");
            }
        }
    }
}
