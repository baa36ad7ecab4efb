//! How operands of a product are rounded.

/// Precision of the operands of matrix products; sums, norms, softmax and gradients are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Operands as they are: frozen weights decoded to f32, activations f32.
    F32,
    /// Operands rounded to bf16 (nearest even) before they are multiplied.
    Bf16,
}

/// What becomes of the sums of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// They stay f32.
    Exact,
    /// They become operands of the product's precision, which is all they are used for: bf16 tensors where
    /// it is bf16.
    Operand,
}

impl Precision {
    /// The name as recipes and flags write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Whether this machine has instructions for bf16: products of it are no slower than those of f32, and
    /// what they leave takes half the memory.
    pub fn bf16_is_native() -> bool {
        crate::flex::bf16_is_native()
    }

    /// Bytes of a value of an operand in the form that this machine's products read.
    pub fn packed_bytes(self) -> usize {
        match self {
            Self::Bf16 if crate::flex::isa::multiplies_pairs() => size_of::<half::bf16>(),
            Self::Bf16 | Self::F32 => size_of::<f32>(),
        }
    }
}
