//! What every command understands.

use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use graft_data::visible;

use super::failure::WrongUse;
use super::number;
use crate::device::Choice;
use crate::progress::Voice;

/// Whether output is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Into files and pipes, too.
    Always,
    /// Nowhere.
    Never,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub struct Globals {
    /// CPU threads; results do not depend on them [default: the recipe's, or all cores]
    #[arg(long, global = true, value_name = "N", help_heading = "Everywhere", value_parser = number::count)]
    pub threads: Option<NonZeroUsize>,
    /// What computes: auto (the best GPU that this build can use, else the CPU), cpu, wgpu, wgpu:N,
    /// cuda or cuda:N, the Nth as `graft doctor` lists them; quantize, merge, adapters and export work on the CPU whatever it says
    #[arg(
        long,
        global = true,
        value_name = "DEVICE",
        default_value_t = Choice::Auto,
        help_heading = "Everywhere"
    )]
    pub device: Choice,
    /// Whether output is coloured; auto respects NO_COLOR
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value_t = Colour::Auto,
        help_heading = "Everywhere"
    )]
    pub color: Colour,
    /// Say nothing but results and errors
    #[arg(long, short, global = true, help_heading = "Everywhere")]
    pub quiet: bool,
}

impl Globals {
    /// Whether text on stdout is coloured.
    pub fn colours_stdout(&self) -> bool {
        let refused = |name, value: fn(&std::ffi::OsStr) -> bool| {
            std::env::var_os(name).is_some_and(|found| value(&found))
        };
        match self.color {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => {
                io::stdout().is_terminal()
                    && !refused("NO_COLOR", |value| !value.is_empty())
                    && !refused("TERM", |value| value == "dumb")
            }
        }
    }

    /// Whether work says something beside its result.
    pub fn voice(&self) -> Voice {
        if self.quiet { Voice::Silent } else { Voice::Stderr }
    }

    /// Says something beside the result, unless asked to be quiet.
    pub fn note(&self, text: &str) {
        self.voice().note(&visible(text));
    }

    /// Limits the threads of the process to `--threads`, where given. Threads start once; after
    /// that the count stays.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn use_threads(&self) -> anyhow::Result<()> {
        self.threads.map_or(Ok(()), start_threads)
    }

    /// The threads of a command with a recipe: those of `--threads`, else the recipe's.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn use_threads_of(&self, recipe: &graft_recipes::Recipe) -> anyhow::Result<NonZeroUsize> {
        if let Some(count) = self.threads {
            return Ok(count);
        }
        let count = crate::plan::thread_count(recipe.training.threads);
        start_threads(count)?;
        Ok(count)
    }
}

/// Does `work` on one of the pool's own threads, so that what it shares out is not handed over to the pool
/// and waited for by a sleeping thread each time.
pub fn on_threads<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

fn start_threads(count: NonZeroUsize) -> anyhow::Result<()> {
    // Beyond this the count is a slip, and systems fail in ways of their own.
    const MOST: usize = 1_024;
    if count.get() > MOST {
        let message = format!("--threads is {count}, but at most {MOST} make sense");
        return Err(WrongUse(message).into());
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count.get());
    pool.build_global().with_context(|| format!("cannot start {count} threads"))
}
