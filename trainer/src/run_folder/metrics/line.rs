//! What a line of `metrics.jsonl` holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// What one optimizer step did. A number under a key of its own is a measure of the loss; whatever else
/// other versions write beside these is passed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainLine {
    /// The optimizer step, from 1.
    pub step: u64,
    /// What the step minimised, a term on average: of next tokens, nats a target.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// The learning rate that the step used.
    #[serde(deserialize_with = "null_is_nan")]
    pub learning_rate: f64,
    /// Global gradient norm before clipping.
    #[serde(deserialize_with = "null_is_nan")]
    pub grad_norm: f64,
    /// Tokens of the step that went through the model, without padding.
    pub tokens: u64,
    /// Tokens of the step that the loss counted.
    pub target_tokens: u64,
    /// `tokens` over the step's wall time.
    #[serde(deserialize_with = "null_is_nan")]
    pub tokens_per_second: f64,
    /// Largest resident size of the process so far; `null` where the system does not say.
    pub peak_memory_bytes: Option<u64>,
    /// Most memory of a GPU found in use so far; left out where none computes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_device_memory_bytes: Option<u64>,
    /// What else the loss measured, under its own names.
    #[serde(flatten, deserialize_with = "numbers")]
    pub measures: BTreeMap<String, f64>,
}

impl TrainLine {
    /// The keys of a line that are not the loss's own.
    pub(super) const KEYS: [&str; 9] = [
        "step",
        "loss",
        "learning_rate",
        "grad_norm",
        "tokens",
        "target_tokens",
        "tokens_per_second",
        "peak_memory_bytes",
        "peak_device_memory_bytes",
    ];
}

/// What a loss measured, as a line has it.
///
/// # Panics
/// A measure has the name of another field of the line.
pub fn by_name(measures: &BTreeMap<&'static str, f64>) -> BTreeMap<String, f64> {
    let own = |(name, value): (&&str, &f64)| {
        assert!(!TrainLine::KEYS.contains(name), "`{name}` of a loss is a field of every line");
        ((*name).to_owned(), *value)
    };
    measures.iter().map(own).collect()
}

/// What one evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalLine {
    /// Optimizer steps taken before the evaluation.
    pub step: u64,
    /// Mean loss of the validation set's target tokens, nats.
    #[serde(deserialize_with = "null_is_nan")]
    pub eval_loss: f64,
    /// Target tokens of the validation set.
    pub eval_tokens: u64,
}

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// A training step.
    Train(TrainLine),
    /// An evaluation.
    Eval(EvalLine),
}

impl Line {
    /// The optimizer step that the line belongs to.
    pub fn step(&self) -> u64 {
        match self {
            Self::Train(line) => line.step,
            Self::Eval(line) => line.step,
        }
    }
}

/// JSON has no NaN or infinity; serde_json writes both as `null`.
fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// The keys whose values are numbers.
fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let all = BTreeMap::<String, Value>::deserialize(deserializer)?;
    let number = |(name, value): (String, Value)| match value {
        Value::Null => Some((name, f64::NAN)),
        value => Some((name, value.as_f64()?)),
    };
    Ok(all.into_iter().filter_map(number).collect())
}
