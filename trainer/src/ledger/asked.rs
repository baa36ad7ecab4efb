//! The sizes of a run that decide what it takes, apart from everything else in a plan.

use std::path::PathBuf;

use graft_data::Sample;
use graft_kernels::Precision;
use graft_model::checkpoint::Checkpoint;
use graft_model::config::FloatType;
use graft_model::{LlamaConfig, ProjectionKind, Site};
use graft_recipes::{ActivationOffload, Checkpointing, Init};

use super::Place;
use crate::device::Device;
use crate::optimizer::StateFormat;
use crate::plan::{Adapter, LoadedData, Plan};

/// How frozen weights are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Millionths of a byte a weight of a projection, scales included.
    pub projection: usize,
    /// The same of embedding and head.
    pub table: usize,
    /// Whether projections are private memory: quantised while loading, or drawn.
    pub projections_are_private: bool,
    /// Whether the tables are.
    pub tables_are_private: bool,
    /// What it is called.
    pub form: &'static str,
}

/// What is scored before and after training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scoring {
    /// Tokens of the largest pass.
    pub tokens: usize,
    /// Tokens that the cache holds for all questions answered together.
    pub cached: usize,
}

/// The sizes of a run.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The model.
    pub config: LlamaConfig,
    /// What trains.
    pub adapter: Adapter,
    /// How the optimizer remembers.
    pub states: StateFormat,
    /// How the frozen weights are held; `None` where every weight trains.
    pub stored: Option<Stored>,
    /// Tokens of each row or bin, longest first.
    pub units: Vec<usize>,
    /// Targets of each row or bin, most first.
    pub targets: Vec<usize>,
    /// Rows or bins of a micro-batch.
    pub micro_batch_size: usize,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Micro-batches that share a visit of a block.
    pub per_visit: usize,
    /// Whether tapes are kept.
    pub checkpointing: Checkpointing,
    /// Where block inputs wait.
    pub offload: ActivationOffload,
    /// Whether projections are copied to the device block by block, for want of room.
    pub streams: bool,
    /// What computes.
    pub device: Device,
    /// How operands are rounded.
    pub precision: Precision,
    /// Tokens that the tokenizer knows.
    pub vocabulary: usize,
    /// Threads.
    pub threads: usize,
    /// Optimizer steps.
    pub steps: u64,
    /// Samples and tokens of all data in memory.
    pub samples: usize,
    /// The tokens of these samples.
    pub tokens: usize,
    /// Scored before and after.
    pub scoring: Scoring,
    /// Checkpoints that are kept.
    pub keep: usize,
    /// Whether a merged model is written.
    pub merges: bool,
    /// Where the run leaves its files.
    pub output_dir: PathBuf,
}

impl Asked {
    /// The sizes of a plan and its data.
    ///
    /// # Errors
    /// There is no row to train on.
    pub fn by(plan: &Plan, data: &LoadedData) -> Result<Self, graft_data::Error> {
        /// As in evaluate.rs.
        const TOKENS: usize = 2_048;
        const PROMPTS: usize = 48;
        let schedule = data.schedule(plan)?;
        let lengths: Vec<usize> = data.train.iter().map(|sample| sample.tokens.len()).collect();
        let targets: Vec<usize> = data.train.iter().map(Sample::targets).collect();
        let others = data.validation.iter().chain(&data.general);
        let scored: Vec<usize> = others.map(|sample| sample.tokens.len()).collect();
        let longest = scored.iter().copied().max().unwrap_or(0);
        let mut asked: Vec<usize> = data.held_out().iter().map(|row| row.prompt.len()).collect();
        asked.sort_unstable_by(|a, b| b.cmp(a));
        asked.truncate(PROMPTS);
        let prompts: usize = asked.iter().sum();
        let scoring = Scoring {
            tokens: scored.iter().sum::<usize>().min(TOKENS).max(longest).max(prompts),
            cached: prompts + asked.len() * plan.max_new_tokens.get(),
        };
        Ok(Self {
            config: plan.config.clone(),
            adapter: plan.adapter.clone(),
            states: plan.state_format(),
            stored: (plan.adapter != Adapter::Full).then(|| stored(plan)),
            units: schedule.unit_lengths(&lengths),
            targets: schedule.unit_lengths(&targets),
            micro_batch_size: plan.batches.micro_batch_size.get(),
            accumulation: plan.batches.accumulation.get(),
            per_visit: plan.micro_batches_per_visit.get(),
            checkpointing: plan.checkpointing,
            offload: plan.activation_offload,
            streams: false,
            device: plan.device.clone(),
            precision: plan.precision,
            vocabulary: data.vocabulary,
            threads: plan.threads.get(),
            steps: plan.total_steps(&schedule),
            samples: lengths.len() + scored.len(),
            tokens: lengths.iter().chain(&scored).sum(),
            scoring,
            keep: plan.checkpoint.keep.get(),
            merges: plan.finish.merge,
            output_dir: plan.output_dir.clone(),
        })
    }

