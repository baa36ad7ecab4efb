//! `graft inspect`: what a model, an adapter, a run or a file of tensors holds.

mod adapter;
mod gguf;
mod model;
mod run;
mod tensors;

use std::fs::Metadata;
use std::io::ErrorKind::NotFound;
use std::path::Path;

use graft_model::folder::{ModelFolder, is_gguf};
use serde_json::Value;

use crate::cli::failure::WrongUse;
use crate::cli::page;
use crate::cli::recipe_args::InspectArgs;

/// What was found: lines for people, and the same for programs.
struct Findings {
    rows: Vec<(&'static str, String)>,
    json: Value,
    /// Why it cannot be used all the same; said after what was found.
    fault: Option<anyhow::Error>,
}

/// Finds out what lies at the path and describes it. Only headers and small files are read.
///
/// # Errors
/// Nothing that Graft knows lies there, it cannot be read, or it is broken.
pub fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let Findings { rows, json, fault } = inspect(&args.path)?;
    if args.json {
        page::print_json(&json)?;
    } else {
        page::print(&page::table(&rows))?;
    }
    fault.map_or(Ok(()), Err)
}

fn inspect(location: &str) -> anyhow::Result<Findings> {
    if location.starts_with("builtin:") {
        return model::inspect(location);
    }
    let path = Path::new(location);
    match found(path)? {
        Some(found) if found.is_file() && is_gguf(path) => return gguf::inspect(location),
        Some(found) if found.is_file() => return tensors::inspect(path),
        Some(_) => {}
        None => return Err(WrongUse(format!("there is nothing at `{location}`")).into()),
    }
    let has =
        |name: &str| Ok::<_, WrongUse>(found(&path.join(name))?.is_some_and(|it| it.is_file()));
    if has(graft_adapters::peft::CONFIG_FILE)? {
        return adapter::inspect(path);
    }
    if has("manifest.json")? {
        return run::inspect(path);
    }
    if has("config.json")? {
        return model::inspect(location);
    }
    if ModelFolder::open(location)?.gguf().is_some() {
        return gguf::inspect(location);
    }
    let message = format!(
        "`{location}` holds neither a model (config.json, or one GGUF file), nor an adapter (adapter_config.json), \
         nor a run (manifest.json)"
    );
    Err(WrongUse(message).into())
}

/// What lies at a path; `None` for nothing.
///
/// # Errors
/// The system does not say, or a link leads nowhere.
fn found(path: &Path) -> Result<Option<Metadata>, WrongUse> {
    let shown = path.display();
    match (path.metadata(), path.read_link()) {
        (Ok(found), _) => Ok(Some(found)),
        (Err(error), Ok(target)) if error.kind() == NotFound => Err(WrongUse(format!(
            "`{shown}` is a link to `{}`, where nothing is: put there what it should lead to",
            target.display()
        ))),
        (Err(error), Err(_)) if error.kind() == NotFound => Ok(None),
        (Err(error), _) => Err(WrongUse(format!("cannot read `{shown}`: {error}"))),
    }
}
