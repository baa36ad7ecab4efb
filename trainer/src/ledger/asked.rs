//! The sizes of a run that decide what it takes, apart from everything else in a plan.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use graft_adapters::{Learns, Method, TokenBytes, TrainedTensor};
use graft_data::Samples;
use graft_kernels::Precision;
use graft_kernels::flex::isa::Isa;
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::checkpoint::{Checkpoint, expected};
use graft_model::config::FloatType;
use graft_model::site::{EMBED_TOKENS, LM_HEAD};
use graft_model::{LlamaConfig, ProjectionKind, Seat, Site};
use graft_recipes::{ActivationOffload, Checkpointing, Init, MergeOnto, Target};

use super::Medium;
use crate::device::Device;
use crate::plan::{LoadedData, Plan, parameters};
use graft_engine::optimizer::StateFormat;
use graft_engine::{generate, score};

/// How frozen weights are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Millionths of a byte a weight of a projection, scales included.
    pub projection: usize,
    /// Millionths of a byte a weight of embedding and head.
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
    /// Tokens of the largest pass over rows whose loss is measured.
    pub tokens: usize,
    /// Most targets of such a pass.
    pub targets: usize,
    /// Questions answered together, at most.
    pub prompts: usize,
    /// Tokens of the largest pass that reads questions.
    pub prefill: usize,
    /// Tokens that the cache holds for all questions answered together.
    pub cached: usize,
}

impl Scoring {
    /// Of these rows, and of prompts of so many tokens with answers of at most `new`.
    fn of(rows: [&Samples; 2], prompts: [Vec<usize>; 2], new: usize) -> Self {
        let passes = rows.map(score::largest_pass);
        let [tokens, targets] = [0, 1].map(|i| passes[0][i].max(passes[1][i]));
        prompts.into_iter().fold(Self { tokens, targets, ..Self::default() }, |most, mut asked| {
            asked.sort_unstable_by(|a, b| b.cmp(a));
            asked.truncate(score::PROMPTS);
            let tokens: usize = asked.iter().sum();
            Self {
                prompts: most.prompts.max(asked.len()),
                prefill: most.prefill.max(tokens.min(generate::PREFILL)),
                cached: most.cached.max(tokens + asked.len() * new),
                ..most
            }
        })
    }
}

/// The merged model that a run writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Merging {
    /// None.
    #[default]
    Nothing,
    /// On the weights as they are stored.
    Stored,
    /// On weights that go through NF4 once more, as training saw them.
    Dequantised,
}

impl Merging {
    fn of(plan: &Plan) -> Self {
        match (plan.merges(), plan.finish.onto, plan.nf4) {
            (false, ..) => Self::Nothing,
            (true, MergeOnto::Dequantised, Some(_)) => Self::Dequantised,
            (true, ..) => Self::Stored,
        }
    }
}

/// The sizes of a run.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Asked {
    /// The model, with what is trained of it.
    pub config: LlamaConfig,
    /// Whether the base's head is its embedding: one table in its files.
    pub one_table: bool,
    /// How it trains.
    pub method: Arc<dyn Method>,
    /// The adapter's rank, where another could be chosen: not of one that the run goes on from.
    pub rank: Option<usize>,
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
    /// Whether the processor's kernels leave values out by masks.
    pub masks: bool,
    /// Tokens that the tokenizer knows.
    pub vocabulary: usize,
    /// Threads.
    pub threads: usize,
    /// Optimizer steps.
    pub steps: u64,
    /// Samples and tokens of all data.
    pub samples: usize,
    /// The tokens of these samples.
    pub tokens: usize,
    /// Bytes of their records in memory, and in files.
    pub kept: [u64; 2],
    /// Bytes of the pages of the embedding that hold rows of these tokens, and of all that may be answered.
    pub embedded: usize,
    /// Scored before and after.
    pub scoring: Scoring,
    /// Whether the model is asked something, so that the tokenizer stays.
    pub asks: bool,
    /// Checkpoints that are kept.
    pub keep: usize,
    /// Which merged model is written.
    pub merging: Merging,
    /// Bytes of the weights of a model that is written, merged or trained itself; 0 without one.
    pub model_bytes: u64,
    /// Programs that are given the adapter by itself.
    pub given: usize,
    /// Programs that are given the merged model as a GGUF file.
    pub models_given: usize,
    /// Where the run leaves its files.
    pub output_dir: PathBuf,
}

