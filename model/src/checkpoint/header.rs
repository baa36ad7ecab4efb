//! The header of one safetensors file: 8 bytes of length, JSON, then the tensors without a hole.
//!
//! The checks are those of the safetensors crate 0.8, done here because its errors name neither
//! both values nor, mostly, the tensor, and because it keeps the last of two tensors of one name.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

/// The crate's limit, which other readers share.
pub(super) const MAX_HEADER: u64 = 100_000_000;

/// What is wrong with a safetensors file.
#[derive(Debug, thiserror::Error)]
pub enum HeaderProblem {
    /// Not even the header's length is there.
    #[error("it has {found} bytes, and the header's length alone takes 8")]
    Short {
        /// The file's size.
        found: usize,
    },
    /// The text that stands for a large file in a clone made without Git LFS.
    #[error("it is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder")]
    LfsPointer,
    /// A header longer than any real one.
    #[error("its header claims {claimed} bytes; the format allows {MAX_HEADER}")]
    Long {
        /// The length in the file.
        claimed: u64,
    },
    /// The header goes on beyond the end of the file.
    #[error("its header claims {claimed} bytes, but {found} follow: the copy is cut off")]
    Cut {
        /// The length in the file.
        claimed: u64,
        /// Bytes after the length.
        found: usize,
    },
    /// The header is not the JSON of the format; a tensor that occurs twice is named here too.
    #[error("its header is not valid: {0}")]
    Json(serde_json::Error),
    /// A shape that no memory can hold.
    #[error("tensor `{tensor}` claims the shape {shape:?}, more bytes than can be addressed")]
    Overflow {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Elements smaller than a byte that do not fill whole bytes.
    #[error("tensor `{tensor}` of type {dtype} and shape {shape:?} does not fill whole bytes")]
    PartByte {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Shape and place disagree.
    #[error(
        "tensor `{tensor}` of type {dtype} and shape {shape:?} takes {expected} bytes, but its \
         offsets {begin}..{end} do not span as many"
    )]
    Size {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes that these need.
        expected: usize,
        /// First offset.
        begin: usize,
        /// Offset after the last byte.
        end: usize,
    },
    /// Tensors overlap or leave a hole.
    #[error("tensor `{tensor}` begins at offset {found}, but the one before it ends at {expected}")]
    Offset {
        /// The tensor.
        tensor: String,
        /// Its first offset.
        found: usize,
        /// The only one allowed.
        expected: usize,
    },
    /// More or fewer bytes than the tensors need.
    #[error("its tensors take {expected} bytes, but {found} follow the header{}", cut(*found, *expected))]
    Data {
        /// Bytes after the header.
        found: usize,
        /// Sum of the tensors.
        expected: usize,
    },
}

fn cut(found: usize, expected: usize) -> &'static str {
    if found < expected { ": the copy is cut off" } else { "" }
}

/// Where one tensor lies in the file.
#[derive(Debug)]
pub(super) struct StoredTensor {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) range: Range<usize>,
}

/// A header that passed every check: each range lies inside the file and fits its shape.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) tensors: Vec<(String, StoredTensor)>,
}

pub(super) fn read(file: &[u8]) -> Result<Header, HeaderProblem> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(HeaderProblem::Short { found: file.len() });
    };
    if file.starts_with(b"version https://git-lfs") {
        return Err(HeaderProblem::LfsPointer);
    }
    let claimed = u64::from_le_bytes(*length);
    if claimed > MAX_HEADER {
        return Err(HeaderProblem::Long { claimed });
    }
    let Some((json, data)) = rest.split_at_checked(claimed as usize) else {
        return Err(HeaderProblem::Cut { claimed, found: rest.len() });
    };
    let Json { metadata, mut tensors } =
        serde_json::from_slice(json).map_err(HeaderProblem::Json)?;
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let start = file.len() - data.len();
    let mut end = 0;
    let mut places = Vec::with_capacity(tensors.len());
    for (name, info) in tensors {
        let bytes = byte_length(&name, &info)?;
        let TensorInfo { dtype, shape, data_offsets: (first, last) } = info;
        if first != end {
            return Err(HeaderProblem::Offset { tensor: name, found: first, expected: end });
        }
        if last.checked_sub(first) != Some(bytes) {
            let (begin, end) = (first, last);
            let expected = bytes;
            return Err(HeaderProblem::Size { tensor: name, dtype, shape, expected, begin, end });
        }
        end = last;
        // Beyond the file the sum may overflow; such a header is refused after the loop.
        let range = start.saturating_add(first)..start.saturating_add(last);
        places.push((name, StoredTensor { dtype, shape, range }));
    }
    if end != data.len() {
        return Err(HeaderProblem::Data { found: data.len(), expected: end });
    }
    Ok(Header { metadata, tensors: places })
}

fn byte_length(name: &str, info: &TensorInfo) -> Result<usize, HeaderProblem> {
    let bits = bit_length(info.dtype, &info.shape);
    let (tensor, shape) = (name.to_owned(), info.shape.clone());
    match bits {
        None => Err(HeaderProblem::Overflow { tensor, shape }),
        Some(bits) if bits % 8 != 0 => {
            Err(HeaderProblem::PartByte { tensor, dtype: info.dtype, shape })
        }
        Some(bits) => Ok(bits / 8),
    }
}

/// Bits of a tensor; `None` where they overflow.
pub(super) fn bit_length(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(dtype.bitsize(), |product, &size| product.checked_mul(size))
}

struct Json {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, TensorInfo)>,
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut metadata = BTreeMap::new();
        let mut tensors = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                metadata = map.next_value::<Option<_>>()?.unwrap_or_default();
                continue;
            }
            let info: TensorInfo = map
                .next_value()
                .map_err(|error| A::Error::custom(format!("tensor `{name}`: {error}")))?;
            if tensors.insert(name.clone(), info).is_some() {
                return Err(A::Error::custom(format!("tensor `{name}` occurs twice")));
            }
        }
        Ok(Json { metadata, tensors: tensors.into_iter().collect() })
    }
}
