//! What can be wrong with a GGUF file: each names the place in it and both values; whoever opened it names the file.

use crate::tensor_type::TensorType;

/// Why a file is not read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each field is")]
pub enum Problem {
    #[error("it begins with `{found}`, not with `GGUF`: it is no GGUF file, or an empty one")]
    Magic { found: String },
    #[error("it is a pointer of Git LFS, not the file itself: fetch it with `git lfs pull`")]
    LfsPointer,
    #[error("it is of GGUF version {found}; versions 2 and 3 are read: convert the model again")]
    Version { found: u32 },
    #[error("its numbers are big-endian; only little-endian files are read")]
    BigEndian,
    #[error(
        "{what} at byte {at} takes {needed} bytes, but only {found} follow: the copy is cut off"
    )]
    Cut { what: String, at: usize, needed: u64, found: usize },
    #[error(
        "its metadata and list of tensors go beyond byte {limit}, the most that is read of them"
    )]
    LongHeader { limit: usize },
    #[error("{what} is {found}, but must be {allowed}")]
    Wrong { what: String, found: String, allowed: String },
    #[error("{what} at byte {at} is not UTF-8")]
    NotText { what: String, at: usize },
    #[error("{what} `{name}` occurs twice")]
    Twice { what: &'static str, name: String },
    #[error(
        "tensor `{tensor}` is of type {found}, which is not read; read are {}. Take the model in one of \
         these",
        listed()
    )]
    UnreadType { tensor: String, found: String },
    #[error("tensor `{tensor}` of type {kind} claims the shape {shape:?}: {reason}")]
    Shape { tensor: String, kind: TensorType, shape: Vec<u64>, reason: String },
    #[error(
        "tensor `{tensor}` claims the bytes {begin}..{end} after the list of tensors, but {found} follow it{}",
        cut(*end, *found)
    )]
    Beyond { tensor: String, begin: u64, end: u64, found: usize },
    #[error(
        "tensor `{tensor}` begins at byte {found} of the data, inside of `{other}`, which ends at {end}"
    )]
    Overlap { tensor: String, other: String, found: u64, end: u64 },
    #[error(
        "tensor `{tensor}` begins at byte {found} of the data, but what is before it ends at {end}: {} bytes between belong \
         to no tensor, and llama.cpp reads no such file either",
        found - end
    )]
    Hole { tensor: String, found: u64, end: u64 },
    #[error(
        "it is part {part} of a model in {parts} files: join them with llama.cpp's `llama-gguf-split --merge`"
    )]
    Split { part: u64, parts: u64 },
}

fn listed() -> String {
    TensorType::ALL.map(TensorType::name).join(", ")
}

fn cut(end: u64, found: usize) -> &'static str {
    if end > found as u64 { ": the copy is cut off, or the file lies" } else { "" }
}
