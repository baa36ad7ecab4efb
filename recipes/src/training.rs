//! Section `training`: how long, in what steps, at what rate.

use std::num::NonZeroUsize;

use serde_json::{Value, json};

use crate::named::named;
use crate::section::{Section, count, number, text};

named! {
    /// What the backward pass replays rather than keeps.
    pub enum Checkpointing {
        /// `selective` where memory has room for it, else `block`. No bit depends on it.
        Auto = "auto",
        /// Each block's inside; only the blocks' inputs are kept.
        Block = "block",
        /// What lies between the matrix products, whose results are kept in the precision of their
        /// operands.
        Selective = "selective",
        /// Nothing: the whole tape is kept.
        None = "none",
    }
}

named! {
    /// Where the inputs of blocks wait for the backward pass.
    pub enum ActivationOffload {
        /// Where they were computed.
        None = "none",
        /// In the host's memory, where a GPU computes, bit for bit.
        Host = "host",
        /// In a file without a name in the run folder, bit for bit.
        Disk = "disk",
    }
}

named! {
    /// The type activations are computed in.
    pub enum ComputeDtype {
        /// bf16 where the device, a CPU too, multiplies that itself; f32 elsewhere.
        Auto = "auto",
        /// bf16.
        Bf16 = "bf16",
        /// f32.
        F32 = "f32",
    }
}

/// How long training goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duration {
    /// This many passes over the data. The default: 3.
    Epochs(NonZeroUsize),
    /// This many optimizer steps.
    MaxSteps(NonZeroUsize),
}

/// The steps in which the learning rate rises from 0, linearly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Warmup {
    /// This many; `Steps(0)` for none.
    Steps(usize),
    /// This share of all steps, from 0 to 1. The default: 0.
    Ratio(f64),
}

/// The learning rate over the steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// Warm-up, then `learning_rate` to the end.
    Constant {
        /// The rise.
        warmup: Warmup,
    },
    /// Warm-up, then a straight line down.
    Linear {
        /// The rise.
        warmup: Warmup,
        /// The last step's share of `learning_rate`, from 0 to 1. Default 0.
        final_ratio: f64,
    },
    /// Warm-up, then half a cosine down. The default.
    Cosine {
        /// The rise.
        warmup: Warmup,
        /// The last step's share of `learning_rate`, from 0 to 1. Default 0.
        final_ratio: f64,
    },
}

/// Numbers of AdamW, Loshchilov and Hutter 2019, with PyTorch's defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Memory of the mean, from 0 to below 1. Default 0.9.
    pub beta1: f64,
    /// Memory of the mean square, from 0 to below 1. Default 0.999.
    pub beta2: f64,
    /// Added to the root of the mean square. Above 0; default 1e-8.
    pub eps: f64,
    /// Decay of the weights a step, times the learning rate. At least 0; default 0.01.
    pub weight_decay: f64,
}

/// The rule that turns gradients into steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimizer {
    /// AdamW with both memories in f32. The default.
    AdamW(AdamW),
    /// AdamW with both memories in 8 bits, Dettmers et al. 2022: a quarter of their bytes.
    AdamW8bit(AdamW),
}

/// The CPU threads of a run; results do not depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// As many as the machine has cores. The default.
    Auto,
    /// This many.
    Count(NonZeroUsize),
}

/// Section `training`.
#[derive(Debug, Clone, PartialEq)]
pub struct Training {
    /// `epochs` or `max_steps`. Default 3 epochs.
    pub duration: Duration,
    /// Rows (packed rows, with packing) a forward pass. Default 1.
    pub micro_batch_size: NonZeroUsize,
    /// Forward passes an optimizer step. Default 1.
    pub gradient_accumulation_steps: NonZeroUsize,
    /// Forward passes that share one visit of a block, so that a model larger than memory is read once
    /// for all of them. Default 1.
    pub micro_batches_per_visit: NonZeroUsize,
    /// The rate after warm-up. Above 0, at most 1; default 2e-4.
    pub learning_rate: f64,
    /// The rate over the steps.
    pub schedule: Schedule,
    /// The rule that turns gradients into steps.
    pub optimizer: Optimizer,
    /// The global gradient norm is clipped to this; `None` (`none` in YAML) never clips.
    /// Above 0; default 1.
    pub max_grad_norm: Option<f64>,
    /// What the backward pass replays. Default: as little as memory allows.
    pub checkpointing: Checkpointing,
    /// Where the inputs of blocks wait for the backward pass. Default: in memory.
    pub activation_offload: ActivationOffload,
    /// The type activations are computed in. Default: the device's best.
    pub compute_dtype: ComputeDtype,
    /// The root of all randomness. Default 7.
    pub seed: u64,
    /// CPU threads. Default: all cores.
    pub threads: Threads,
}

