//! Writes safetensors: one file, or the shards and index of a Hugging Face folder.
//!
//! The layout is decided before the first byte is written, so that tensors can be made one at a
//! time: peak memory is one tensor. Same tensors, same bytes: order and metadata are sorted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::{INDEX_FILE, SINGLE_FILE, TensorView, header};
use crate::error::Error;
use graft_files::atomic;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the file.
    pub name: String,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Bytes of the elements.
    ///
    /// # Errors
    /// More than can be addressed, or elements that do not fill whole bytes.
    pub fn byte_length(&self) -> Result<usize, Error> {
        match header::bit_length(self.dtype, &self.shape) {
            Some(bits) if bits.is_multiple_of(8) => Ok(bits / 8),
            _ => {
                let reason = format!("{} {:?} is no number of bytes", self.dtype, self.shape);
                Err(Error::Layout { tensor: self.name.clone(), reason })
            }
        }
    }
}

/// One file to come: its header, and its tensors in file order with their lengths.
struct FileLayout {
    header: Vec<u8>,
    tensors: Vec<(TensorSpec, usize)>,
}

impl FileLayout {
    /// Sorted as the safetensors crate does, wide elements first, so that none lies unaligned.
    fn new(
        mut tensors: Vec<(TensorSpec, usize)>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        tensors.sort_by(|(left, _), (right, _)| {
            right.dtype.cmp(&left.dtype).then_with(|| left.name.cmp(&right.name))
        });
        let mut object = Map::new();
        if !metadata.is_empty() {
            object.insert("__metadata__".to_owned(), json!(metadata));
        }
        let mut offset = 0_usize;
        for (spec, length) in &tensors {
            let end = offset + length;
            let value = json!({
                "dtype": spec.dtype.to_string(),
                "shape": spec.shape,
                "data_offsets": [offset, end],
            });
            if spec.name == "__metadata__" || object.insert(spec.name.clone(), value).is_some() {
                let reason = "the name is taken".to_owned();
                return Err(Error::Layout { tensor: spec.name.clone(), reason });
            }
            offset = end;
        }
        let mut json = Value::Object(object).to_string().into_bytes();
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.append(&mut json);
        Ok(Self { header, tensors })
    }

    fn file_bytes(&self) -> u64 {
        let data: u64 = self.tensors.iter().map(|(_, length)| *length as u64).sum();
        self.header.len() as u64 + data
    }

