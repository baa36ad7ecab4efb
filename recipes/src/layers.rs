//! One recipe upon another: `extends`, and what replaces what.
//!
//! Mappings merge key by key; everything else is replaced. Where keys are rivals (two forms of a
//! schedule, `epochs` and `max_steps`) the upper layer's choice drops the lower layer's, while
//! rivals within one layer stay for the reader to refuse.

use crate::adapter::keys_of_others;
use crate::hygiene::PERSONAL;
use crate::section::text;
use crate::training::{Optimizer, Schedule};
use crate::tree::{Entry, Node, Value, join};

/// Lays `upper` over `lower`; `path` is where both stand.
pub(crate) fn overlay(lower: &mut Node, mut upper: Node, path: &str) {
    normalise(lower, path);
    normalise(&mut upper, path);
    let (Value::Map(below), Value::Map(above)) = (&mut lower.value, &mut upper.value) else {
        *lower = upper;
        return;
    };
    let dropped: Vec<&str> = above.iter().flat_map(|entry| rivals(path, entry)).collect();
    below.retain(|entry| !dropped.contains(&entry.key.as_str()));
    for entry in std::mem::take(above) {
        let path = join(path, &entry.key);
        match below.iter_mut().find(|old| old.key == entry.key) {
            Some(old) => {
                overlay(&mut old.value, entry.value, &path);
                old.location = entry.location;
            }
            None => below.push(entry),
        }
    }
}

/// Writes a form given by its name alone as the mapping it is short for, so that both merge alike.
pub(crate) fn normalise(node: &mut Node, path: &str) {
    let Some(name) = text(node).map(str::to_owned) else { return };
    let location = node.location.clone();
    let nothing = Node { value: Value::Null, location: location.clone() };
    let entry = match path {
        "quantization" => {
            let value = Node { value: Value::Text(name), location: location.clone() };
            Entry { key: "format".to_owned(), location, value }
        }
        "data.hygiene.near_duplicates" | "data.hygiene.contamination" => {
            let value = Node { value: Value::Text(name), location: location.clone() };
            Entry { key: "action".to_owned(), location, value }
        }
        "data.hygiene.personal" => {
            let entry = |kind: &&str| Entry {
                key: (*kind).to_owned(),
                location: location.clone(),
                value: Node { value: Value::Text(name.clone()), location: location.clone() },
            };
            node.value = Value::Map(PERSONAL.iter().map(entry).collect());
            return;
        }
        _ if forms(path).contains(&name.as_str()) => Entry { key: name, location, value: nothing },
        _ => return,
    };
    node.value = Value::Map(vec![entry]);
}

/// The forms of the key at `path`, of which a recipe has one.
fn forms(path: &str) -> &'static [&'static str] {
    match path {
        "training.schedule" => Schedule::FORMS,
        "training.optimizer" => Optimizer::FORMS,
        _ => &[],
    }
}

/// The keys of the mapping at `path` that an upper layer's `entry` drops from the lower layer.
pub(crate) fn rivals(path: &str, entry: &Entry) -> Vec<&'static str> {
    let key = entry.key.as_str();
    let becomes = text(&entry.value);
    let pair = |a: &'static str, b: &'static str| match key {
        _ if key == a => vec![b],
        _ if key == b => vec![a],
        _ => Vec::new(),
    };
    match path {
        "training" => pair("epochs", "max_steps"),
        "adapter" if key == "method" => becomes.map_or_else(Vec::new, keys_of_others),
        "quantization" if key == "format" && becomes == Some("none") => vec!["double"],
        _ if forms(path).contains(&key) => {
            forms(path).iter().copied().filter(|form| *form != key).collect()
        }
        _ if path.starts_with("training.schedule.") => pair("warmup_ratio", "warmup_steps"),
        _ => Vec::new(),
    }
}