const SHARE: &str = "a number from 0 to 1";

fn is_share(number: f64) -> bool {
    (0.0..=1.0).contains(&number)
}

impl Duration {
    fn read(section: &mut Section<'_>) -> Self {
        section.exclusive("epochs", "max_steps");
        if section.written("max_steps").is_some() {
            return Self::MaxSteps(section.count("max_steps", 1));
        }
        Self::Epochs(section.count("epochs", 3))
    }
}

impl Warmup {
    fn read(section: &mut Section<'_>) -> Self {
        section.exclusive("warmup_ratio", "warmup_steps");
        if section.written("warmup_steps").is_some() {
            let steps = section.tally("warmup_steps", 0);
            return Self::Steps(usize::try_from(steps).unwrap_or(usize::MAX));
        }
        Self::Ratio(section.number("warmup_ratio", 0.0, SHARE, is_share))
    }

    fn entry(self) -> (&'static str, Value) {
        match self {
            Self::Steps(steps) => ("warmup_steps", json!(steps)),
            Self::Ratio(ratio) => ("warmup_ratio", json!(ratio)),
        }
    }
}

impl Schedule {
    /// The forms, as a recipe names them.
    pub(crate) const FORMS: &'static [&'static str] = &["constant", "linear", "cosine"];

    fn read(training: &mut Section<'_>) -> Self {
        let default = Self::Cosine { warmup: Warmup::Ratio(0.0), final_ratio: 0.0 };
        let Some((form, mut section)) = training.form("schedule", Self::FORMS) else {
            return default;
        };
        let warmup = Warmup::read(&mut section);
        let mut final_ratio = || section.number("final_ratio", 0.0, SHARE, is_share);
        let schedule = match form {
            "constant" => Self::Constant { warmup },
            "linear" => Self::Linear { warmup, final_ratio: final_ratio() },
            _ => Self::Cosine { warmup, final_ratio: final_ratio() },
        };
        section.close();
        schedule
    }

    /// The form, as a recipe names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant { .. } => "constant",
            Self::Linear { .. } => "linear",
            Self::Cosine { .. } => "cosine",
        }
    }

    /// The rise at the beginning.
    pub fn warmup(self) -> Warmup {
        match self {
            Self::Constant { warmup }
            | Self::Linear { warmup, .. }
            | Self::Cosine { warmup, .. } => warmup,
        }
    }

    fn to_value(self) -> Value {
        let (form, warmup, final_ratio) = match self {
            Self::Constant { warmup } => ("constant", warmup, None),
            Self::Linear { warmup, final_ratio } => ("linear", warmup, Some(final_ratio)),
            Self::Cosine { warmup, final_ratio } => ("cosine", warmup, Some(final_ratio)),
        };
        let (key, value) = warmup.entry();
        match final_ratio {
            None => json!({form: {key: value}}),
            Some(final_ratio) => json!({form: {key: value, "final_ratio": final_ratio}}),
        }
    }
}

impl AdamW {
    const PYTORCH: Self = Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };

    fn read(section: &mut Section<'_>) -> Self {
        const MEMORY: &str = "a number from 0 to below 1";
        let is_memory = |x: f64| (0.0..1.0).contains(&x);
        let Self { beta1, beta2, eps, weight_decay } = Self::PYTORCH;
        Self {
            beta1: section.number("beta1", beta1, MEMORY, is_memory),
            beta2: section.number("beta2", beta2, MEMORY, is_memory),
            eps: section.number("eps", eps, "a number above 0, at most 1", |x| x > 0.0 && x <= 1.0),
            weight_decay: section.number(
                "weight_decay",
                weight_decay,
                "a number, at least 0",
                |x| x >= 0.0,
            ),
        }
    }
}

