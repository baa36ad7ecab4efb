//! Commands that run a model: eval, generate, chat.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use graft_data::{ChatTemplate, Format, Losses, ModelTemplate, Overlong};
use graft_kernels::Precision;
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::LlamaConfig;
use graft_recipes::{ComputeDtype, Preamble};

use super::Globals;
use super::failure::WrongUse;
use super::named::{format, named, overlong};
use super::number;
use super::paths::{path, place};
use super::row_args::RowArgs;
use crate::commands::open::Opening;
use crate::device::Device;
use crate::trained_with::TrainedWith;
use graft_engine::generate::Sampling;

/// How frozen weights are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Quantization {
    /// As they are in the folder.
    None,
    /// Four-bit NormalFloat with quantised scales.
    Nf4,
}

/// Which model, and how it computes.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// A model folder, a GGUF file, or builtin:quickstart
    #[arg(long, value_name = "PATH", value_parser = place())]
    pub model: String,
    /// What stands beside it, and how it computes.
    #[command(flatten)]
    pub beside: BesideArgs,
}

/// What stands beside a model, and how it computes.
#[derive(Debug, Clone, Args)]
pub struct BesideArgs {
    /// An adapter folder (PEFT) to put beside the model
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub adapter: Option<PathBuf>,
    /// A folder with the tokenizer and chat template [default: the model's own]
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub tokenizer: Option<PathBuf>,
    /// How frozen weights are kept [default: as the adapter was trained, else as in the folder]
    #[arg(long, value_enum)]
    pub quantization: Option<Quantization>,
    /// The type that operands of products are rounded to [default: auto]
    #[arg(long, value_name = "TYPE", value_parser = named(ComputeDtype::ALL))]
    pub compute_dtype: Option<ComputeDtype>,
    /// The system block that opens a chat [default: as the adapter was trained, else official]
    #[arg(long, value_parser = named(Preamble::ALL))]
    pub preamble: Option<Preamble>,
    /// Let the model's chat template leave out parts of a conversation [default: as the adapter was
    /// trained, else they are refused]
    #[arg(long)]
    pub allow_losses: bool,
}

impl BesideArgs {
    /// The model and its adapter, not yet loaded.
    ///
    /// # Errors
    /// Either is unusable, or they are not of one shape.
    pub fn open(&self, model: &str) -> anyhow::Result<Opening> {
        Opening::new(model, self.adapter.as_deref(), self.tokenizer.as_deref())
    }

    /// How NF4 keeps scales, where frozen projections are kept in it.
    ///
    /// # Errors
    /// `--quantization none` with a folder that is quantised.
    pub fn nf4(
        &self,
        config: &LlamaConfig,
        trained: &TrainedWith,
        model: &str,
    ) -> Result<Option<AbsmaxFormat>, WrongUse> {
        nf4(self.quantization, config, trained, model)
    }

    /// How operands of products are rounded on a device; a type that it lacks is said.
    pub fn precision(&self, device: &Device, globals: &Globals) -> Precision {
        let dtype = self.compute_dtype.unwrap_or(ComputeDtype::Auto);
        if let Some(sentence) = device.lacks(dtype) {
            globals.note(&sentence);
        }
        device.precision(dtype)
    }

    /// How conversations are rendered, by a model with this template of its own.
    pub fn chat(
        &self,
        trained: &TrainedWith,
        template: Option<&Arc<ModelTemplate>>,
    ) -> ChatTemplate {
        let chat = self.preamble.map_or_else(|| trained.chat.clone(), chat_template);
        let losses = if self.allow_losses { Losses::Allow } else { trained.chat.losses };
        ChatTemplate { losses, ..chat.with_own(template) }
    }
}

/// A quantised folder is what it is; another is quantised if asked, with quantised scales, or as the
/// adapter was trained.
pub(crate) fn nf4(
    asked: Option<Quantization>,
    config: &LlamaConfig,
    trained: &TrainedWith,
    model: &str,
) -> Result<Option<AbsmaxFormat>, WrongUse> {
    match (asked, &config.quantization) {
        (Some(Quantization::None), Some(_)) => Err(WrongUse(format!(
            "`{model}` holds NF4 weights, so `--quantization none` cannot be had from it: leave \
             the flag out, or give the release's bf16 folder"
        ))),
        (_, Some(stored)) => Ok(Some(AbsmaxFormat::of(stored.double))),
        (Some(Quantization::Nf4), None) => Ok(Some(AbsmaxFormat::Double)),
        (Some(Quantization::None), None) => Ok(None),
        (None, None) => Ok(trained.nf4),
    }
}

