//! Section `data`: what is trained on, and how it becomes tokens.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::hygiene::Hygiene;
use crate::named::named;
use crate::paths::written;
use crate::section::{Section, list, text};
use crate::source::{Source, check_mixture, sources_to_value};
use crate::train_on::TrainOn;
use crate::tree;

named! {
    /// What happens to a row longer than `max_seq_len`.
    pub enum Overlong {
        /// The run is refused, with the lengths found.
        Error = "error",
        /// The row is left out.
        Drop = "drop",
        /// The row loses its beginning.
        TruncateLeft = "truncate_left",
        /// The row loses its end.
        TruncateRight = "truncate_right",
        /// The row becomes several.
        Split = "split",
    }
}

named! {
    /// The system block that opens a chat.
    pub enum Preamble {
        /// The one of the Llama 3.1 template: knowledge cut-off and today's date.
        Official = "official",
        /// None, unless a row brings a system turn.
        None = "none",
    }
}

named! {
    /// Whether a chat template may leave out parts of a conversation.
    pub enum Losses {
        /// The row is refused, with what the template leaves out.
        Error = "error",
        /// What the template leaves out is not learnt.
        Allow = "allow",
    }
}

/// What the loss is measured on while training.
#[derive(Debug, Clone, PartialEq)]
pub enum Validation {
    /// Nothing. The default.
    None,
    /// This share of the training rows, kept out of training. Above 0, below 1.
    Fraction(f64),
    /// Rows of their own.
    Sources(Vec<Source>),
}

/// Where samples are kept that rows have become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cache {
    /// In the user's folder for caches where files are large, and in memory otherwise. The default.
    Auto,
    /// In memory.
    Off,
    /// In this folder.
    Folder(PathBuf),
}

impl Cache {
    fn read(data: &mut Section<'_>) -> Self {
        const KEY: &str = "cache";
        match data.get(KEY).and_then(text) {
            Some("auto") => Self::Auto,
            Some("off") => Self::Off,
            _ => data.path(KEY).map_or(Self::Auto, Self::Folder),
        }
    }

    fn to_value(&self) -> Value {
        match self {
            Self::Auto => json!("auto"),
            Self::Off => json!("off"),
            Self::Folder(folder) => written(folder),
        }
    }
}

/// Section `data.chat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chat {
    /// The system block. Default official.
    pub preamble: Preamble,
    /// Today's date as the official preamble gives it. Default `26 Jul 2024`, the template's own:
    /// a date that moved would make two runs differ.
    pub date: String,
    /// What happens where the model's template leaves out parts of a conversation. Default: the run is
    /// refused.
    pub losses: Losses,
}

/// Section `data`.
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own, as people write it")]
#[derive(Debug, Clone, PartialEq)]
pub struct Data {
    /// The sources that are trained on. Required, at least one.
    pub train: Vec<Source>,
    /// What the loss is measured on. Default: nothing.
    pub validation: Validation,
    /// How chats are rendered.
    pub chat: Chat,
    /// Added to chats whose rows bring no system prompt, as a turn or as a field. Default none.
    pub system_prompt: Option<String>,
    /// Which turns of chats are targets.
    pub train_on: TrainOn,
    /// Tokens a row, and a packed row, may have. Default 2048.
    pub max_seq_len: NonZeroUsize,
    /// Whether short rows share one sequence, unseen by each other. Default yes.
    pub packing: bool,
    /// What happens to longer rows. Default: the run is refused.
    pub overlong: Overlong,
    /// Whether prompts are targets too. Default no.
    pub train_on_inputs: bool,
    /// Whether rows are shuffled anew each epoch, from the seed. Default yes.
    pub shuffle: bool,
    /// Whether rows without a target are left out, rather than refused. Default no.
    pub allow_empty_targets: bool,
    /// Where the samples are kept. Default auto.
    pub cache: Cache,
    /// Which rows a run goes without.
    pub hygiene: Hygiene,
}

