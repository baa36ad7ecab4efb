//! `graft plan`: what a run takes, line by line, and whether there is that much.

use std::fmt::Write as _;
use std::sync::Arc;

use graft_data::Schedule;
use graft_recipes::Duration;
use serde_json::{Value, json};

use crate::cli::failure::WrongUse;
use crate::cli::recipe_args::{PlanArgs, RoomArgs};
use crate::cli::{Globals, page};
use crate::ledger::{Asked, Available, Ledger, Medium};
use crate::plan::{LoadedData, Plan, Resolved, Start, ToFetch};

/// Prints the ledger of a recipe. Nothing is written. A model and rows that are not there yet are
/// stood in for, where the recipe says what the model is.
///
/// # Errors
/// Every problem of the recipe, its model and its data; after the ledger, a run that does not fit.
pub fn run(globals: &Globals, args: &PlanArgs) -> anyhow::Result<()> {
    let recipe = graft_recipes::load(&args.recipe.recipe, &args.recipe.overrides)?;
    let threads = globals.use_threads_of(&recipe)?;
    // A folder that holds a run is nothing to a plan.
    let device = globals.device.open()?;
    let Resolved { mut plan, tokenizer } = Plan::resolve_for(recipe, Start::Anywhere, device)?;
    plan.threads = threads;
    let data = plan.load_data(tokenizer)?;
    for warning in plan.warnings.iter().chain(&data.warnings) {
        globals.note(&format!("warning: {warning}"));
    }
    let shown = Shown::of(&plan, &data, &args.room)?;
    if !plan.absent.rows {
        for warning in plan.check_length(&shown.schedule)? {
            globals.note(&format!("warning: {warning}"));
        }
    }
    if args.json {
        page::print_json(&shown.json())?;
    } else {
        page::print(&shown.text())?;
    }
    if shown.ledger.check(&shown.asked, &shown.available).is_err() {
        let name = &plan.recipe.name;
        let message =
            format!("`{name}` does not fit: `graft train` would refuse it as planned above");
        return Err(WrongUse(message).into());
    }
    Ok(())
}

/// The names of files, many shards as their first and last.
fn shown(files: &[String]) -> Vec<String> {
    /// More lines than this say less.
    const MOST: usize = 12;
    let is_shard = |file: &&String| file.contains("-of-");
    let shards: Vec<&String> = files.iter().filter(is_shard).collect();
    match shards.as_slice() {
        [first, .., last] if files.len() > MOST => {
            let others = files.iter().filter(|file| !is_shard(file)).cloned();
            others.chain([format!("{first} to {last}")]).collect()
        }
        _ => files.to_vec(),
    }
}

/// What is printed.
struct Shown<'a> {
    plan: &'a Plan,
    schedule: Arc<Schedule>,
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
        let tokens = (0..data.train.len()).map(|at| data.train.tokens_of(at)).sum();
        Ok(Self { plan, schedule, tokens, asked, ledger, available })
    }

    fn tokens_per_step(&self) -> u64 {
        (self.tokens / self.schedule.steps_per_epoch()) as u64
    }

    /// Optimizer steps, unless they depend on rows that are not there.
    fn steps(&self) -> Option<u64> {
        let is_known =
            !self.plan.absent.rows || matches!(self.plan.duration, Duration::MaxSteps(_));
        is_known.then(|| self.plan.total_steps(&self.schedule))
    }

    fn steps_text(&self) -> String {
        let tokens = page::grouped(self.tokens_per_step());
        match (self.steps(), self.plan.duration) {
            (Some(steps), _) if !self.plan.absent.rows => {
                format!("{} of {tokens} tokens on average", page::grouped(steps))
            }
            (_, Duration::MaxSteps(steps)) => format!("{steps} of at most {tokens} tokens"),
            (_, Duration::Epochs(epochs)) => {
                format!("as your rows need for {epochs} epochs, of at most {tokens} tokens")
            }
        }
    }

    /// What is not there yet, and what stands in for it.
    fn to_come(&self) -> String {
        let absent = &self.plan.absent;
        if absent.to_fetch.is_empty() {
            return String::new();
        }
        let mut text = "\nnot there yet\n".to_owned();
        for ToFetch { path, files, bytes, how } in &absent.to_fetch {
            let size = bytes.map_or_else(String::new, |bytes| format!(", {}", page::bytes(bytes)));
            let _ = writeln!(text, "  {}{size}\n    {how}", path.display());
            let shown = shown(files);
            let _ = shown.iter().try_for_each(|file| writeln!(text, "    {file}"));
        }
        if absent.rows {
            let length = page::grouped(self.plan.sample.max_seq_len as u64);
            let _ = writeln!(
                text,
                "Sizes are assumed: every row has {length} tokens, the most that data.max_seq_len lets it have."
            );
        }
        text
    }

    fn text(&self) -> String {
        use page::{bytes, grouped};
        let Self { plan, ledger, available, .. } = self;
        let rows = [
            ("recipe", plan.recipe.name.clone()),
            ("model", plan.model_folder.display()),
            ("steps", self.steps_text()),
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
            let lines = ledger.table(&[Medium::Device]);
            let sum = sum("device", ledger.device(), available.device);
            format!("\nmemory of {}\n{lines}{sum}", plan.device.name())
        };
        let others = ledger.others_table();
        let others = if others.is_empty() {
            others
        } else {
            format!("\nat other moments, instead of what comes and goes above\n{others}")
        };
        [
            page::table(&rows),
            self.to_come(),
            on_device,
            "\nmemory of its own\n".to_owned(),
            ledger.table(&[Medium::Anonymous]),
            sum("anonymous", ledger.anonymous(), available.memory),
            others,
            "\nmapped files, in memory as long as there is room\n".to_owned(),
            ledger.table(&[Medium::Mapped]),
            format!("  = resident with them: {}\n", bytes(ledger.resident())),
            "\ndisk\n".to_owned(),
            ledger.table(&[Medium::Disk]),
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
            "steps": self.steps(),
            "steps_per_epoch": (!plan.absent.rows).then(|| schedule.steps_per_epoch()),
            "to_fetch": plan.absent.to_fetch,
            "assumes_rows": plan.absent.rows,
            "tokens_per_step": self.tokens_per_step(),
            "parameters": plan.parameters(),
            "trainable_parameters": plan.trainable_parameters(),
            "device": plan.device.name(),
            "lines": ledger.lines,
            "other_moments": ledger.others,
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
