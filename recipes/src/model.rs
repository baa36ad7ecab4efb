//! Section `model` and the top-level key `quantization`: which weights, and how they are frozen.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::named::named;
use crate::paths::{PathOrBuiltin, written};
use crate::section::Section;
use crate::tree;

named! {
    /// A release whose shape the folder's config.json is checked against.
    pub enum Preset {
        /// Llama 3.1 8B.
        Llama31_8b = "llama3.1-8b",
        /// Llama 3.1 70B.
        Llama31_70b = "llama3.1-70b",
        /// Llama 3.1 405B.
        Llama31_405b = "llama3.1-405b",
        /// Llama 3.2 1B.
        Llama32_1b = "llama3.2-1b",
        /// Llama 3.2 3B.
        Llama32_3b = "llama3.2-3b",
        /// Llama 3.3 70B.
        Llama33_70b = "llama3.3-70b",
    }
}

named! {
    /// Where the weights come from.
    pub enum Init {
        /// The folder's checkpoint.
        Checkpoint = "checkpoint",
        /// Drawn from `training.seed`; the folder gives config.json and the tokenizer only.
        Random = "random",
    }
}

/// Section `model`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// A Hugging Face folder, or `builtin:quickstart`. Required.
    pub path: PathOrBuiltin,
    /// A folder with the tokenizer, where it is not the model's own. Default: none.
    pub tokenizer: Option<PathBuf>,
    /// The release the folder must be. Default: none, any Llama 3.x shape.
    pub preset: Option<Preset>,
    /// Where the weights come from. Default: the checkpoint.
    pub init: Init,
}

impl Model {
    pub(crate) fn read(mut section: Section<'_>) -> Self {
        let model = Self {
            path: section.path_or_builtin("path", "a model folder or `builtin:quickstart`"),
            tokenizer: section.path("tokenizer"),
            preset: section.named("preset", Preset::ALL),
            init: section.choice("init", Init::Checkpoint, Init::ALL),
        };
        section.close();
        model
    }

    pub(crate) fn to_value(&self) -> Value {
        let Self { path, tokenizer, preset, init } = self;
        json!({
            "path": path.to_value(),
            "tokenizer": tokenizer.as_deref().map(written),
            "preset": preset.map(Preset::name),
            "init": init.name(),
        })
    }
}

/// How the frozen weights are kept. Default: as they are in the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    /// As they are.
    None,
    /// Four-bit NormalFloat in blocks of 64, Dettmers et al. 2023.
    Nf4 {
        /// Whether the scales of the blocks are quantised too, to 8 bits. Default: yes.
        double: bool,
    },
}

impl Quantization {
    pub(crate) fn read(root: &mut Section<'_>) -> Self {
        const FORMATS: &[(&str, bool)] = &[("none", false), ("nf4", true)];
        let Some(node) = root.get("quantization") else { return Self::None };
        if !matches!(node.value, tree::Value::Map(_)) {
            let nf4 = root.chosen("quantization", node, FORMATS).unwrap_or(false);
            return if nf4 { Self::Nf4 { double: true } } else { Self::None };
        }
        let mut section = root.section("quantization");
        if section.get("format").is_none() {
            section.missing("format", "none, nf4");
        }
        let quantization = if section.choice("format", true, FORMATS) {
            Self::Nf4 { double: section.flag("double", true) }
        } else {
            section.meaningless(&["double"], "nothing is quantised with format `none`");
            Self::None
        };
        section.close();
        quantization
    }

    pub(crate) fn to_value(self) -> Value {
        match self {
            Self::None => json!({"format": "none"}),
            Self::Nf4 { double } => json!({"format": "nf4", "double": double}),
        }
    }
}
