//! An adapter folder in PEFT's layout.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use graft_adapters::peft::WEIGHTS_FILE;
use graft_adapters::{LoraConfig, PeftAdapter, Scaling, Size, TableMethod, TableName};
use graft_data::Preamble;
use graft_model::checkpoint::Checkpoint;
use graft_model::folder::ModelFolder;
use serde_json::json;

use super::Findings;
use super::tensors::Sums;
use crate::cli::page::{bytes, grouped};
use crate::trained_with::TrainedWith;
use crate::wrong_use::some_of;

/// Describes the adapter.
pub(super) fn inspect(path: &Path) -> anyhow::Result<Findings> {
    let adapter = PeftAdapter::open(path)?;
    let checkpoint = Checkpoint::open_file(&ModelFolder::at(path)?, WEIGHTS_FILE)?;
    let sums = Sums::of(&checkpoint);
    let LoraConfig { scaling, dropout, dora, sites, tables, .. } = adapter.config();
    let targets: BTreeSet<&str> = sites.keys().map(|site| site.kind.name()).collect();
    let layers: BTreeSet<usize> = sites.keys().map(|site| site.layer).collect();
    let of_tables = tables.iter().filter_map(|(name, method)| Some((name, method.size()?)));
    let parameters: u64 = checkpoint
        .names()
        .filter_map(|name| checkpoint.tensor(name))
        .map(|view| view.shape.iter().map(|&size| size as u64).product::<u64>())
        .sum();
    let trained = TrainedWith::of(&adapter)?;
    let rslora = *scaling == Scaling::RankStabilised;
    let total = checkpoint.total_bytes();
    let one = adapter.config().one_size();
    let shown = |size: Size| {
        let Size { rank, alpha } = size;
        json!({"rank": rank.get(), "alpha": alpha, "scale": scaling.factor(size)})
    };
    let of_tables = of_tables.map(|(name, size)| (name.module_name().to_owned(), size));
    let named = sites.iter().map(|(site, &size)| (site.module_name(), size)).chain(of_tables);
    // Of one size, as nearly all adapters are, it stands above.
    let sizes: Option<serde_json::Map<_, _>> =
        one.is_none().then(|| named.map(|(name, size)| (name, shown(size))).collect());
    let json = json!({
        "kind": "adapter",
        "path": path,
        "base": adapter.base(),
        "rank": one.map(|size| size.rank.get()),
        "alpha": one.map(|size| size.alpha),
        "rslora": rslora,
        "dora": dora,
        "scale": one.map(|size| scaling.factor(size)),
        "sizes": sizes,
        "dropout": dropout,
        "metadata": adapter.metadata(),
        "target_modules": targets,
        "layers": layers,
        "tables": tables.iter().map(|(name, method)| (name.name(), trained_of(method))).collect::<BTreeMap<_, _>>(),
        "parameters": parameters,
        "tensors": sums.json(),
        "bytes": total,
    });
    let blocks = if layers.len() == 1 { "block" } else { "blocks" };
    let kind = format!(
        "{}{}",
        if rslora { ", rank-stabilised" } else { "" },
        if *dora { ", with magnitudes (DoRA)" } else { "" }
    );
    let targets: Vec<&str> = targets.into_iter().collect();
    let mut rows = vec![
        ("adapter", path.display().to_string()),
        ("base", adapter.base().unwrap_or("not said").to_owned()),
        ("rank", format!("{}{kind}", sizes_in_words(adapter.config()))),
        ("dropout", dropout.to_string()),
        ("targets", format!("{} in {} {blocks}", targets.join(", "), layers.len())),
        ("parameters", grouped(parameters)),
        ("tensors", sums.text()),
        ("size", bytes(total)),
    ];
    if !tables.is_empty() {
        let of =
            |(name, method): (&TableName, &TableMethod)| format!("{name}: {}", trained_of(method));
        rows.push(("tables", tables.iter().map(of).collect::<Vec<_>>().join("; ")));
    }
    if TrainedWith::is_told(adapter.metadata()) {
        rows.push(("trained on", format!("weights of form {}", trained.quantization())));
    }
    if let Preamble::Official { date } = &trained.chat.preamble
        && TrainedWith::is_told(adapter.metadata())
    {
        rows.push(("dated", format!("{date}, in the official preamble of its chats")));
    }
    if let Some(template) = &trained.template {
        rows.push(("template", format!("the model's own, SHA-256 {template}")));
    }
    rows.extend(trained.learnt.map(|learnt| ("learnt", learnt)));
    rows.extend(trained.system_prompt.map(|prompt| ("system", prompt)));
    let warnings = warnings(&adapter);
    rows.extend(warnings.iter().map(|warning| ("warning", warning.clone())));
    let mut json = json;
    json["warnings"] = json!(warnings);
    Ok(Findings { rows, json, fault: None })
}

/// What is odd about an adapter by itself.
fn warnings(adapter: &PeftAdapter) -> Vec<String> {
    let mut warnings = Vec::new();
    if adapter.changes_nothing() {
        warnings.push(
            "it changes nothing: each of its updates has a matrix of zeros, as before the first step of training"
                .to_owned(),
        );
    }
    let holes: Vec<String> = adapter.holes().iter().map(|site| format!("`{site}`")).collect();
    if !holes.is_empty() {
        let listed = some_of(&holes);
        warnings.push(format!(
            "it holds no update of {listed}, which its adapter_config.json chooses: half an adapter is another one, and no \
             command runs it"
        ));
    }
    warnings
}

/// What is trained of a table, in words.
fn trained_of(method: &TableMethod) -> String {
    match method {
        TableMethod::Whole => "whole".to_owned(),
        TableMethod::LowRank(size) => format!("an update of rank {}", size.rank.get()),
        TableMethod::Rows(ids) => format!("{} rows", ids.len()),
    }
}

/// The one size of all updates, or the span of the different ones.
fn sizes_in_words(config: &LoraConfig) -> String {
    if let Some(size @ Size { rank, alpha }) = config.one_size() {
        return format!("{}, alpha {alpha}, scale {}", rank.get(), config.scaling.factor(size));
    }
    let ranks: BTreeSet<usize> = config.sizes().map(|size| size.rank.get()).collect();
    let scales = config.sizes().map(|size| config.scaling.factor(size));
    let (least, most) = scales
        .fold((f64::INFINITY, 0.0_f64), |(least, most), scale| (least.min(scale), most.max(scale)));
    let ranks: Vec<String> = ranks.iter().map(usize::to_string).collect();
    format!("{} by projection, scale {least} to {most}", ranks.join(", "))
}
