//! A weight that bitsandbytes stored in NF4: the packed codes and the tensors that go with them.
//!
//! Follows bitsandbytes 0.50 (`functional.py`, `QuantState.from_dict`). With block `b` of 64
//! elements: `w[k] = quant_map[code[k]] · absmax[k / 64]`, and where the scales are quantised too,
//! `absmax[b] = nested_map[codes[b]] · nested_absmax[b / 256] + offset`.

use bytes::Bytes;
use graft_kernels::nf4::{Absmax, BLOCK, NESTED_BLOCK};
use safetensors::Dtype;
use serde::Deserialize;

use super::{Checkpoint, TensorView, f32_values};
use crate::config::FloatType;
use crate::error::Error;

const STATE: &str = ".quant_state.bitsandbytes__";

/// An NF4 weight as stored.
#[derive(Clone, Debug)]
pub struct Nf4Tensor {
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// Two codes a byte, the first element in the high four bits; `out · in / 2` bytes.
    pub codes: Bytes,
    /// One scale a block.
    pub absmax: Absmax,
    /// The number that each code stands for.
    pub quant_map: [f32; 16],
    /// Type that the weight had before it was quantised, and has again for bitsandbytes.
    pub dtype: FloatType,
}

/// Why a quantised weight cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Nf4Problem {
    /// A tensor of the group is not there.
    #[error("`{0}` is missing")]
    Missing(String),
    /// 4 bits of another kind, such as fp4.
    #[error(
        "it is in {found:?}; Graft reads nf4: take the unquantised release and `graft quantize`"
    )]
    Kind {
        /// The kind's name.
        found: String,
    },
    /// The state is not the JSON it should be.
    #[error("its quant_state is not valid: {0}")]
    State(serde_json::Error),
    /// A value that this reader does not support.
    #[error("its {key} is {found}, but must be {expected}")]
    Value {
        /// Which.
        key: &'static str,
        /// The value in the file.
        found: String,
        /// The value that would do.
        expected: String,
    },
    /// A tensor of the group has another type or length than the weight's shape implies.
    #[error(
        "`{name}` is {found_type} with {found} elements, but must be {expected_type} with {expected}"
    )]
    Length {
        /// The tensor.
        name: String,
        /// Its type.
        found_type: Dtype,
        /// Its elements.
        found: usize,
        /// The right type.
        expected_type: &'static str,
        /// The right number.
        expected: usize,
    },
}

#[derive(Deserialize)]
struct State {
    quant_type: String,
    blocksize: usize,
    dtype: String,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_dtype: Option<String>,
    nested_offset: Option<f32>,
}

impl Nf4Tensor {
    /// Names of the tensors that may accompany the weight `name`.
    pub fn companions(name: &str) -> [String; 5] {
        [
            "absmax",
            "quant_map",
            "nested_absmax",
            "nested_quant_map",
            "quant_state.bitsandbytes__nf4",
        ]
        .map(|part| format!("{name}.{part}"))
    }
}

impl Checkpoint {
    /// Reads the weight `name` where it is stored in NF4; `None` where it is dense or absent.
    ///
    /// # Errors
    /// [`Error::Nf4`]: another 4-bit format, a tensor of the group missing or of a wrong length.
    pub fn nf4(&self, name: &str) -> Result<Option<Nf4Tensor>, Error> {
        let prefix = format!("{name}{STATE}");
        let state = self.tensors.range(prefix.clone()..).next();
        let state = state.and_then(|(found, _)| found.strip_prefix(&prefix));
        let has_absmax = self.tensors.contains_key(&format!("{name}.absmax"));
        if state.is_none() && !has_absmax {
            return Ok(None);
        }
        let result = match state {
            None => Err(Nf4Problem::Missing(format!("{prefix}nf4"))),
            Some("nf4") => self.read_nf4(name),
            Some(other) => Err(Nf4Problem::Kind { found: other.to_owned() }),
        };
        result.map(Some).map_err(|problem| Error::Nf4 {
            file: self.file_of(name).unwrap_or(&self.folder).to_owned(),
            tensor: name.to_owned(),
            problem,
        })
    }