    fn write<E: From<Error>>(
        &self,
        path: &Path,
        source: &mut impl FnMut(&TensorSpec, &mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        let written = atomic::write_file(path, |file| -> Result<(), Failure<E>> {
            file.write_all(&self.header)?;
            for (spec, length) in &self.tensors {
                let mut sink = Counted { file: &mut *file, written: 0, length: *length };
                source(spec, &mut sink).map_err(Failure::Source)?;
                if sink.written != *length {
                    let reason = format!("{} bytes came, {length} belong there", sink.written);
                    let tensor = spec.name.clone();
                    return Err(Failure::Source(Error::Layout { tensor, reason }.into()));
                }
            }
            Ok(())
        });
        written.map_err(|failure| match failure {
            Failure::Disk(error) => Error::Write(error).into(),
            Failure::Source(error) => error,
        })
    }
}

impl FileLayout {
    /// As [`FileLayout::write`] into a plain file; tensors that `source` has no bytes for are holes.
    fn write_sparse(
        &self,
        path: &Path,
        source: &mut impl FnMut(&TensorSpec) -> Option<Vec<u8>>,
    ) -> Result<(), Error> {
        let failed = |source| Error::Io { action: "write", path: path.to_path_buf(), source };
        let mut file = File::create_new(path).map_err(failed)?;
        file.write_all(&self.header).map_err(failed)?;
        let mut place = self.header.len() as u64;
        for (spec, length) in &self.tensors {
            if let Some(bytes) = source(spec) {
                if bytes.len() != *length {
                    let reason = format!("{} bytes came, {length} belong there", bytes.len());
                    return Err(Error::Layout { tensor: spec.name.clone(), reason });
                }
                file.seek(SeekFrom::Start(place)).map_err(failed)?;
                file.write_all(&bytes).map_err(failed)?;
            }
            place += *length as u64;
        }
        file.set_len(place).map_err(failed)
    }
}

/// Keeps the caller's errors and the disk's apart on their way through [`atomic::write_file`].
enum Failure<E> {
    Disk(io::Error),
    Source(E),
}

impl<E> From<io::Error> for Failure<E> {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// Lets a tensor's source write no further than the tensor's end.
struct Counted<'a> {
    file: &'a mut dyn Write,
    written: usize,
    length: usize,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.length - self.written {
            let text = format!("a tensor of {} bytes got more than that", self.length);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let count = self.file.write(bytes)?;
        self.written += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes one safetensors file, whole or not at all. Equal input gives equal bytes.
///
/// # Errors
/// A name occurs twice, bytes do not fit a shape, or the disk refuses.
pub fn write_safetensors(
    path: &Path,
    tensors: &[TensorView],
    metadata: &BTreeMap<String, String>,
) -> Result<(), Error> {
    let mut by_name = BTreeMap::new();
    let mut specs = Vec::with_capacity(tensors.len());
    for TensorView { name, dtype, shape, bytes } in tensors {
        specs.push(TensorSpec { name: name.clone(), dtype: *dtype, shape: shape.clone() });
        by_name.insert(name.as_str(), bytes);
    }
    stream_safetensors(path, specs, metadata, |spec, file| {
        Ok(file.write_all(by_name[spec.name.as_str()])?)
    })
}

/// As [`write_safetensors`], from tensors that are made one at a time: `source` is asked once for each,
/// in the order of the file, and writes its elements, little-endian and row-major.
///
/// # Errors
/// Those of `source` and of [`write_safetensors`].
pub fn stream_safetensors<E: From<Error>>(
    path: &Path,
    specs: Vec<TensorSpec>,
    metadata: &BTreeMap<String, String>,
    mut source: impl FnMut(&TensorSpec, &mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let mut tensors = Vec::with_capacity(specs.len());
    for spec in specs {
        let length = spec.byte_length()?;
        tensors.push((spec, length));
    }
    FileLayout::new(tensors, metadata)?.write(path, &mut source)
}

/// Writes the weights of a Hugging Face folder from tensors that are made one at a time.
///
/// ```text
/// let writer = ShardedWriter::new(specs, ShardedWriter::MAX_SHARD_BYTES)?;
/// disk::require_free(folder, writer.file_bytes())?;
/// writer.write(folder, |spec, file| file.write_all(&make(&spec.name)?))?;
/// ```
pub struct ShardedWriter {
    shards: Vec<(String, FileLayout)>,
    total_bytes: u64,
}

impl ShardedWriter {
    /// transformers' default, 5 GB.
    pub const MAX_SHARD_BYTES: u64 = 5_000_000_000;

    /// Lays the tensors out: in the order given, a new shard begins where the next tensor would
    /// take the current one over `max_shard_bytes`. A larger tensor gets a shard of its own.
    ///
    /// # Errors
    /// A name occurs twice or a shape is no number of bytes.
    pub fn new(specs: Vec<TensorSpec>, max_shard_bytes: u64) -> Result<Self, Error> {
        let mut groups: Vec<Vec<(TensorSpec, usize)>> = vec![Vec::new()];
        let mut names = std::collections::BTreeSet::new();
        let (mut filled, mut total_bytes) = (0_u64, 0_u64);
        for spec in specs {
            let length = spec.byte_length()?;
            if !names.insert(spec.name.clone()) {
                let reason = "the name is taken".to_owned();
                return Err(Error::Layout { tensor: spec.name, reason });
            }
            let fits = filled + length as u64 <= max_shard_bytes;
            if !fits && groups.last().is_some_and(|group| !group.is_empty()) {
                groups.push(Vec::new());
                filled = 0;
            }
            filled += length as u64;
            total_bytes += length as u64;
            groups.last_mut().expect("it begins with one group").push((spec, length));
        }
        let count = groups.len();
        // transformers reads files only that name the framework they are for.
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let mut shards = Vec::with_capacity(count);
        for (number, group) in groups.into_iter().enumerate() {
            let name = match count {
                1 => SINGLE_FILE.to_owned(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
            };
            shards.push((name, FileLayout::new(group, &metadata)?));
        }
        Ok(Self { shards, total_bytes })
    }

    /// Bytes of all tensors: the index's `total_size`.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Bytes that the weight files take on disk, headers included, the index not.
    pub fn file_bytes(&self) -> u64 {
        self.shards.iter().map(|(_, layout)| layout.file_bytes()).sum()
    }

    /// The weight files' names.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().map(|(name, _)| name.as_str())
    }

    /// Every tensor in the order in which [`ShardedWriter::write`] asks for it.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorSpec> {
        self.shards.iter().flat_map(|(_, layout)| layout.tensors.iter().map(|(spec, _)| spec))
    }

    /// Writes all files into `folder`; `source` is asked once for every tensor and writes its
    /// elements, little-endian and row-major.
    ///
    /// # Errors
    /// Those of `source`; a tensor that gets fewer or more bytes than its shape takes; the disk's; the
    /// process was asked to stop.
    pub fn write<E: From<Error>>(
        &self,
        folder: &Path,
        mut source: impl FnMut(&TensorSpec, &mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut source = |spec: &TensorSpec, file: &mut dyn Write| {
            crate::stop::check().map_err(Error::from)?;
            source(spec, file)
        };
        for (name, layout) in &self.shards {
            layout.write(&folder.join(name), &mut source)?;
        }
        Ok(self.write_index(folder)?)
    }

    /// Writes all files into `folder`, which is new and not yet anybody's: [`atomic::replace_folder`]
    /// makes one. Tensors for which `source` has no bytes are left as holes: they read as zeros and
    /// take no disk, where the file system knows holes.
    ///
    /// # Errors
    /// A tensor gets fewer or more bytes than its shape takes; the disk's.
    pub fn write_sparse(
        &self,
        folder: &Path,
        mut source: impl FnMut(&TensorSpec) -> Option<Vec<u8>>,
    ) -> Result<(), Error> {
        for (name, layout) in &self.shards {
            layout.write_sparse(&folder.join(name), &mut source)?;
        }
        self.write_index(folder)
    }

    fn write_index(&self, folder: &Path) -> Result<(), Error> {
        if self.shards.len() == 1 {
            return Ok(());
        }
        let mut weight_map = BTreeMap::new();
        for (name, layout) in &self.shards {
            weight_map.extend(layout.tensors.iter().map(|(spec, _)| (&spec.name, name)));
        }
        let index = json!({
            "metadata": {"total_size": self.total_bytes},
            "weight_map": weight_map,
        });
        let text = format!("{index:#}\n");
        atomic::write_bytes(folder.join(INDEX_FILE), text.as_bytes()).map_err(Error::Write)
    }
}