impl Asked {
    /// The sizes of a plan and its data.
    ///
    /// # Errors
    /// There is no row to train on.
    pub fn by(plan: &Plan, data: &LoadedData) -> Result<Self, graft_data::Error> {
        let schedule = data.schedule(plan)?;
        let held_out = data.held_out().iter().map(|row| row.prompt.len()).collect();
        let prompts = data.questions.iter().flat_map(|questions| &questions.prompts);
        let asked = [held_out, prompts.map(Vec::len).collect()];
        let scoring =
            Scoring::of([&data.general, &data.validation], asked, plan.max_new_tokens.get());
        let model_bytes = written_bytes(plan);
        let stored = (plan.method.learns() == Learns::Adapter).then(|| stored(plan));
        Ok(Self {
            config: plan.method.model_config(&plan.config),
            one_table: plan.config.tied,
            method: plan.method.clone().into(),
            rank: plan.method.rank().filter(|_| plan.init_from.is_none()),
            states: plan.state_format(),
            embedded: stored.map_or(0, |stored| embedded(plan, data, stored)),
            stored,
            units: schedule.unit_lengths(|row| data.train.tokens_of(row)),
            targets: schedule.unit_lengths(|row| data.train.targets_of(row)),
            micro_batch_size: plan.batches.micro_batch_size.get(),
            accumulation: plan.batches.accumulation.get(),
            per_visit: plan.micro_batches_per_visit.get(),
            checkpointing: plan.checkpointing,
            offload: plan.activation_offload,
            streams: false,
            device: plan.device.clone(),
            precision: plan.precision,
            masks: Isa::in_use().is_ok_and(|isa| isa >= Isa::Avx512),
            vocabulary: data.vocabulary,
            threads: plan.threads.get(),
            steps: plan.total_steps(&schedule),
            samples: data.sections().iter().map(|samples| samples.len()).sum(),
            tokens: data
                .sections()
                .iter()
                .map(|samples| (0..samples.len()).map(|at| samples.tokens_of(at)).sum::<usize>())
                .sum(),
            kept: data.kept(),
            scoring,
            asks: data.questions.is_some(),
            keep: plan.checkpoint.keep.get(),
            merging: Merging::of(plan),
            model_bytes,
            given: plan.finish.targets.iter().filter(|it| **it != Target::Ollama).count(),
            models_given: plan.finish.targets.iter().filter(|it| **it == Target::Ollama).count(),
            output_dir: plan.output_dir.clone(),
        })
    }

    /// Where the tensors of a step are.
    pub(super) fn tensors(&self) -> Medium {
        if self.device.is_cpu() { Medium::Anonymous } else { Medium::Device }
    }

