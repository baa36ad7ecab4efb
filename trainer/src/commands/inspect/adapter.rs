//! An adapter folder in PEFT's layout.

use std::collections::BTreeSet;
use std::path::Path;

use graft_adapters::peft::WEIGHTS_FILE;
use graft_adapters::{LoraConfig, PeftAdapter, Scaling};
use graft_model::checkpoint::Checkpoint;
use graft_model::folder::ModelFolder;
use serde_json::json;

use super::Findings;
use super::tensors::Sums;
use crate::cli::page::{bytes, grouped};

/// Describes the adapter.
pub(super) fn inspect(path: &Path) -> anyhow::Result<Findings> {
    let adapter = PeftAdapter::open(path)?;
    let checkpoint = Checkpoint::open_file(&ModelFolder::at(path)?, WEIGHTS_FILE)?;
    let sums = Sums::of(&checkpoint);
    let LoraConfig { rank, alpha, scaling, dropout, sites } = adapter.config();
    let targets: BTreeSet<&str> = sites.iter().map(|site| site.kind.name()).collect();
    let layers: BTreeSet<usize> = sites.iter().map(|site| site.layer).collect();
    let parameters: u64 = checkpoint
        .names()
        .filter_map(|name| checkpoint.tensor(name))
        .map(|view| view.shape.iter().map(|&size| size as u64).product::<u64>())
        .sum();
    let rslora = *scaling == Scaling::RankStabilised;
    let total = checkpoint.total_bytes();
    let json = json!({
        "kind": "adapter",
        "path": path,
        "base": adapter.base(),
        "rank": rank.get(),
        "alpha": alpha,
        "rslora": rslora,
        "scale": adapter.config().scale(),
        "dropout": dropout,
        "target_modules": targets,
        "layers": layers,
        "parameters": parameters,
        "tensors": sums.json(),
        "bytes": total,
    });
    let blocks = if layers.len() == 1 { "block" } else { "blocks" };
    let kind = if rslora { ", rank-stabilised" } else { "" };
    let targets: Vec<&str> = targets.into_iter().collect();
    let rows = vec![
        ("adapter", path.display().to_string()),
        ("base", adapter.base().unwrap_or("not said").to_owned()),
        (
            "rank",
            format!("{}, alpha {alpha}, scale {}{kind}", rank.get(), adapter.config().scale()),
        ),
        ("dropout", dropout.to_string()),
        ("targets", format!("{} in {} {blocks}", targets.join(", "), layers.len())),
        ("parameters", grouped(parameters)),
        ("tensors", sums.text()),
        ("size", bytes(total)),
    ];
    Ok(Findings { rows, json })
}
