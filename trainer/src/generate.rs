//! Generation with a cache of keys and values, several sequences at a time.
//!
//! Sampling follows transformers' order: repetition penalty, temperature, top-k, top-p, then a draw.
//! Draws come from the counter-based generator, so a seed gives the same text again.

use burn::tensor::{Tensor, TensorPrimitive};
use graft_data::{CounterRng, Purpose};
use graft_kernels::{Kernels, Ops, Precision};
use graft_model::param::host_values;
use graft_model::{Cache, Cached, Context, Layout, Llama, Projection};

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token; else logits are divided by it.
    pub temperature: f32,
    /// Keeps the `k` likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest tokens that together reach this probability.
    pub top_p: f32,
    /// Divides positive and multiplies negative logits of tokens already seen; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Names the draws.
    pub seed: u64,
}

impl Sampling {
    /// Always the likeliest token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 0 }
    }

    /// Chooses from one row of logits; `seen` is the sequence so far, `draw` numbers the choice.
    pub fn choose(&self, logits: &mut [f32], seen: &[u32], sequence: u64, draw: u64) -> u32 {
        if (self.repetition_penalty - 1.0).abs() > f32::EPSILON {
            let mut penalised: Vec<u32> = seen.to_vec();
            penalised.sort_unstable();
            penalised.dedup();
            for id in penalised {
                let logit = &mut logits[id as usize];
                *logit = if *logit > 0.0 {
                    *logit / self.repetition_penalty
                } else {
                    *logit * self.repetition_penalty
                };
            }
        }
        if self.temperature <= 0.0 {
            return likeliest(logits);
        }
        let mut order: Vec<(u32, f32)> =
            logits.iter().enumerate().map(|(id, l)| (id as u32, l / self.temperature)).collect();
        // Ties go to the lower id, so that the order is one.
        order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if self.top_k > 0 {
            order.truncate(self.top_k);
        }
        let weights = nucleus(&order, self.top_p);
        let total: f64 = weights.iter().sum();
        let point = CounterRng::new(self.seed, Purpose::Generation, sequence, 0)
            .uniform_f64_at(draw)
            * total;
        let mut reached = 0.0;
        for (&(id, _), weight) in order.iter().zip(&weights) {
            reached += weight;
            if point < reached {
                return id;
            }
        }
        order[weights.len() - 1].0
    }
}

/// Unnormalised probabilities of the likeliest tokens that reach `top_p`; at least one.
fn nucleus(order: &[(u32, f32)], top_p: f32) -> Vec<f64> {
    let max = order.first().map_or(0.0, |&(_, logit)| logit);
    let weights: Vec<f64> = order.iter().map(|&(_, l)| f64::from(l - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut reached = 0.0;
    let kept = weights
        .iter()
        .take_while(|&&weight| {
            let before = reached;
            reached += weight / total;
            before < f64::from(top_p)
        })
        .count();
    weights[..kept.max(1)].to_vec()
}

/// The first of the largest logits.
fn likeliest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// Generates from a model.
pub struct Generator<'a, B: Kernels, P> {
    /// The model.
    pub model: &'a Llama<B, P>,
    /// Precision of its products.
    pub precision: Precision,
    /// Tokens that end a sequence; they are not part of the answer.
    pub stop: &'a [u32],
}

/// A sequence that is being continued.
struct Running {
    index: usize,
    tokens: Vec<u32>,
    prompt: usize,
}

impl<B, P> Generator<'_, B, P>
where
    B: Kernels + Ops<Inner = B>,
    P: Projection<B>,
{
    /// Continues every prompt by at most `max_new` tokens. `on_token(prompt, token)` sees each token as
    /// it is chosen and stops everything by returning false.
    pub fn run(
        &self,
        prompts: &[Vec<u32>],
        max_new: usize,
        sampling: &Sampling,
        on_token: &mut dyn FnMut(usize, u32) -> bool,
    ) -> Vec<Vec<u32>> {
        let mut answers = vec![Vec::new(); prompts.len()];
        let mut running: Vec<Running> = prompts
            .iter()
            .enumerate()
            .filter(|(_, prompt)| !prompt.is_empty() && max_new > 0)
            .map(|(index, prompt)| Running { index, tokens: prompt.clone(), prompt: prompt.len() })
            .collect();
        let mut cache = Cache::new(self.model.blocks.len(), running.len());
        let mut fresh: Vec<Vec<u32>> = running.iter().map(|r| r.tokens.clone()).collect();
        for draw in 0..max_new as u64 {
            if running.is_empty() {
                break;
            }
            let logits = self.next_logits(&mut cache, &fresh);
            let vocab = self.model.config.vocab_size;
            let mut keep = Vec::with_capacity(running.len());
            fresh.clear();
            for (sequence, mut logits) in running.iter_mut().zip(chunks_mut(logits, vocab)) {
                let id =
                    sampling.choose(&mut logits, &sequence.tokens, sequence.index as u64, draw);
                let stops = self.stop.contains(&id);
                keep.push(!stops);
                if !stops {
                    sequence.tokens.push(id);
                    fresh.push(vec![id]);
                    if !on_token(sequence.index, id) {
                        keep.fill(false);
                        return finish(answers, &running);
                    }
                }
            }
            for (sequence, &goes_on) in running.iter().zip(&keep) {
                if !goes_on {
                    answers[sequence.index] = sequence.tokens[sequence.prompt..].to_vec();
                }
            }
            cache.retain(&keep);
            let mut kept = keep.iter();
            running.retain(|_| *kept.next().expect("one flag a sequence"));
        }
        finish(answers, &running)
    }

    /// Logits after the last of each sequence's new tokens, `[sequences, vocab]`.
    fn next_logits(&self, cache: &mut Cache<B>, fresh: &[Vec<u32>]) -> Vec<f32> {
        let model = self.model;
        let new: Vec<usize> = fresh.iter().map(Vec::len).collect();
        let layout = Layout::continuation(&model.config, &model.rope, cache.lengths(), &new);
        let mut pass = Cached::new(Context::evaluation(self.precision), cache, &new);
        let hidden = model.run(&fresh.concat(), &layout, &mut pass);
        pass.finish();
        let hidden = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(hidden));
        let mut end = 0;
        let last = new.iter().map(|len| {
            end += len;
            hidden.clone().narrow(0, end - 1, 1)
        });
        let last = Tensor::cat(last.collect(), 0); // [sequences, d_model]
        host_values::<B>(model.logits(&last.into_primitive().tensor(), self.precision))
    }
}

