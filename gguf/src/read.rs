//! A GGUF file, read from a memory map. The header is walked once; tensors are slices of the map.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use bytes::Bytes;

use crate::ALIGNMENT;
use crate::problem::Problem;
use crate::tensor_type::TensorType;
use crate::value::{Array, Value, ValueType};

/// What a file begins with.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// Metadata and list of tensors of the largest known vocabularies have some 25 MB, and a tokenizer of more than this
/// is not read in other forms either.
const MAX_HEADER: usize = 64 << 20;
/// A model has some 40; more than this is no model's.
const MAX_KEYS: u64 = 1 << 16;
/// The largest Llama has 1,137; 4,096 blocks, more than are read in other forms, have nine each.
const MAX_TENSORS: u64 = 1 << 16;
/// llama.cpp's `GGML_MAX_DIMS`.
const MAX_DIMENSIONS: u32 = 4;
const MAX_ALIGNMENT: u64 = 1 << 20;

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// How its numbers are kept.
    pub kind: TensorType,
    /// Sizes, outermost first: of a matrix `[out, in]`.
    pub shape: Vec<usize>,
    /// Its blocks, row by row; a slice of the file.
    pub bytes: Bytes,
}

/// A file whose header passed every check: each tensor lies inside of it and fits its shape.
#[derive(Clone, Debug)]
pub struct File {
    version: u32,
    metadata: BTreeMap<String, Value>,
    tensors: Vec<Tensor>,
}

impl File {
    /// Reads the header of a file that is mapped as `map`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read(map: &Bytes) -> Result<Self, Problem> {
        let mut cursor = Cursor { map, at: 0 };
        let version = start(&mut cursor)?;
        let tensor_count = cursor.u64("the number of tensors")?;
        let key_count = cursor.u64("the number of metadata keys")?;
        at_most("the number of tensors", tensor_count, MAX_TENSORS)?;
        at_most("the number of metadata keys", key_count, MAX_KEYS)?;
        let mut metadata = BTreeMap::new();
        for index in 0..key_count {
            let name = cursor.text(|| format!("the name of metadata key {index}"))?.to_owned();
            let value = cursor.value(&name)?;
            if metadata.insert(name.clone(), value).is_some() {
                return Err(Problem::Twice { what: "the metadata key", name });
            }
        }
        refuse_parts(&metadata)?;
        let places: Vec<Place> =
            (0..tensor_count).map(|index| cursor.place(index)).collect::<Result<_, _>>()?;
        let alignment = alignment(&metadata)?;
        let tensors = lay_out(map, cursor.at, alignment, places)?;
        Ok(Self { version, metadata, tensors })
    }

    /// The version of the format.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The metadata by its keys.
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// The tensors, in the order of the file.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }
}

/// Magic and version.
fn start(cursor: &mut Cursor<'_>) -> Result<u32, Problem> {
    if cursor.map.starts_with(b"version https://git-lfs") {
        return Err(Problem::LfsPointer);
    }
    if !cursor.map.starts_with(&MAGIC) {
        return Err(Problem::Magic {
            found: cursor.map[..cursor.map.len().min(4)].escape_ascii().to_string(),
        });
    }
    cursor.at = MAGIC.len();
    match cursor.u32("the version")? {
        version @ (2 | 3) => Ok(version),
        version if matches!(version.swap_bytes(), 1..=3) => Err(Problem::BigEndian),
        found => Err(Problem::Version { found }),
    }
}

fn at_most(what: &str, found: u64, most: u64) -> Result<(), Problem> {
    if found <= most {
        return Ok(());
    }
    let allowed = format!("at most {most}");
    Err(Problem::Wrong { what: what.to_owned(), found: found.to_string(), allowed })
}

fn refuse_parts(metadata: &BTreeMap<String, Value>) -> Result<(), Problem> {
    let number = |key: &str| metadata.get(key).and_then(Value::as_u64);
    match number("split.count") {
        Some(parts) if parts > 1 => {
            Err(Problem::Split { part: number("split.no").unwrap_or(0).saturating_add(1), parts })
        }
        _ => Ok(()),
    }
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<usize, Problem> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(ALIGNMENT) };
    let allowed = |n: &u64| n.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(n);
    match value.as_u64().filter(allowed) {
        Some(alignment) => Ok(alignment as usize),
        None => Err(Problem::Wrong {
            what: "`general.alignment`".to_owned(),
            found: value.to_string(),
            allowed: format!("a power of two from 8 to {MAX_ALIGNMENT}"),
        }),
    }
}

