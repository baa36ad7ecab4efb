//! A probe through a model of which memory holds one block at a time, made of its stored weights and dropped again:
//! for models that are decoded or quantised when they are read, and would take more than they do in their file.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};
use graft_kernels::{Kernels, Ops, Precision};
use graft_model::load::{Factory, Weights, block, norm};
use graft_model::param::host_values;
use graft_model::pass::Plain;
use graft_model::site::{EMBED_TOKENS, LM_HEAD};
use graft_model::table::bands;
use graft_model::{Context, Error, Layout, LlamaConfig, Projection, Rope, Seat, Table, stop};

use crate::probe::{Probe, Says, numbers};

/// What a model makes of a probe, up to the head, whose rows are read from its weights.
pub struct HeardByBlocks<'a, B: Kernels, W> {
    /// After the last norm, `[tokens, d_model]`, one row of the probe behind the other.
    hidden: Tensor<B, 2>,
    weights: &'a W,
    config: LlamaConfig,
    device: B::Device,
    precision: Precision,
}

impl Probe {
    /// Runs a model over the probe, block by block, as [`Probe::hear`] does with one in memory; the weights were checked
    /// against the configuration.
    ///
    /// # Errors
    /// Those of the weights and of the factory; the process was asked to stop.
    pub fn hear_by_blocks<'a, B, F, W>(
        &self,
        config: &LlamaConfig,
        weights: &'a W,
        factory: &mut F,
        device: &B::Device,
        precision: Precision,
    ) -> Result<HeardByBlocks<'a, B, W>, Error>
    where
        B: Kernels + Ops<Inner = B>,
        F: Factory<B>,
        F::Projection: Projection<B>,
        W: Weights,
    {
        let rope = Rope::new(config);
        let layout = |tokens: &Vec<u32>| {
            let positions: Vec<u32> = (0..tokens.len() as u32).collect();
            let document = 0..tokens.len();
            Layout::of_documents(config, &rope, &positions, &[document])
        };
        let layouts: Vec<Layout> = self.0.iter().map(layout).collect();
        let mut states: Vec<_> = self
            .0
            .iter()
            .map(|tokens| {
                Ok(embedded::<B>(tokens, config, weights, device)?.into_primitive().tensor())
            })
            .collect::<Result<_, Error>>()?;
        for layer in 0..config.layers {
            stop::check()?;
            let block = block(config, weights, factory, device, layer, &mut Vec::new())?;
            for (state, layout) in states.iter_mut().zip(&layouts) {
                let mut pass = Plain::new(Context::evaluation(precision));
                *state = block.forward(state.clone(), layout, &mut pass);
            }
        }
        let last = norm::<B>(weights, Seat::LastNorm, config, device)?;
        let eps = config.rms_norm_eps as f32;
        let normed = states.into_iter().map(|state| {
            let normed = <B as Kernels>::rms_norm(&state, last.tensor(), eps, Precision::F32);
            numbers::<B>(&state, normed)
        });
        let hidden = Tensor::cat(normed.collect(), 0);
        let (config, device) = (config.clone(), device.clone());
        Ok(HeardByBlocks { hidden, weights, config, device, precision })
    }
}

/// Rows of the embedding, `[tokens, d_model]`.
fn embedded<B: Kernels>(
    tokens: &[u32],
    config: &LlamaConfig,
    weights: &impl Weights,
    device: &B::Device,
) -> Result<Tensor<B, 2>, Error> {
    let LlamaConfig { vocab_size, d_model, .. } = *config;
    let mut values = vec![0.0; tokens.len() * d_model];
    for (row, &token) in values.chunks_exact_mut(d_model).zip(tokens) {
        let id = token as usize;
        weights.band(EMBED_TOKENS, [vocab_size, d_model], id..id + 1)?.decode(0, 0, row);
    }
    Ok(Tensor::from_data(TensorData::new(values, [tokens.len(), d_model]), device))
}

impl<B: Kernels, W: Weights> Says for HeardByBlocks<'_, B, W> {
    fn positions(&self) -> usize {
        self.hidden.dims()[0]
    }

    fn vocab(&self) -> usize {
        self.config.vocab_size
    }

    /// Those of [`Table::bands`].
    fn bands(&self) -> Vec<Range<usize>> {
        bands([self.config.vocab_size, self.config.d_model])
    }

    fn logits(&self, positions: Range<usize>, band: Range<usize>) -> Vec<f32> {
        let LlamaConfig { vocab_size, d_model, tied, .. } = self.config;
        let head = if tied { EMBED_TOKENS } else { LM_HEAD };
        let band = self.weights.band(head, [vocab_size, d_model], band);
        let band = band.expect("the weights were checked against the configuration");
        let hidden = self.hidden.clone().narrow(0, positions.start, positions.len());
        let table = Table::<B>::frozen(band, &self.device);
        host_values::<B>(table.logits(&hidden.into_primitive().tensor(), self.precision))
    }
}
