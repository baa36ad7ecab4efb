//! Commands that write what they make beside what is there: quantize, merge, synth-model.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::LlamaConfig;
use graft_recipes::MergeOnto;

use super::byte_size;
use super::failure::WrongUse;
use super::model_args::{Quantization, nf4};
use super::named::named;
use super::number;
use super::paths::{path, place};
use crate::synthetic::shapes::{SHAPES, Shape};
use crate::synthetic::{Contents, Format};
use crate::trained_with::TrainedWith;

/// `graft quantize`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  graft quantize --model models/Llama-3.1-8B-Instruct --out models/Llama-3.1-8B-nf4"
)]
pub struct QuantizeArgs {
    /// A model folder, a GGUF file, or builtin:quickstart
    #[arg(long, value_name = "PATH", value_parser = place())]
    pub model: String,
    /// The new folder
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub out: PathBuf,
    /// A folder with the tokenizer and chat template that go along [default: the model's own]
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub tokenizer: Option<PathBuf>,
    /// Quantise the blocks' scales, too
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub double: bool,
}

/// `graft merge`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  graft merge --model models/Llama-3.1-8B-Instruct \\\n    \
                        --adapter runs/llama3.1-8b-qlora/adapter --out models/mine")]
pub struct MergeArgs {
    /// The base model: its folder, a GGUF file, or builtin:quickstart
    #[arg(long, value_name = "PATH", value_parser = place())]
    pub model: String,
    /// The adapter's folder (PEFT)
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub adapter: PathBuf,
    /// The new folder
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub out: PathBuf,
    /// A folder with the tokenizer and chat template that go along [default: the model's own]
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub tokenizer: Option<PathBuf>,
    /// Which weights of the base the adapter is added to.
    #[command(flatten)]
    pub weights: WeightsArgs,
    /// The largest mean divergence of the merged model from base + adapter, in nats a token, that is
    /// accepted [default: 0.02 onto the weights that training saw; onto others a warning beyond 0.05]
    #[arg(long, value_name = "X", value_parser = tolerance)]
    pub tolerance: Option<f32>,
    /// The largest file to write
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = byte_size::parse)]
    pub max_shard_size: u64,
}

/// Which weights of the base an adapter is added to.
#[derive(Debug, Args)]
pub struct WeightsArgs {
    /// The weights merged onto: those the adapter was trained beside, or the folder's own
    #[arg(long, default_value = "dequantised", value_parser = named(MergeOnto::ALL))]
    pub onto: MergeOnto,
    /// How the weights were kept while the adapter was trained [default: as the adapter
    /// says, else as in the folder]
    #[arg(long, value_enum)]
    pub quantization: Option<Quantization>,
}

impl WeightsArgs {
    /// How NF4 keeps scales, where the adapter was trained beside NF4 weights of `model`.
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

    /// Whether one of the flags is given another value than its default.
    pub fn are_asked(&self) -> bool {
        self.quantization.is_some() || self.onto != MergeOnto::Dequantised
    }
}

/// `graft synth-model`.
#[derive(Debug, Args)]
#[command(
    long_about = "Write random weights of a true shape in a true format, for measurements: a \
                  Hugging Face folder that `graft train` and transformers read. Its tokenizer is \
                  the built-in model's, with ids added up to the shape's. The same seed gives the \
                  same weights in every format, up to the format's rounding.",
    after_help = "Examples:\n  graft synth-model --preset llama3.1-8b --format nf4-double --out models/synth-8b\n  \
                  graft synth-model --preset llama3.1-405b --format nf4-double --sparse --out models/synth-405b"
)]
pub struct SynthModelArgs {
    /// The shape: that of a release, or 100m, 12 blocks of width 768 with 32,000 tokens
    #[arg(long, value_name = "NAME", value_parser = named(&SHAPES))]
    pub preset: Shape,
    /// How projections are stored; all else is bf16
    #[arg(long, value_name = "FORMAT", default_value = "nf4-double", value_parser = named(Format::ALL))]
    pub format: Format,
    /// The new folder
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub out: PathBuf,
    /// Blocks, instead of as many as the release has
    #[arg(long, value_name = "N", value_parser = number::blocks)]
    pub layers: Option<u16>,
    /// The root of the draws
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = number::whole::<u64>)]
    pub seed: u64,
    /// Leave the weights as holes in the files: zeros that take no disk and, read, no time of the
    /// disk. For shapes larger than the disk, where memory is what is measured
    #[arg(long)]
    pub sparse: bool,
}

impl SynthModelArgs {
    /// What the weights are made of.
    pub fn contents(&self) -> Contents {
        if self.sparse { Contents::Holes } else { Contents::Random { seed: self.seed } }
    }
}

pub(super) fn tolerance(text: &str) -> Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|x| x.is_finite() && *x >= 0.0);
    number.ok_or_else(|| "expected a number, at least 0".to_owned())
}
