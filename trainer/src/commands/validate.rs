//! `graft validate`: the plan in a few lines, or every problem.

use graft_data::Schedule;
use graft_kernels::nf4::AbsmaxFormat;
use graft_recipes::{Duration, Problems};
use serde_json::{Value, json};

use crate::cli::recipe_args::ValidateArgs;
use crate::cli::{Globals, page};
use crate::ledger::{Asked, Available, Ledger};
use crate::plan::{LoadedData, Plan, Resolved, Validation};

/// Resolves the recipe, reads its data, and prints what a run would do. Nothing is written.
///
/// # Errors
/// Every problem of the recipe, its model, its data and its output folder.
pub fn run(globals: &Globals, args: &ValidateArgs) -> anyhow::Result<()> {
    let checked = check(globals, args);
    if let (Err(error), true) = (&checked, args.json)
        && let Some(problems) = error.downcast_ref::<Problems>()
    {
        page::print_json(&json!({"valid": false, "problems": problems.list}))?;
    }
    let (plan, data) = checked?;
    let schedule = data.schedule(&plan)?;
    let mut warnings = plan.warnings.clone();
    warnings.extend(data.warnings.iter().cloned());
    warnings.extend(plan.check_length(&schedule)?);
    for warning in &warnings {
        globals.note(&format!("warning: {warning}"));
    }
    let asked = Asked::by(&plan, &data)?;
    if let Err(error) =
        Ledger::for_run(&asked).check(&asked, &Available::here(&plan.output_dir, &plan.device))
    {
        globals.note(&format!("warning: here {error}"));
    }
    if args.json {
        return Ok(page::print_json(&as_json(&plan, &data, &schedule, &warnings))?);
    }
    Ok(page::print(&as_text(&plan, &data, &schedule))?)
}

fn check(globals: &Globals, args: &ValidateArgs) -> anyhow::Result<(Plan, LoadedData)> {
    let recipe = graft_recipes::load(&args.recipe.recipe, &args.recipe.overrides)?;
    let threads = globals.use_threads_of(&recipe)?;
    let Resolved { mut plan, tokenizer } = Plan::resolve(recipe, globals.device.open()?)?;
    plan.threads = threads;
    let data = plan.load_data(tokenizer)?;
    Ok((plan, data))
}

fn as_text(plan: &Plan, data: &LoadedData, schedule: &Schedule) -> String {
    use page::grouped;
    let (all, trained) = (plan.parameters(), plan.trainable_parameters());
    let share = 100.0 * trained as f64 / all as f64;
    let statistics = &data.statistics;
    let count = |count: usize| grouped(count as u64);
    let quantization = match plan.nf4 {
        None => "none",
        Some(AbsmaxFormat::Plain) => "nf4",
        Some(AbsmaxFormat::Double) => "nf4, double",
    };
    let mut rows = vec![
        ("recipe", plan.recipe.name.clone()),
        ("model", plan.model_folder.display()),
        ("parameters", grouped(all)),
        ("trainable", format!("{} ({share:.2} %), {}", grouped(trained), method(plan))),
        ("quantization", quantization.to_owned()),
        (
            "compute",
            format!(
                "{} on {}, {} threads",
                plan.precision.name(),
                plan.device.name(),
                plan.threads
            ),
        ),
        (
            "data",
            format!(
                "{} rows, {} samples, {} tokens, {} targets",
                count(statistics.rows),
                count(data.train.len()),
                count(statistics.tokens),
                count(statistics.targets)
            ),
        ),
    ];
    for (key, counts) in &data.counts {
        if !counts.are_plain() {
            rows.push(("not whole", format!("{key}: {counts}")));
        }
    }
    for (name, found, of) in [
        ("validation", data.validation.len(), "samples"),
        ("held out", data.held_out().len(), "questions"),
        ("general", data.general.len(), "samples"),
    ] {
        if found > 0 {
            rows.push((name, format!("{} {of}", count(found))));
        }
    }
    let length = match plan.duration {
        Duration::Epochs(epochs) => format!("{epochs} epochs of {}", schedule.steps_per_epoch()),
        Duration::MaxSteps(_) => format!("an epoch has {}", schedule.steps_per_epoch()),
    };
    rows.push(("steps", format!("{} ({length})", grouped(plan.total_steps(schedule)))));
    rows.push(("output", plan.output_dir.display().to_string()));
    page::table(&rows)
}

fn method(plan: &Plan) -> String {
    plan.method.phrase()
}

fn as_json(plan: &Plan, data: &LoadedData, schedule: &Schedule, warnings: &[String]) -> Value {
    let rank = plan.recipe.adapter.rank();
    let fraction = match plan.validation {
        Validation::Fraction(fraction) => Some(fraction),
        Validation::None | Validation::Files(_) => None,
    };
    json!({
        "valid": true,
        "recipe": plan.recipe.name,
        "model": plan.model_folder.display(),
        "parameters": plan.parameters(),
        "trainable_parameters": plan.trainable_parameters(),
        "method": plan.method.name(),
        "rank": rank,
        "quantization": plan.nf4.map(|scales| json!({"format": "nf4", "double": scales.is_double()})),
        "compute_dtype": plan.precision.name(),
        "device": plan.device.name(),
        "threads": plan.threads,
        "train": {"samples": data.train.len(), "statistics": data.statistics},
        "validation": {"samples": data.validation.len(), "fraction": fraction},
        "held_out": {"questions": data.held_out().len()},
        "general": {"samples": data.general.len()},
        "steps": plan.total_steps(schedule),
        "steps_per_epoch": schedule.steps_per_epoch(),
        "output_dir": plan.output_dir,
        "warnings": warnings,
    })
}
