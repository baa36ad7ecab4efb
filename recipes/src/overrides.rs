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

/// Applies the overrides in order; what cannot be applied goes to `sink`.
pub(crate) fn apply(root: &mut Node, arguments: &[String], sink: &Sink) {
    for argument in arguments {
        if let Err(problem) = apply_one(root, argument) {
            for problem in problem {
                sink.push(problem);
            }
        }
    }
}

fn apply_one(root: &mut Node, argument: &str) -> Result<(), Vec<Problem>> {
    let origin = Origin::CommandLine(Arc::from(argument));
    let location = origin.start();
    let refuse = |key: &str, message: String, hint: Option<String>| {
        vec![Problem { key: key.to_owned(), location: Some(location.clone()), message, hint }]
    };
    let (key, value) = match argument.strip_prefix('~') {
        Some(key) => (key, None),
        None => match argument.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => {
                let message = "found no `=`; allowed: key=value, or ~key to drop a key".to_owned();
                return Err(refuse("", message, None));
            }
        },
    };
    let key = plain_key(key.trim());
    let steps: Vec<&str> = key.split('.').collect();
    if steps.iter().any(|step| step.is_empty()) {
        let message = "found an empty key; allowed: names joined by points".to_owned();
        return Err(refuse(&key, message, None));
    }
    if key == "extends" {
        let message = "found `extends` in an override; allowed: in a recipe file".to_owned();
        return Err(refuse(&key, message, None));
    }
    let value = match value {
        None => None,
        Some(text) => {
            let (node, problems) = tree::read(text, &origin)
                .map_err(|problem| vec![Problem { key: key.clone(), ..problem }])?;
            if !problems.is_empty() {
                let at = |problem: Problem| Problem { key: join(&key, &problem.key), ..problem };
                return Err(problems.into_iter().map(at).collect());
            }
            Some(node).filter(|node| !matches!(node.value, Value::Null))
        }
    };
    match value {
        Some(value) => set(root, "", &steps, value),
        None if keys::is_known(&key) => remove(root, "", &steps),
        None => {
            let hint = keys::suggest(&key).map(|key| format!("did you mean `{key}`?"));
            return Err(refuse(&key, "unknown key".to_owned(), hint));
        }
    }
    .map_err(|message| refuse(&key, message, None))
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
