//! `graft plan`: what a run takes, line by line, and whether there is that much.

use graft_data::Schedule;
use serde_json::{Value, json};

use crate::cli::recipe_args::{PlanArgs, RoomArgs};
use crate::cli::{Globals, page};
use crate::ledger::{Asked, Available, Ledger, Place};
use crate::plan::{LoadedData, Plan, Resolved, Start};

/// Prints the ledger of a recipe. Nothing is written, and a run that does not fit is no error.
///
/// # Errors
/// Every problem of the recipe, its model and its data.
pub fn run(globals: &Globals, args: &PlanArgs) -> anyhow::Result<()> {
    let recipe = graft_recipes::load(&args.recipe.recipe, &args.recipe.overrides)?;
    globals.use_threads_of(&recipe)?;
    // A folder that holds a run is nothing to a plan.
    let device = globals.device.open()?;
    let Resolved { plan, tokenizer } = Plan::resolve_for(recipe, Start::Anywhere, device)?;
    for warning in &plan.warnings {
        globals.note(&format!("warning: {warning}"));
    }
    let data = plan.load_data(tokenizer)?;
    let shown = Shown::of(&plan, &data, &args.room)?;
    if args.json {
        return Ok(page::print_json(&shown.json())?);
    }
    Ok(page::print(&shown.text())?)
}

/// What is printed.
struct Shown<'a> {
    plan: &'a Plan,
    schedule: Schedule,
    tokens: usize,
    asked: Asked,
    ledger: Ledger,
    available: Available,
}

impl<'a> Shown<'a> {
    fn of(plan: &'a Plan, data: &LoadedData, room: &RoomArgs) -> anyhow::Result<Self> {
        let mut asked = Asked::by(plan, data)?;
        let available = room.available(&plan.output_dir, &plan.device)?;
        Ledger::settle(&mut asked, &available);
        let ledger = Ledger::for_run(&asked);
        let schedule = data.schedule(plan)?;
        let tokens = data.train.iter().map(|sample| sample.tokens.len()).sum();
        Ok(Self { plan, schedule, tokens, asked, ledger, available })
    }

    fn tokens_per_step(&self) -> u64 {
        (self.tokens / self.schedule.steps_per_epoch()) as u64
    }

    fn text(&self) -> String {
        use page::{bytes, grouped};
        let Self { plan, schedule, ledger, available, .. } = self;
        let rows = [
            ("recipe", plan.recipe.name.clone()),
            ("model", plan.model_folder.display()),
            (
                "steps",
                format!(
                    "{} of {} tokens on average",
                    grouped(plan.total_steps(schedule)),
                    grouped(self.tokens_per_step())
                ),
            ),
            ("checkpointing", self.asked.checkpointing.name().to_owned()),
            (
                "trainable",
                format!(
                    "{} of {} parameters",
                    grouped(plan.trainable_parameters()),
                    grouped(plan.parameters())
                ),
            ),
        ];
        let known = |found: Option<u64>| found.map_or("unknown".to_owned(), bytes);
        let sum = |name: &str, needed, found| {
            format!("  = {name}: {} of {} available\n", bytes(needed), known(found))
        };
        let verdict = match ledger.check(&self.asked, available) {
            Ok(()) => "it fits".to_owned(),
            Err(error) => format!("it does not fit: {error}"),
        };
        let on_device = if plan.device.is_cpu() {
            String::new()
        } else {
            let lines = ledger.table(&[Place::Device]);
            let sum = sum("device", ledger.device(), available.device);
            format!("\nmemory of {}\n{lines}{sum}", plan.device.name())
        };
        [
            page::table(&rows),
            on_device,
            "\nmemory of its own\n".to_owned(),
            ledger.table(&[Place::Anonymous]),
            sum("anonymous", ledger.anonymous(), available.memory),
            "\nmapped files, in memory as long as there is room\n".to_owned(),
            ledger.table(&[Place::Mapped]),
            format!("  = resident with them: {}\n", bytes(ledger.resident())),
            "\ndisk\n".to_owned(),
            ledger.table(&[Place::Disk]),
            sum("disk", ledger.disk(), available.disk),
            format!("\n{verdict}\n"),
        ]
        .concat()
    }

    fn json(&self) -> Value {
        let Self { plan, schedule, ledger, available, .. } = self;
        let refusal = ledger.check(&self.asked, available).err();
        json!({
            "recipe": plan.recipe.name,
            "model": plan.model_folder.display(),
            "checkpointing": self.asked.checkpointing.name(),
            "steps": plan.total_steps(schedule),
            "steps_per_epoch": schedule.steps_per_epoch(),
            "tokens_per_step": self.tokens_per_step(),
            "parameters": plan.parameters(),
            "trainable_parameters": plan.trainable_parameters(),
            "device": plan.device.name(),
            "lines": ledger.lines,
            "anonymous_bytes": ledger.anonymous(),
            "resident_bytes": ledger.resident(),
            "device_bytes": ledger.device(),
            "disk_bytes": ledger.disk(),
            "available": available,
            "fits": refusal.is_none(),
            "refusal": refusal.map(|refusal| refusal.to_string()),
        })
    }
}
