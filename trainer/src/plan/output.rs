//! `output_dir`: it must be free for this run, and its disk must hold what the run leaves behind.

use std::path::Path;

use graft_model::{LlamaConfig, atomic};
use graft_recipes::Recipe;

use super::findings::Findings;
use super::{Adapter, Start, parameters};
use crate::run_folder::RunFolder;

/// f32 value and both moments of AdamW.
const CHECKPOINT_BYTES: u64 = 12;
/// bf16.
const MERGED_BYTES: u64 = 2;

/// Records what is wrong with the output folder. `sizes`: the model and what trains, where known.
pub(super) fn check(
    recipe: &Recipe,
    start: Start,
    sizes: Option<(&LlamaConfig, &Adapter)>,
    findings: &mut Findings<'_>,
) {
    const KEY: &str = "output_dir";
    let path = &recipe.output_dir;
    let free = match start {
        // A run may be killed before it has anything to go on with; it then begins.
        Start::Resume if RunFolder::holds_run(path) => Ok(()),
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
        return;
    }
    let Some((config, adapter)) = sizes else { return };
    let needed = needed(recipe, config, adapter);
    // Some file systems do not say how full they are.
    if let Ok(free) = atomic::free_bytes(home)
        && free < needed
    {
        findings.problem_with_hint(
            KEY,
            format_args!(
                "the run leaves about {needed} bytes behind, but `{}` has {free} left",
                home.display()
            ),
            "free the disk, choose another `output_dir`, or keep fewer checkpoints with \
             `checkpoint.keep`",
        );
    }
}

/// Bytes of checkpoints (one more than are kept, while it is written), adapter and merged model.
fn needed(recipe: &Recipe, config: &LlamaConfig, adapter: &Adapter) -> u64 {
    let trainable = adapter.trainable_parameters(config);
    let checkpoints = (recipe.checkpoint.keep.get() as u64).saturating_add(1);
    let writes_model = recipe.finish.merge || *adapter == Adapter::Full;
    let model = if writes_model { MERGED_BYTES * parameters(config) } else { 0 };
    (trainable * CHECKPOINT_BYTES).saturating_mul(checkpoints) + trainable * 4 + model
}

/// The nearest folder above that exists.
fn existing(path: &Path) -> Option<&Path> {
    let here = Path::new(".");
    path.ancestors()
        .map(|path| if path.as_os_str().is_empty() { here } else { path })
        .find(|path| path.exists())
}