    fn read_nf4(&self, name: &str) -> Result<Nf4Tensor, Nf4Problem> {
        let state = self.part(format!("{name}{STATE}nf4"))?;
        let state: State = serde_json::from_slice(&state.bytes).map_err(Nf4Problem::State)?;
        if state.quant_type != "nf4" {
            return Err(Nf4Problem::Kind { found: state.quant_type });
        }
        require("blocksize", state.blocksize, BLOCK)?;
        let (shape, blocks) = shape_and_blocks(&state.shape)?;
        let codes = self.part(name.to_owned())?;
        if !matches!(codes.dtype, Dtype::U8 | Dtype::BF16 | Dtype::F16 | Dtype::F32)
            || codes.bytes.len() != blocks * BLOCK / 2
        {
            let expected_type = "bytes (U8, or BF16, F16, F32 as storage)";
            return Err(Nf4Problem::Length {
                name: name.to_owned(),
                found_type: codes.dtype,
                found: codes.bytes.len(),
                expected_type,
                expected: blocks * BLOCK / 2,
            });
        }
        let map = self.floats(format!("{name}.quant_map"), 16)?;
        let dtype = FloatType::from_name(&state.dtype).ok_or_else(|| Nf4Problem::Value {
            key: "dtype",
            found: state.dtype.clone(),
            expected: "bfloat16, float16 or float32".to_owned(),
        })?;
        Ok(Nf4Tensor {
            shape,
            codes: codes.bytes,
            absmax: self.absmax(name, &state, blocks)?,
            quant_map: std::array::from_fn(|code| map[code]),
            dtype,
        })
    }

    fn absmax(&self, name: &str, state: &State, blocks: usize) -> Result<Absmax, Nf4Problem> {
        let absmax = self.part(format!("{name}.absmax"))?;
        let Some(nested_block) = state.nested_blocksize else {
            return Ok(Absmax::Plain(checked(absmax, Dtype::F32, "F32", blocks)?.bytes));
        };
        require("nested_blocksize", nested_block, NESTED_BLOCK)?;
        let nested_dtype = state.nested_dtype.as_deref().unwrap_or("float32");
        require("nested_dtype", nested_dtype, "float32")?;
        let offset = state.nested_offset.filter(|offset| offset.is_finite()).ok_or_else(|| {
            Nf4Problem::Value {
                key: "nested_offset",
                found: format!("{:?}", state.nested_offset),
                expected: "a finite number".to_owned(),
            }
        })?;
        let scales = blocks.div_ceil(NESTED_BLOCK);
        Ok(Absmax::Double {
            codes: checked(absmax, Dtype::U8, "U8", blocks)?.bytes,
            nested: self.floats(format!("{name}.nested_absmax"), scales)?,
            map: self.floats(format!("{name}.nested_quant_map"), 256)?,
            offset,
        })
    }

    fn part(&self, name: String) -> Result<TensorView, Nf4Problem> {
        self.tensor(&name).ok_or(Nf4Problem::Missing(name))
    }

    fn floats(&self, name: String, expected: usize) -> Result<Vec<f32>, Nf4Problem> {
        Ok(f32_values(&checked(self.part(name)?, Dtype::F32, "F32", expected)?.bytes))
    }
}

/// `[out, in]` and the number of blocks.
fn shape_and_blocks(shape: &[usize]) -> Result<([usize; 2], usize), Nf4Problem> {
    let elements = match shape {
        [rows, columns] => rows.checked_mul(*columns),
        _ => None,
    };
    match (shape, elements) {
        ([rows, columns], Some(elements)) if elements > 0 && elements.is_multiple_of(BLOCK) => {
            Ok(([*rows, *columns], elements / BLOCK))
        }
        _ => Err(Nf4Problem::Value {
            key: "shape",
            found: format!("{shape:?}"),
            expected: format!("[out, in] with a product divisible by {BLOCK}"),
        }),
    }
}

fn checked(
    tensor: TensorView,
    dtype: Dtype,
    expected_type: &'static str,
    expected: usize,
) -> Result<TensorView, Nf4Problem> {
    let found = tensor.bytes.len() / (dtype.bitsize() / 8);
    if tensor.dtype == dtype && found == expected {
        return Ok(tensor);
    }
    let found = tensor.shape.iter().product();
    let TensorView { name, dtype: found_type, .. } = tensor;
    Err(Nf4Problem::Length { name, found_type, found, expected_type, expected })
}

fn require<T: PartialEq + std::fmt::Display>(
    key: &'static str,
    found: T,
    expected: T,
) -> Result<(), Nf4Problem> {
    if found == expected {
        return Ok(());
    }
    Err(Nf4Problem::Value { key, found: found.to_string(), expected: expected.to_string() })
}
