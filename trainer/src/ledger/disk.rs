//! What a run leaves in its folder.

use graft_adapters::Learns;

use super::asked::Asked;
use super::{Entry, Medium};
use crate::plan::parameters;
use crate::quantity::grouped;

/// A line of metrics.jsonl and its TensorBoard events.
const STEP: u64 = 768;

/// Checkpoints, one more than are kept while it is written, adapter or model, merged model, logs.
pub(super) fn lines(asked: &Asked) -> Vec<Entry> {
    let sizes = asked.trained();
    let values: u64 = 4 * sizes.iter().map(|&len| len as u64).sum::<u64>();
    let states: u64 = sizes.iter().map(|&len| asked.states.bytes(len)).sum();
    let is_full = asked.method.learns() == Learns::Model;
    // What began as a part of the weights is written with what it began as.
    let written = if asked.method.takes_from_weights() { 2 } else { 1 };
    // A checkpoint of a LoRA also holds its PEFT folder.
    let copies = if is_full { 1 } else { 1 + written };
    let checkpoint = copies * values + states;
    let kept = asked.keep as u64 + 1;
    let line = |name, bytes, arithmetic| Entry { name, arithmetic, bytes, place: Medium::Disk };
    let all = parameters(&asked.config);
    vec![
        line(
            "checkpoints",
            checkpoint.saturating_mul(kept),
            format!(
                "({} + 1) · ({copies} · {} of values + {} of states)",
                asked.keep,
                grouped(values),
                grouped(states)
            ),
        ),
        line(
            "adapter",
            if is_full { 0 } else { written * values },
            format!("{} · 4", grouped(written * values / 4)),
        ),
        line(
            if is_full { "model" } else { "merged model" },
            asked.model_bytes,
            format!("{} · {}", grouped(all), each(asked.model_bytes, all)),
        ),
        line(
            "for programs",
            2 * (asked.given as u64 * values + asked.models_given as u64 * all),
            format!(
                "2 · ({} · {} + {} · {})",
                asked.given,
                grouped(values),
                asked.models_given,
                grouped(all)
            ),
        ),
        line("logs", asked.steps * STEP, format!("{} steps · {STEP}", grouped(asked.steps))),
    ]
}

/// Bytes a weight, which may be of two types.
fn each(bytes: u64, weights: u64) -> String {
    let text = format!("{:.3}", bytes as f64 / weights.max(1) as f64);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
