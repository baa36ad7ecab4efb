//! A checkpoint's tensors, memory-mapped: one safetensors file, shards with an index, or a GGUF file.
//!
//! Follows the safetensors format (github.com/huggingface/safetensors, README) and the folder layout
//! of transformers (`modeling_utils.py`). Opening touches the headers only; a tensor is a slice of
//! the map, shared and never copied; of a GGUF file it may be made of what is stored ([`Checkpoint::tensor`]).

mod expected;
mod gguf;
mod header;
mod nf4;
mod write;

pub use expected::{Expected, TensorProblem, expected};
pub use header::HeaderProblem;
pub use nf4::{Nf4Problem, Nf4Tensor};
pub use safetensors::Dtype;
pub use write::{ShardedWriter, TensorSpec, stream_safetensors, write_safetensors};

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use crate::error::Error;
use crate::folder::ModelFolder;
use crate::pages::{Access, Mapped};
use gguf::Made;

/// The unsharded file. Where it exists it is the checkpoint, with or without an index beside it.
pub const SINGLE_FILE: &str = "model.safetensors";
/// The list of shards.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// One tensor: little-endian elements in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorView {
    /// The tensor's name in the file.
    pub name: String,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// The elements; a slice of the map, aligned only as well as the file was written.
    pub bytes: Bytes,
}

impl TensorView {
    /// The elements of an F32, F16 or BF16 tensor, widened exactly.
    ///
    /// # Errors
    /// Any other type.
    pub fn to_f32(&self) -> Result<Vec<f32>, Error> {
        let pairs = self.bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
        match self.dtype {
            Dtype::F32 => Ok(f32_values(&self.bytes)),
            Dtype::F16 => Ok(pairs.map(|pair| half::f16::from_le_bytes(pair).to_f32()).collect()),
            Dtype::BF16 => Ok(pairs.map(|pair| half::bf16::from_le_bytes(pair).to_f32()).collect()),
            found => Err(Error::NotFloat { tensor: self.name.clone(), found }),
        }
    }
}

/// Little-endian f32 at any alignment.
fn f32_values(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// All tensors of one file or of one set of shards.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    folder: String,
    tensors: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
    /// The files' maps; none where the files are embedded in the program.
    maps: Vec<Mapped>,
}

#[derive(Clone, Debug)]
struct Entry {
    file: Arc<str>,
    dtype: Dtype,
    shape: Vec<usize>,
    /// As they lie in the file.
    bytes: Bytes,
    /// Set where the tensor is made of these.
    made: Option<Made>,
}

impl Entry {
    /// Length of a row, and how many there are.
    fn rows(&self) -> (usize, usize) {
        let (inner, outer) = self.shape.split_last().map_or((1, &[][..]), |(i, outer)| (*i, outer));
        (inner, outer.iter().product())
    }

    /// The elements of some rows.
    fn some(&self, rows: Range<usize>) -> Bytes {
        let (inner, _) = self.rows();
        if let Some(made) = self.made {
            return made.rows(&self.bytes, inner, rows);
        }
        let row = inner * self.dtype.bitsize() / 8;
        self.bytes.slice(rows.start * row..rows.end * row)
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a model folder's weights.
    ///
    /// # Errors
    /// Neither file exists, or a file, header or index breaks its format; see [`Error`].
    pub fn open(folder: &ModelFolder) -> Result<Self, Error> {
        if let Some(model) = folder.gguf() {
            return Self::of_gguf(folder, model);
        }
        if folder.contains(SINGLE_FILE) {
            return Self::open_file(folder, SINGLE_FILE);
        }
        let Some(text) = folder.bytes(INDEX_FILE)? else {
            let name = format!("{SINGLE_FILE}` or `{INDEX_FILE}");
            return Err(folder.without_weights(&name));
        };
        let index: Index = serde_json::from_slice(&text)
            .map_err(|source| Error::Json { file: folder.display_file(INDEX_FILE), source })?;
        let mut checkpoint = Self::empty(folder);
        let shards: BTreeSet<&String> = index.weight_map.values().collect();
        let mut missing = Vec::new();
        for shard in &shards {
            match checkpoint.add_file(folder, shard) {
                Err(Error::FileMissing { file, .. }) => missing.push(file),
                other => other?,
            }
        }
        if !missing.is_empty() {
            return Err(Error::ShardsMissing { index: folder.display_file(INDEX_FILE), missing });
        }
        checkpoint.check_index(&index, folder)?;
        Ok(checkpoint)
    }

    /// The files that [`Checkpoint::open`] reads in a folder: the weights, and the index of shards.
    ///
    /// # Errors
    /// As those of opening.
    pub fn files(folder: &ModelFolder) -> Result<Vec<String>, Error> {
        if let Some(model) = folder.gguf() {
            let name = model.path().file_name().unwrap_or_default();
            return Ok(vec![name.to_string_lossy().into_owned()]);
        }
        if folder.contains(SINGLE_FILE) {
            return Ok(vec![SINGLE_FILE.to_owned()]);
        }
        let text = folder.required(INDEX_FILE)?;
        let index: Index = serde_json::from_slice(&text)
            .map_err(|source| Error::Json { file: folder.display_file(INDEX_FILE), source })?;
        let shards: BTreeSet<String> = index.weight_map.into_values().collect();
        Ok(shards.into_iter().chain([INDEX_FILE.to_owned()]).collect())
    }

    /// Opens one safetensors file of a folder: an adapter, an optimizer's state.
    pub fn open_file(folder: &ModelFolder, name: &str) -> Result<Self, Error> {
        let mut checkpoint = Self::empty(folder);
        checkpoint.add_file(folder, name)?;
        Ok(checkpoint)
    }

    fn empty(folder: &ModelFolder) -> Self {
        Self {
            folder: folder.display(),
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
            maps: Vec::new(),
        }
    }

    fn add_file(&mut self, folder: &ModelFolder, name: &str) -> Result<(), Error> {
        let map = folder.map(name)?;
        let file: Arc<str> = folder.display_file(name).into();
        let header = header::read(&map)
            .map_err(|problem| Error::Header { file: file.to_string(), problem: problem.into() })?;
        if folder.path().is_some() {
            self.maps.extend(Mapped::new(map.clone()));
        }
        self.metadata.extend(header.metadata);
        for (name, info) in header.tensors {
            let bytes = map.slice(info.range);
            let (file, dtype, shape) = (file.clone(), info.dtype, info.shape);
            let entry = Entry { file: file.clone(), dtype, shape, bytes, made: None };
            if let Some(other) = self.tensors.insert(name.clone(), entry) {
                let (first, second) = (other.file.to_string(), file.to_string());
                return Err(Error::TwoShards { tensor: name, first, second });
            }
        }
        Ok(())
    }

    fn check_index(&self, index: &Index, folder: &ModelFolder) -> Result<(), Error> {
        let misplaced = |(name, shard): &(&String, &String)| {
            let place = folder.display_file(shard);
            self.tensors.get(*name).is_none_or(|entry| *entry.file != *place)
        };
        let mut misplaced = index.weight_map.iter().filter(misplaced);
        let Some((tensor, shard)) = misplaced.next() else { return Ok(()) };
        Err(Error::NotInShard {
            index: folder.display_file(INDEX_FILE),
            tensor: tensor.clone(),
            shard: shard.clone(),
            more: misplaced.count(),
        })
    }

    /// The mapped pages of the weight `name` that a product reads, none where it is embedded or made of what is
    /// stored: its values, and the scales of an NF4 weight.
    pub fn pages(&self, name: &str) -> Vec<Mapped> {
        if self.is_made(name) { Vec::new() } else { self.stored_pages(name) }
    }

    /// The mapped pages that hold the weight `name` in the file.
    fn stored_pages(&self, name: &str) -> Vec<Mapped> {
        if self.maps.is_empty() {
            return Vec::new();
        }
        let scales = self.tensors.get(&format!("{name}.absmax"));
        let entries = scales.into_iter().chain(self.tensors.get(name));
        entries.filter_map(|entry| Mapped::new(entry.bytes.clone())).collect()
    }

    /// Whether memory holds the tensor of this name once it is asked for: it is made of what is stored.
    pub fn is_made(&self, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|entry| entry.made.is_some())
    }

