//! `output_dir`: it must be free for this run, and the system must let it be written.

use std::path::Path;

use graft_adapters::Learns;
use graft_files::disk;
use graft_model::folder::ModelFolder;
use graft_recipes::Recipe;

use super::Start;
use super::findings::Findings;
use crate::run_folder::{self, RunFolder};

/// Records what is wrong with the output folder.
pub(super) fn check(
    recipe: &Recipe,
    base: Option<&ModelFolder>,
    start: Start,
    findings: &mut Findings<'_>,
) {
    const KEY: &str = "output_dir";
    let path = &recipe.output_dir;
    if !matches!(start, Start::Anywhere | Start::Measuring)
        && let Some(base) = base
        && let Err(error) = beside(path, base)
    {
        findings.problem(KEY, error);
        return;
    }
    if start == Start::Anew
        && let Err(message) = own_folder(path)
    {
        findings.problem(KEY, message);
        return;
    }
    let model =
        ["config.json", "adapter_config.json"].into_iter().find(|it| path.join(it).exists());
    if let (Some(name), Start::Anew) = (model, start) {
        let path = path.display();
        let message = format!(
            "found `{path}`, which holds the `{name}` of a model: choose a folder of its own for the run"
        );
        findings.problem(KEY, message);
    }
    let makes_model = recipe.finish.merge || recipe.adapter.learns_a_model();
    if let (Some(base), true) = (base, makes_model)
        && let Err(error) = graft_adapters::companions(base)
    {
        findings.problem("model.path", error);
    }
    let free = match start {
        Start::Anywhere => Ok(()),
        Start::Measuring => return,
        Start::Anew => RunFolder::check_free(path, &recipe.to_yaml()),
        Start::Resume => match RunFolder::check_resumable(path) {
            // A run may be killed before it has anything to go on with; it then begins.
            Err(run_folder::Error::NoRun { .. }) => RunFolder::check_free(path, &recipe.to_yaml()),
            other => other.and_then(|()| RunFolder::check_own(path, &results(recipe))),
        },
    };
    if let Err(error) = free {
        findings.problem(KEY, error);
        return;
    }
    let Some(home) = existing(path) else { return };
    if !home.is_dir() {
        let is = match home.read_link() {
            Ok(target) if !home.exists() => {
                format!("a link to `{}`, where no folder is", target.display())
            }
            _ => "a file".to_owned(),
        };
        let message = format!("found `{}`, but `{}` is {is}", path.display(), home.display());
        findings.problem(KEY, message);
    } else if let Err(error) = disk::try_writing(home) {
        findings.problem(KEY, format!("found `{}`: {error}", path.display()));
    }
}

/// A new run's folder is not the system's root, and does not lie in another run's.
fn own_folder(path: &Path) -> Result<(), String> {
    // Of a folder that is not there yet, the nearest one that is.
    let Some(home) = existing(path) else { return Ok(()) };
    let Ok(home) = home.canonicalize() else { return Ok(()) };
    if home.parent().is_none() && existing(path) == Some(path) {
        return Err("found `/`: choose a folder of its own for the run".to_owned());
    }
    let is_itself = existing(path) == Some(path);
    let above =
        home.ancestors().skip(usize::from(is_itself)).find(|above| RunFolder::holds_run(above));
    let is_run = |above: &&Path| RunFolder::read_manifest(above).is_ok();
    match above.filter(is_run) {
        None => Ok(()),
        Some(run) => Err(format!(
            "found `{}`, which lies in the folder of another run, `{}`: choose a folder of its own for the run",
            path.display(),
            run.display()
        )),
    }
}

/// A run's folder and a base's are two, and neither lies in the other.
fn beside(path: &Path, base: &ModelFolder) -> Result<(), String> {
    base.check_outside(path).map_err(|error| error.to_string())?;
    if base.lies_in(path).map_err(|error| error.to_string())? {
        let (path, base) = (path.display(), base.display());
        return Err(format!(
            "the base's folder `{base}` lies in `{path}`: choose a folder of its own for the run"
        ));
    }
    Ok(())
}

/// What the run will make in its folder beside its log and checkpoints.
fn results(recipe: &Recipe) -> Vec<&'static str> {
    let mut results = vec![run_folder::BEFORE, run_folder::AFTER, run_folder::REPORT];
    let learns = if recipe.adapter.learns_a_model() { Learns::Model } else { Learns::Adapter };
    results.push(super::method::result(learns));
    if recipe.finish.merge {
        results.push(run_folder::MERGED);
    }
    results.extend(recipe.finish.targets.iter().map(|target| target.name()));
    results
}

/// The nearest folder above that exists, or a link in its place.
fn existing(path: &Path) -> Option<&Path> {
    let here = Path::new(".");
    path.ancestors()
        .map(|path| if path.as_os_str().is_empty() { here } else { path })
        .find(|path| path.symlink_metadata().is_ok())
}