fn chunks_mut(logits: Vec<f32>, vocab: usize) -> impl Iterator<Item = Vec<f32>> {
    let rows = logits.len() / vocab;
    (0..rows).map(move |row| logits[row * vocab..(row + 1) * vocab].to_vec())
}

fn finish(mut answers: Vec<Vec<u32>>, running: &[Running]) -> Vec<Vec<u32>> {
    for sequence in running {
        answers[sequence.index] = sequence.tokens[sequence.prompt..].to_vec();
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling() -> Sampling {
        Sampling { temperature: 1.0, ..Sampling::greedy() }
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(Sampling::greedy().choose(&mut [0.0, 2.0, 2.0, 1.0], &[], 0, 0), 1);
    }

    #[test]
    fn draws_follow_the_probabilities_and_repeat_with_the_seed() {
        let logits = [0.0_f32, 3.0_f32.ln(), f32::NEG_INFINITY];
        let draw = |i| sampling().choose(&mut logits.clone(), &[], 0, i);
        let ones = (0..4_000).filter(|&i| draw(i) == 1).count();
        // 3,000 expected, standard deviation 27.
        assert!(ones.abs_diff(3_000) < 170, "{ones} of 4000");
        assert_eq!(draw(17), draw(17));
        assert!((0..4_000).all(|i| draw(i) != 2));
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let logits = [1.0, 4.0, 3.0, 2.0];
        let only = |sampling: Sampling| {
            let mut ids: Vec<u32> =
                (0..500).map(|i| sampling.choose(&mut logits.clone(), &[], 0, i)).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        assert_eq!(only(Sampling { top_k: 2, ..sampling() }), [1, 2]);
        // Probabilities 0.64, 0.24, 0.09, 0.03: the first two reach 0.8.
        assert_eq!(only(Sampling { top_p: 0.8, ..sampling() }), [1, 2]);
        assert_eq!(only(Sampling { top_p: 0.0, ..sampling() }), [1]);
    }

    #[test]
    fn repetition_penalty_lowers_what_was_said() {
        let penalty = Sampling { repetition_penalty: 2.0, ..Sampling::greedy() };
        assert_eq!(penalty.choose(&mut [1.0, 1.5], &[1], 0, 0), 0);
        assert_eq!(penalty.choose(&mut [-1.0, -0.9], &[1, 1], 0, 0), 0);
    }
}
