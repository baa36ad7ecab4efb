//! What `graft export` is told.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use graft_kernels::nf4::AbsmaxFormat;
use graft_recipes::{MergeOnto, Target};

use super::failure::WrongUse;
use super::folder_args::{WeightsArgs, tolerance};
use super::named::named;
use super::number;
use super::paths::{path, place};
use crate::merge_bound::MergeBound;

/// Files of other programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// llama.cpp's, which Ollama and others read, too.
    Gguf,
}

/// How the numbers of a file are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "llama.cpp's names")]
pub enum ExportType {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4KM,
}

impl ExportFormat {
    const ALL: &[(&str, Self)] = &[("gguf", Self::Gguf)];
}

impl ExportType {
    const ALL: &[(&str, Self)] = &[
        ("f32", Self::F32),
        ("f16", Self::F16),
        ("bf16", Self::Bf16),
        ("q8_0", Self::Q8_0),
        ("q4_k_m", Self::Q4KM),
    ];

    /// As it is asked for.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, found)| *found == self);
        found.expect("all are in the list").0
    }
}

/// `graft export`.
#[derive(Debug, Args)]
#[command(
    long_about = "Write a model as a GGUF file, for llama.cpp and what is built on it, merged with its adapter on the \
                  way; or the adapter by itself, for `--lora`. With --for, what a program takes is written: what it does not \
                  take of the adapter is folded into what it does, with how near that is, or refused.\n\n  \
                  peft           PEFT's files, as they are\n  \
                  peft-portable  PEFT's files with one rank, alpha equal to it, and no scale but 1\n  \
                  vllm           PEFT's files without DoRA and patterns, up to the ranks that vLLM takes\n  \
                  llama.cpp      the adapter as a GGUF file, without DoRA\n  \
                  ollama         a folder with the merged model as a GGUF file, and its Modelfile\n  \
                  mistral.rs     PEFT's files without DoRA\n  \
                  tensorrt-llm   PEFT's files without DoRA and patterns of alpha, with all of q, k and v or none",
    after_help = "Examples:\n  graft export --model models/Llama-3.1-8B-Instruct \\\n    \
                  --adapter runs/llama3.1-8b-qlora/adapter --type q4_k_m --out mine.gguf\n  \
                  graft export --model models/Llama-3.1-8B-Instruct \\\n    \
                  --adapter runs/llama3.1-8b-qlora/adapter --adapter-only --out mine-lora.gguf\n  \
                  graft export --for vllm --model models/Llama-3.1-8B-Instruct \\\n    \
                  --adapter runs/llama3.1-8b-qlora/adapter --out mine-vllm"
)]
pub struct ExportArgs {
    /// The base model: its folder, a GGUF file, or builtin:quickstart
    #[arg(long, value_name = "PATH", value_parser = place())]
    pub model: String,
    /// The adapter's folder (PEFT)
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub adapter: Option<PathBuf>,
    /// The new file; with --for a folder, but for llama.cpp
    #[arg(long, value_name = "PATH", value_parser = path())]
    pub out: PathBuf,
    /// The program that it is for
    #[arg(long = "for", value_name = "PROGRAM", value_parser = named(Target::ALL))]
    pub target: Option<Target>,
    /// The rank that the adapter is folded into, of --for: where the program does not take it as it is, or always [default:
    /// its largest one]
    #[arg(long, value_name = "N", value_parser = number::count)]
    pub rank: Option<NonZeroUsize>,
    /// What is written
    #[arg(long, default_value = "gguf", value_parser = named(ExportFormat::ALL))]
    pub format: ExportFormat,
    /// How numbers are kept [default: f16, of an adapter by itself f32]
    #[arg(long, value_parser = named(ExportType::ALL))]
    pub r#type: Option<ExportType>,
    /// Write the adapter by itself, to be loaded beside the base
    #[arg(long)]
    pub adapter_only: bool,
    /// A folder with the tokenizer and chat template that go along [default: the model's own]
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub tokenizer: Option<PathBuf>,
    /// Which weights of the base the adapter is added to.
    #[command(flatten)]
    pub weights: WeightsArgs,
    /// The largest mean divergence of the file from base + adapter, in nats a token, that is accepted
    /// [default: 0.02 of plain numbers, 0.1 of q8_0, 1 of q4_k_m, any of a folded adapter, as it is told]
    #[arg(long, value_name = "X", value_parser = tolerance)]
    pub tolerance: Option<f32>,
}

impl ExportArgs {
    /// Refuses what could change nothing.
    ///
    /// # Errors
    /// It is asked for.
    pub fn check(&self) -> Result<(), WrongUse> {
        let said = |flag: &str, why: &str| Err(WrongUse(format!("{flag}: {why}")));
        if let Some(target) = self.target {
            return self.check_for(target);
        }
        if self.rank.is_some() {
            let why =
                "it is the rank that an adapter is folded into for a program: name that with --for";
            return said("--rank", why);
        }
        if self.adapter.is_none() {
            if self.adapter_only {
                return said("--adapter-only", "there is no adapter: give one with --adapter DIR");
            }
            if self.weights.are_asked() {
                let why = "they say how an adapter is merged, and there is none: leave them out";
                return said("--quantization, --onto", why);
            }
        }
        let is_model =
            self.tolerance.is_some() || self.weights.are_asked() || self.tokenizer.is_some();
        if self.adapter_only && is_model {
            let why = "the adapter by itself is neither merged nor compared, and has no tokenizer: leave them out";
            return said("--tolerance, --onto, --quantization, --tokenizer", why);
        }
        Ok(())
    }

    fn check_for(&self, target: Target) -> Result<(), WrongUse> {
        let name = target.name();
        let said = |flag: &str, why: &str| Err(WrongUse(format!("{flag}: {why}")));
        let is_merged = target == Target::Ollama;
        if self.adapter_only {
            return said(
                "--adapter-only",
                &format!("--for {name} says what is written: leave it out"),
            );
        }
        if self.adapter.is_none() && self.weights.are_asked() {
            let why = "they say how an adapter is merged, and there is none: leave them out";
            return said("--quantization, --onto", why);
        }
        if self.r#type.is_some() && !is_merged && target != Target::LlamaCpp {
            let why = format!("of {name} numbers are kept as the adapter has them: leave it out");
            return said("--type", &why);
        }
        let is_onto = self.weights.onto != MergeOnto::Dequantised;
        if !is_merged && (is_onto || self.tokenizer.is_some()) {
            let why = format!(
                "of {name} the adapter is neither merged nor has it a tokenizer: leave them out"
            );
            return said("--onto, --tokenizer", &why);
        }
        Ok(())
    }

    /// The mean divergence beyond which the file is refused.
    pub fn allowed(&self, asked: ExportType, nf4: Option<AbsmaxFormat>) -> f64 {
        let merged = MergeBound::of(self.weights.onto, nf4).refused();
        let usual = match asked {
            ExportType::F32 | ExportType::F16 | ExportType::Bf16 => merged,
            ExportType::Q8_0 => merged.max(0.1),
            ExportType::Q4KM => merged.max(1.0),
        };
        self.tolerance.map_or(usual, f64::from)
    }
}
