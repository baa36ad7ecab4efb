//! `graft recipes ls|cat|cp`: the shipped recipes.

use std::path::Path;

use graft_model::{atomic, place};
use graft_recipes::library::{self, Shipped};
use serde_json::json;

use crate::cli::failure::WrongUse;
use crate::cli::page;
use crate::cli::recipe_args::{RecipesAction, RecipesArgs};

/// Lists, prints or copies.
///
/// # Errors
/// No recipe has the name; the file to copy to exists or cannot be written.
pub fn run(args: &RecipesArgs) -> anyhow::Result<()> {
    match &args.action {
        RecipesAction::Ls { json } => list(*json),
        RecipesAction::Cat { name } => Ok(page::print(find(name)?.text)?),
        RecipesAction::Cp { name, file } => copy(find(name)?, file),
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
    atomic::create_file::<std::io::Error>(file, |out| out.write_all(shipped.text.as_bytes()))?;
    Ok(page::print(&format!("{} is now {}", shipped.name, file.display()))?)
}
