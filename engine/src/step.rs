//! One optimizer step, and the state that it changes.

use std::collections::BTreeMap;
use std::convert::Infallible;

use graft_adapters::Trainable;
use graft_data::Batch;
use graft_kernels::adamw::GradientSums;
use graft_kernels::{Kernels, Ops, Precision};
use graft_model::param::host_values;
use graft_model::stop::Stopped;
use graft_model::{Context, Llama};

use crate::learning_rate::LearningRate;
use crate::loss::{LossHead, Measures};
use crate::optimizer::AdamW;
use crate::parameters::{Slot, clip_factor};
use crate::sink::Sink;
use crate::{
    Checkpointing, DropoutNoise, Gradient, MicroBatch, Offload, OffloadError, Parameters, Walk,
};

/// What a step needs to know beside its batches.
#[derive(Clone, Copy, Debug)]
pub struct StepOptions {
    /// The run's seed.
    pub seed: u64,
    /// Precision of frozen products and attention.
    pub precision: Precision,
    /// What is kept between the passes.
    pub checkpointing: Checkpointing,
    /// Micro-batches that share each visit of a block; at least one.
    pub micro_batches_per_visit: usize,
    /// Longest gradient; `None` does not clip.
    pub max_grad_norm: Option<f64>,
    /// The schedule.
    pub learning_rate: LearningRate,
}

/// A model in training.
pub struct Trainer<B: Kernels, P> {
    /// The model.
    pub model: Llama<B, P>,
    /// The order of its trainable tensors.
    pub parameters: Parameters,
    /// What is minimised.
    pub head: Box<dyn LossHead<B, P>>,
    /// The optimizer's state.
    pub optimizer: AdamW<B>,
    /// How to step.
    pub options: StepOptions,
    /// Where blocks' inputs are kept between the passes; in memory where nowhere else.
    pub offload: Option<Offload>,
}

/// What a step measured.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOutcome {
    /// Mean of the loss's terms: of next tokens, the mean loss a target.
    pub loss: f64,
    /// What else the loss head told of, by name.
    pub further: BTreeMap<&'static str, f64>,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Tokens.
    pub tokens: usize,
    /// Tokens trained on.
    pub targets: usize,
    /// Most memory of a GPU found in use.
    pub device_memory: Option<u64>,
}

