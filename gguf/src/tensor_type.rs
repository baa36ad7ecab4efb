//! How the numbers of a tensor are kept: `enum ggml_type` of `ggml/include/ggml.h`, by its ids.

use std::fmt;

/// A way to keep numbers that is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TensorType {
    /// Plain f32.
    F32,
    /// Plain f16.
    F16,
    /// Plain bf16.
    Bf16,
    /// 32 numbers of 4 bits, one scale.
    Q4_0,
    /// 32 numbers of 4 bits, a scale and a least one.
    Q4_1,
    /// 32 numbers of 5 bits, one scale.
    Q5_0,
    /// 32 numbers of 5 bits, a scale and a least one.
    Q5_1,
    /// 32 numbers of 8 bits, one scale.
    Q8_0,
    /// 256 numbers of 4 bits: eight groups with a scale and a least one of 6 bits each.
    Q4K,
    /// 256 numbers of 5 bits, in groups as those of [`TensorType::Q4K`].
    Q5K,
    /// 256 numbers of 6 bits: sixteen groups with a scale of 8 bits each.
    Q6K,
}

/// Ids of types that are known by name and not read.
const UNREAD: [(u32, &str); 24] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
    (42, "Q2_0"),
];

impl TensorType {
    /// All that are read.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The number that a file writes.
    pub fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
        }
    }

    /// The type of a number; the number's name where it is not read.
    ///
    /// # Errors
    /// It is not read.
    pub fn from_id(id: u32) -> Result<Self, String> {
        Self::ALL.into_iter().find(|found| found.id() == id).ok_or_else(|| {
            let named = UNREAD.iter().find(|(unread, _)| *unread == id);
            named.map_or_else(|| format!("number {id}"), |(_, name)| (*name).to_owned())
        })
    }

    /// As llama.cpp writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Numbers in a block; a row is a whole number of blocks.
    pub fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Whether numbers are kept as they are, not in blocks.
    pub fn is_plain(self) -> bool {
        self.block() == 1
    }

    /// Bytes of a row of `inner` numbers; `None` where it is no whole number of blocks.
    pub fn row_bytes(self, inner: usize) -> Option<usize> {
        inner
            .is_multiple_of(self.block())
            .then(|| (inner / self.block()).checked_mul(self.block_bytes()))
            .flatten()
    }

    /// Bytes of a tensor, outermost size first; `None` where its rows are no whole number of blocks, or there are more
    /// than can be addressed.
    pub fn bytes(self, shape: &[usize]) -> Option<usize> {
        let (inner, outer) = shape.split_last()?;
        outer.iter().try_fold(self.row_bytes(*inner)?, |product, &size| product.checked_mul(size))
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
