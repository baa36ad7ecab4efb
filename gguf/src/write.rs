//! Writes a GGUF file, version 3, as a stream: the header first, then each tensor as its caller gives it.

use std::io::{self, Write};

use crate::tensor_type::TensorType;
use crate::value::{Value, put_text};
use crate::{ALIGNMENT, MAGIC};

const VERSION: u32 = 3;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// How its numbers are kept.
    pub kind: TensorType,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Its bytes; rows have to be whole numbers of blocks.
    pub fn bytes(&self) -> usize {
        let Self { name, kind, shape } = self;
        kind.bytes(shape).unwrap_or_else(|| panic!("`{name}` as {kind} {shape:?} has no size"))
    }
}

/// What a file will hold.
#[derive(Clone, Debug)]
pub struct Writer {
    header: Vec<u8>,
    tensors: Vec<TensorSpec>,
}

impl Writer {
    /// A file of these keys, in their order, and tensors, in theirs.
    pub fn new(metadata: &[(String, Value)], tensors: Vec<TensorSpec>) -> Self {
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
        header.extend_from_slice(&(metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata {
            put_text(key, &mut header);
            header.extend_from_slice(&value.value_type().id().to_le_bytes());
            value.put(&mut header);
        }
        let mut offset = 0u64;
        for tensor in &tensors {
            put_text(&tensor.name, &mut header);
            header.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
            for &size in tensor.shape.iter().rev() {
                header.extend_from_slice(&(size as u64).to_le_bytes());
            }
            header.extend_from_slice(&tensor.kind.id().to_le_bytes());
            header.extend_from_slice(&offset.to_le_bytes());
            offset += tensor.bytes().next_multiple_of(ALIGNMENT) as u64;
        }
        header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
        Self { header, tensors }
    }

    /// The tensors.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// Bytes of all tensors.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes() as u64).sum()
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        let padded = |tensor: &TensorSpec| tensor.bytes().next_multiple_of(ALIGNMENT) as u64;
        self.header.len() as u64 + self.tensors.iter().map(padded).sum::<u64>()
    }

    /// Writes the file; `source` writes the bytes of each tensor in turn.
    ///
    /// # Errors
    /// Those of `out` and of `source`.
    ///
    /// # Panics
    /// `source` writes more or fewer bytes than the tensor has.
    pub fn write<E: From<io::Error>>(
        &self,
        out: &mut dyn Write,
        mut source: impl FnMut(&TensorSpec, &mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        out.write_all(&self.header)?;
        for tensor in &self.tensors {
            let mut counted = Counted { out, bytes: 0 };
            source(tensor, &mut counted)?;
            let (written, needed) = (counted.bytes, tensor.bytes());
            assert_eq!(written, needed, "bytes written of `{}`", tensor.name);
            let padding = [0; ALIGNMENT];
            out.write_all(&padding[..needed.next_multiple_of(ALIGNMENT) - needed])?;
        }
        Ok(())
    }
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: usize,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
