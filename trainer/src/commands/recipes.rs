//! `graft recipes ls|cat|cp|keys`: the shipped recipes, and what a recipe can say.

use std::path::Path;

use graft_files::{atomic, place};
use graft_recipes::Key;
use graft_recipes::library::{self, Shipped};
use serde_json::json;

use crate::cli::failure::WrongUse;
use crate::cli::page;
use crate::cli::recipe_args::{RecipesAction, RecipesArgs};

/// Lists, prints, copies or explains.
///
/// # Errors
/// No recipe has the name, no key the prefix; the file to copy to exists or cannot be written.
pub fn run(args: &RecipesArgs) -> anyhow::Result<()> {
    match &args.action {
        RecipesAction::Ls { json } => list(*json),
        RecipesAction::Cat { name } => Ok(page::print(find(name)?.text)?),
        RecipesAction::Cp { name, file } => copy(find(name)?, file),
        RecipesAction::Keys { prefix, json } => keys(prefix.as_deref().unwrap_or(""), *json),
    }
}

fn list(as_json: bool) -> anyhow::Result<()> {
    let all = library::all();
    if as_json {
        let entry = |shipped: &Shipped| json!({"name": shipped.name, "summary": shipped.summary});
        return Ok(page::print_json(&all.iter().map(entry).collect::<Vec<_>>())?);
    }
    let rows: Vec<_> =
        all.iter().map(|shipped| (shipped.name, shipped.summary.to_owned())).collect();
    Ok(page::print(&page::table(&rows))?)
}

fn find(name: &str) -> Result<&'static Shipped, WrongUse> {
    library::find(name).ok_or_else(|| {
        let names: Vec<&str> = library::all().iter().map(|shipped| shipped.name).collect();
        WrongUse(format!("no shipped recipe is called `{name}`; there are {}", names.join(", ")))
    })
}

fn copy(shipped: &Shipped, file: &Path) -> anyhow::Result<()> {
    place::new_file(file)?;
    let copy = shipped.copy_for(file);
    atomic::create_file::<std::io::Error>(file, |out| out.write_all(copy.as_bytes()))?;
    Ok(page::print(&format!("{} is now {}", shipped.name, file.display()))?)
}

/// The keys below `prefix`, with what there is to know of each.
fn keys(prefix: &str, as_json: bool) -> anyhow::Result<()> {
    let all = graft_recipes::keys().iter();
    let keys: Vec<&Key> = all.filter(|key| key.path.starts_with(prefix)).collect();
    if keys.is_empty() {
        let hint = graft_recipes::hint(prefix)
            .map_or_else(String::new, |hint| format!("\n  help: {hint}"));
        return Err(WrongUse(format!("no key of a recipe begins with `{prefix}`{hint}")).into());
    }
    if as_json {
        return Ok(page::print_json(&keys)?);
    }
    let text: String = keys.iter().map(|key| explained(key)).collect();
    Ok(page::print(&text)?)
}

fn explained(key: &Key) -> String {
    let Key { path, kind, default, example, doc } = key;
    let default = match *default {
        "required" => "required".to_owned(),
        "–" => "no default".to_owned(),
        default => format!("default {default}"),
    };
    format!("{path}: {kind}; {default}\n    {doc} Example: {path}={example}\n")
}
