//! What can go wrong between adapters, model folders and their files.

use std::fmt::Write as _;
use std::path::PathBuf;

/// The errors of this crate: each names the file, the place in it, both values and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A model's files cannot be read or written.
    #[error(transparent)]
    Model(#[from] graft_model::Error),
    /// Writing failed; the text names the file.
    #[error(transparent)]
    Write(#[from] std::io::Error),
    /// A file that an adapter consists of is not there.
    #[error("there is no adapter at `{}`: `{missing}` is missing. {hint}", path.display())]
    AdapterMissing {
        /// Where the adapter was looked for.
        path: PathBuf,
        /// The file.
        missing: &'static str,
        /// What an adapter is, or what to do with what was found in its place.
        hint: &'static str,
    },
    /// An adapter_config.json that is none.
    #[error("`{file}` is not valid JSON: {source}")]
    AdapterJson {
        /// The file.
        file: String,
        /// Line, column and reason.
        source: serde_json::Error,
    },
    /// An adapter that computes something that Graft does not.
    #[error(
        "`{file}` does not describe an adapter that Graft can run:{}\n\
         Merge it into its base with PEFT (`merge_and_unload`) and use the merged model, or train \
         it as plain LoRA",
        lines(problems)
    )]
    AdapterConfig {
        /// The file.
        file: String,
        /// Every key that stands in the way, with the value that would do.
        problems: Vec<String>,
    },
    /// The tensors are not those of the adapter that its configuration describes.
    #[error("the tensors of `{file}` are not those of its adapter_config.json:{}", lines(problems))]
    AdapterTensors {
        /// The file.
        file: String,
        /// Every difference.
        problems: Vec<String>,
    },
    /// The adapter was made for another model.
    #[error("the adapter `{file}` was made for another model than this one:{}", lines(problems))]
    AdapterMisfit {
        /// The adapter's weights.
        file: String,
        /// Every difference, with both shapes.
        problems: Vec<String>,
    },
    /// The adapter lacks updates that it says it has.
    #[error(
        "`{file}` holds {found} updates, but its adapter_config.json chooses {} more of this model's \
         projections:{}\n\
         Half an adapter is another model: copy or save it whole again, or choose only what is there \
         (target_modules, layers_to_transform)",
        missing.len(),
        lines(missing)
    )]
    AdapterPartial {
        /// The adapter's weights.
        file: String,
        /// Updates that are there.
        found: usize,
        /// The projections without one.
        missing: Vec<String>,
    },
    /// The adapter to go on from is not of the kind that is asked for.
    #[error(
        "the adapter `{file}` cannot go on as it is asked for:{}\n\
         Ask for the adapter's own values, or start afresh",
        lines(problems)
    )]
    AdapterDiffers {
        /// The adapter's weights.
        file: String,
        /// Every difference, with both values.
        problems: Vec<String>,
    },
    /// The weights before quantisation were asked for, and the base holds them quantised.
    #[error(
        "tensor `{tensor}` of `{base}` is stored in NF4, so its original values are not there: \
         merge onto the dequantised weights, or name the unquantised release as base"
    )]
    NoOriginal {
        /// The base.
        base: String,
        /// The first such tensor.
        tensor: String,
    },
    /// The base to quantise is quantised.
    #[error("tensor `{tensor}` of `{base}` is stored in NF4 already: name the unquantised release")]
    AlreadyNf4 {
        /// The base.
        base: String,
        /// The first such tensor.
        tensor: String,
    },
    /// A weight whose size bitsandbytes cannot cut into blocks.
    #[error(
        "tensor `{tensor}` is {shape:?}: its {} values are no multiple of {block}, so it has no \
         NF4 form on disk; keep this model dense", shape[0] * shape[1]
    )]
    PartBlock {
        /// The tensor.
        tensor: String,
        /// `[out, in]`.
        shape: [usize; 2],
        /// Values in a block.
        block: usize,
    },
    /// A number that the type of a GGUF file cannot hold.
    #[error(
        "tensor `{tensor}`: value {index} is {value}, which {kind} cannot hold; the base or the adapter is broken, or \
         its numbers are too large for the type: BF16 and F32 hold larger ones"
    )]
    NotHeld {
        /// The tensor.
        tensor: String,
        /// Place in the flattened tensor.
        index: usize,
        /// The value there.
        value: f32,
        /// The type that it was to be written in.
        kind: graft_gguf::TensorType,
    },
    /// An adapter that a GGUF file of its own cannot say.
    #[error(
        "`{file}` cannot be written as a GGUF adapter: {reason}. Export base and adapter as one model, without \
         --adapter-only"
    )]
    NoGgufAdapter {
        /// The adapter's weights.
        file: String,
        /// What stands in the way.
        reason: String,
    },
    /// Adapters that cannot be made one.
    #[error("these adapters cannot be combined by `{method}`:{}", lines(problems))]
    NotCombined {
        /// How they were to be.
        method: &'static str,
        /// Everything that stands in the way, with the way out.
        problems: Vec<String>,
    },
    /// An adapter that plain updates of one rank cannot say.
    #[error("`{file}` has no plain form of one rank: {reason}")]
    NoPlain {
        /// The adapter's weights.
        file: String,
        /// What stands in the way, with the way out.
        reason: String,
    },
    /// A sum that its type cannot hold.
    #[error(
        "tensor `{tensor}`: value {index} is {value} as {dtype}; the base or the adapter is broken, or \
         what was learnt is too large for the type: a lower learning rate keeps it smaller"
    )]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Place in the flattened tensor.
        index: usize,
        /// The value there.
        value: f32,
        /// The type that it was to be written in.
        dtype: safetensors::Dtype,
    },
}

/// One indented line an item; a list that no one would read to its end is cut.
fn lines(items: &[String]) -> String {
    const SHOWN: usize = 40;
    let mut text = String::new();
    for item in items.iter().take(SHOWN) {
        let _ = write!(text, "\n  {item}");
    }
    if items.len() > SHOWN {
        let _ = write!(text, "\n  … and {} more", items.len() - SHOWN);
    }
    text
}
