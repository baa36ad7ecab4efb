//! The command line: what can be said, where it goes, and what comes back as an exit code.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong use or
//! wrong input.

pub mod adapters_args;
pub mod byte_size;
pub mod documents_args;
pub mod export_args;
pub mod failure;
pub mod folder_args;
pub mod globals;
pub mod model_args;
mod named;
mod number;
pub mod page;
mod paths;
pub mod recipe_args;
pub mod row_args;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use globals::{Globals, on_threads};

use crate::commands;
use adapters_args::AdaptersArgs;
use documents_args::DocumentsArgs;
use export_args::ExportArgs;
use folder_args::{MergeArgs, QuantizeArgs, SynthModelArgs};
use model_args::{ChatArgs, EvalArgs, GenerateArgs};
use recipe_args::{
    DataArgs, DoctorArgs, InspectArgs, PlanArgs, RecipesArgs, TrainArgs, ValidateArgs,
};

/// Fine-tune Llama 3.x on your own machine, on data that stays there.
#[derive(Debug, Parser)]
#[command(
    name = "graft",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  graft recipes ls\n  graft validate quickstart\n\n\
                  Exit codes: 0 done, 1 failed, 2 wrong use or wrong input.\n\
                  With --json the result is JSON on stdout; errors are text on stderr all the same."
)]
pub struct Cli {
    /// What every command understands.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List, show and copy the shipped recipes.
    Recipes(RecipesArgs),
    /// Check a recipe against its model and data, and show what it would do.
    Validate(ValidateArgs),
    /// Show what a run takes of memory and disk, line by line, and whether it fits.
    Plan(PlanArgs),
    /// Show what is trained on: statistics, and samples with their targets marked.
    Data(DataArgs),
    /// Make a corpus of documents: one row a text, with the file, page and stretch it is from.
    Documents(DocumentsArgs),
    /// Fine-tune, or train, as a recipe says.
    Train(TrainArgs),
    /// Score a model on rows: loss, perplexity, exact answers.
    Eval(EvalArgs),
    /// Answer one prompt.
    Generate(GenerateArgs),
    /// Talk with a model, line by line.
    Chat(ChatArgs),
    /// Write a model folder in NF4, for quick starts.
    Quantize(QuantizeArgs),
    /// Write base and adapter as one model folder.
    Merge(MergeArgs),
    /// Make one adapter of several, or one of another rank.
    Adapters(AdaptersArgs),
    /// Write a model, or an adapter by itself, as a GGUF file.
    Export(ExportArgs),
    /// Show what a model, adapter or run folder holds.
    Inspect(InspectArgs),
    /// Show what this machine offers to a run.
    Doctor(DoctorArgs),
    /// Write random weights of a true shape, for measurements.
    SynthModel(SynthModelArgs),
}

/// Runs the command that the arguments of the process name.
pub fn main() -> ExitCode {
    crate::memory::keep_freed_memory();
    crate::signals::survive_size_limits();
    crate::lost_pages::explain();
    failure::quiet_panics();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::report_usage(&error),
    };
    let quiet_panic = std::panic::AssertUnwindSafe(|| cli.run());
    match std::panic::catch_unwind(quiet_panic) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => failure::report(&error),
        // The hook has said it.
        Err(_) => failure::FAILED.into(),
    }
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever stops it; [`failure::exit_code`] tells the user's mistakes from others.
    pub fn run(&self) -> anyhow::Result<()> {
        let Self { globals, command } = self;
        graft_kernels::flex::isa::Isa::in_use()?;
        globals.use_threads()?;
        match command {
            Command::Recipes(args) => commands::recipes::run(args),
            Command::Validate(args) => commands::validate::run(globals, args),
            Command::Plan(args) => commands::plan::run(globals, args),
            Command::Data(args) => commands::data::run(globals, args),
            Command::Documents(args) => commands::documents::run(globals, args),
            Command::Train(args) => commands::train::run(globals, args),
            Command::Eval(args) => commands::eval::run(globals, args),
            Command::Generate(args) => on_threads(|| commands::generate::run(globals, args)),
            Command::Chat(args) => on_threads(|| commands::chat::run(globals, args)),
            Command::Quantize(args) => commands::quantize::run(globals, args),
            Command::Merge(args) => commands::merge::run(globals, args),
            Command::Adapters(args) => commands::adapters::run(globals, args),
            Command::Export(args) => commands::export::run(globals, args),
            Command::Inspect(args) => commands::inspect::run(args),
            Command::Doctor(args) => commands::doctor::run(globals, args),
            Command::SynthModel(args) => commands::synth_model::run(globals, args),
        }
    }
}

#[cfg(test)]
mod tests;
