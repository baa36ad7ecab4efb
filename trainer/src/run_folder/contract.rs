//! What a run that goes on may differ in: one table over the recipe's keys, and three rules beside it for
//! files, device and kernels.
//!
//! The promise is the same bytes as of a run left alone. Whatever no byte depends on may change freely.
//! What decides the rest of a run, and is changed for good reasons on the way, may change when the command
//! line asks for it by name, and is recorded. Everything else stays as it began, or it is another run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use graft_recipes::Recipe;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hashes::FileHash;
use super::manifest::Inputs;
use crate::wrong_use::some_of;

/// Whether a key may have another value when a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// It may: the result does not depend on it.
    Free,
    /// It may where the command line says so; the manifest records it.
    Asked,
    /// It may not.
    Fixed,
}

/// The rule of each key and of those below it; the longest entry counts. A key without an entry is fixed.
/// Paths are free because what lies there is compared by its hash.
const CONTRACT: &[(&str, Rule)] = &[
    ("name", Rule::Free),
    ("model.path", Rule::Free),
    ("model.tokenizer", Rule::Free),
    ("model.preset", Rule::Free),
    ("model.init", Rule::Fixed),
    ("quantization", Rule::Fixed),
    ("adapter", Rule::Fixed),
    ("adapter.init_from", Rule::Free),
    ("data.train", Rule::Fixed),
    ("data.train[].path", Rule::Free),
    // Rows that are only measured; a fraction takes them out of training.
    ("data.validation", Rule::Free),
    ("data.validation.fraction", Rule::Fixed),
    ("data.chat", Rule::Fixed),
    ("data.system_prompt", Rule::Fixed),
    ("data.train_on", Rule::Fixed),
    ("data.max_seq_len", Rule::Fixed),
    ("data.packing", Rule::Fixed),
    ("data.overlong", Rule::Fixed),
    ("data.train_on_inputs", Rule::Fixed),
    ("data.shuffle", Rule::Fixed),
    ("data.allow_empty_targets", Rule::Fixed),
    ("data.cache", Rule::Free),
    ("data.hygiene", Rule::Fixed),
    ("training.epochs", Rule::Asked),
    ("training.max_steps", Rule::Asked),
    ("training.micro_batch_size", Rule::Fixed),
    ("training.gradient_accumulation_steps", Rule::Fixed),
    ("training.micro_batches_per_visit", Rule::Free),
    ("training.learning_rate", Rule::Asked),
    ("training.schedule", Rule::Asked),
    ("training.optimizer", Rule::Fixed),
    ("training.max_grad_norm", Rule::Asked),
    ("training.checkpointing", Rule::Free),
    ("training.activation_offload", Rule::Free),
    // What it comes to is compared, as `compute_dtype`.
    ("training.compute_dtype", Rule::Free),
    ("training.seed", Rule::Fixed),
    ("training.threads", Rule::Free),
    ("evaluation", Rule::Free),
    ("checkpoint", Rule::Free),
    ("logging", Rule::Free),
    ("finish", Rule::Free),
    ("output_dir", Rule::Free),
];

/// Keys whose value is a form with settings of its own: forms are compared before their settings.
const FORMS: [&str; 2] = ["training.schedule", "training.optimizer"];

/// Keys of which one stands for the other.
const LENGTHS: [&str; 2] = ["training.epochs", "training.max_steps"];

/// Something that a run goes on with otherwise than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The key, the file, the device or the kernels.
    pub what: String,
    /// Its value until now.
    pub from: String,
    /// Its value from now on.
    pub to: String,
}

/// A change that the contract does not allow, or not without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The change.
    pub change: Change,
    /// How it is had all the same.
    pub way: Option<String>,
}

/// What the command line asks for by name.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The recipe, which knows what was written on the command line.
    pub recipe: &'a Recipe,
    /// Whether the device was named.
    pub device: bool,
    /// Whether the processor's kernels were named.
    pub kernels: bool,
}

