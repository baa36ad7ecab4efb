//! Numbers to blocks and back, row by row: each row is one task's work in a fixed order, so that the number of threads
//! changes no byte.

mod decode;
mod group;
mod k_quants;
mod plain;
mod simple;

use rayon::prelude::*;

use crate::tensor_type::TensorType;
pub use decode::decode;

/// The first number of a matrix that a type cannot hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NotFinite {
    /// Its place in the matrix.
    pub index: usize,
    /// What it is.
    pub value: f32,
}

/// Writes a row as whole blocks of `kind`. Blocks have their scales in f16, so that numbers beyond f16 are refused
/// for them, too.
///
/// # Errors
/// The place in the row of a number that the type cannot hold, and the number.
///
/// # Panics
/// `bytes` is not as long as the row takes; the type is one that is only read.
pub fn encode(kind: TensorType, values: &[f32], bytes: &mut [u8]) -> Result<(), NotFinite> {
    assert_eq!(kind.row_bytes(values.len()), Some(bytes.len()), "a row of {kind}");
    let holds = |value: f32| match kind {
        TensorType::F32 => value.is_finite(),
        TensorType::Bf16 => half::bf16::from_f32(value).is_finite(),
        _ => half::f16::from_f32(value).is_finite(),
    };
    if let Some(index) = values.iter().position(|&value| !holds(value)) {
        return Err(NotFinite { index, value: values[index] });
    }
    match kind {
        TensorType::F32 => plain::f32(values, bytes),
        TensorType::F16 => plain::f16(values, bytes),
        TensorType::Bf16 => plain::bf16(values, bytes),
        TensorType::Q8_0 => blocks(kind, values, bytes, simple::q8_0),
        TensorType::Q5_0 => blocks(kind, values, bytes, simple::q5_0),
        TensorType::Q5_1 => blocks(kind, values, bytes, simple::q5_1),
        TensorType::Q4K => blocks(kind, values, bytes, k_quants::q4_k),
        TensorType::Q5K => blocks(kind, values, bytes, k_quants::q5_k),
        TensorType::Q6K => blocks(kind, values, bytes, k_quants::q6_k),
        TensorType::Q4_0 | TensorType::Q4_1 => unreachable!("{kind} is only read"),
    }
    Ok(())
}

fn blocks<const N: usize, const M: usize>(
    kind: TensorType,
    values: &[f32],
    bytes: &mut [u8],
    block: impl Fn(&[f32; N], &mut [u8; M]),
) {
    debug_assert_eq!((N, M), (kind.block(), kind.block_bytes()));
    let (values, bytes) = (values.as_chunks().0, bytes.as_chunks_mut().0);
    for (values, bytes) in values.iter().zip(bytes) {
        block(values, bytes);
    }
}

/// Writes `bytes.len() / row` rows of a matrix from row `first` on, on all threads; `fill` gives the numbers of a row.
///
/// # Errors
/// The first number that the type cannot hold, by its place in the matrix.
pub fn encode_rows(
    kind: TensorType,
    inner: usize,
    first: usize,
    bytes: &mut [u8],
    fill: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) -> Result<(), NotFinite> {
    let row_bytes = kind.row_bytes(inner).expect("the caller chose a type that fits the rows");
    let failed = bytes
        .par_chunks_exact_mut(row_bytes)
        .enumerate()
        .map_init(
            || (vec![0.0; inner], vec![0.0; inner]),
            |(values, room), (offset, bytes)| {
                let row = first + offset;
                fill(row, values, room);
                let failed = encode(kind, values, bytes).err()?;
                Some(NotFinite { index: row * inner + failed.index, ..failed })
            },
        )
        .find_first(Option::is_some)
        .flatten();
    failed.map_or(Ok(()), Err)
}
