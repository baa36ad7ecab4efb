//! `key.sub=value`, `key=null` and `~key`: what the command line changes in a recipe.
//!
//! A value is read as YAML; an index names an item of a list (`data.train.0.path` or
//! `data.train[0].path`), and the index after the last appends one.

use std::sync::Arc;

use crate::keys;
use crate::layers::{normalise, overlay, rivals};
use crate::problem::{Location, Problem};
use crate::recipe::plain_key;
use crate::section::Sink;
use crate::tree::{self, Entry, Node, Origin, Value, join};

/// Names a key may have; the longest of the schema has 4 and an index.
const MAX_STEPS: usize = 8;

/// Applies the overrides in order; what cannot be applied goes to `sink`.
pub(crate) fn apply(root: &mut Node, arguments: &[String], sink: &Sink) {
    for argument in arguments {
        let applied = Change::parse(argument).and_then(|change| change.apply(root));
        for problem in applied.err().into_iter().flatten() {
            sink.push(problem);
        }
    }
}

/// One override: the key, and its new value or none to drop it.
struct Change {
    key: String,
    value: Option<Node>,
    location: Location,
}

impl Change {
    fn parse(argument: &str) -> Result<Self, Vec<Problem>> {
        let origin = Origin::CommandLine(Arc::from(argument));
        let location = origin.start();
        let refuse = |key: &str, message: &str| Err(vec![refusal(key, &location, message, None)]);
        let (key, value) = match (argument.strip_prefix('~'), argument.split_once('=')) {
            (Some(key), _) => (key, None),
            (None, Some((key, value))) => (key, Some(value)),
            (None, None) => {
                return refuse("", "found no `=`; allowed: key=value, or ~key to drop a key");
            }
        };
        let key = plain_key(key.trim());
        if key.split('.').any(str::is_empty) {
            return refuse(&key, "found an empty name; allowed: names joined by points");
        }
        if key.split('.').count() > MAX_STEPS {
            return refuse("", "unknown key: no key has so many names joined by points");
        }
        if key == "extends" {
            return refuse(&key, "found on the command line; allowed: in a recipe file");
        }
        let value = match value {
            None => None,
            Some(text) => {
                if let Some(message) = misread(text) {
                    return refuse(&key, message);
                }
                let (node, problems) = tree::read(text, &origin)
                    .map_err(|problem| vec![Problem { key: key.clone(), ..problem }])?;
                if !problems.is_empty() {
                    let below =
                        |problem: Problem| Problem { key: join(&key, &problem.key), ..problem };
                    return Err(problems.into_iter().map(below).collect());
                }
                Some(node).filter(|node| !matches!(node.value, Value::Null))
            }
        };
        Ok(Self { key, value, location })
    }

    fn apply(self, root: &mut Node) -> Result<(), Vec<Problem>> {
        let Self { key, value, location } = self;
        let steps: Vec<&str> = key.split('.').collect();
        let done = match value {
            Some(value) => set(root, "", &steps, value),
            None if keys::is_known(&key) => remove(root, "", &steps),
            None => {
                let hint = keys::hint(&key);
                return Err(vec![refusal(&key, &location, "unknown key", hint)]);
            }
        };
        done.map_err(|message| vec![refusal(&key, &location, &message, None)])
    }
}

/// Why a value that is not in quotes or brackets would be read as less than what was written.
fn misread(text: &str) -> Option<&'static str> {
    if text.starts_with(['"', '\'', '[', '{', '|', '>']) {
        return None;
    }
    if text.starts_with('#') || text.contains(" #") || text.contains("\t#") {
        return Some(
            "found `#`, behind which YAML sees a comment; allowed: such a value in quotes of its own",
        );
    }
    text.contains(['\n', '\r'])
        .then_some("found a line break, of which YAML makes a blank; allowed: such a value in quotes of its own")
}

fn refusal(key: &str, location: &Location, message: &str, hint: Option<String>) -> Problem {
    let location = Some(location.clone());
    Problem { key: key.to_owned(), location, message: message.to_owned(), hint }
}

/// Puts `value` at `steps` below `node`, which stands at `path`; makes the mappings on the way.
fn set(node: &mut Node, path: &str, steps: &[&str], value: Node) -> Result<(), String> {
    let Some((step, rest)) = steps.split_first() else {
        // A mapping merges into what is there, like an upper layer.
        overlay(node, value, path);
        return Ok(());
    };
    let location = value.location.clone();
    normalise(node, path);
    if matches!(node.value, Value::Null) {
        *node = Node { value: Value::Map(Vec::new()), location: location.clone() };
    }
    let empty = Node { value: Value::Null, location: location.clone() };
    let child = join(path, step);
    let found = node.describe();
    match &mut node.value {
        Value::Map(entries) => {
            let given = if rest.is_empty() { value.clone() } else { empty.clone() };
            let entry = Entry { key: (*step).to_owned(), location: location.clone(), value: given };
            let dropped = rivals(path, &entry);
            // A rival from the command line stays: two overrides that contradict are an error.
            let from_file = |old: &Entry| !matches!(old.location, Location::CommandLine { .. });
            entries.retain(|old| !dropped.contains(&old.key.as_str()) || !from_file(old));
            let at = entries.iter().position(|old| old.key == *step).unwrap_or_else(|| {
                entries.push(Entry { value: empty, ..entry });
                entries.len() - 1
            });
            if rest.is_empty() {
                entries[at].location = location;
            }
            set(&mut entries[at].value, &child, rest, value)
        }
        Value::List(items) if step.parse::<usize>().is_ok() || !keys::is_known(&child) => {
            let at = index(step, items.len() + 1)
                .ok_or_else(|| out_of_range(path, step, items.len(), items.len()))?;
            if at == items.len() {
                items.push(empty);
            }
            set(&mut items[at], &child, rest, value)
        }
        // `adapter.layers.last=2` upon `all`: the mapping is another form of the same key.
        _ if keys::is_known(&child) => {
            node.value = Value::Null;
            set(node, path, steps, value)
        }
        _ => {
            Err(format!("`{path}` is {found}; allowed: a mapping or list, to have `{step}` in it"))
        }
    }
}

/// Drops what stands at `steps` below `node`, if anything does.
fn remove(node: &mut Node, path: &str, steps: &[&str]) -> Result<(), String> {
    let Some((step, rest)) = steps.split_first() else { return Ok(()) };
    normalise(node, path);
    let child = join(path, step);
    match &mut node.value {
        Value::Map(entries) => {
            let Some(at) = entries.iter().position(|entry| entry.key == *step) else {
                return Ok(());
            };
            if rest.is_empty() {
                entries.remove(at);
                return Ok(());
            }
            remove(&mut entries[at].value, &child, rest)
        }
        Value::List(items) => {
            let at = index(step, items.len()).ok_or_else(|| {
                out_of_range(path, step, items.len(), items.len().saturating_sub(1))
            })?;
            if rest.is_empty() {
                items.remove(at);
                return Ok(());
            }
            remove(&mut items[at], &child, rest)
        }
        _ => Ok(()),
    }
}

fn index(step: &str, length: usize) -> Option<usize> {
    step.parse().ok().filter(|&index: &usize| index < length)
}

fn out_of_range(path: &str, step: &str, length: usize, last: usize) -> String {
    format!("found the index `{step}`, but `{path}` is a list of {length}; allowed: 0 to {last}")
}
