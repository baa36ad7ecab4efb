//! Sections `evaluation`, `checkpoint`, `logging` and `finish`: what a run shows and leaves behind.

use std::num::NonZeroUsize;

use serde_json::{Value, json};

use crate::named::named;
use crate::section::Section;
use crate::source::{Source, sources_to_value};

/// Section `evaluation`.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Steps between two measurements of the validation loss; `None` (the default) measures it
    /// before and after training only.
    pub every_steps: Option<NonZeroUsize>,
    /// Questions with answers, scored by exact match before and after. Default none.
    pub held_out: Vec<Source>,
    /// Text whose perplexity before and after shows what the tuned model has forgotten.
    /// Default none.
    pub general: Vec<Source>,
    /// Tokens an answer may have. Default 64.
    pub max_new_tokens: NonZeroUsize,
    /// Answers shown side by side in the report. Default 8.
    pub samples: u64,
}

/// Section `checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Steps between two checkpoints; `None` (`none` in YAML) keeps the last only. Default 100.
    pub every_steps: Option<NonZeroUsize>,
    /// Checkpoints kept; older ones are removed. Default 3.
    pub keep: NonZeroUsize,
}

/// Section `logging`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// Steps between two lines of metrics.jsonl. Default 1.
    pub log_every: NonZeroUsize,
    /// Whether TensorBoard event files are written. Default yes.
    pub tensorboard: bool,
}

named! {
    /// Which weights an adapter is merged onto.
    pub enum MergeOnto {
        /// The weights that it was trained beside, as quantisation left them: the merged model answers as
        /// the tuned one did.
        Dequantised = "dequantised",
        /// The weights of the checkpoint, which the adapter has not seen.
        Original = "original",
    }
}

named! {
    /// A program that is given what a run has learnt.
    pub enum Target {
        /// PEFT, and what reads its files whole.
        Peft = "peft",
        /// What reads the rank, alpha and modules of PEFT's files, and nothing else.
        PeftPortable = "peft-portable",
        /// vLLM.
        Vllm = "vllm",
        /// llama.cpp, an adapter beside a GGUF file.
        LlamaCpp = "llama.cpp",
        /// Ollama, a merged GGUF file with its Modelfile.
        Ollama = "ollama",
        /// mistral.rs.
        MistralRs = "mistral.rs",
        /// TensorRT-LLM.
        TensorRtLlm = "tensorrt-llm",
    }
}

/// Section `finish`: what happens after the last step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// Whether the merged model is written, too. Default no.
    pub merge: bool,
    /// Which weights it is merged onto. Default: those it was trained beside.
    pub onto: MergeOnto,
    /// Programs whose files are written, too, each into a place of its name. Default none.
    pub targets: Vec<Target>,
    /// Questions that the base and the tuned model answer in the report. Default none.
    pub prompts: Vec<String>,
}

impl Evaluation {
    pub(crate) const MAX_NEW_TOKENS: usize = 64;
    pub(crate) const SAMPLES: u64 = 8;

    pub(crate) fn read(mut section: Section<'_>) -> Self {
        let evaluation = Self {
            every_steps: section.count_or_none("every_steps", None),
            held_out: section.list("held_out", Source::asked),
            general: section.list("general", Source::measured),
            max_new_tokens: section.count("max_new_tokens", Self::MAX_NEW_TOKENS),
            samples: section.tally("samples", Self::SAMPLES),
        };
        section.close();
        evaluation
    }

    pub(crate) fn to_value(&self) -> Value {
        let Self { every_steps, held_out, general, max_new_tokens, samples } = self;
        json!({
            "every_steps": count_or_none(*every_steps),
            "held_out": sources_to_value(held_out),
            "general": sources_to_value(general),
            "max_new_tokens": max_new_tokens,
            "samples": samples,
        })
    }
}

impl Checkpoint {
    pub(crate) const KEEP: usize = 3;

    pub(crate) fn read(mut section: Section<'_>) -> Self {
        let checkpoint = Self {
            every_steps: section.count_or_none("every_steps", Some(100)),
            keep: section.count("keep", Self::KEEP),
        };
        section.close();
        checkpoint
    }

    pub(crate) fn to_value(&self) -> Value {
        let Self { every_steps, keep } = self;
        json!({"every_steps": count_or_none(*every_steps), "keep": keep})
    }
}

impl Logging {
    pub(crate) fn read(mut section: Section<'_>) -> Self {
        let logging = Self {
            log_every: section.count("log_every", 1),
            tensorboard: section.flag("tensorboard", true),
        };
        section.close();
        logging
    }

    pub(crate) fn to_value(&self) -> Value {
        let Self { log_every, tensorboard } = self;
        json!({"log_every": log_every, "tensorboard": tensorboard})
    }
}

impl Finish {
    pub(crate) fn read(mut section: Section<'_>) -> Self {
        let finish = Self {
            merge: section.flag("merge", false),
            onto: section.choice("onto", MergeOnto::Dequantised, MergeOnto::ALL),
            targets: section.choices("for", Target::ALL),
            prompts: section.texts("prompts"),
        };
        section.close();
        finish
    }

    pub(crate) fn to_value(&self) -> Value {
        let Self { merge, onto, targets, prompts } = self;
        let targets: Vec<&str> = targets.iter().map(|target| target.name()).collect();
        json!({"merge": merge, "onto": onto.name(), "for": targets, "prompts": prompts})
    }
}

fn count_or_none(count: Option<NonZeroUsize>) -> Value {
    count.map_or_else(|| json!("none"), |count| json!(count))
}
