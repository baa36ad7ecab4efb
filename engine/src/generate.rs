//! Generation with a cache of keys and values, several sequences at a time.
//!
//! Draws come from the counter-based generator, so a seed gives the same text again. No sequence grows
//! beyond the positions that the model was made for, and none goes on from scores that are no numbers.

mod sampling;

pub use sampling::Sampling;

use burn::tensor::{Tensor, TensorPrimitive};
use graft_kernels::{Kernels, Ops, Precision};
use graft_model::param::host_values;
use graft_model::stop::{self, Stopped};
use graft_model::{Cache, Cached, Context, Layout, Llama, Projection};
use serde::Serialize;

/// Tokens of prompts that are read in one pass: bounds memory.
pub const PREFILL: usize = 2_048;

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
        "the model gives {value} for token {token} of its vocabulary: its weights, or those of its adapter, are \
         damaged or were destroyed in training. Take them from where they come from, or train anew with a lower \
         training.learning_rate"
    )]
    NotANumber {
        /// The token's id.
        token: usize,
        /// What its logit is.
        value: f32,
    },
}

/// What a model wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub end: End,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The model ended it.
    Stop,
    /// It has as many tokens as it may have, or as the model has positions for.
    Length,
    /// The listener ended it.
    Interrupted,
}

/// What a listener hears of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// How much of the prompt was read, where there is only one: before the first of its tokens, and
    /// behind each pass.
    Prompt {
        /// Tokens read.
        read: usize,
        /// Tokens to be read in all.
        of: usize,
    },
    /// The next token of its answer.
    Token(u32),
    /// The end of its answer.
    End(End),
}

/// A sequence that is being continued.
struct Running {
    index: usize,
    tokens: Vec<u32>,
    prompt: usize,
    /// Tokens that its answer may have.
    room: usize,
}

impl Running {
    fn answer(&self, end: End) -> Answer {
        Answer { tokens: self.tokens[self.prompt..].to_vec(), end }
    }
}