/// The rule of a key, with or without indexes.
pub fn rule(key: &str) -> Rule {
    let key = without_indexes(key);
    let holds = |entry: &str| {
        let rest = key.strip_prefix(entry);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let entries = CONTRACT.iter().filter(|(entry, _)| holds(entry));
    entries.max_by_key(|(entry, _)| entry.len()).map_or(Rule::Fixed, |(_, rule)| *rule)
}

/// `data.train[3].path` as `data.train[].path`.
fn without_indexes(key: &str) -> String {
    let part = |part: &str| part.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned();
    let (first, rest) =
        key.split_once('[').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let rest = rest.into_iter().flat_map(|rest| rest.split('['));
    rest.fold(first.to_owned(), |general, rest| general + "[" + &part(rest))
}

/// Holds a run's inputs as they are `now` to those it has gone by until now.
///
/// # Errors
/// Everything that may not change, or was not asked for.
pub(super) fn compare(
    begun: &Inputs,
    was: &Recipe,
    now: &Inputs,
    asked: Asked<'_>,
) -> Result<Vec<Change>, Vec<Refusal>> {
    let mut verdict = Verdict::default();
    verdict.recipe(was, asked);
    let base = under_its_name(&begun.base, now.base.clone());
    for (of, begun, now) in [
        ("base", &begun.base, &base),
        ("tokenizer", &begun.tokenizer, &now.tokenizer),
        ("adapter.init_from", &begun.init_from, &now.init_from),
    ] {
        verdict.files(of, begun, now);
    }
    verdict.data(begun, now);
    verdict.cleaned(begun, now);
    verdict.computer(begun, now, asked);
    if verdict.refused.is_empty() { Ok(verdict.allowed) } else { Err(verdict.refused) }
}

/// The files of a base under the name that its GGUF file had when the run began: where it lies, its name
/// included, decides nothing.
pub(crate) fn under_its_name(
    begun: &BTreeMap<String, FileHash>,
    mut now: BTreeMap<String, FileHash>,
) -> BTreeMap<String, FileHash> {
    let gguf = |files: &BTreeMap<String, FileHash>| {
        let is_gguf = |name: &&String| {
            Path::new(name).extension().is_some_and(|it| it.eq_ignore_ascii_case("gguf"))
        };
        let mut found = files.keys().filter(is_gguf);
        found.next().filter(|_| found.next().is_none()).cloned()
    };
    if let (Some(was), Some(is)) = (gguf(begun), gguf(&now)) {
        let hash = now.remove(&is);
        now.extend(hash.map(|hash| (was, hash)));
    }
    now
}

#[derive(Default)]
struct Verdict {
    allowed: Vec<Change>,
    refused: Vec<Refusal>,
}

impl Verdict {
    fn refuse(&mut self, what: &str, from: String, to: String, way: Option<String>) {
        let what = what.to_owned();
        self.refused.push(Refusal { change: Change { what, from, to }, way });
    }

    /// The recipe's keys.
    fn recipe(&mut self, was: &Recipe, Asked { recipe, .. }: Asked<'_>) {
        for Difference { key, from, to } in differences(&was.to_value(), &recipe.to_value()) {
            let (from_text, to_text) = (shown(from.as_ref()), shown(to.as_ref()));
            match rule(&key) {
                Rule::Free => {}
                Rule::Fixed => self.refuse(&key, from_text, to_text, None),
                Rule::Asked if is_asked(recipe, &key) => {
                    self.allowed.push(Change { what: key, from: from_text, to: to_text });
                }
                Rule::Asked => {
                    // Of two keys that exclude each other the one that is there can be asked for.
                    let Some(to) = to else { continue };
                    let way = ask(&key, from.as_ref(), &written(&to));
                    self.refuse(&key, from_text, to_text, Some(way));
                }
            }
        }
    }

    /// Files that are told apart by their names.
    fn files(
        &mut self,
        of: &str,
        begun: &BTreeMap<String, FileHash>,
        now: &BTreeMap<String, FileHash>,
    ) {
        let mut names: Vec<&String> = begun.keys().chain(now.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let (from, to) = (begun.get(name), now.get(name));
            if from != to {
                self.refuse(&format!("{of} file `{name}`"), hash_of(from), hash_of(to), None);
            }
        }
    }

    /// Files of rows that are trained on. What is only measured may be others.
    fn data(&mut self, begun: &Inputs, now: &Inputs) {
        if self.refused.iter().any(|refused| refused.change.what.starts_with("data.")) {
            // Other sources have other files.
            return;
        }
        let paths = |inputs: &Inputs| -> BTreeSet<String> {
            let fixed = inputs.data.iter().filter(|(key, _)| rule(key) == Rule::Fixed);
            fixed.map(|(_, file)| file.path.clone()).collect()
        };
        let (was, is) = (paths(begun), paths(now));
        if was.len() != is.len() {
            // What a folder or a pattern means has changed, and with it the numbers of those behind it.
            let odd: Vec<String> =
                was.symmetric_difference(&is).map(|path| format!("`{path}`")).collect();
            let way = format!("take back what changed in their folders: {}", some_of(&odd));
            let files = |paths: &BTreeSet<String>| format!("{} files", paths.len());
            self.refuse("the files that are trained on", files(&was), files(&is), Some(way));
            return;
        }
        for (key, file) in &begun.data {
            let other = now.data.get(key);
            // One that is not there any more is missing in the recipe, too.
            if let Some(other) = other.filter(|other| other.hash != file.hash)
                && rule(key) == Rule::Fixed
            {
                let what = format!("{key} (`{}`)", other.path);
                self.refuse(&what, hash_of(Some(&file.hash)), hash_of(Some(&other.hash)), None);
            }
        }
    }

    /// Which rows are left out: what is measured decides of what is trained on.
    fn cleaned(&mut self, begun: &Inputs, now: &Inputs) {
        let (from, to) = (&begun.cleaned_sha256, &now.cleaned_sha256);
        if from != to {
            let said = |hash: &Option<String>| match hash {
                None => "none".to_owned(),
                Some(hash) => format!("those of {}…", hash.get(..12).unwrap_or(hash)),
            };
            let way =
                "what is measured decides of it, too: name the same files as before".to_owned();
            let what = "the rows that data.hygiene leaves out";
            self.refuse(what, said(from), said(to), Some(way));
        }
    }

    /// What computes, and in which types: sums of other kernels are rounded in another order.
    fn computer(&mut self, begun: &Inputs, now: &Inputs, asked: Asked<'_>) {
        let key = "training.compute_dtype";
        let other_type = begun.compute_dtype != now.compute_dtype;
        let type_asked = other_type && is_asked(asked.recipe, key);
        let mut moved = None;
        if begun.device != now.device {
            let name = now.device.split(' ').next().unwrap_or_default();
            let way =
                format!("other sums, other bytes: to go on there, name it with `--device {name}`");
            moved = Some(self.named("device", &begun.device, &now.device, asked.device, way));
        } else if let (Some(from), Some(to)) = (&begun.kernels, &now.kernels)
            && from != to
            // Each type has kernels of its own: then what is to be asked for is the type.
            && (asked.kernels || !other_type)
        {
            let [old, new] = [from, to].map(|name| name.rsplit(' ').next().unwrap_or_default());
            let variable = graft_kernels::flex::isa::Isa::VARIABLE;
            let way = format!(
                "other sums, other bytes: `{variable}={old}` in the environment goes on as before, \
                 where the processor has it; `{variable}={new}` goes on with these"
            );
            moved = Some(self.named("kernels", from, to, asked.kernels, way));
        }
        if other_type {
            let way = ask(key, Some(&Value::from(&*begun.compute_dtype)), &now.compute_dtype);
            // Another device or processor brings its type along, and is refused without it.
            if moved == Some(false) {
                return;
            }
            let asked = moved.is_some() || type_asked;
            if asked && moved.is_none() && begun.kernels != now.kernels {
                let shown = |name: &Option<String>| name.clone().unwrap_or_default();
                let (what, from, to) =
                    ("kernels".to_owned(), shown(&begun.kernels), shown(&now.kernels));
                self.allowed.push(Change { what, from, to });
            }
            self.named("compute_dtype", &begun.compute_dtype, &now.compute_dtype, asked, way);
        }
        for (program, version) in &now.versions {
            let before = begun.versions.get(program);
            if let Some(from) = before.filter(|before| *before != version).cloned() {
                let what = program.clone();
                self.allowed.push(Change { what, from, to: version.clone() });
            }
        }
    }

    /// A change that is allowed where it was asked for; gives whether it was.
    fn named(&mut self, what: &str, from: &str, to: &str, asked: bool, way: String) -> bool {
        let (from, to) = (from.to_owned(), to.to_owned());
        if asked {
            self.allowed.push(Change { what: what.to_owned(), from, to });
        } else {
            self.refuse(what, from, to, Some(way));
        }
        asked
    }
}

/// Whether the command line asks for a key: by its name, that of its section or form, or by the key that
/// stands in its place.
fn is_asked(recipe: &Recipe, key: &str) -> bool {
    if LENGTHS.contains(&key) {
        return LENGTHS.iter().any(|key| recipe.is_on_command_line(key));
    }
    let form = FORMS.into_iter().find(|form| key.starts_with(form));
    recipe.is_on_command_line(form.unwrap_or(key))
}

/// A key with another value; `None` where it has none.
#[derive(Debug, PartialEq)]
struct Difference {
    key: String,
    from: Option<Value>,
    to: Option<Value>,
}

/// The keys in which two recipes differ, in the order of the schema.
fn differences(from: &Value, to: &Value) -> Vec<Difference> {
    let (mut old, mut new) = (Vec::new(), Vec::new());
    leaves(from, "", &mut old);
    leaves(to, "", &mut new);
    let value = |leaves: &[(String, Value)], key: &str| {
        leaves.iter().find(|(found, _)| found == key).map(|(_, value)| value.clone())
    };
    let mut keys: Vec<&String> = new.iter().chain(&old).map(|(key, _)| key).collect();
    let mut seen = std::collections::BTreeSet::new();
    keys.retain(|key| seen.insert(*key));
    let mut found: Vec<Difference> = Vec::new();
    for key in keys {
        let (from, to) = (value(&old, key), value(&new, key));
        // A form that differs says it all: settings of different forms are not compared.
        let is_said = found.iter().any(|above| {
            FORMS.contains(&above.key.as_str()) && key.starts_with(&format!("{}.", above.key))
        });
        if from != to && !is_said {
            found.push(Difference { key: key.clone(), from, to });
        }
    }
    found
}

/// Every key that has a plain value, or a list of them; a form's name stands before its settings.
fn leaves(value: &Value, key: &str, out: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(fields) => {
            if FORMS.contains(&key) {
                out.extend(fields.keys().map(|form| (key.to_owned(), Value::from(form.as_str()))));
            }
            for (name, value) in fields {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                leaves(value, &key, out);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                leaves(item, &format!("{key}[{index}]"), out);
            }
        }
        _ => out.push((key.to_owned(), value.clone())),
    }
}

/// How a key is kept, and how it is changed.
fn ask(key: &str, from: Option<&Value>, to: &str) -> String {
    let kept = from.map_or_else(String::new, |from| {
        format!("to keep what it was, add `{key}={}`; ", written(from))
    });
    format!("{kept}to go on with what is now, add `{key}={to}`")
}

/// A value for people.
fn shown(value: Option<&Value>) -> String {
    match value {
        None => "nothing".to_owned(),
        Some(value) => written(value),
    }
}

/// A value as the command line takes it.
fn written(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// A file's hash for people.
fn hash_of(file: Option<&FileHash>) -> String {
    // Twelve digits tell two files apart; more only hide the line's end.
    file.map_or_else(
        || "no such file".to_owned(),
        |FileHash { sha256, .. }| format!("{}…", sha256.get(..12).unwrap_or(sha256)),
    )
}

#[cfg(test)]
#[path = "contract/tests.rs"]
mod tests;
