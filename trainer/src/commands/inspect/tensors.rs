//! A file of tensors by itself, and sums over tensors for the other kinds.

use std::collections::BTreeMap;
use std::path::Path;

use graft_model::checkpoint::Checkpoint;
use graft_model::folder::ModelFolder;
use serde_json::{Value, json};

use super::Findings;
use crate::cli::failure::WrongUse;
use crate::cli::page::{bytes, grouped};

/// Tensors and bytes of one type of numbers.
#[derive(Debug, Default, Clone, Copy)]
struct OfType {
    tensors: u64,
    bytes: u64,
}

/// Sums over the tensors of a checkpoint.
pub(super) struct Sums(BTreeMap<String, OfType>);

impl Sums {
    pub(super) fn of(checkpoint: &Checkpoint) -> Self {
        let mut sums: BTreeMap<String, OfType> = BTreeMap::new();
        for (form, bytes) in checkpoint.names().filter_map(|name| checkpoint.stored(name)) {
            let sum = sums.entry(form.into_owned()).or_default();
            sum.tensors += 1;
            sum.bytes += bytes;
        }
        Self(sums)
    }

    /// `BF16: 291 tensors, 14.96 GiB`, a line a type.
    pub(super) fn text(&self) -> String {
        let line = |(dtype, sum): (&String, &OfType)| {
            format!("{dtype}: {} tensors, {}", grouped(sum.tensors), bytes(sum.bytes))
        };
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn json(&self) -> Value {
        let entry = |(dtype, sum): (&String, &OfType)| {
            (dtype.clone(), json!({"tensors": sum.tensors, "bytes": sum.bytes}))
        };
        Value::Object(self.0.iter().map(entry).collect())
    }
}

/// Describes one `.safetensors` file.
pub(super) fn inspect(path: &Path) -> anyhow::Result<Findings> {
    let (Some(name), Some("safetensors")) =
        (path.file_name().and_then(|n| n.to_str()), path.extension().and_then(|e| e.to_str()))
    else {
        let message = format!(
            "`{}` is a file, but no .safetensors or GGUF file and no folder",
            path.display()
        );
        return Err(WrongUse(message).into());
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = ModelFolder::at(folder.unwrap_or(Path::new(".")))?;
    let checkpoint = Checkpoint::open_file(&folder, name)?;
    let sums = Sums::of(&checkpoint);
    let shapes = checkpoint.names().filter_map(|name| {
        let view = checkpoint.tensor(name)?;
        Some(format!("{name}  {} {:?}", view.dtype, view.shape))
    });
    let shapes: Vec<String> = shapes.collect();
    let json = json!({
        "kind": "tensors",
        "path": path,
        "tensors": sums.json(),
        "bytes": checkpoint.total_bytes(),
        "metadata": checkpoint.metadata(),
    });
    let rows = vec![
        ("file", path.display().to_string()),
        ("tensors", sums.text()),
        ("names", shapes.join("\n")),
    ];
    Ok(Findings { rows, json, fault: None })
}
