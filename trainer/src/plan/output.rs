//! `output_dir`: it must be free for this run.

use std::path::Path;

use graft_recipes::Recipe;

use super::Start;
use super::findings::Findings;
use crate::run_folder::RunFolder;

/// Records what is wrong with the output folder.
pub(super) fn check(recipe: &Recipe, start: Start, findings: &mut Findings<'_>) {
    const KEY: &str = "output_dir";
    let path = &recipe.output_dir;
    let free = match start {
        // A run may be killed before it has anything to go on with; it then begins.
        Start::Resume if RunFolder::holds_run(path) => Ok(()),
        Start::Anywhere => return,
        Start::Anew | Start::Resume => RunFolder::check_free(path, &recipe.to_yaml()),
    };
    if let Err(error) = free {
        findings.problem(KEY, error);
        return;
    }
    let Some(home) = existing(path) else { return };
    if !home.is_dir() {
        let message = format!("found `{}`, but `{}` is a file", path.display(), home.display());
        findings.problem(KEY, message);
    }
}

/// The nearest folder above that exists.
fn existing(path: &Path) -> Option<&Path> {
    let here = Path::new(".");
    path.ancestors()
        .map(|path| if path.as_os_str().is_empty() { here } else { path })
        .find(|path| path.exists())
}
