//! Commands that read a recipe, or look at what one names: recipes, validate, plan, data, inspect,
//! train.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use graft_data::{Format, Overlong};
use graft_recipes::Preamble;

use super::failure::WrongUse;
use super::named::{format, named, overlong};
use super::paths::{path, place};
use super::row_args::RowArgs;
use super::{byte_size, number, page};
use crate::device::Device;
use crate::ledger::Available;

/// `graft recipes`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  graft recipes ls\n  graft recipes cp llama3.1-8b-qlora my.yaml\n  \
                  graft recipes keys training.schedule"
)]
pub struct RecipesArgs {
    /// What to do with the recipes.
    #[command(subcommand)]
    pub action: RecipesAction,
}

/// What can be done with the shipped recipes.
#[derive(Debug, Subcommand)]
pub enum RecipesAction {
    /// List the recipes with what each is for.
    #[command(after_help = "Example:\n  graft recipes ls")]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a recipe.
    #[command(after_help = "Example:\n  graft recipes cat quickstart")]
    Cat {
        /// The recipe's name
        name: String,
    },
    /// Copy a recipe to a file of your own, whose name the copy takes; an existing file is never
    /// replaced.
    #[command(after_help = "Example:\n  graft recipes cp llama3.1-8b-qlora my.yaml")]
    Cp {
        /// The recipe's name
        name: String,
        /// The new file
        #[arg(value_parser = path())]
        file: PathBuf,
    },
    /// List the keys of a recipe: what each may be, its default, and what it does.
    #[command(after_help = "Examples:\n  graft recipes keys\n  graft recipes keys adapter --json")]
    Keys {
        /// Only keys that begin so [default: all]
        prefix: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// A recipe and what the command line changes in it.
#[derive(Debug, Clone, Args)]
pub struct RecipeArgs {
    /// A shipped recipe's name, or a recipe file
    pub recipe: String,
    /// Keys to set (`training.seed=8`) or to leave to their defaults (`~data.validation`)
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// `graft validate`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  graft validate my.yaml training.learning_rate=1.0e-4")]
pub struct ValidateArgs {
    /// Which recipe
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Print JSON: the plan, or the problems
    #[arg(long)]
    pub json: bool,
}

/// What a run may take, where that is not what the machine has left.
#[derive(Debug, Clone, Copy, Args)]
pub struct RoomArgs {
    /// Memory of the host that the run may take [default: what is available here]
    #[arg(long, value_name = "SIZE", value_parser = byte_size::parse)]
    pub memory: Option<u64>,
    /// Memory of the GPU that it may take [default: all that the GPU has]
    #[arg(long, value_name = "SIZE", value_parser = byte_size::parse)]
    pub device_memory: Option<u64>,
    /// Disk that it may take [default: what is free here]
    #[arg(long, value_name = "SIZE", value_parser = byte_size::parse)]
    pub disk: Option<u64>,
}

impl RoomArgs {
    /// What there is for a run in this folder on this device.
    ///
    /// # Errors
    /// `--device-memory` where no GPU computes.
    pub fn available(self, output_dir: &Path, device: &Device) -> Result<Available, WrongUse> {
        let Self { memory, device_memory, disk } = self;
        if let (Some(bytes), true) = (device_memory, device.is_cpu()) {
            return Err(WrongUse(format!(
                "--device-memory is {}, but {} computes, which has no memory of its own: leave it \
                 out, limit --memory, or name a GPU with --device",
                page::bytes(bytes),
                device.name()
            )));
        }
        let told = Available { memory, device: device_memory, disk };
        Ok(Available::here(output_dir, device).or_as_told(told))
    }
}

/// `graft plan`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  graft plan my.yaml training.micro_batch_size=4\n  \
                        graft plan my.yaml --memory 16GiB --disk 100GB\n  \
                        graft plan llama3.1-8b-qlora\n\n\
                        Model and rows need not be there yet. Exit codes: 0 it fits; 2 it does not, or wrong input.")]
pub struct PlanArgs {
    /// Which recipe
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Another machine than this one
    #[command(flatten)]
    pub room: RoomArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Examples, and a row of each form to copy.
fn data_help() -> String {
    let rows = Format::ALL.map(|format| format!("  {}:\n  {}\n", format.name(), format.example()));
    format!(
        "Examples:\n  graft data my.yaml --show 5 --html data.html\n  \
         graft data --file chats.jsonl --format messages --model builtin:quickstart\n  \
         zcat *.jsonl.gz | graft data --file - --format text --model builtin:quickstart\n\n\
         A first row of each form:\n{}\n\
         Rows that are equal or nearly equal, that are measured, too, or hold personal data are counted; where rows are \
         shown, personal data is masked. `data.hygiene` in a recipe says what a run does about them: \
         `graft recipes keys data.hygiene`.",
        rows.concat()
    )
}

/// `graft data`.
#[derive(Debug, Args)]
#[command(after_help = data_help())]
pub struct DataArgs {
    /// A shipped recipe's name, or a recipe file: shows what it trains on
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub recipe: Option<String>,
    /// Keys to set in the recipe (`data.max_seq_len=512`)
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Rows instead of a recipe's: a file, a folder or pattern of them, or `-` for standard input
    #[arg(long, requires_all = ["format", "model"], value_parser = path())]
    pub file: Option<PathBuf>,
    /// The form of the file's rows
    #[arg(long, requires = "file", value_parser = format())]
    pub format: Option<Format>,
    /// The folder whose tokenizer and chat template are used, or builtin:quickstart; it needs neither
    /// weights nor config.json
    #[arg(
        long,
        visible_alias = "tokenizer",
        value_name = "DIR",
        requires = "file",
        value_parser = place()
    )]
    pub model: Option<String>,
    /// The system block that opens a chat [default: official]
    #[arg(long, requires = "file", value_parser = named(Preamble::ALL))]
    pub preamble: Option<Preamble>,
    /// System prompt of rows that bring none
    #[arg(long, value_name = "TEXT", requires = "file")]
    pub system: Option<String>,
    /// Tokens a row may have [default: 2048]
    #[arg(long, value_name = "N", requires = "file", value_parser = number::count)]
    pub max_seq_len: Option<NonZeroUsize>,
    /// What happens to longer rows [default: error]
    #[arg(long, requires = "file", value_parser = overlong())]
    pub overlong: Option<Overlong>,
    /// Samples to show [default: 3, and 20 on a page]; a long one is cut in the middle, but not in JSON
    #[arg(long, value_name = "N", value_parser = number::whole::<usize>)]
    pub show: Option<usize>,
    /// Write all that is shown as one page, with rows that are alike side by side; a file that is there is never
    /// replaced
    #[arg(long, value_name = "FILE", conflicts_with = "json", value_parser = path())]
    pub html: Option<PathBuf>,
    /// Look for nothing in the rows but what the recipe's `data.hygiene` asks for, and mask nothing where they are
    /// shown
    #[arg(long)]
    pub as_it_is: bool,
    /// How the rows of --file are read
    #[command(flatten)]
    pub rows: RowArgs,
    /// Print JSON: the statistics, and of each sample ids, labels and text. A label is the id in the
    /// same place where it counts in the loss, and -100 elsewhere, as transformers' `labels`; of a sample that is shown
    /// with masks both are null
    #[arg(long)]
    pub json: bool,
}

/// `graft inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  graft inspect models/Llama-3.1-8B-Instruct\n  \
                        graft inspect runs/quickstart/adapter")]
pub struct InspectArgs {
    /// A model folder, an adapter folder, a run folder, a .safetensors file, or builtin:quickstart
    #[arg(value_parser = place())]
    pub path: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `graft doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "GRAFT_CPU_KERNELS=portable|avx2|avx512|avx512bf16 in the environment makes \
                        every command use lesser kernels than the processor could.\n\n\
                        Examples:\n  graft doctor\n  graft doctor --json"
)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `graft train`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  graft train quickstart\n  \
                        graft train my.yaml training.epochs=1 output_dir=runs/short\n  \
                        graft train my.yaml --resume")]
pub struct TrainArgs {
    /// Which recipe
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// A limit other than this machine's
    #[command(flatten)]
    pub room: RoomArgs,
    /// Go on with the run in the output folder after its last checkpoint; where there is none yet, it begins,
    /// and that is said also under --quiet
    #[arg(long)]
    pub resume: bool,
    /// Print the results as JSON
    #[arg(long)]
    pub json: bool,
}