impl Optimizer {
    /// The forms, as a recipe names them.
    pub(crate) const FORMS: &'static [&'static str] = &["adamw", "adamw_8bit"];

    fn read(training: &mut Section<'_>) -> Self {
        let Some((form, mut section)) = training.form("optimizer", Self::FORMS) else {
            return Self::AdamW(AdamW::PYTORCH);
        };
        let numbers = AdamW::read(&mut section);
        section.close();
        match form {
            "adamw_8bit" => Self::AdamW8bit(numbers),
            _ => Self::AdamW(numbers),
        }
    }

    /// The form, as a recipe names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AdamW(_) => "adamw",
            Self::AdamW8bit(_) => "adamw_8bit",
        }
    }

    fn to_value(self) -> Value {
        let (Self::AdamW(numbers) | Self::AdamW8bit(numbers)) = self;
        let AdamW { beta1, beta2, eps, weight_decay } = numbers;
        let numbers =
            json!({"beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay});
        json!({self.name(): numbers})
    }
}

impl Threads {
    fn read(section: &mut Section<'_>) -> Self {
        // Beyond this a count is a slip, and systems fail in ways of their own.
        const MOST: usize = 1_024;
        section.value("threads", Self::Auto, "auto, or a whole number from 1 to 1024", |node| {
            if text(node) == Some("auto") {
                return Some(Self::Auto);
            }
            count(node).filter(|count| count.get() <= MOST).map(Self::Count)
        })
    }

    fn to_value(self) -> Value {
        match self {
            Self::Auto => json!("auto"),
            Self::Count(count) => json!(count),
        }
    }
}

fn read_max_grad_norm(section: &mut Section<'_>) -> Option<f64> {
    section.value("max_grad_norm", Some(1.0), "a number above 0, or `none`", |node| {
        if text(node) == Some("none") {
            return Some(None);
        }
        number(node).filter(|&norm| norm > 0.0).map(Some)
    })
}

impl Training {
    pub(crate) fn read(mut section: Section<'_>) -> Self {
        let training = Self {
            duration: Duration::read(&mut section),
            micro_batch_size: section.count("micro_batch_size", 1),
            gradient_accumulation_steps: section.count("gradient_accumulation_steps", 1),
            micro_batches_per_visit: section.count("micro_batches_per_visit", 1),
            learning_rate: section.number(
                "learning_rate",
                2e-4,
                "a number above 0, at most 1",
                |x| x > 0.0 && x <= 1.0,
            ),
            schedule: Schedule::read(&mut section),
            optimizer: Optimizer::read(&mut section),
            max_grad_norm: read_max_grad_norm(&mut section),
            checkpointing: section.choice("checkpointing", Checkpointing::Auto, Checkpointing::ALL),
            activation_offload: section.choice(
                "activation_offload",
                ActivationOffload::None,
                ActivationOffload::ALL,
            ),
            compute_dtype: section.choice("compute_dtype", ComputeDtype::Auto, ComputeDtype::ALL),
            seed: section.whole("seed", 7),
            threads: Threads::read(&mut section),
        };
        section.close();
        training
    }

    pub(crate) fn to_value(&self) -> Value {
        let Self {
            duration,
            micro_batch_size,
            gradient_accumulation_steps,
            micro_batches_per_visit,
            learning_rate,
            schedule,
            optimizer,
            max_grad_norm,
            checkpointing,
            activation_offload,
            compute_dtype,
            seed,
            threads,
        } = self;
        let (duration, length) = match duration {
            Duration::Epochs(epochs) => ("epochs", epochs),
            Duration::MaxSteps(steps) => ("max_steps", steps),
        };
        json!({
            duration: length,
            "micro_batch_size": micro_batch_size,
            "gradient_accumulation_steps": gradient_accumulation_steps,
            "micro_batches_per_visit": micro_batches_per_visit,
            "learning_rate": learning_rate,
            "schedule": schedule.to_value(),
            "optimizer": optimizer.to_value(),
            "max_grad_norm": max_grad_norm.map_or_else(|| json!("none"), |norm| json!(norm)),
            "checkpointing": checkpointing.name(),
            "activation_offload": activation_offload.name(),
            "compute_dtype": compute_dtype.name(),
            "seed": seed,
            "threads": threads.to_value(),
        })
    }
}