/// A tensor as the list has it.
struct Place {
    name: String,
    kind: TensorType,
    shape: Vec<usize>,
    bytes: usize,
    offset: u64,
}

/// Gives every tensor its bytes, none of which are another's or nobody's.
fn lay_out(
    map: &Bytes,
    header: usize,
    alignment: usize,
    places: Vec<Place>,
) -> Result<Vec<Tensor>, Problem> {
    let data = header.next_multiple_of(alignment).min(map.len());
    let found = map.len() - data;
    let mut ends: Vec<(u64, u64, usize)> = Vec::with_capacity(places.len());
    let mut names = BTreeSet::new();
    for (index, place) in places.iter().enumerate() {
        let Place { name, offset, bytes, .. } = place;
        if !names.insert(name.as_str()) {
            return Err(Problem::Twice { what: "the tensor", name: name.clone() });
        }
        if offset % alignment as u64 != 0 {
            return Err(Problem::Wrong {
                what: format!("the place of tensor `{name}`"),
                found: offset.to_string(),
                allowed: format!("a multiple of the alignment, {alignment}"),
            });
        }
        let end = offset.saturating_add(*bytes as u64);
        if end > found as u64 {
            return Err(Problem::Beyond { tensor: name.clone(), begin: *offset, end, found });
        }
        ends.push((*offset, end, index));
    }
    ends.sort_unstable();
    for [(_, end, other), (begin, _, index)] in ends.array_windows() {
        if begin < end {
            let [tensor, other] = [index, other].map(|&index| places[index].name.clone());
            return Err(Problem::Overlap { tensor, other, found: *begin, end: *end });
        }
    }
    let mut end = 0;
    for (begin, tensor_end, index) in &ends {
        if *begin > end {
            let tensor = places[*index].name.clone();
            return Err(Problem::Hole { tensor, found: *begin, end });
        }
        end = tensor_end.next_multiple_of(alignment as u64);
    }
    Ok(places
        .into_iter()
        .map(|Place { name, kind, shape, bytes, offset }| {
            let begin = data + offset as usize;
            Tensor { name, kind, shape, bytes: map.slice(begin..begin + bytes) }
        })
        .collect())
}

