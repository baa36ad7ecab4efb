//! A model folder about to be written: where it may stand, what goes along from the base, and that
//! it appears whole or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use graft_files::{atomic, disk, place};
use graft_model::checkpoint::{Checkpoint, Dtype, ShardedWriter, TensorSpec};
use graft_model::config::FloatType;
use graft_model::folder::ModelFolder;
use graft_model::{LlamaConfig, site};

use crate::error::Error;
use crate::merge::TOLD_FILE;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The folder, links resolved.
    pub folder: PathBuf,
    /// Names of the weight files.
    pub weight_files: Vec<String>,
    /// Names of the files taken over from the base.
    pub copied: Vec<String>,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// How many weights of the base were changed; the others are the base's, bit for bit.
    pub changed: usize,
}

/// A place for a model folder that holds nothing yet.
pub(crate) struct OutFolder {
    path: PathBuf,
    /// What goes along, with its names.
    companions: Vec<(String, Bytes)>,
}

impl OutFolder {
    /// Refuses a place that is taken, and one in the base; and a base of which something cannot go along.
    pub(crate) fn claim(path: &Path, base: &ModelFolder) -> Result<Self, Error> {
        base.check_outside(path)?;
        let resolved = place::new_folder(path).map_err(graft_model::Error::from)?;
        Ok(Self { path: resolved, companions: companions(base)? })
    }

