//! Random tiny models and batches for the promises between crates; the promises are the `[[test]]`
//! entries of this crate's manifest.

pub mod parity;

use graft::random_weights::RandomWeights;
use graft_adapters::{
    DenseLinear, Fresh, FullFactory, LoraConfig, LoraFactory, LoraLinear, Rank, Scaling, Size,
    Trainable,
};
use graft_data::{Batch, CounterRng, IGNORE, Origin, Purpose, Sample};
use graft_engine::learning_rate::{Decay, LearningRate};
use graft_engine::loss::NextToken;
use graft_engine::optimizer::{AdamW, AdamWConfig, StateFormat};
use graft_engine::step::{StepOptions, Trainer};
use graft_engine::{Checkpointing, Parameters};
use graft_kernels::nf4::AbsmaxFormat;
use graft_kernels::{Home, Precision};
use graft_model::load::Frozen;
use graft_model::{FrozenLinear, Llama, LlamaConfig, Seat, Site};

/// The CPU backend.
pub type Cpu = burn_flex::Flex;

/// Sizes of a tiny model.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Blocks.
    pub layers: usize,
    /// Query heads that share a key head.
    pub group: usize,
    /// Key heads.
    pub kv_heads: usize,
    /// Width of a head, even.
    pub head_dim: usize,
    /// Width of the model.
    pub d_model: usize,
    /// Width of the feed-forward.
    pub d_ff: usize,
    /// Tokens.
    pub vocab: usize,
    /// The embedding serves as head.
    pub tied: bool,
    /// Llama 3.1's stretched rotary frequencies.
    pub scaled: bool,
}

impl Sizes {
    /// A model of these sizes.
    pub fn config(self) -> LlamaConfig {
        let Self { layers, group, kv_heads, head_dim, d_model, d_ff, vocab, tied, scaled } = self;
        let mut json = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": d_model,
            "intermediate_size": d_ff, "num_hidden_layers": layers,
            "num_attention_heads": group * kv_heads, "num_key_value_heads": kv_heads,
            "head_dim": head_dim, "vocab_size": vocab, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "max_position_embeddings": 128, "tie_word_embeddings": tied, "hidden_act": "silu",
            "bos_token_id": 1, "eos_token_id": 2,
        });
        if scaled {
            json["rope_scaling"] = serde_json::json!({
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
            });
        }
        LlamaConfig::from_json(json.to_string().as_bytes(), "tiny")
            .expect("the text above is a valid config")
    }
}

/// A Llama 3.1 in miniature: grouped heads, scaled rotary frequencies, untied head.
pub fn tiny_config(tied: bool) -> LlamaConfig {
    let (group, kv_heads, head_dim) = (3, 2, 8);
    let (layers, d_model, d_ff, vocab, scaled) = (3, 48, 80, 101, true);
    Sizes { layers, group, kv_heads, head_dim, d_model, d_ff, vocab, tied, scaled }.config()
}

/// LoRA of rank 4 on every projection.
pub fn tiny_lora(config: &LlamaConfig, dropout: f64) -> LoraConfig {
    let size = Size { rank: Rank(4.try_into().expect("not zero")), alpha: 8.0 };
    LoraConfig::uniform(size, Scaling::Standard, dropout, Site::all(config))
}

/// Uniform numbers for adapters and batches.
pub fn uniform(seed: u64, stream: u64, len: usize) -> Vec<f32> {
    let random = CounterRng::new(seed, Purpose::AdapterInit, stream, 0);
    (0..len as u64).map(|i| random.uniform_f32_at(i)).collect()
}

fn start(seat: Seat, len: usize) -> Vec<f32> {
    let stream = match seat {
        Seat::Projection(site) => (site.layer * 7) as u64 + site.kind as u64,
        Seat::Head => 1_000_000,
        _ => 1_000_001,
    };
    uniform(11, stream, len)
}

/// A model with adapters whose `B` is not zero, so that every gradient is exercised.
pub fn lora_model(
    config: &LlamaConfig,
    lora: &LoraConfig,
    nf4: Option<AbsmaxFormat>,
) -> Llama<Cpu, LoraLinear<Cpu>> {
    let device = Default::default();
    let mut factory =
        LoraFactory { config: lora, start: Fresh(start), nf4, home: Home::Device, device: &device };
    let weights = RandomWeights::new(config, 5);
    let mut model = Llama::load(config, &weights, &mut factory, &device, &mut |_| ())
        .expect("random weights have every tensor");
    model.visit(&mut |param| {
        if param.name().ends_with("lora_B.weight") {
            let values = uniform(12, param.len() as u64, param.len());
            let values: Vec<f32> = values.iter().map(|v| (v - 0.5) * 0.1).collect();
            param.set(&values, &Default::default());
        }
    });
    model
}

/// The same weights, every one trainable.
pub fn full_model(config: &LlamaConfig) -> Llama<Cpu, DenseLinear<Cpu>> {
    let device = Default::default();
    let weights = RandomWeights::new(config, 5);
    Llama::load(config, &weights, &mut FullFactory { device: &device }, &device, &mut |_| ())
        .expect("random weights have every tensor")
}

/// The same weights, frozen.
pub fn frozen_model(
    config: &LlamaConfig,
    nf4: Option<AbsmaxFormat>,
) -> Llama<Cpu, FrozenLinear<Cpu>> {
    let device = Default::default();
    let weights = RandomWeights::new(config, 5);
    Llama::load(
        config,
        &weights,
        &mut Frozen { nf4, home: Home::Device, device: &device },
        &device,
        &mut |_| (),
    )
    .expect("random weights have every tensor")
}

/// PyTorch's defaults.
pub const ADAMW: AdamWConfig = AdamWConfig {
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.01,
    states: StateFormat::F32,
};

/// A trainer with AdamW at PyTorch's defaults.
pub fn trainer<P: Trainable<Cpu>>(
    mut model: Llama<Cpu, P>,
    checkpointing: Checkpointing,
    precision: Precision,
) -> Trainer<Cpu, P> {
    let parameters = Parameters::of(&mut model);
    let optimizer = AdamW::new(ADAMW, &parameters, &model.device);
    let learning_rate = LearningRate {
        peak: 1e-3,
        warmup: 2,
        total: 20,
        decay: Decay::Linear { final_ratio: 0.0 },
    };
    let options = StepOptions {
        seed: 7,
        precision,
        checkpointing,
        micro_batches_per_visit: 1,
        max_grad_norm: Some(1.0),
        learning_rate,
    };
    let head = Box::new(NextToken);
    Trainer { model, parameters, head, optimizer, options, offload: None }
}

/// Rows of random tokens; the first few of each are no targets.
pub fn samples(lengths: &[usize], vocab: u64) -> Vec<Sample> {
    let row = |(line, &length): (usize, &usize)| {
        let random = CounterRng::new(13, Purpose::Shuffle, line as u64, 0);
        let tokens: Vec<u32> = (0..length as u64).map(|i| random.below(i, vocab) as u32).collect();
        let labels = tokens.iter().enumerate();
        let labels = labels.map(|(i, &t)| if i < 3 { IGNORE } else { t as i32 }).collect();
        Sample { tokens, labels, origin: Origin { file: 0, line, item: None } }
    };
    lengths.iter().enumerate().map(row).collect()
}

/// One batch of all rows.
pub fn batch(samples: &[Sample]) -> Batch {
    Batch::collate(&samples.iter().collect::<Vec<_>>(), 1, 0)
}
