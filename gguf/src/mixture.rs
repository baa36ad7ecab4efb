//! Which tensor gets which type when a model is written: `llama_tensor_get_type_impl` and `tensor_type_fallback` of
//! llama.cpp's `src/llama-quant.cpp`, for the architecture `llama`.

use crate::tensor_type::TensorType;

/// How a model is written: its `general.file_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mixture {
    /// All tensors of one type, norms in f32.
    All(TensorType),
    /// Q4_K, and Q6_K where it helps most.
    Q4KM,
}

/// What a matrix is in a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `token_embd.weight`.
    Embedding {
        /// It is the output head, too.
        tied: bool,
    },
    /// `output.weight`.
    Head,
    /// `attn_v.weight` of a block.
    Value {
        /// The block.
        layer: usize,
    },
    /// `ffn_down.weight` of a block.
    Down {
        /// The block.
        layer: usize,
    },
    /// Any other matrix.
    Other,
}

/// What the choice depends on beside the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Depth {
    /// Blocks of the model.
    pub layers: usize,
    /// Whether several query heads share one of keys.
    pub grouped: bool,
}

impl Mixture {
    /// `enum llama_ftype` of `include/llama.h`.
    pub fn file_type(self) -> u32 {
        match self {
            Self::All(TensorType::F32) => 0,
            Self::All(TensorType::F16) => 1,
            Self::All(TensorType::Q8_0) => 7,
            Self::All(TensorType::Bf16) => 32,
            Self::Q4KM => 15,
            Self::All(other) => unreachable!("no file is written as {other} alone"),
        }
    }

    /// The type of a matrix whose rows have `inner` numbers.
    pub fn of(self, part: Part, inner: usize, Depth { layers, grouped }: Depth) -> TensorType {
        let wanted = match (self, part) {
            (Self::All(kind), _) => kind,
            (Self::Q4KM, Part::Head | Part::Embedding { tied: true }) => {
                if inner.is_multiple_of(TensorType::Q4K.block()) {
                    TensorType::Q6K
                } else {
                    TensorType::Q8_0
                }
            }
            (Self::Q4KM, Part::Value { layer } | Part::Down { layer })
                if gets_more_bits(layer, layers) =>
            {
                TensorType::Q6K
            }
            // Of the 70B shape eight heads share one: it is small, and matters as much.
            (Self::Q4KM, Part::Value { .. }) if layers == 80 && grouped => TensorType::Q5K,
            (Self::Q4KM, _) => TensorType::Q4K,
        };
        fitting(wanted, inner)
    }
}

/// `use_more_bits`: the first and the last eighth of the blocks, and every third between.
fn gets_more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// What takes the place of a type whose blocks do not fill the rows.
fn fitting(wanted: TensorType, inner: usize) -> TensorType {
    let fits = |kind: TensorType| inner.is_multiple_of(kind.block());
    if fits(wanted) {
        return wanted;
    }
    let smaller = match wanted {
        TensorType::Q4K => TensorType::Q5_0,
        TensorType::Q5K => TensorType::Q5_1,
        TensorType::Q6K => TensorType::Q8_0,
        _ => TensorType::F16,
    };
    if fits(smaller) { smaller } else { TensorType::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mixture_is_that_of_the_reference() {
        let types = |part: fn(usize) -> Part, inner, layers: usize| -> String {
            let depth = Depth { layers, grouped: true };
            let of = |layer| Mixture::Q4KM.of(part(layer), inner, depth);
            (0..layers).map(|layer| of(layer).name().chars().nth(1).unwrap_or('?')).collect()
        };
        // What `llama-quantize` prints for the 8B shape.
        insta::assert_snapshot!(types(|layer| Part::Value { layer }, 4_096, 32), @"66664464464464464464464464466666");
        insta::assert_snapshot!(types(|layer| Part::Down { layer }, 14_336, 32), @"66664464464464464464464464466666");
        insta::assert_snapshot!(types(|layer| Part::Value { layer }, 8_192, 80), @"66666666665565565565565565565565565565565565565565565565565565565565566666666666");
        let one =
            |part, inner| Mixture::Q4KM.of(part, inner, Depth { layers: 30, grouped: true }).name();
        assert_eq!(one(Part::Head, 4_096), "Q6_K");
        assert_eq!(one(Part::Embedding { tied: true }, 2_048), "Q6_K");
        assert_eq!(one(Part::Embedding { tied: false }, 4_096), "Q4_K");
        // Rows of 576, of SmolLM2.
        assert_eq!(one(Part::Embedding { tied: true }, 576), "Q8_0");
        assert_eq!(one(Part::Other, 576), "Q5_0");
        assert_eq!(one(Part::Value { layer: 0 }, 576), "Q8_0");
        assert_eq!(one(Part::Other, 40), "F16");
        assert_eq!(
            Mixture::All(TensorType::Q8_0).of(Part::Other, 40, Depth { layers: 2, grouped: false }),
            TensorType::F16
        );
    }
}