/// The template with this preamble, the official one with its pinned date.
pub fn chat_template(preamble: Preamble) -> ChatTemplate {
    let preamble = match preamble {
        Preamble::Official => graft_data::Preamble::default(),
        Preamble::None => graft_data::Preamble::None,
    };
    ChatTemplate::built_in(preamble)
}

/// How answers are drawn.
#[derive(Debug, Clone, Args)]
pub struct SamplingArgs {
    /// Tokens an answer may have
    #[arg(long, value_name = "N", default_value = "256", value_parser = number::count)]
    pub max_new_tokens: NonZeroUsize,
    /// 0 takes the likeliest token; higher is more varied
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = temperature)]
    pub temperature: f32,
    /// Keep the likeliest tokens that together reach this probability [default: 1]
    #[arg(long, value_name = "X", value_parser = probability)]
    pub top_p: Option<f32>,
    /// Keep the N likeliest tokens; 0 keeps all [default: 0]
    #[arg(long, value_name = "N", value_parser = number::whole::<usize>)]
    pub top_k: Option<usize>,
    /// Keep tokens that are at least X times as likely as the likeliest; 0 keeps all [default: 0]
    #[arg(long, value_name = "X", value_parser = probability)]
    pub min_p: Option<f32>,
    /// Above 1, tokens already seen become less likely
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = penalty)]
    pub repetition_penalty: f32,
    /// The root of the draws [default: 7]
    #[arg(long, value_name = "N", value_parser = number::whole::<u64>)]
    pub seed: Option<u64>,
}

impl SamplingArgs {
    /// As the generator takes it.
    ///
    /// # Errors
    /// A flag says how tokens are drawn where none is.
    pub fn sampling(&self) -> Result<Sampling, WrongUse> {
        let Self { max_new_tokens: _, temperature, top_p, top_k, min_p, repetition_penalty, seed } =
            *self;
        let of_draws = [
            ("--top-p", top_p.is_some()),
            ("--top-k", top_k.is_some()),
            ("--min-p", min_p.is_some()),
            ("--seed", seed.is_some()),
        ];
        match of_draws.iter().find(|(_, is_given)| *is_given) {
            Some((flag, _)) if temperature == 0.0 => Err(WrongUse(format!(
                "{flag} says how tokens are drawn, and at --temperature 0 the likeliest is taken: give a \
                 --temperature above 0, or leave {flag} out"
            ))),
            _ => Ok(Sampling {
                temperature,
                top_k: top_k.unwrap_or(0),
                top_p: top_p.unwrap_or(1.0),
                min_p: min_p.unwrap_or(0.0),
                repetition_penalty,
                seed: seed.unwrap_or(7),
            }),
        }
    }
}

fn temperature(text: &str) -> Result<f32, String> {
    number(text, "a number, at least 0", |x| x >= 0.0)
}

fn probability(text: &str) -> Result<f32, String> {
    number(text, "a number from 0 to 1", |x| (0.0..=1.0).contains(&x))
}

fn penalty(text: &str) -> Result<f32, String> {
    number(text, "a number above 0", |x| x > 0.0)
}

fn number(text: &str, allowed: &str, is_allowed: fn(f32) -> bool) -> Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|x| x.is_finite() && is_allowed(*x));
    number.ok_or_else(|| format!("expected {allowed}"))
}