struct Cursor<'a> {
    map: &'a Bytes,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: u64, what: impl FnOnce() -> String) -> Result<&'a [u8], Problem> {
        let found = self.map.len() - self.at;
        if length > found as u64 {
            return Err(Problem::Cut { what: what(), at: self.at, needed: length, found });
        }
        let end = self.at + length as usize;
        if end > MAX_HEADER {
            return Err(Problem::LongHeader { limit: MAX_HEADER });
        }
        let taken = &self.map[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn bytes<const N: usize>(&mut self, what: impl FnOnce() -> String) -> Result<[u8; N], Problem> {
        let taken = self.take(N as u64, what)?;
        Ok(taken.try_into().expect("as many were taken"))
    }

    fn u32(&mut self, what: &str) -> Result<u32, Problem> {
        Ok(u32::from_le_bytes(self.bytes(|| what.to_owned())?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, Problem> {
        Ok(u64::from_le_bytes(self.bytes(|| what.to_owned())?))
    }

    fn text(&mut self, what: impl Fn() -> String) -> Result<&'a str, Problem> {
        let length = u64::from_le_bytes(self.bytes(&what)?);
        let at = self.at;
        let bytes = self.take(length, &what)?;
        std::str::from_utf8(bytes).map_err(|_| Problem::NotText { what: what(), at })
    }

    fn value_type(&mut self, what: impl Fn() -> String) -> Result<ValueType, Problem> {
        let id = u32::from_le_bytes(self.bytes(&what)?);
        ValueType::from_id(id).ok_or_else(|| Problem::Wrong {
            what: what(),
            found: id.to_string(),
            allowed: "from 0 to 12".to_owned(),
        })
    }

    fn value(&mut self, key: &str) -> Result<Value, Problem> {
        let what = || format!("the value of `{key}`");
        let of = self.value_type(|| format!("the type of `{key}`"))?;
        let value = match of {
            ValueType::U8 => Value::Whole(of, u8::from_le_bytes(self.bytes(what)?).into()),
            ValueType::I8 => Value::Whole(of, i8::from_le_bytes(self.bytes(what)?).into()),
            ValueType::U16 => Value::Whole(of, u16::from_le_bytes(self.bytes(what)?).into()),
            ValueType::I16 => Value::Whole(of, i16::from_le_bytes(self.bytes(what)?).into()),
            ValueType::U32 => Value::Whole(of, u32::from_le_bytes(self.bytes(what)?).into()),
            ValueType::I32 => Value::Whole(of, i32::from_le_bytes(self.bytes(what)?).into()),
            ValueType::U64 => Value::Whole(of, u64::from_le_bytes(self.bytes(what)?).into()),
            ValueType::I64 => Value::Whole(of, i64::from_le_bytes(self.bytes(what)?).into()),
            ValueType::F32 => Value::F32(f32::from_le_bytes(self.bytes(what)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(self.bytes(what)?)),
            ValueType::Bool => {
                let [byte] = self.bytes(what)?;
                if byte > 1 {
                    let allowed = "0 or 1".to_owned();
                    return Err(Problem::Wrong { what: what(), found: byte.to_string(), allowed });
                }
                Value::Bool(byte == 1)
            }
            ValueType::Text => Value::text(self.text(what)?),
            ValueType::Array => Value::Array(self.array(key)?),
        };
        Ok(value)
    }

    fn array(&mut self, key: &str) -> Result<Array, Problem> {
        let of = self.value_type(|| format!("the type of the list `{key}`"))?;
        let count = self.u64(&format!("the length of the list `{key}`"))?;
        let begin = self.at;
        match of.size() {
            Some(size) => {
                let length = count.saturating_mul(size as u64);
                self.take(length, || format!("the list `{key}`"))?;
            }
            None if of == ValueType::Text => {
                for index in 0..count {
                    self.text(|| format!("entry {index} of the list `{key}`"))?;
                }
            }
            None => {
                return Err(Problem::Wrong {
                    what: format!("`{key}`"),
                    found: "a list of lists".to_owned(),
                    allowed: "a list of numbers or texts".to_owned(),
                });
            }
        }
        let bytes = self.map.slice(begin..self.at);
        Ok(Array { of, count: count as usize, bytes })
    }

    /// An entry of the list of tensors.
    fn place(&mut self, index: u64) -> Result<Place, Problem> {
        let name = self.text(|| format!("the name of tensor {index}"))?.to_owned();
        let what = |part: &str| format!("the {part} of tensor `{name}`");
        let dimensions = self.u32(&what("number of sizes"))?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(Problem::Wrong {
                what: what("number of sizes"),
                found: dimensions.to_string(),
                allowed: format!("from 1 to {MAX_DIMENSIONS}"),
            });
        }
        // The file has the innermost first.
        let mut sizes = Vec::new();
        for _ in 0..dimensions {
            sizes.insert(0, self.u64(&what("shape"))?);
        }
        let id = self.u32(&what("type"))?;
        let kind = TensorType::from_id(id)
            .map_err(|found| Problem::UnreadType { tensor: name.clone(), found })?;
        let offset = self.u64(&what("place"))?;
        let wrong = |reason: String| {
            let (tensor, shape) = (name.clone(), sizes.clone());
            Problem::Shape { tensor, kind, shape, reason }
        };
        let too_many = || wrong("more bytes than can be addressed".to_owned());
        let shape: Vec<usize> = sizes
            .iter()
            .map(|&size| usize::try_from(size).map_err(|_| too_many()))
            .collect::<Result<_, _>>()?;
        let inner = shape.last().copied().unwrap_or(0);
        if !inner.is_multiple_of(kind.block()) {
            let block = kind.block();
            return Err(wrong(format!("rows of {inner} are no whole number of blocks of {block}")));
        }
        let bytes = kind.bytes(&shape).ok_or_else(too_many)?;
        Ok(Place { name, kind, shape, bytes, offset })
    }
}
