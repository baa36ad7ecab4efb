//! Generation with a cache of keys and values, several sequences at a time.
//!
//! Draws come from the counter-based generator, so a seed gives the same text again.

mod sampling;

pub use sampling::Sampling;

use burn::tensor::{Tensor, TensorPrimitive};
use graft_kernels::{Kernels, Ops, Precision};
use graft_model::param::host_values;
use graft_model::stop::{self, Stopped};
use graft_model::{Cache, Cached, Context, Layout, Llama, Projection};

/// Generates from a model.
pub struct Generator<'a, B: Kernels, P> {
    /// The model.
    pub model: &'a Llama<B, P>,
    /// Precision of its products.
    pub precision: Precision,
    /// Tokens that end a sequence; they are not part of the answer.
    pub stop: &'a [u32],
}

/// Why nothing more is generated.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum GenerateError {
    /// The process was asked to stop.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The model's answer is no numbers.
    #[error(
        "the model gives {value} for token {token} of its vocabulary: its weights, or those of its \
         adapter, are damaged or were destroyed in training"
    )]
    NotANumber {
        /// The token's id.
        token: usize,
        /// What its logit is.
        value: f32,
    },
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
    ///
    /// # Errors
    /// The model gives what is no number; the process was asked to stop.
    pub fn run(
        &self,
        prompts: &[Vec<u32>],
        max_new: usize,
        sampling: &Sampling,
        on_token: &mut dyn FnMut(usize, u32) -> bool,
    ) -> Result<Vec<Vec<u32>>, GenerateError> {
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
            stop::check()?;
            let logits = self.next_logits(&mut cache, &fresh);
            let vocab = self.model.config.vocab_size;
            let mut keep = Vec::with_capacity(running.len());
            fresh.clear();
            if let Some(place) = logits.iter().position(|logit| !logit.is_finite()) {
                let (token, value) = (place % vocab, logits[place]);
                return Err(GenerateError::NotANumber { token, value });
            }
            for (sequence, logits) in running.iter_mut().zip(logits.chunks_exact(vocab)) {
                let id = sampling.choose(logits, &sequence.tokens, sequence.index as u64, draw);
                let stops = self.stop.contains(&id);
                keep.push(!stops);
                if !stops {
                    sequence.tokens.push(id);
                    fresh.push(vec![id]);
                    if !on_token(sequence.index, id) {
                        return Ok(finish(answers, &running));
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
        Ok(finish(answers, &running))
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
        host_values::<B>(model.next_logits(&last.into_primitive().tensor(), self.precision))
    }
}

fn finish(mut answers: Vec<Vec<u32>>, running: &[Running]) -> Vec<Vec<u32>> {
    for sequence in running {
        answers[sequence.index] = sequence.tokens[sequence.prompt..].to_vec();
    }
    answers
}
