//! What a model expects after each target, and how it would have to change: losses of tokens and the
//! gradient of the hidden states.
//!
//! Logits are computed for target positions only, a chunk of rows at a time, and their gradient in the
//! same pass: logits of all tokens never exist. Within a chunk the vocabulary is taken in bands.

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Int, Tensor, TensorData, TensorPrimitive};
use graft_data::{Batch, IGNORE};
use graft_kernels::{Kernels, Ops, Precision};
use graft_model::site::NORM;
use graft_model::{Llama, Projection, Table};

use crate::sink::OfExample;

/// Logits that exist at a time, in elements: 64 MiB of f32.
pub const CHUNK: usize = 1 << 24;

/// Positions of a batch that are trained on, and what stands after each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Rows of the hidden states.
    pub rows: Vec<usize>,
    /// The token to be predicted from each.
    pub tokens: Vec<u32>,
}

impl Targets {
    /// The targets of a batch.
    pub fn of(batch: &Batch) -> Self {
        let mut targets = Self::default();
        for (row, &label) in batch.labels.iter().enumerate() {
            if label != IGNORE {
                targets.rows.push(row);
                targets.tokens.push(label.unsigned_abs());
            }
        }
        targets
    }
}

fn tensor<B: Kernels>(primitive: FloatTensor<B>) -> Tensor<B, 2> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

fn primitive<B: Kernels>(tensor: Tensor<B, 2>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}

fn indices<B: Kernels>(rows: &[usize], device: &B::Device) -> Tensor<B, 1, Int> {
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    Tensor::from_data(TensorData::from(rows.as_slice()), device)
}

/// A model's predictions of targets.
pub struct Predictions<'a, B: Kernels, P> {
    /// The model.
    pub model: &'a Llama<B, P>,
    /// Precision of the head's products.
    pub precision: Precision,
}

impl<B, P> Predictions<'_, B, P>
where
    B: Kernels + Ops<Inner = B>,
    P: Projection<B>,
{
    fn eps(&self) -> f32 {
        self.model.config.rms_norm_eps as f32
    }

    /// Rows of a chunk: chunks of one size, for each of them goes over the whole head.
    fn chunk_rows(&self, targets: usize) -> usize {
        let most = (CHUNK / self.model.config.vocab_size).max(1);
        targets.div_ceil(targets.div_ceil(most).max(1)).max(1)
    }

    /// Bands of the logits of some rows, after the norm: `[rows, band]` each.
    fn logits(&self, bands: &[(usize, Table<B>)], normed: &FloatTensor<B>) -> Vec<FloatTensor<B>> {
        let logits_of = |(first, band): &(usize, Table<B>)| {
            let logits = band.logits(normed, self.precision);
            self.leave(*first, band);
            logits
        };
        bands.iter().map(logits_of).collect()
    }

    /// A band will not be read for a while.
    fn leave(&self, first: usize, band: &Table<B>) {
        let rows = first..first + band.vocab();
        self.model.residency.leave_head(rows, self.model.config.vocab_size);
    }

    /// The negative log-likelihood of every target, in nats.
    pub fn losses(&self, hidden: FloatTensor<B>, targets: &Targets) -> Vec<f32> {
        let chosen = indices::<B>(&targets.rows, &self.model.device);
        let chosen = tensor::<B>(hidden).select(0, chosen);
        let mut losses = Vec::with_capacity(targets.rows.len());
        let bands = self.model.head().bands();
        for (first, tokens) in self.chunks(targets) {
            let rows = primitive(chosen.clone().narrow(0, first, tokens.len()));
            let logits = self.logits(&bands, &self.model.normed(&rows));
            losses.extend(B::cross_entropy(logits, tokens, &vec![0.0; tokens.len()]).0);
        }
        losses
    }

    /// The sum of [`Predictions::losses`]: chunk by chunk, in f64.
    pub fn sum(&self, losses: &[f32]) -> f64 {
        let rows = self.chunk_rows(losses.len());
        let of_chunk = |chunk: &[f32]| chunk.iter().map(|&loss| f64::from(loss)).sum::<f64>();
        losses.chunks(rows).map(of_chunk).sum()
    }

    /// The negative log-likelihood of every target, in nats, and the gradient of `Σ loss · factor` with respect
    /// to `hidden`, with one factor for each target; gradients of the norm and of a trained head go to
    /// `gradient`. The head is gone over once for both.
    pub fn losses_and_gradient(
        &self,
        hidden: FloatTensor<B>,
        targets: &Targets,
        factors: &[f32],
        gradient: &mut OfExample<'_, B>,
    ) -> (Vec<f32>, FloatTensor<B>) {
        let device = &self.model.device;
        let hidden = tensor::<B>(hidden);
        let shape = hidden.dims();
        let chosen = indices::<B>(&targets.rows, device);
        let rows = primitive(hidden.select(0, chosen.clone())); // [targets, d_model]
        let weight = self.model.norm.tensor();
        let normed = <B as Kernels>::rms_norm(&rows, weight, self.eps(), Precision::F32);
        let normed = tensor::<B>(normed);
        let head = self.model.head();
        let trains_head = head.names().into_iter().any(|name| gradient.wants(name));
        let bands = head.bands();
        let mut losses = Vec::with_capacity(targets.rows.len());
        let mut d_normed = Vec::new();
        for (first, tokens) in self.chunks(targets) {
            let part = primitive(normed.clone().narrow(0, first, tokens.len()));
            let logits = self.logits(&bands, &part);
            let factors = &factors[first..first + tokens.len()];
            let (of_chunk, d_logits) = B::cross_entropy(logits, tokens, factors);
            losses.extend(of_chunk);
            if trains_head {
                for ((first, band), dy) in bands.iter().zip(&d_logits) {
                    gradient.add_table(band.logits_gradients(*first, dy, &part, self.precision));
                }
            }
            let parts = bands.iter().zip(d_logits).map(|((first, band), d_logits)| {
                let d_part = band.logits_dx(&d_logits, self.precision);
                self.leave(*first, band);
                d_part
            });
            let sum = parts.reduce(|sum, part| B::add(sum, &part));
            d_normed.push(tensor::<B>(sum.expect("a head has rows")));
        }
        if d_normed.is_empty() {
            return (losses, primitive(Tensor::<B, 2>::zeros(shape, device)));
        }
        let d_normed = primitive(Tensor::cat(d_normed, 0)); // [targets, d_model]
        if gradient.wants(NORM) {
            let dw = B::rms_norm_dw(&rows, self.eps(), &d_normed);
            gradient.add(NORM, dw);
        }
        let weight = self.model.norm.tensor();
        let d_rows = tensor::<B>(B::rms_norm_dx(&rows, weight, self.eps(), &d_normed));
        let d_hidden = Tensor::<B, 2>::zeros(shape, device).select_assign(
            0,
            chosen,
            d_rows,
            burn::tensor::IndexingUpdateOp::Add,
        ); // [tokens, d_model]
        (losses, primitive(d_hidden))
    }

    fn chunks<'t>(
        &self,
        targets: &'t Targets,
    ) -> impl Iterator<Item = (usize, &'t [u32])> + use<'t, B, P> {
        let rows = self.chunk_rows(targets.tokens.len());
        targets.tokens.chunks(rows).enumerate().map(move |(i, tokens)| (i * rows, tokens))
    }
}
