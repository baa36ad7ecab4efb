//! The values of a file's metadata. A list stays as its bytes, so that one of 128,256 tokens takes no memory of its
//! own.

use std::fmt;

use bytes::Bytes;

/// What a value is: `enum gguf_type` of `ggml/include/gguf.h`, by its ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::Text,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// The number that a file writes.
    pub fn id(self) -> u32 {
        Self::ALL.iter().position(|&found| found == self).expect("all are in the list") as u32
    }

    /// The type of a number.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(id as usize).copied()
    }

    /// Bytes of a value; `None` for those that say their length themselves.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }
}

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number, and the type that it is written in.
    Whole(ValueType, i128),
    /// A number of 32 bits.
    F32(f32),
    /// A number of 64 bits.
    F64(f64),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Text(String),
    /// A list.
    Array(Array),
}

impl Value {
    /// A number as counts and ids are written.
    pub fn u32(number: u32) -> Self {
        Self::Whole(ValueType::U32, i128::from(number))
    }

    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The type that it is written in.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::Whole(of, _) => *of,
            Self::F32(_) => ValueType::F32,
            Self::F64(_) => ValueType::F64,
            Self::Bool(_) => ValueType::Bool,
            Self::Text(_) => ValueType::Text,
            Self::Array(_) => ValueType::Array,
        }
    }

    /// The number, where it is a whole one from 0 on.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Whole(_, number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The number; an f32 in its own decimals, `1e-5` for the f32 next to it.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::F32(number) => number.to_string().parse().ok(),
            Self::F64(number) => Some(*number),
            Self::Whole(_, number) => Some(*number as f64),
            _ => None,
        }
    }

    /// Yes or no.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The list.
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Self::Array(array) => Some(array),
            _ => None,
        }
    }

    /// Its bytes, without its type.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Whole(of, number) => {
                let size = of.size().expect("whole numbers have a size");
                out.extend_from_slice(&number.to_le_bytes()[..size]);
            }
            Self::F32(number) => out.extend_from_slice(&number.to_le_bytes()),
            Self::F64(number) => out.extend_from_slice(&number.to_le_bytes()),
            Self::Bool(value) => out.push(u8::from(*value)),
            Self::Text(text) => put_text(text, out),
            Self::Array(Array { of, count, bytes }) => {
                out.extend_from_slice(&of.id().to_le_bytes());
                out.extend_from_slice(&(*count as u64).to_le_bytes());
                out.extend_from_slice(bytes);
            }
        }
    }
}

pub(crate) fn put_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

impl fmt::Display for Value {
    /// Short: of a list its length.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(_, number) => write!(formatter, "{number}"),
            Self::F32(number) => write!(formatter, "{number}"),
            Self::F64(number) => write!(formatter, "{number}"),
            Self::Bool(value) => write!(formatter, "{value}"),
            Self::Text(text) => match text.char_indices().nth(80) {
                Some((end, _)) => write!(formatter, "{:?}… ({} bytes)", &text[..end], text.len()),
                None => write!(formatter, "{text:?}"),
            },
            Self::Array(array) => write!(formatter, "a list of {}", array.len()),
        }
    }
}

/// A list of the metadata; its bytes were checked when the file was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub(crate) of: ValueType,
    pub(crate) count: usize,
    pub(crate) bytes: Bytes,
}

impl Array {
    /// A list of texts.
    pub fn of_texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        let (mut bytes, mut count) = (Vec::new(), 0);
        for text in texts {
            put_text(text.as_ref(), &mut bytes);
            count += 1;
        }
        Self { of: ValueType::Text, count, bytes: bytes.into() }
    }

    /// A list of i32.
    pub fn of_i32(numbers: &[i32]) -> Self {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Self { of: ValueType::I32, count: numbers.len(), bytes: bytes.into() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The texts; `None` where it is a list of something else.
    pub fn texts(&self) -> Option<impl Iterator<Item = &str>> {
        (self.of == ValueType::Text).then(|| {
            let mut rest = &self.bytes[..];
            std::iter::from_fn(move || {
                let (length, after) = rest.split_first_chunk::<8>()?;
                let (text, after) = after.split_at_checked(u64::from_le_bytes(*length) as usize)?;
                rest = after;
                std::str::from_utf8(text).ok()
            })
        })
    }

    /// The numbers; `None` where it is a list of something else than whole ones of 32 bits.
    pub fn numbers(&self) -> Option<impl Iterator<Item = i64>> {
        let signed = match self.of {
            ValueType::I32 => true,
            ValueType::U32 => false,
            _ => return None,
        };
        Some(self.bytes.as_chunks::<4>().0.iter().map(move |bytes| {
            if signed {
                i64::from(i32::from_le_bytes(*bytes))
            } else {
                i64::from(u32::from_le_bytes(*bytes))
            }
        }))
    }
}
