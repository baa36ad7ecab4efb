//! Loss heads: from the last hidden states of a micro-batch to what is minimised and their gradient.
//!
//! A head is a value that [`crate::step::Trainer`] holds. Another loss is another head over the same walk:
//! it says what its sums are divided by, and turns hidden states into their gradient. What most of them are
//! made of, the losses of tokens and the gradient of their weighted sum, is in [`Predictions`].

mod predictions;

use std::collections::BTreeMap;

use burn::tensor::ops::FloatTensor;
use graft_data::Batch;
use graft_kernels::{Kernels, Ops};
use graft_model::{Context, Llama, Projection};

pub use self::predictions::{CHUNK, Predictions, Targets};
use crate::sink::OfExample;

/// A micro-batch that has been through all blocks.
pub struct Turn<'a, B: Kernels> {
    /// Its rows.
    pub batch: &'a Batch,
    /// How the blocks ran over it.
    pub context: Context<'a>,
    /// What the last block gave, before the final norm: `[tokens, d_model]`.
    pub hidden: FloatTensor<B>,
}

/// What is minimised.
pub trait LossHead<B: Kernels, P>: Send + Sync {
    /// Of how many terms the loss of a micro-batch is the sum: tokens, documents, pairs. The loss of a step is
    /// divided by those of all its micro-batches. Known before any of them has run.
    fn terms(&self, batch: &Batch) -> usize;

    /// What the loss of a micro-batch measures, and the gradient of `loss · scale` with respect to its hidden
    /// states, `[tokens, d_model]`. Gradients of the norm and of a trained head go to `gradient`.
    fn turn(
        &self,
        model: &Llama<B, P>,
        turn: Turn<'_, B>,
        scale: f32,
        gradient: &mut OfExample<'_, B>,
    ) -> (Measures, FloatTensor<B>);
}

/// What a head measured, summed over micro-batches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measures {
    /// The sum of the loss's terms.
    pub loss: f64,
    /// What else the head tells of, each under a name that no field of `metrics.jsonl` has.
    pub further: BTreeMap<&'static str, Mean>,
}

impl Measures {
    /// A loss alone.
    pub fn of_loss(loss: f64) -> Self {
        Self { loss, further: BTreeMap::new() }
    }

    /// Adds what another micro-batch measured.
    pub fn add(&mut self, other: Self) {
        self.loss += other.loss;
        for (name, Mean { sum, count }) in other.further {
            let mean = self.further.entry(name).or_default();
            mean.sum += sum;
            mean.count += count;
        }
    }
}

/// A mean that is still to be divided.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mean {
    /// The sum.
    pub sum: f64,
    /// Of how many.
    pub count: usize,
}

impl Mean {
    /// The mean; 0 of nothing.
    pub fn value(self) -> f64 {
        self.sum / self.count.max(1) as f64
    }
}

/// The negative log-likelihood of every target token, in nats.
#[derive(Clone, Copy, Debug, Default)]
pub struct NextToken;

impl<B, P> LossHead<B, P> for NextToken
where
    B: Kernels + Ops<Inner = B>,
    P: Projection<B>,
{
    fn terms(&self, batch: &Batch) -> usize {
        batch.targets()
    }

    fn turn(
        &self,
        model: &Llama<B, P>,
        turn: Turn<'_, B>,
        scale: f32,
        gradient: &mut OfExample<'_, B>,
    ) -> (Measures, FloatTensor<B>) {
        let targets = Targets::of(turn.batch);
        let factors = vec![scale; targets.rows.len()];
        let predictions = Predictions { model, precision: turn.context.precision };
        let (losses, d_hidden) =
            predictions.losses_and_gradient(turn.hidden, &targets, &factors, gradient);
        (Measures::of_loss(predictions.sum(&losses)), d_hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_of_micro_batches_add_up_to_means() {
        let of = |loss, further: &[(&'static str, f64, usize)]| Measures {
            loss,
            further: further
                .iter()
                .map(|&(name, sum, count)| (name, Mean { sum, count }))
                .collect(),
        };
        let mut sum = of(1.0, &[("accuracy", 1.0, 2)]);
        sum.add(of(0.5, &[("accuracy", 2.0, 2), ("margin", 3.0, 1)]));
        assert_eq!(sum, of(1.5, &[("accuracy", 3.0, 4), ("margin", 3.0, 1)]));
        assert_eq!(sum.further["accuracy"].value().to_bits(), 0.75_f64.to_bits());
        assert_eq!(Mean::default().value().to_bits(), 0.0_f64.to_bits());
    }
}