impl Validation {
    /// The rows of their own; none where it is something else.
    pub fn sources(&self) -> &[Source] {
        match self {
            Self::Sources(sources) => sources,
            Self::None | Self::Fraction(_) => &[],
        }
    }

    fn read(data: &mut Section<'_>) -> Self {
        const KEY: &str = "validation";
        const ALLOWED: &str = "a number above 0 and below 1";
        let Some(node) = data.get(KEY) else { return Self::None };
        if list(node).is_some() {
            return Self::Sources(data.list(KEY, Source::measured));
        }
        if text(node) == Some("none") {
            return Self::None;
        }
        if !matches!(node.value, tree::Value::Map(_)) {
            data.refuse(KEY, node, "{fraction: 0.05}, a list of sources like `train`, or none");
            return Self::None;
        }
        let mut section = data.section(KEY);
        if section.get("fraction").is_none() {
            section.missing("fraction", ALLOWED);
        }
        let fraction = section.number("fraction", 0.05, ALLOWED, |x| x > 0.0 && x < 1.0);
        section.close();
        Self::Fraction(fraction)
    }

    fn to_value(&self) -> Value {
        match self {
            Self::None => json!("none"),
            Self::Fraction(fraction) => json!({"fraction": fraction}),
            Self::Sources(sources) => sources_to_value(sources),
        }
    }
}

impl Chat {
    pub(crate) const DATE: &'static str = "26 Jul 2024";

    fn read(mut section: Section<'_>) -> Self {
        let chat = Self {
            preamble: section.choice("preamble", Preamble::Official, Preamble::ALL),
            date: section.text("date").unwrap_or_else(|| Self::DATE.to_owned()),
            losses: section.choice("losses", Losses::Error, Losses::ALL),
        };
        section.close();
        chat
    }
}

impl Data {
    pub(crate) fn read(mut section: Section<'_>) -> Self {
        if section.get("train").is_none() {
            section.missing("train", "a list of {path, format}");
        }
        let data = Self {
            train: section.list("train", Source::trained),
            validation: Validation::read(&mut section),
            chat: Chat::read(section.section("chat")),
            system_prompt: section.text("system_prompt"),
            train_on: TrainOn::read(section.section("train_on")),
            max_seq_len: section.count("max_seq_len", 2_048),
            packing: section.flag("packing", true),
            overlong: section.choice("overlong", Overlong::Error, Overlong::ALL),
            train_on_inputs: section.flag("train_on_inputs", false),
            shuffle: section.flag("shuffle", true),
            allow_empty_targets: section.flag("allow_empty_targets", false),
            cache: Cache::read(&mut section),
            hygiene: Hygiene::read(section.section("hygiene")),
        };
        if let Some(node) =
            section.get("train").filter(|node| list(node).is_some_and(<[_]>::is_empty))
        {
            section.refuse("train", node, "a list of at least one {path, format}");
        }
        check_mixture(&section, &data.train);
        section.close();
        data
    }

    pub(crate) fn to_value(&self) -> Value {
        let Self {
            train,
            validation,
            chat: Chat { preamble, date, losses },
            system_prompt,
            train_on,
            max_seq_len,
            packing,
            overlong,
            train_on_inputs,
            shuffle,
            allow_empty_targets,
            cache,
            hygiene,
        } = self;
        let mut value = json!({
            "train": sources_to_value(train),
            "validation": validation.to_value(),
            "chat": {"preamble": preamble.name(), "date": date, "losses": losses.name()},
            "system_prompt": system_prompt,
            "train_on": train_on.to_value(),
            "max_seq_len": max_seq_len,
            "packing": packing,
            "overlong": overlong.name(),
            "train_on_inputs": train_on_inputs,
            "shuffle": shuffle,
            "allow_empty_targets": allow_empty_targets,
            "cache": cache.to_value(),
        });
        if let Some(hygiene) = hygiene.to_value() {
            value["hygiene"] = hygiene;
        }
        value
    }
}