    /// Where the tensors of a step are.
    pub(super) fn tensors(&self) -> Place {
        if self.device.is_cpu() { Place::Anonymous } else { Place::Device }
    }

    /// Where block inputs wait for the way back.
    pub(super) fn inputs(&self) -> Place {
        match self.offload {
            ActivationOffload::None => self.tensors(),
            ActivationOffload::Host => Place::Anonymous,
            ActivationOffload::Disk => Place::Disk,
        }
    }

    /// Tokens of the largest micro-batch.
    pub fn micro_batch_tokens(&self) -> usize {
        self.units.iter().take(self.micro_batch_size).sum()
    }

    /// Targets of a micro-batch at most.
    pub fn micro_batch_targets(&self) -> usize {
        self.targets
            .iter()
            .take(self.micro_batch_size)
            .sum::<usize>()
            .min(self.micro_batch_tokens())
    }

    /// Whether the last block's tapes are kept for the way back, which begins with them.
    pub fn keeps_last_tape(&self) -> bool {
        self.checkpointing == Checkpointing::Block && self.visit() == 1 && self.trained_blocks() > 0
    }

    /// Micro-batches of a visit.
    pub fn visit(&self) -> usize {
        let there_are = self.units.len().div_ceil(self.micro_batch_size);
        self.per_visit.min(self.accumulation).min(there_are).max(1)
    }

    /// Tokens of the largest visit.
    pub fn visit_tokens(&self) -> usize {
        self.units.iter().take(self.micro_batch_size.saturating_mul(self.visit())).sum()
    }

    /// Sizes of the tensors that train.
    pub fn trained(&self) -> Vec<usize> {
        match &self.adapter {
            Adapter::Full => {
                let tensors = graft_model::checkpoint::expected(&self.config);
                tensors.iter().map(|tensor| tensor.shape.iter().product()).collect()
            }
            Adapter::Lora { config, init_from: _ } => config
                .sites
                .iter()
                .flat_map(|(site, size)| {
                    site.weight_shape(&self.config).map(|side| side * size.rank.get())
                })
                .collect(),
        }
    }

    /// Blocks from the lowest trained one up: only their inputs are kept.
    pub fn trained_blocks(&self) -> usize {
        match &self.adapter {
            Adapter::Full => self.config.layers,
            Adapter::Lora { config, init_from: _ } => {
                let lowest = config.sites.keys().map(|site| site.layer).min();
                lowest.map_or(0, |lowest| self.config.layers - lowest)
            }
        }
    }

    /// Weights of one block's projections.
    pub fn block_weights(&self) -> usize {
        let site = |&kind: &ProjectionKind| Site { layer: 0, kind };
        let sites = ProjectionKind::ALL.iter().map(site);
        sites.map(|site| site.weight_shape(&self.config).iter().product::<usize>()).sum()
    }
}

/// Millionths of a byte a weight in NF4: half a byte, and a scale every 64 weights in 4 bytes, or in
/// one and 4 more every 256.
fn nf4(double: bool) -> usize {
    let scale = if double { 1_000_000 + 4_000_000 / 256 } else { 4_000_000 };
    500_000 + scale / 64
}

fn stored(plan: &Plan) -> Stored {
    let config = &plan.config;
    let drawn = plan.init == Init::Random;
    // What the tables hold tells what the folder was saved in.
    let saved = || {
        let checkpoint = Checkpoint::open(&plan.model_folder).ok()?;
        let table = checkpoint.tensor(graft_model::site::EMBED_TOKENS)?;
        Some(table.bytes.len() / (config.vocab_size * config.d_model))
    };
    let of_release = if config.dtype == Some(FloatType::F32) { 4 } else { 2 };
    let float = if drawn { 4 } else { saved().unwrap_or(of_release) };
    let quantised = config.quantization.is_some();
    let (projection, form) = match plan.nf4 {
        Some(double) => (nf4(double), if double { "nf4, double" } else { "nf4" }),
        None => (1_000_000 * float, if float == 4 { "f32" } else { "16 bits" }),
    };
    Stored {
        projection,
        table: 1_000_000 * float,
        projections_are_private: drawn || (plan.nf4.is_some() && !quantised),
        tables_are_private: drawn,
        form,
    }
}