/// `graft eval`.
#[derive(Debug, Args)]
#[command(
    long_about = "Score a model on rows: loss, perplexity, exact answers.\n\n\
                  With --recipe rows are scored as that recipe's run scores them: its model, its \
                  data.validation, evaluation.held_out and evaluation.general, its chat format, \
                  lengths and compute type. A run's adapter then has the run's own validation loss.",
    after_help = "Examples:\n  graft eval --model builtin:quickstart \
                  --adapter runs/quickstart/adapter \\\n    \
                  --data builtin:quickstart/held-out --format messages --exact-match\n  \
                  graft eval --recipe my.yaml --adapter runs/my/adapter"
)]
pub struct EvalArgs {
    /// Score as this recipe's run does: a shipped recipe's name, or a file
    #[arg(long, value_name = "RECIPE", value_parser = place())]
    pub recipe: Option<String>,
    /// Keys to set in the recipe (`data.max_seq_len=512`)
    #[arg(value_name = "KEY=VALUE", requires = "recipe")]
    pub overrides: Vec<String>,
    /// A model folder, or builtin:quickstart [default with --recipe: its model]
    #[arg(long, value_name = "DIR", required_unless_present = "recipe", value_parser = place())]
    pub model: Option<String>,
    /// What stands beside it, and how it computes
    #[command(flatten)]
    pub beside: BesideArgs,
    /// Rows: a file, a folder or pattern of them, `-` for standard input, or builtin:quickstart/held-out
    /// [default with --recipe: what it measures]
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "recipe",
        requires = "format",
        value_parser = place()
    )]
    pub data: Option<String>,
    /// The form of its rows
    #[arg(long, requires = "data", value_parser = format())]
    pub format: Option<Format>,
    /// Tokens a row may have [default: the recipe's, else the model's longest sequence]
    #[arg(long, value_name = "N", value_parser = number::count)]
    pub max_seq_len: Option<NonZeroUsize>,
    /// What happens to longer rows [default: the recipe's, else error]
    #[arg(long, value_parser = overlong())]
    pub overlong: Option<Overlong>,
    /// System prompt of rows that bring none; "" for none at all [default: the recipe's, else the one
    /// that the adapter was trained with]
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Score every token of a row, not the answers alone
    #[arg(long)]
    pub train_on_inputs: bool,
    /// Write each row's score to this file, one JSON object a line, with the row's file and line; it must not
    /// exist
    #[arg(long, value_name = "OUT.jsonl", value_parser = path())]
    pub per_example: Option<PathBuf>,
    /// Also answer each row's question, and count the answers that match exactly
    #[arg(long)]
    pub exact_match: bool,
    /// Tokens an answer may have [default: the recipe's, else 64]
    #[arg(long, value_name = "N", value_parser = number::count)]
    pub max_new_tokens: Option<NonZeroUsize>,
    /// How the rows of --data are read
    #[command(flatten)]
    pub rows: RowArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `graft generate`.
#[derive(Debug, Args)]
#[command(
    after_help = "On a terminal, characters of the answer that would steer it are spelled out; into files and \
                        pipes the text goes exactly as the model wrote it, and --json escapes it.\n\n\
                        Example:\n  graft generate --model builtin:quickstart \
                        --adapter runs/quickstart/adapter \\\n    \
                        --prompt \"What does a residence certificate cost?\""
)]
pub struct GenerateArgs {
    /// Which model
    #[command(flatten)]
    pub model: ModelArgs,
    /// What the user says, or with --raw the text to go on from
    #[arg(long, value_name = "TEXT")]
    pub prompt: String,
    /// The system prompt; "" for none [default: the one that the adapter was trained with]
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Go on from the prompt as plain text, without the chat template
    #[arg(long, conflicts_with_all = ["system", "preamble", "allow_losses"])]
    pub raw: bool,
    /// How the answer is drawn
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `graft chat`.
#[derive(Debug, Args)]
#[command(
    after_help = "On a terminal lines are edited and remembered until the end, /help lists the commands, Ctrl-C \
                        ends an answer and Ctrl-D the conversation. Characters of an answer that would steer the \
                        terminal are spelled out; into files and pipes it goes exactly as the model wrote it.\n\n\
                        Example:\n  graft chat --model builtin:quickstart \
                        --adapter runs/quickstart/adapter"
)]
pub struct ChatArgs {
    /// Which model
    #[command(flatten)]
    pub model: ModelArgs,
    /// The system prompt; "" for none [default: the one that the adapter was trained with]
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// How answers are drawn
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Print each answer as JSON, one object a line
    #[arg(long)]
    pub json: bool,
}