impl<B, P> Generator<'_, B, P>
where
    B: Kernels + Ops<Inner = B>,
    P: Projection<B>,
{
    /// Continues every prompt by at most `max_new` tokens. `listener(prompt, heard)` hears how a prompt is read,
    /// each token as it is chosen, and each end, and stops everything by returning false.
    ///
    /// # Errors
    /// The model gives what is no number; the process was asked to stop.
    pub fn run(
        &self,
        prompts: &[Vec<u32>],
        max_new: usize,
        sampling: &Sampling,
        listener: &mut dyn FnMut(usize, Heard) -> bool,
    ) -> Result<Vec<Answer>, GenerateError> {
        let mut cache = Cache::new(self.model.blocks.len(), prompts.len());
        self.go_on(&mut cache, prompts, max_new, sampling, listener)
    }

    /// Continues prompts, as [`Generator::run`] does, whose beginnings the cache may have seen already.
    /// Afterwards it has seen all but the last token of the sequences that ended last.
    fn go_on(
        &self,
        cache: &mut Cache<B>,
        prompts: &[Vec<u32>],
        max_new: usize,
        sampling: &Sampling,
        listener: &mut dyn FnMut(usize, Heard) -> bool,
    ) -> Result<Vec<Answer>, GenerateError> {
        let longest = self.model.config.max_position_embeddings;
        let sequence = |(index, prompt): (usize, &Vec<u32>)| {
            let room = if prompt.is_empty() { 0 } else { longest.saturating_sub(prompt.len()) };
            let room = room.min(max_new);
            Running { index, tokens: prompt.clone(), prompt: prompt.len(), room }
        };
        let mut running: Vec<Running> = prompts.iter().enumerate().map(sequence).collect();
        let mut answers: Vec<Answer> = running.iter().map(|one| one.answer(End::Length)).collect();
        let may_begin: Vec<bool> = running.iter().map(|one| one.room > 0).collect();
        retain(cache, &mut running, &may_begin);
        let mut fresh: Vec<Vec<u32>> = running
            .iter()
            .zip(cache.lengths())
            .map(|(sequence, &seen)| sequence.tokens[seen..].to_vec())
            .collect();
        let mut draw = 0;
        while !running.is_empty() {
            stop::check()?;
            let logits = match draw {
                0 => {
                    let index = running[0].index;
                    let mut heard = |read, of| listener(index, Heard::Prompt { read, of });
                    match self.read(cache, &fresh, &mut heard)? {
                        Some(logits) => logits,
                        None => return Ok(interrupted(answers, &running, &[])),
                    }
                }
                _ => self.next_logits(cache, &fresh),
            };
            if draw == 0 {
                cache.set_limits(running.iter().map(|one| one.prompt + one.room).collect());
            }
            fresh.clear();
            let vocab = self.model.config.vocab_size;
            let mut keep = Vec::with_capacity(running.len());
            for place in 0..running.len() {
                let logits = &logits[place * vocab..(place + 1) * vocab];
                let sequence = &mut running[place];
                check(logits)?;
                let index = sequence.index;
                let id = sampling.choose(logits, &sequence.tokens, index as u64, draw);
                let stops = self.stop.contains(&id);
                let mut goes_on = true;
                if !stops {
                    sequence.tokens.push(id);
                    goes_on = listener(index, Heard::Token(id));
                }
                let is_full = sequence.tokens.len() == sequence.prompt + sequence.room;
                if stops || is_full {
                    let end = if stops { End::Stop } else { End::Length };
                    answers[index] = sequence.answer(end);
                    goes_on &= listener(index, Heard::End(end));
                } else {
                    fresh.push(vec![id]);
                }
                keep.push(!(stops || is_full));
                if !goes_on {
                    return Ok(interrupted(answers, &running, &keep));
                }
            }
            if !keep.contains(&true) {
                break;
            }
            retain(cache, &mut running, &keep);
            draw += 1;
        }
        Ok(answers)
    }

    /// Reads prompts, or what the cache has not seen of one: several in a pass, or one in several; the logits
    /// after each, `[sequences, vocab]`. `heard(read, of)` hears how far a single one is read, and ends the
    /// reading by returning false.
    fn read(
        &self,
        cache: &mut Cache<B>,
        prompts: &[Vec<u32>],
        heard: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<Vec<f32>>, Stopped> {
        if let [long] = prompts {
            let (mut logits, mut read) = (Vec::new(), 0);
            for part in long.chunks(PREFILL) {
                stop::check()?;
                if !heard(read, long.len()) {
                    return Ok(None);
                }
                logits = self.next_logits(cache, &[part.to_vec()]);
                read += part.len();
            }
            return Ok(heard(read, long.len()).then_some(logits));
        }
        let layers = self.model.blocks.len();
        let mut all = Cache::new(layers, 0);
        let mut logits = Vec::with_capacity(prompts.len() * self.model.config.vocab_size);
        for prompts in passes(prompts) {
            let mut own = Cache::new(layers, prompts.len());
            if prompts.len() == 1 {
                let read = self.read(&mut own, prompts, &mut |_, _| true)?;
                logits.append(&mut read.unwrap_or_default());
            } else {
                stop::check()?;
                logits.append(&mut self.next_logits(&mut own, prompts));
            }
            all.append(own);
        }
        *cache = all;
        Ok(Some(logits))
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

fn check(logits: &[f32]) -> Result<(), GenerateError> {
    match logits.iter().position(|logit| !logit.is_finite()) {
        None => Ok(()),
        Some(token) => Err(GenerateError::NotANumber { token, value: logits[token] }),
    }
}

/// Cuts prompts where more of them would take a pass beyond [`PREFILL`] tokens.
fn passes(mut prompts: &[Vec<u32>]) -> impl Iterator<Item = &[Vec<u32>]> {
    std::iter::from_fn(move || {
        let mut tokens = 0;
        let fits = prompts.iter().take_while(|prompt| {
            tokens += prompt.len();
            tokens <= PREFILL
        });
        let count = fits.count().max(1).min(prompts.len());
        let (now, later) = prompts.split_at(count);
        prompts = later;
        (!now.is_empty()).then_some(now)
    })
}

/// Drops the sequences for which `keep` is false.
fn retain<B: Kernels>(cache: &mut Cache<B>, running: &mut Vec<Running>, keep: &[bool]) {
    if keep.contains(&false) {
        cache.retain(keep);
        let mut kept = keep.iter();
        running.retain(|_| *kept.next().expect("one flag a sequence"));
    }
}

/// The answers where a listener ends everything: those of sequences that go on are cut.
fn interrupted(mut answers: Vec<Answer>, running: &[Running], keep: &[bool]) -> Vec<Answer> {
    for (place, sequence) in running.iter().enumerate() {
        // Behind the one that was told of, all go on.
        if keep.get(place).is_none_or(|&goes_on| goes_on) {
            answers[sequence.index] = sequence.answer(End::Interrupted);
        }
    }
    answers
}

/// A conversation: what a prompt begins with, and the last one had in common with it, is not read again.
pub struct Session<'a, B: Kernels, P> {
    generator: Generator<'a, B, P>,
    cache: Cache<B>,
    /// The tokens that the cache has seen.
    seen: Vec<u32>,
}

impl<'a, B, P> Session<'a, B, P>
where
    B: Kernels + Ops<Inner = B>,
    P: Projection<B>,
{
    /// A session that has seen nothing.
    pub fn new(generator: Generator<'a, B, P>) -> Self {
        let cache = Cache::new(generator.model.blocks.len(), 1);
        Self { generator, cache, seen: Vec::new() }
    }

    /// Continues a prompt as [`Generator::run`] does.
    ///
    /// # Errors
    /// As [`Generator::run`].
    pub fn answer(
        &mut self,
        prompt: Vec<u32>,
        max_new: usize,
        sampling: &Sampling,
        listener: &mut dyn FnMut(Heard) -> bool,
    ) -> Result<Answer, GenerateError> {
        let longest = self.generator.model.config.max_position_embeddings;
        if prompt.is_empty() || prompt.len() >= longest || max_new == 0 {
            return Ok(Answer { tokens: Vec::new(), end: End::Length });
        }
        let common = self.seen.iter().zip(&prompt).take_while(|(a, b)| a == b).count();
        // The last token has to be read, for what follows it.
        self.cache.shorten(common.min(prompt.len() - 1));
        self.seen.clear();
        let prompts = [prompt];
        let mut listener = |_: usize, heard| listener(heard);
        let answers =
            self.generator.go_on(&mut self.cache, &prompts, max_new, sampling, &mut listener);
        let answer = match answers {
            Ok(mut answers) => answers.swap_remove(0),
            Err(error) => {
                self.cache.shorten(0);
                return Err(error);
            }
        };
        let [prompt] = prompts;
        self.seen = [prompt, answer.tokens.clone()].concat();
        self.seen.truncate(self.cache.lengths()[0]);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_reads_what_fits_or_one_long_prompt() {
        let prompts = |lengths: &[usize]| lengths.iter().map(|&n| vec![0; n]).collect::<Vec<_>>();
        let cut = |lengths: &[usize]| -> Vec<Vec<usize>> {
            let prompts = prompts(lengths);
            passes(&prompts).map(|pass| pass.iter().map(Vec::len).collect()).collect()
        };
        assert_eq!(cut(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(
            cut(&[2_000, 48, 1, 9_000, 5]),
            [vec![2_000, 48], vec![1], vec![9_000], vec![5]]
        );
    }
}
