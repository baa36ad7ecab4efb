//! Commands that write a model folder: quantize, merge.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use graft_model::LlamaConfig;
use graft_recipes::MergeOnto;

use super::byte_size;
use super::failure::WrongUse;
use super::model_args::{Quantization, nf4};
use super::named::named;
use crate::trained_with::TrainedWith;

/// `graft quantize`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  graft quantize --model models/Llama-3.1-8B-Instruct --out models/Llama-3.1-8B-nf4"
)]
pub struct QuantizeArgs {
    /// A model folder
    #[arg(long, value_name = "DIR")]
    pub model: String,
    /// The new folder
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Quantise the blocks' scales, too
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub double: bool,
}

/// `graft merge`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  graft merge --model models/Llama-3.1-8B-Instruct \\\n    \
                        --adapter runs/llama3.1-8b-qlora/adapter --out models/mine")]
pub struct MergeArgs {
    /// The base model's folder, or builtin:quickstart
    #[arg(long, value_name = "DIR")]
    pub model: String,
    /// The adapter's folder (PEFT)
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// The new folder
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The weights merged onto: those the adapter was trained beside, or the folder's own
    #[arg(long, default_value = "dequantised", value_parser = named(MergeOnto::ALL))]
    pub onto: MergeOnto,
    /// How the weights were kept while the adapter was trained [default: as the adapter
    /// says, else as in the folder]
    #[arg(long, value_enum)]
    pub quantization: Option<Quantization>,
    /// The largest mean divergence of the merged model from base + adapter, in nats a token, that is
    /// accepted [default: 0.02 onto the weights that training saw, no bound onto others]
    #[arg(long, value_name = "X", value_parser = tolerance)]
    pub tolerance: Option<f32>,
    /// The largest file to write
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = byte_size::parse)]
    pub max_shard_size: u64,
}

impl MergeArgs {
    /// `Some(double)` where the adapter was trained beside NF4 weights.
    ///
    /// # Errors
    /// `--quantization none` with a folder that is quantised.
    pub fn nf4(
        &self,
        config: &LlamaConfig,
        trained: &TrainedWith,
    ) -> Result<Option<bool>, WrongUse> {
        nf4(self.quantization, config, trained, &self.model)
    }
}

fn tolerance(text: &str) -> Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|x| x.is_finite() && *x >= 0.0);
    number.ok_or_else(|| "expected a number, at least 0".to_owned())
}
