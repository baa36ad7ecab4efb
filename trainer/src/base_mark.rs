//! A mark by which an adapter knows its base again: hashes over a small part of the weights, so that
//! models of any size are told apart without being read.
//!
//! Norms are stored alike in a release and in its NF4 form, so their hash is that of the model; merged
//! adapters leave norms as they are, so beginnings of the dense projections have one of their own.

use std::collections::BTreeMap;

use graft_adapters::PeftAdapter;
use graft_files::sha256::hexadecimal;
use graft_model::checkpoint::{Checkpoint, expected};
use graft_model::folder::ModelFolder;
use graft_model::{LlamaConfig, site};
use sha2::{Digest, Sha256};

const NORMS: &str = "graft.base_norms";
const PROJECTIONS: &str = "graft.base_projections";

/// Bytes of a projection that are hashed.
const BEGINNING: usize = 4 << 10;

/// What is kept of a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseMark {
    /// SHA-256 of the first bytes of every norm.
    pub norms: String,
    /// SHA-256 of the first bytes of every projection; `None` where they are stored quantised.
    pub projections: Option<String>,
}

impl BaseMark {
    /// The mark of a model's weights.
    pub fn of(checkpoint: &Checkpoint, config: &LlamaConfig) -> Self {
        let (mut norms, mut projections) = (Sha256::new(), Sha256::new());
        let mut dense = true;
        for tensor in expected(config) {
            let Some(stored) = checkpoint.spec(&tensor.name) else { continue };
            let hash = match tensor.site {
                Some(_) => {
                    dense &= stored.shape == tensor.shape;
                    &mut projections
                }
                None if tensor.name == site::EMBED_TOKENS || tensor.name == site::LM_HEAD => {
                    continue;
                }
                None => &mut norms,
            };
            hash.update(tensor.name.as_bytes());
            hash.update(stored.dtype.to_string().as_bytes());
            hash.update(checkpoint.beginning(&tensor.name, BEGINNING).unwrap_or_default());
        }
        let projections = dense.then(|| hexadecimal(&projections.finalize()));
        Self { norms: hexadecimal(&norms.finalize()), projections }
    }

    /// As metadata of a safetensors file.
    pub fn to_metadata(&self) -> Vec<(String, String)> {
        let Self { norms, projections } = self;
        let projections = projections.iter().map(|hash| (PROJECTIONS.to_owned(), hash.clone()));
        [(NORMS.to_owned(), norms.clone())].into_iter().chain(projections).collect()
    }

    /// From a file's metadata.
    pub fn from_metadata(metadata: &BTreeMap<String, String>) -> Option<Self> {
        let norms = metadata.get(NORMS)?.clone();
        Some(Self { norms, projections: metadata.get(PROJECTIONS).cloned() })
    }

    /// How another model's mark differs, in words; `None` where nothing says that it is another model.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let differ = |what: &str, mine: &str, its: &str| {
            let short = |hash: &str| hash.chars().take(12).collect::<String>();
            format!("the hash of its {what} was {}…, here it is {}…", short(mine), short(its))
        };
        if self.norms != other.norms {
            return Some(differ("norms", &self.norms, &other.norms));
        }
        match (&self.projections, &other.projections) {
            (Some(mine), Some(its)) if mine != its => Some(differ("projections", mine, its)),
            _ => None,
        }
    }
}

/// What is odd about an adapter beside a model.
#[derive(Debug, Default)]
pub struct Oddities {
    /// A sentence each.
    pub told: Vec<String>,
    /// Whether the adapter says of itself that it was trained beside another model.
    pub is_of_another: bool,
}

/// What is odd about an adapter beside a model.
///
/// # Errors
/// The model's weights are unusable.
pub fn oddities(
    adapter: &PeftAdapter,
    folder: &ModelFolder,
    config: &LlamaConfig,
) -> Result<Oddities, graft_model::Error> {
    let file = adapter.file();
    let mut oddities = Oddities::default();
    if adapter.changes_nothing() {
        oddities.told.push(format!(
            "`{file}` changes nothing: each of its updates has a matrix of zeros, as before the first \
             step of training"
        ));
    }
    let Some(trained_on) = BaseMark::from_metadata(adapter.metadata()) else {
        return Ok(oddities);
    };
    let here = BaseMark::of(&Checkpoint::open(folder)?, config);
    if let Some(difference) = trained_on.difference(&here) {
        oddities.is_of_another = true;
        let base = adapter.base().map_or(String::new(), |base| format!(" (`{base}`)"));
        oddities.told.push(format!(
            "`{file}` was trained beside another model than `{}`: {difference}. Give the one that it \
             was trained beside{base}, or take what it says with care",
            folder.display()
        ));
    }
    Ok(oddities)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_base_is_told_by_what_both_have() {
        let mark = |norms: &str, projections: Option<&str>| BaseMark {
            norms: norms.to_owned(),
            projections: projections.map(str::to_owned),
        };
        let base = mark("aaaaaaaaaaaaaaaa", Some("b"));
        assert_eq!(base.difference(&base), None);
        // The same release in NF4.
        assert_eq!(base.difference(&mark("aaaaaaaaaaaaaaaa", None)), None);
        assert_eq!(mark("a", None).difference(&mark("a", Some("b"))), None);
        insta::assert_snapshot!(base.difference(&mark("c", None)).unwrap(), @"the hash of its norms was aaaaaaaaaaaa…, here it is c…");
        insta::assert_snapshot!(base.difference(&mark("aaaaaaaaaaaaaaaa", Some("c"))).unwrap(), @"the hash of its projections was b…, here it is c…");
    }
}