    /// With what is said of a training, where there is something: in the place of what the base says.
    pub(crate) fn telling(mut self, told: &BTreeMap<String, String>) -> Self {
        if !told.is_empty() {
            self.companions.retain(|(name, _)| name != TOLD_FILE);
            let text = serde_json::to_string_pretty(told).expect("texts have a form in JSON");
            self.companions.push((TOLD_FILE.to_owned(), Bytes::from(text + "\n")));
            self.companions.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        self
    }

    /// Writes config.json, the files that go along and the weights; reads the result back, and has it checked
    /// where it lies, before it takes its place. `source` is asked for each tensor as by
    /// [`ShardedWriter::write`].
    pub(crate) fn write<E: From<Error>>(
        self,
        config: &str,
        writer: &ShardedWriter,
        changed: usize,
        mut source: impl FnMut(&TensorSpec, &mut dyn Write) -> Result<(), Error>,
        check: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Summary, E> {
        let Self { path, companions: copied } = self;
        let beside: usize = copied.iter().map(|(_, bytes)| bytes.len()).sum();
        let needed = writer.file_bytes() + beside as u64 + config.len() as u64;
        let room = || -> Result<(), Error> {
            disk::require_free(&path, needed)?;
            Ok(path.parent().map_or(Ok(()), fs::create_dir_all)?)
        };
        room()?;
        let mut build = |folder: &Path| -> Result<(), Error> {
            atomic::write_bytes(folder.join("config.json"), config.as_bytes())?;
            for (name, bytes) in &copied {
                let path = folder.join(name);
                if let Some(inner) = path.parent().filter(|inner| *inner != folder) {
                    fs::create_dir_all(inner)?;
                }
                atomic::write_bytes(path, bytes)?;
            }
            writer.write(folder, &mut source)?;
            let written = LlamaConfig::from_json(config.as_bytes(), "config.json")?;
            Ok(Checkpoint::open(&ModelFolder::at(folder)?)?.verify(&written)?)
        };
        let created = atomic::create_folder(&path, |folder| {
            build(folder).map_err(Failure::Writing)?;
            check(folder).map_err(Failure::Checking)
        });
        created.map_err(|failure| match failure {
            Failure::Writing(error) => error.into(),
            Failure::Checking(error) => error,
        })?;
        Ok(Summary {
            folder: path,
            weight_files: writer.file_names().map(str::to_owned).collect(),
            copied: copied.into_iter().map(|(name, _)| name).collect(),
            tensor_bytes: writer.total_bytes(),
            changed,
        })
    }
}

/// Why a folder did not take its place.
enum Failure<E> {
    Writing(Error),
    Checking(E),
}

impl<E> From<std::io::Error> for Failure<E> {
    fn from(error: std::io::Error) -> Self {
        Self::Writing(error.into())
    }
}

/// The files that go along, by their paths in the folder: tokenizer and chat templates of the folder
/// whose tokenizer is used, all else of the base.
///
/// # Errors
/// One of them is a link to a file of somebody else's, or cannot be read.
pub fn companions(base: &ModelFolder) -> Result<Vec<(String, Bytes)>, Error> {
    let home = base.tokenizer_home()?;
    let mut files = Vec::new();
    let mut take = |folder: &ModelFolder, wanted: &dyn Fn(&str) -> bool| {
        for name in folder.names()?.into_iter().filter(|name| wanted(name)) {
            let is_alike = |target: &str| wanted(target) || are_templates(&name, target);
            folder.check_own(&name, &is_alike)?;
            let bytes = folder.map(&name)?;
            files.push((name, bytes));
        }
        Ok::<_, Error>(())
    };
    match &home {
        None => take(base, &|name| is_of_tokenizer(name) || is_of_release(name))?,
        Some(home) => {
            take(base, &is_of_release)?;
            take(home, &is_of_tokenizer)?;
        }
    }
    let home = home.as_ref().unwrap_or(base);
    for (name, bytes) in home.additional_templates()? {
        home.check_own(&name, &|target| are_templates(&name, target))?;
        files.push((name, bytes));
    }
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(files)
}

fn are_templates(one: &str, other: &str) -> bool {
    [one, other].iter().all(|name| Path::new(name).extension().is_some_and(|it| it == "jinja"))
}

/// Whether a file is of the tokenizer or its chat template.
fn is_of_tokenizer(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
    ];
    NAMES.contains(&name.to_lowercase().as_str())
}

/// Whether another file belongs to every model made from this base: sampling defaults, and the licence
/// texts that must stay with the weights. A README describes the release itself, so it stays behind.
fn is_of_release(name: &str) -> bool {
    const STARTS: [&str; 4] = ["license", "licence", "notice", "use_policy"];
    let lower = name.to_lowercase();
    lower == "generation_config.json"
        || lower == TOLD_FILE
        || STARTS.iter().any(|start| lower.starts_with(start))
}

/// The type of a float tensor.
pub(crate) fn float_type(dtype: Dtype) -> Option<FloatType> {
    match dtype {
        Dtype::F32 => Some(FloatType::F32),
        Dtype::F16 => Some(FloatType::F16),
        Dtype::BF16 => Some(FloatType::Bf16),
        _ => None,
    }
}

/// What config.json calls the model's type: as the base does, or as its embedding is stored.
pub(crate) fn model_type(config: &LlamaConfig, checkpoint: &Checkpoint) -> FloatType {
    let embedding = || float_type(checkpoint.tensor(site::EMBED_TOKENS)?.dtype);
    config.dtype.or_else(embedding).unwrap_or(FloatType::Bf16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes_along(name: &str) -> bool {
        is_of_tokenizer(name) || is_of_release(name)
    }

    #[test]
    fn what_every_derived_model_needs_goes_along() {
        for name in [
            "tokenizer.json",
            "tokenizer.model",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "generation_config.json",
            "chat_template.jinja",
            "LICENSE",
            "LICENSE.txt",
            "NOTICE",
            "Notice.txt",
            "USE_POLICY.md",
        ] {
            assert!(goes_along(name), "{name}");
        }
        for name in [
            "README.md",
            "config.json",
            "model.safetensors",
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "pytorch_model.bin",
            "consolidated.00.pth",
            "params.json",
            "tokenizer.secret",
            "tokenizer_config.json.bak",
            ".gitattributes",
        ] {
            assert!(!goes_along(name), "{name}");
        }
    }
}
