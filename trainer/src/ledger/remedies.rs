//! Changes of a recipe that make a run fit into less memory, the host's or a GPU's.

use graft_recipes::{ActivationOffload, Checkpointing};

use super::asked::{Asked, Merging};
use super::{Ledger, Medium};
use crate::quantity;
use graft_engine::optimizer::StateFormat;

/// A key with its new value, and the run with it.
struct Change {
    key: String,
    asked: Asked,
}

/// Rows may become so short, and updates so narrow; below that a run is another one.
const SHORTEST: usize = 128;
const NARROWEST: usize = 8;

/// Halves of a number down to `least`, largest first.
fn halves(from: usize, least: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(from / 2), |half| Some(half / 2))
        .take_while(move |half| *half >= least)
}

/// Each kind of change with its steps, mildest first.
fn ladders(asked: &Asked) -> Vec<Vec<Change>> {
    let with = |key: String, change: &dyn Fn(&mut Asked)| {
        let mut asked = asked.clone();
        change(&mut asked);
        Change { key, asked }
    };
    let visit = halves(asked.visit(), 1)
        .map(|n| with(format!("training.micro_batches_per_visit={n}"), &|a| a.per_visit = n));
    let batch = halves(asked.micro_batch_size, 1).map(|n| {
        with(format!("training.micro_batch_size={n}"), &|a| {
            a.accumulation = a.accumulation.saturating_mul(a.micro_batch_size / n);
            a.micro_batch_size = n;
        })
    });
    let longest = asked.units.first().copied().unwrap_or(0);
    let length = halves(longest.next_power_of_two(), SHORTEST).map(|n| {
        with(format!("data.max_seq_len={n}"), &|a| {
            let units = a.units.iter_mut().chain(&mut a.targets);
            units.for_each(|unit| *unit = n.min(*unit));
        })
    });
    let blocks = (asked.checkpointing != Checkpointing::Block).then(|| {
        let key = "training.checkpointing=block".to_owned();
        with(key, &|a| a.checkpointing = Checkpointing::Block)
    });
    let host = (asked.offload == ActivationOffload::None && asked.tensors() == Medium::Device)
        .then(|| {
            let key = "training.activation_offload=host".to_owned();
            with(key, &|a| a.offload = ActivationOffload::Host)
        });
    let states = (asked.states == StateFormat::F32).then(|| {
        let key = "training.optimizer=adamw_8bit".to_owned();
        with(key, &|a| a.states = StateFormat::Blockwise8)
    });
    let ranks = halves(asked.rank.unwrap_or(0), NARROWEST).map(|n| {
        with(format!("adapter.rank={n}"), &|a| {
            if let Some(narrower) = a.method.of_rank(n) {
                (a.method, a.rank) = (narrower, Some(n));
            }
        })
    });
    let merge = (asked.merging != Merging::Nothing).then(|| {
        with("finish.merge=false".to_owned(), &|a| {
            (a.merging, a.model_bytes) = (Merging::Nothing, 0);
        })
    });
    vec![
        merge.into_iter().collect(),
        blocks.into_iter().collect(),
        host.into_iter().collect(),
        visit.collect(),
        batch.collect(),
        states.into_iter().collect(),
        length.collect(),
        ranks.collect(),
    ]
}

/// The mildest change of each kind that fits by itself, or what all of them together come to.
pub(super) fn text(asked: &Asked, place: Medium, memory: u64) -> String {
    let takes = |asked: &Asked| Ledger::for_run(asked).total(&[place]);
    let line = |key: &str, bytes| format!("\n  {key} takes {}", quantity::bytes(bytes));
    let enough: String = ladders(asked)
        .into_iter()
        .filter_map(|ladder| ladder.into_iter().find(|change| takes(&change.asked) <= memory))
        .map(|change| line(&change.key, takes(&change.asked)))
        .collect();
    if !enough.is_empty() {
        return format!("any of these fits:{enough}");
    }
    let (mut now, mut keys) = (asked.clone(), Vec::new());
    while takes(&now) > memory {
        // Ladders are built anew: each change keeps those before it.
        let best = ladders(&now).into_iter().flatten().min_by_key(|change| takes(&change.asked));
        let Some(change) = best.filter(|change| takes(&change.asked) < takes(&now)) else { break };
        keys.push(change.key);
        now = change.asked;
    }
    let mut text = String::new();
    if !keys.is_empty() {
        let together =
            if takes(&now) <= memory { "these fit together" } else { "not even these fit" };
        text = format!("{together}:{}", line(&keys.join(" "), takes(&now)));
    }
    let private = asked.stored.is_some_and(|stored| stored.projections_are_private);
    if private && asked.tensors() == Medium::Anonymous {
        text.push_str(
            "\n  a folder written by `graft quantize` is mapped, not held: quantise once, name it as \
             model.path",
        );
    }
    if place == Medium::Device && asked.stored.is_some_and(|stored| !stored.form.starts_with("nf4"))
    {
        text.push_str("\n  quantization=nf4 holds the frozen projections at 4 bits");
    }
    if let Some(way_out) = asked.method.way_out() {
        text.push_str("\n  ");
        text.push_str(way_out);
    }
    text
}
