//! The recipe: what a run is, as people write it.
//!
//! Reading checks every key by itself, and the keys that contradict each other. What needs the
//! disk or the model (do files exist, does a layer number) is for whoever resolves the recipe.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::adapter::AdapterMethod;
use crate::dataset::Data;
use crate::emit;
use crate::model::{Model, Quantization};
use crate::outcome::{Checkpoint, Evaluation, Finish, Logging};
use crate::paths::written;
use crate::problem::Location;
use crate::section::{Section, Sink};
use crate::training::Training;
use crate::tree::{self, Node, join};

/// What a run is. Relative paths are meant from the working directory of the command that reads
/// them, wherever the recipe lies; here they stay as written. Two recipes are equal when every value is, wherever it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// The recipe's name. Default: the file's, without its ending. Never inherited.
    pub name: String,
    /// Which weights.
    pub model: Model,
    /// How the frozen weights are kept.
    pub quantization: Quantization,
    /// What is trained.
    pub adapter: AdapterMethod,
    /// What is trained on.
    pub data: Data,
    /// How long, in what steps, at what rate.
    pub training: Training,
    /// What is measured.
    pub evaluation: Evaluation,
    /// What a killed run goes on from.
    pub checkpoint: Checkpoint,
    /// What is written while training.
    pub logging: Logging,
    /// What happens after the last step.
    pub finish: Finish,
    /// The run folder. Default `runs/` and the name. Never inherited.
    pub output_dir: PathBuf,
    /// Where each key was written.
    written: Written,
}

/// The places of the keys, and the files that they stand in; they say nothing about what a recipe means, so
/// all are equal.
#[derive(Debug, Clone, Default)]
struct Written {
    places: BTreeMap<String, Location>,
    files: Vec<PathBuf>,
}

impl PartialEq for Written {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Recipe {
    /// Reads a whole tree; every problem goes to `sink`, and the recipe counts only without any.
    pub(crate) fn read(node: &Node, default_name: &str, sink: &Sink) -> Self {
        let mut root = Section::new(String::new(), node, sink);
        // Taken out before layers merge; asked for here so that a misspelt one is recognised.
        root.get("extends");
        let name = read_name(&mut root, default_name);
        let recipe = Self {
            output_dir: root
                .path("output_dir")
                .unwrap_or_else(|| PathBuf::from(format!("runs/{name}"))),
            name,
            model: Model::read(root.section("model")),
            quantization: Quantization::read(&mut root),
            adapter: AdapterMethod::read(root.section("adapter")),
            data: Data::read(root.section("data")),
            training: Training::read(root.section("training")),
            evaluation: Evaluation::read(root.section("evaluation")),
            checkpoint: Checkpoint::read(root.section("checkpoint")),
            logging: Logging::read(root.section("logging")),
            finish: Finish::read(root.section("finish")),
            written: Written { places: places(node), files: Vec::new() },
        };
        recipe.check_agreement(&root);
        root.close();
        recipe
    }

    /// Records what is right key by key but means nothing together.
    fn check_agreement(&self, root: &Section<'_>) {
        if !self.adapter.learns_a_model() {
            return;
        }
        let full = "adapter.method = full";
        if self.quantization != Quantization::None {
            let message =
                format!("found nf4 and {full}; allowed: none, as frozen weights cannot be trained");
            let hint = "drop `quantization`, or train adapters with `adapter.method: lora`";
            root.problem(
                "quantization",
                self.locate("quantization").cloned(),
                message,
                Some(hint.to_owned()),
            );
        }
        if self.finish.merge {
            let message =
                format!("found true and {full}; allowed: false, as there is no adapter to merge");
            let hint = "drop `finish.merge`: `full` writes the whole model anyway";
            root.problem(
                "finish.merge",
                self.locate("finish.merge").cloned(),
                message,
                Some(hint.to_owned()),
            );
        }
        if !self.finish.targets.is_empty() {
            let message = format!(
                "found programs and {full}; allowed: none, as there is no adapter to give them"
            );
            let hint = "drop `finish.for`: `full` writes a model's folder, which they take as it is; `graft export` makes a \
                        GGUF file of it";
            root.problem(
                "finish.for",
                self.locate("finish.for").cloned(),
                message,
                Some(hint.to_owned()),
            );
        }
    }

    /// The recipe with every key and its value, as YAML that loads back equal.
    pub fn to_yaml(&self) -> String {
        emit::document(&self.to_value())
    }

    /// The recipe with every key and its value; keys stand in the order of the schema.
    pub fn to_value(&self) -> Value {
        let Self {
            name,
            model,
            quantization,
            adapter,
            data,
            training,
            evaluation,
            checkpoint,
            logging,
            finish,
            output_dir,
            written: _,
        } = self;
        json!({
            "name": name,
            "model": model.to_value(),
            "quantization": quantization.to_value(),
            "adapter": adapter.to_value(),
            "data": data.to_value(),
            "training": training.to_value(),
            "evaluation": evaluation.to_value(),
            "checkpoint": checkpoint.to_value(),
            "logging": logging.to_value(),
            "finish": finish.to_value(),
            "output_dir": written(output_dir),
        })
    }

    /// Where `key` (`adapter.rank`, `data.train.0.path` or `data.train[0].path`) was written;
    /// `None` for what was left to its default.
    pub fn locate(&self, key: &str) -> Option<&Location> {
        let places = &self.written.places;
        places.get(&plain_key(key))
    }

    /// The files that it was read from, those that it extends included; none of the shipped ones.
    pub fn files(&self) -> &[PathBuf] {
        &self.written.files
    }

    pub(crate) fn read_from(mut self, files: Vec<PathBuf>) -> Self {
        self.written.files = files;
        self
    }

    /// Whether the command line writes `key`, a key above it, or one below it.
    pub fn is_on_command_line(&self, key: &str) -> bool {
        let (places, key) = (&self.written.places, plain_key(key));
        let leads_to = |short: &str, long: &str| {
            long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        // A section that an override makes on its way is not what it asks for, so its own words count.
        places.values().any(|place| {
            let Location::CommandLine { argument } = place else { return false };
            let written = plain_key(argument.split('=').next().unwrap_or_default());
            leads_to(&written, &key) || leads_to(&key, &written)
        })
    }
}

/// The name is part of paths, so it is held to what every file system takes.
fn read_name(root: &mut Section<'_>, default: &str) -> String {
    let allowed = "letters, digits, `.`, `-` and `_`, beginning with a letter or digit";
    root.value("name", default.to_owned(), allowed, |node| {
        crate::section::text(node).filter(|name| is_name(name)).map(str::to_owned)
    })
}

/// Whether a run can be called so.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    name.starts_with(char::is_alphanumeric) && name.chars().all(plain)
}

/// `data.train[0].path` as `data.train.0.path`.
pub(crate) fn plain_key(key: &str) -> String {
    key.replace('[', ".").replace(']', "")
}

fn places(node: &Node) -> BTreeMap<String, Location> {
    fn walk(node: &Node, path: &str, places: &mut BTreeMap<String, Location>) {
        match &node.value {
            tree::Value::Map(entries) => {
                for entry in entries {
                    let path = join(path, &entry.key);
                    places.insert(path.clone(), entry.value.location.clone());
                    walk(&entry.value, &path, places);
                }
            }
            tree::Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = join(path, &index.to_string());
                    places.insert(path.clone(), item.location.clone());
                    walk(item, &path, places);
                }
            }
            _ => {}
        }
    }
    let mut places = BTreeMap::new();
    walk(node, "", &mut places);
    places
}
