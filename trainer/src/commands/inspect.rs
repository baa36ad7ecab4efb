//! `graft inspect`: what a model, an adapter, a run or a file of tensors holds.

mod adapter;
mod model;
mod run;
mod tensors;

use std::path::Path;

use serde_json::Value;

use crate::cli::failure::WrongUse;
use crate::cli::page;
use crate::cli::recipe_args::InspectArgs;

/// What was found: lines for people, and the same for programs.
struct Findings {
    rows: Vec<(&'static str, String)>,
    json: Value,
}

/// Finds out what lies at the path and describes it. Only headers and small files are read.
///
/// # Errors
/// Nothing that Graft knows lies there, or it is broken.
pub fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let Findings { rows, json } = inspect(&args.path)?;
    if args.json {
        page::print_json(&json)?;
    } else {
        page::print(&page::table(&rows))?;
    }
    Ok(())
}

fn inspect(location: &str) -> anyhow::Result<Findings> {
    if location.starts_with("builtin:") {
        return model::inspect(location);
    }
    let path = Path::new(location);
    let has = |name: &str| path.join(name).is_file();
    if path.is_file() {
        return tensors::inspect(path);
    }
    if has(graft_adapters::peft::CONFIG_FILE) {
        return adapter::inspect(path);
    }
    if has("manifest.json") {
        return run::inspect(path);
    }
    if has("config.json") {
        return model::inspect(location);
    }
    let message = if path.exists() {
        format!(
            "`{location}` holds neither a model (config.json), nor an adapter \
             (adapter_config.json), nor a run (manifest.json)"
        )
    } else {
        format!("there is nothing at `{location}`")
    };
    Err(WrongUse(message).into())
}
