//! What an adapter that was made of others says of them: which, and what they have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use graft_adapters::algebra::Method;
use graft_adapters::{PeftAdapter, peft};
use serde_json::json;

use crate::cli::adapters_args::AdaptersArgs;
use crate::run_folder::manifest::hash_file;

/// Metadata: path, SHA-256 and weight of each parent, in their order.
pub const PARENTS: &str = "graft.parents";
/// Metadata: how they became one.
const COMBINED: &str = "graft.combined";

/// What the parents have in common, and who they are.
pub struct Parentage {
    /// For the file's header.
    pub metadata: BTreeMap<String, String>,
    /// The base that they name.
    pub base: String,
    /// In what they differ, a sentence each.
    pub told: Vec<String>,
}

/// What is said of these adapters in the one that is made of them.
///
/// # Errors
/// A file cannot be read.
pub fn of(
    paths: &[PathBuf],
    adapters: &[PeftAdapter],
    args: &AdaptersArgs,
    method: Method,
) -> anyhow::Result<Parentage> {
    let mut told = Vec::new();
    let mut metadata = common(adapters, &mut told);
    let mut parents = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        let [_, weights] = peft::files(path)?;
        let sha256 = hash_file(&weights, |_| ())?.sha256;
        parents
            .push(json!({"path": published(path), "sha256": sha256, "weight": args.weight(index)}));
    }
    metadata.insert(PARENTS.to_owned(), serde_json::Value::Array(parents).to_string());
    metadata.insert(COMBINED.to_owned(), method.in_words());
    let bases: BTreeSet<&str> = adapters.iter().filter_map(PeftAdapter::base).collect();
    if bases.len() > 1 {
        let bases: Vec<String> = bases.iter().map(|base| format!("`{base}`")).collect();
        told.push(format!(
            "the adapters name different bases, {}; the first one's goes into the result",
            bases.join(" and ")
        ));
    }
    let base = adapters.iter().find_map(PeftAdapter::base).unwrap_or_default().to_owned();
    Ok(Parentage { metadata, base, told })
}

/// Entries that all adapters have alike; of others it is told that they are left out.
fn common(adapters: &[PeftAdapter], told: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::new();
    let keys: BTreeSet<&String> = adapters.iter().flat_map(|it| it.metadata().keys()).collect();
    for key in keys {
        // Who the parents of a parent were stands in its own file.
        if [PARENTS, COMBINED, "format"].contains(&key.as_str()) {
            continue;
        }
        let values: BTreeSet<_> = adapters.iter().map(|it| it.metadata().get(key)).collect();
        match (values.first(), values.len()) {
            (Some(Some(value)), 1) => _ = metadata.insert(key.clone(), (*value).clone()),
            _ => told.push(format!(
                "the adapters differ in `{key}` of their metadata: the result says nothing of it"
            )),
        }
    }
    metadata
}

/// A path as it may be published: as it was given, of one from the root the last two names.
fn published(path: &Path) -> String {
    if path.is_relative() && !path.components().any(|it| it == Component::ParentDir) {
        return path.display().to_string();
    }
    let names = path.components().filter(|it| matches!(it, Component::Normal(_)));
    let names: Vec<_> = names.map(|it| it.as_os_str().to_string_lossy()).collect();
    names[names.len().saturating_sub(2)..].join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_path_says_nothing_of_where_it_lay() {
        for (given, expected) in [
            ("runs/a/adapter", "runs/a/adapter"),
            ("/home/me/runs/a/adapter", "a/adapter"),
            ("../x/adapter/", "x/adapter"),
            ("/adapter", "adapter"),
        ] {
            assert_eq!(published(Path::new(given)), expected);
        }
    }
}