    /// Lets the system take back the memory that holds a tensor's bytes; they are read from the file
    /// again where they are still used.
    pub fn release(&self, name: &str) {
        self.stored_pages(name).iter().for_each(Mapped::release);
    }

    /// Lets the system take back the memory of all files: what was touched to find out what there is. Tensors
    /// that are still used are read again.
    pub fn release_all(&self) {
        self.maps.iter().for_each(Mapped::release);
    }

    /// Runs `look`, which reads a little here and there, without reading what lies around it.
    fn scattered<T>(&self, look: impl FnOnce() -> T) -> T {
        self.maps.iter().for_each(|map| map.set_access(Access::Scattered));
        let found = look();
        self.maps.iter().for_each(|map| map.set_access(Access::Usual));
        found
    }

    /// The tensor of this name. One of a GGUF file is decoded as a whole, where it is kept in blocks.
    pub fn tensor(&self, name: &str) -> Option<TensorView> {
        let entry = self.tensors.get(name)?;
        let bytes = match entry.made {
            Some(_) => entry.some(0..entry.rows().1),
            None => entry.bytes.clone(),
        };
        let Entry { dtype, shape, .. } = entry.clone();
        Some(TensorView { name: name.to_owned(), dtype, shape, bytes })
    }

    /// Name, type and shape of a tensor, as [`Checkpoint::tensor`] gives it.
    pub fn spec(&self, name: &str) -> Option<TensorSpec> {
        let Entry { dtype, shape, .. } = self.tensors.get(name)?.clone();
        Some(TensorSpec { name: name.to_owned(), dtype, shape })
    }

    /// Some rows of the matrix of this name, which has as many.
    pub fn rows(&self, name: &str, rows: Range<usize>) -> Option<Bytes> {
        Some(self.tensors.get(name)?.some(rows))
    }

    /// The first bytes of a tensor, at most so many.
    pub fn beginning(&self, name: &str, most: usize) -> Option<Bytes> {
        let entry = self.tensors.get(name)?;
        let (inner, rows) = entry.rows();
        let row = (inner * entry.dtype.bitsize() / 8).max(1);
        let bytes = match entry.made {
            Some(_) => entry.some(0..rows.min(most.div_ceil(row))),
            None => entry.bytes.clone(),
        };
        Some(bytes.slice(..bytes.len().min(most)))
    }

    /// The form that a tensor is stored in, and its bytes there.
    pub fn stored(&self, name: &str) -> Option<(Cow<'static, str>, u64)> {
        let entry = self.tensors.get(name)?;
        let form = match entry.made {
            Some(made) => made.form().into(),
            None => entry.dtype.to_string().into(),
        };
        Some((form, entry.bytes.len() as u64))
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// No tensor at all.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Bytes of all tensors together, headers not counted.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().map(|entry| entry.bytes.len() as u64).sum()
    }

    /// The file that holds a tensor, as errors name it.
    pub fn file_of(&self, name: &str) -> Option<&str> {
        self.tensors.get(name).map(|entry| &*entry.file)
    }

    /// The headers' free text, `{"format": "pt"}` and the like, of all files together.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

#[cfg(test)]
mod tests;
