//! `graft train`: a run from recipe to report.

use std::io::{self, Write as _};

use graft_data::visible;

use crate::cli::recipe_args::TrainArgs;
use crate::cli::{Globals, on_threads, page};
use crate::device::Choice;
use crate::plan::{Plan, Start};
use crate::run::{Outcome, RunOptions, run as run_plan};
use crate::run_folder::RunFolder;
use crate::signals;

/// Trains as the recipe says.
///
/// # Errors
/// Every problem of the recipe and its files before anything is written; whatever ends the run early.
pub fn run(globals: &Globals, args: &TrainArgs) -> anyhow::Result<()> {
    signals::listen()?;
    let recipe = graft_recipes::load(&args.recipe.recipe, &args.recipe.overrides)?;
    let threads = globals.use_threads_of(&recipe)?;
    let device = globals.device.open()?;
    let start = if args.resume { Start::Resume } else { Start::Anew };
    let mut resolved = Plan::resolve_for(recipe, start, device)?;
    resolved.plan.threads = threads;
    let plan = &resolved.plan;
    for warning in &plan.warnings {
        globals.note(&format!("warning: {warning}"));
    }
    let (all, trained) = (plan.parameters(), plan.trainable_parameters());
    globals.note(&format!(
        "{}: {} of {} parameters are trained ({:.2} %), {} in {} on {}, {} threads",
        plan.recipe.name,
        page::grouped(trained),
        page::grouped(all),
        100.0 * trained as f64 / all as f64,
        plan.method.name(),
        plan.precision.name(),
        plan.device.name(),
        plan.threads
    ));
    if args.resume && !RunFolder::holds_run(&plan.output_dir) {
        // Also where notes are not wanted: who mistypes a folder trains anew.
        let said = format!("no run in {} yet: it begins", plan.output_dir.display());
        let _ = writeln!(io::stderr(), "{}", visible(&said));
    }
    let room = args.room.available(&plan.output_dir, &plan.device)?;
    let named_device = globals.device != Choice::Auto;
    let options = RunOptions { resume: args.resume, room, named_device, voice: globals.voice() };
    let outcome = on_threads(|| run_plan(resolved, options))?;
    if args.json {
        return Ok(page::print_json(&serde_json::to_value(&outcome)?)?);
    }
    Ok(page::print(&as_text(&outcome))?)
}

fn as_text(outcome: &Outcome) -> String {
    let rate = outcome.tokens as f64 / outcome.seconds.max(f64::EPSILON);
    let mut rows = vec![(
        "trained",
        format!(
            "{} steps, {} tokens in {:.0} s ({rate:.0} tokens/s), last loss {:.4}",
            page::grouped(outcome.steps),
            page::grouped(outcome.tokens),
            outcome.seconds,
            outcome.loss
        ),
    )];
    if let Some(bytes) = outcome.peak_memory_bytes {
        rows.push(("peak memory", page::bytes(bytes)));
    }
    if let Some(bytes) = outcome.peak_device_memory_bytes {
        rows.push(("peak on device", page::bytes(bytes)));
    }
    if let Some([before, after]) = outcome.exact_match {
        let (before, after) = (100.0 * before, 100.0 * after);
        rows.push(("exact match", format!("{before:.1} % before, {after:.1} % after")));
    }
    if let Some([before, after]) = outcome.general_perplexity {
        rows.push(("perplexity", format!("{before:.2} before, {after:.2} after (general)")));
    }
    if let Some([before, after]) = outcome.validation_loss {
        rows.push(("validation", format!("loss {before:.4} before, {after:.4} after")));
    }
    if let Some(divergence) = outcome.merged_divergence {
        let calm = || format!("answers as base + adapter do: {divergence:.1e} nats a token apart");
        let text = outcome.merge_warning.as_ref().map(|text| format!("warning: {text}"));
        rows.push(("merged", text.unwrap_or_else(calm)));
    }
    for path in &outcome.written {
        rows.push(("written", path.display().to_string()));
    }
    rows.push(("report", outcome.folder.join("report.html").display().to_string()));
    let mut text = page::table(&rows);
    for [question, base, tuned] in &outcome.answers {
        text.extend(["\n> ", question, "\n  base:  ", base, "\n  tuned: ", tuned, "\n"]);
    }
    text
}