/// What a step's passes forward and back measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Passed {
    /// Mean of the loss's terms.
    pub loss: f64,
    /// What else the loss head told of, by name.
    pub further: BTreeMap<&'static str, f64>,
    /// Most memory of a GPU found in use.
    pub device_memory: Option<u64>,
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A loss or gradient that is no number.
    #[error(transparent)]
    Diverged(#[from] Diverged),
    /// The disk did not keep the blocks' inputs.
    #[error(transparent)]
    Offload(#[from] OffloadError),
    /// The process was asked to stop.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// A loss or gradient that is no number: the step was not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Diverged {
    /// A micro-batch's loss.
    #[error("the loss of step {step}, micro-batch {micro_batch} is {loss}")]
    Loss {
        /// The optimizer step.
        step: u64,
        /// The micro-batch in it, counted from 1.
        micro_batch: usize,
        /// The loss.
        loss: f64,
    },
    /// The whole step's gradient.
    #[error("the gradient norm of step {step} is {norm}")]
    Gradient {
        /// The optimizer step.
        step: u64,
        /// The norm.
        norm: f64,
    },
}

impl<B, P> Trainer<B, P>
where
    B: Kernels + Ops<Inner = B>,
    P: Trainable<B>,
{
    /// Takes optimizer step `step`, counted from 1.
    ///
    /// The loss is summed over its terms and divided by those of all micro-batches, so that `k`
    /// micro-batches are one batch.
    pub fn step(&mut self, step: u64, batches: &[Batch]) -> Result<StepOutcome, StepError> {
        let terms: usize = batches.iter().map(|batch| self.head.terms(batch)).sum();
        let mut gradient = Gradient::new(&self.parameters, &self.model.device);
        let passed = self.passes(step, batches, terms, &mut gradient)?;
        let Passed { loss, further, device_memory } = passed;
        let gradient = gradient.into_sums();
        let grad_norm = gradient.norm();
        if !grad_norm.is_finite() {
            return Err(Diverged::Gradient { step, norm: grad_norm }.into());
        }
        let learning_rate = self.options.learning_rate.at(step);
        let clip = clip_factor(grad_norm, self.options.max_grad_norm);
        let Self { model, parameters, optimizer, .. } = self;
        parameters.update(model, |values| optimizer.step(values, &gradient, clip, learning_rate));
        let tokens = batches.iter().map(Batch::len).sum();
        let targets = batches.iter().map(Batch::targets).sum();
        let outcome =
            StepOutcome { loss, further, grad_norm, learning_rate, tokens, targets, device_memory };
        Ok(outcome)
    }

    /// A copy of all trained values, in the order of the parameters.
    pub fn values(&mut self) -> Vec<f32> {
        let tensors = self.parameters.tensors(&mut self.model);
        tensors.into_iter().flat_map(host_values::<B>).collect()
    }

    /// Gives a copy of a trained tensor's values by its name.
    ///
    /// # Panics
    /// The function does for a name that is not trained.
    pub fn values_by_name(&mut self) -> impl Fn(&str) -> Vec<f32> + use<'_, B, P> {
        let tensors = self.parameters.tensors(&mut self.model);
        let parameters = &self.parameters;
        move |name| {
            let position = parameters.position(name);
            let position = position.unwrap_or_else(|| panic!("`{name}` is not trained"));
            host_values::<B>(tensors[position].clone())
        }
    }

    /// The first trained value that is no number: its tensor, its place there, and what it is.
    pub fn first_not_finite(&mut self) -> Option<(String, usize, f32)> {
        let tensors = self.parameters.tensors(&mut self.model);
        self.parameters.slots().iter().zip(tensors).find_map(|(slot, tensor)| {
            let values = host_values::<B>(tensor);
            let index = values.iter().position(|value| !value.is_finite())?;
            Some((slot.name.clone(), index, values[index]))
        })
    }

    /// Replaces all trained values.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn set_values(&mut self, values: &[f32]) {
        assert_eq!(values.len(), self.parameters.len(), "values of the parameters");
        let fill = |slot: &Slot| Ok::<_, Infallible>(values[slot.range.clone()].to_vec());
        let Ok(()) = self.parameters.fill(&mut self.model, fill);
    }

    /// The mean of a step's loss over so many terms and its gradient, in the layout of the parameters.
    pub fn gradient(
        &self,
        step: u64,
        batches: &[Batch],
        terms: usize,
    ) -> Result<(f64, Vec<f32>), StepError> {
        let mut gradient = Gradient::new(&self.parameters, &self.model.device);
        let Passed { loss, .. } = self.passes(step, batches, terms, &mut gradient)?;
        Ok((loss, gradient.into_sums().values()))
    }

    /// Hands the gradient of the mean of a step's loss over so many terms to `sink`. No value changes.
    pub fn passes(
        &self,
        step: u64,
        batches: &[Batch],
        terms: usize,
        sink: &mut dyn Sink<B>,
    ) -> Result<Passed, StepError> {
        let mut total = Measures::default();
        let checkpointing = self.options.checkpointing;
        let walk = Walk::new(&self.model, &self.parameters, &*self.head, checkpointing)
            .with_inputs_in(self.offload.as_ref());
        let noises: Vec<_> = (0..batches.len())
            .map(|micro_batch| DropoutNoise { seed: self.options.seed, step, micro_batch })
            .collect();
        let micro_batch = |(noise, batch)| {
            let &DropoutNoise { micro_batch: example, .. } = noise;
            let context = Context { precision: self.options.precision, noise: Some(noise) };
            MicroBatch { example, batch, context }
        };
        let micro_batches: Vec<_> = noises.iter().zip(batches).map(micro_batch).collect();
        let scale = 1.0 / terms.max(1) as f32;
        for visit in micro_batches.chunks(self.options.micro_batches_per_visit) {
            let measured = walk.run::<StepError>(visit, scale, sink)?;
            for (of, measures) in visit.iter().zip(measured) {
                let (micro_batch, loss) = (of.example + 1, measures.loss);
                if !loss.is_finite() {
                    return Err(Diverged::Loss { step, micro_batch, loss }.into());
                }
                total.add(measures);
            }
        }
        let Measures { loss, further } = total;
        let loss = loss / terms.max(1) as f64;
        let further = further.into_iter().map(|(name, mean)| (name, mean.value())).collect();
        Ok(Passed { loss, further, device_memory: walk.device_memory() })
    }
}