    /// Where block inputs wait for the way back.
    pub(super) fn inputs(&self) -> Medium {
        match self.offload {
            ActivationOffload::None => self.tensors(),
            ActivationOffload::Host => Medium::Anonymous,
            ActivationOffload::Disk => Medium::Disk,
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
        self.method.trained(&self.config).iter().map(TrainedTensor::len).collect()
    }

    /// Blocks from the lowest trained one up: only their inputs are kept.
    pub fn trained_blocks(&self) -> usize {
        let layer = |tensor: TrainedTensor| match tensor.seat {
            Seat::Embedding => Some(0),
            seat => seat.branch().map(|(layer, _)| layer),
        };
        let lowest = self.method.trained(&self.config).into_iter().filter_map(layer).min();
        lowest.map_or(0, |lowest| self.config.layers - lowest)
    }

    /// Whether something of this seat is trained.
    pub(super) fn trains(&self, seat: Seat) -> bool {
        self.trained_at(seat) > 0
    }

    /// How many values of this seat are trained.
    pub(super) fn trained_at(&self, seat: Seat) -> usize {
        let trained = self.method.trained(&self.config).into_iter();
        trained.filter(|tensor| tensor.seat == seat).map(|tensor| tensor.len()).sum()
    }

    /// Whether a table has an update beside it.
    pub(super) fn updates(&self, seat: Seat) -> bool {
        let is_wide = |t: &TrainedTensor| t.shape[0] == self.config.vocab_size;
        self.trains(seat)
            && !self.trains_all_of(seat)
            && self.method.trained(&self.config).iter().any(|t| t.seat == seat && is_wide(t))
    }

    /// Whether all of a table is trained, in the place of the stored one.
    pub(super) fn trains_all_of(&self, seat: Seat) -> bool {
        let whole = seat.shape(&self.config);
        self.method.trained(&self.config).iter().any(|t| t.seat == seat && t.shape == whole)
    }

    /// What the update of this projection takes of a token.
    pub(super) fn token_bytes(&self, site: Site) -> TokenBytes {
        self.method.token_bytes(site, &self.config, self.precision)
    }

    /// The most values a token that an update keeps beside its product, in f32; 0 without any.
    pub(super) fn widest_low(&self) -> usize {
        let low = |site| self.token_bytes(site).beside / F32_BYTES;
        Site::all(&self.config).map(low).max().unwrap_or(0)
    }

    /// The rank that the largest update of a projection has as it is written.
    pub(super) fn widest_update(&self) -> usize {
        let mut values: BTreeMap<Site, usize> = BTreeMap::new();
        for tensor in self.method.trained(&self.config) {
            if let Seat::Projection(site) = tensor.seat {
                *values.entry(site).or_default() += tensor.len();
            }
        }
        let rank = |(site, values): (Site, usize)| {
            values / site.weight_shape(&self.config).iter().sum::<usize>().max(1)
        };
        let widest = values.into_iter().map(rank).max().unwrap_or(0);
        if self.method.takes_from_weights() { 2 * widest } else { widest }
    }

    /// The most bytes a token that the ops of an update have for a moment, in a pass of any kind.
    pub(super) fn most_of_a_moment(&self) -> usize {
        Site::all(&self.config).map(|site| self.token_bytes(site).moment).max().unwrap_or(0)
    }

    /// Tokens of the longest row or bin.
    pub(super) fn longest_row(&self) -> usize {
        self.units.first().copied().unwrap_or(0)
    }

    /// Bytes of a weight of the model that is written, on average, rounded up.
    pub(super) fn merged_bytes_a_weight(&self) -> usize {
        let weights = crate::plan::parameters(&self.config).max(1);
        usize::try_from(self.model_bytes.div_ceil(weights)).unwrap_or(F32_BYTES)
    }

    /// Weights of one block's projections.
    pub fn block_weights(&self) -> usize {
        let site = |&kind: &ProjectionKind| Site { layer: 0, kind };
        let sites = ProjectionKind::ALL.iter().map(site);
        sites.map(|site| site.weight_shape(&self.config).iter().product::<usize>()).sum()
    }
}

const F32_BYTES: usize = 4;

/// Bytes of a table around the rows of tokens that the run reads, or may answer with.
fn embedded(plan: &Plan, data: &LoadedData, stored: Stored) -> usize {
    const PAGE: usize = 4_096;
    /// Linux maps what lies around a page that is asked for along with it, where it has read that before
    /// (`fault_around_bytes`).
    const AROUND: usize = 64 << 10;
    let width = (plan.config.d_model as u128 * stored.table as u128 / 1_000_000) as usize;
    let ids = data.sections().into_iter().flat_map(Samples::ids);
    let prompts = data.questions.iter().flat_map(|questions| {
        questions.held_out.iter().map(|row| &row.prompt).chain(&questions.prompts)
    });
    // Before and after.
    let answers = prompts.clone().count().saturating_mul(2 * plan.max_new_tokens.get());
    let mut pages = vec![false; (plan.config.vocab_size * width).div_ceil(AROUND)];
    for token in ids.chain(prompts.flatten().copied()) {
        let row = token as usize * width..(token as usize + 1) * width;
        let end = row.end.div_ceil(AROUND).min(pages.len());
        pages[(row.start / AROUND).min(end)..end].fill(true);
    }
    let read = pages.iter().filter(|&&page| page).count();
    let answers = answers.saturating_mul((width.div_ceil(PAGE) + 1) * PAGE);
    (read * AROUND).saturating_add(answers).min(pages.len() * AROUND)
}

/// Bytes of the weights of the model that the run writes: in the types of the base, or in the one that its
/// config.json names.
fn written_bytes(plan: &Plan) -> u64 {
    let of = |float: FloatType| match float {
        FloatType::F32 => 4,
        FloatType::F16 | FloatType::Bf16 => 2,
    };
    let usual = of(plan.config.dtype.unwrap_or(FloatType::Bf16));
    if plan.method.learns() == Learns::Model {
        return usual * parameters(&plan.config);
    }
    if !plan.merges() {
        return 0;
    }
    let checkpoint = Checkpoint::open(&plan.model_folder).ok();
    let each = |name: &str, is_site: bool| {
        let checkpoint = checkpoint.as_ref()?;
        let nf4 = if is_site { checkpoint.nf4(name).ok()? } else { None };
        match nf4 {
            Some(nf4) => Some(of(nf4.dtype)),
            None => Some(checkpoint.spec(name)?.dtype.bitsize() as u64 / 8),
        }
    };
    let bytes = expected(&plan.method.model_config(&plan.config)).into_iter().map(|tensor| {
        let values: u64 = tensor.shape.iter().map(|&side| side as u64).product();
        // A head that the base's embedding is, too, is of its type.
        let is_embedding = plan.config.tied && tensor.name == LM_HEAD;
        let name = if is_embedding { EMBED_TOKENS } else { &tensor.name };
        each(name, tensor.site.is_some()).unwrap_or(usual).saturating_mul(values)
    });
    bytes.fold(0, u64::saturating_add)
}

/// Millionths of a byte a weight in NF4: half a byte, and a scale every 64 weights in 4 bytes, or in
/// one and 4 more every 256.
fn nf4(scales: AbsmaxFormat) -> usize {
    let scale = if scales.is_double() { 1_000_000 + 4_000_000 / 256 } else { 4_000_000 };
    500_000 + scale / 64
}

fn stored(plan: &Plan) -> Stored {
    let config = &plan.config;
    let drawn = plan.init == Init::Random;
    // What the tables hold tells what the folder was saved in.
    let saved = || {
        let checkpoint = Checkpoint::open(&plan.model_folder).ok()?;
        let table = checkpoint.spec(graft_model::site::EMBED_TOKENS)?;
        let table_is_made = checkpoint.is_made(&table.name);
        // Which of a GGUF file's projections are kept in blocks is the same for nearly all.
        let first = Site::all(config).last().map(Site::checkpoint_name);
        let projections_are_made = first.is_some_and(|name| checkpoint.is_made(&name));
        Some((table.dtype.bitsize() / 8, table_is_made, projections_are_made))
    };
    let of_release = if config.dtype == Some(FloatType::F32) { 4 } else { 2 };
    let (float, table_is_made, projections_are_made) =
        saved().filter(|_| !drawn).unwrap_or((if drawn { 4 } else { of_release }, false, false));
    let quantised = config.quantization.is_some();
    let (projection, form) = match plan.nf4 {
        Some(scales) => (nf4(scales), if scales.is_double() { "nf4, double" } else { "nf4" }),
        None => (1_000_000 * float, if float == 4 { "f32" } else { "16 bits" }),
    };
    Stored {
        projection,
        table: 1_000_000 * float,
        projections_are_private: drawn
            || projections_are_made
            || (plan.nf4.is_some() && !quantised)
            || plan.method.takes_from_weights(),
        tables_are_private: drawn || table_is_made,
        form,
    }
}
