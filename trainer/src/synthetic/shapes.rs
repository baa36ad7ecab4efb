//! The shapes that a synthetic model can have, by name.

use graft_model::{LlamaConfig, presets};

/// A configuration with a name.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Its sizes.
    pub config: fn() -> LlamaConfig,
}

/// Every shape by its name: those of the releases as recipes call them, and a small one.
pub const SHAPES: [(&str, Shape); 7] = [
    ("100m", Shape { config: small_100m }),
    ("llama3.2-1b", Shape { config: presets::llama3_2_1b }),
    ("llama3.2-3b", Shape { config: presets::llama3_2_3b }),
    ("llama3.1-8b", Shape { config: presets::llama3_1_8b }),
    ("llama3.1-70b", Shape { config: presets::llama3_1_70b }),
    ("llama3.3-70b", Shape { config: presets::llama3_3_70b }),
    ("llama3.1-405b", Shape { config: presets::llama3_1_405b }),
];

/// 124 million weights, of no release: small enough that a comparison takes seconds, and in the
/// proportions of a Llama.
pub fn small_100m() -> LlamaConfig {
    LlamaConfig {
        d_model: 768,
        d_ff: 2_048,
        layers: 12,
        heads: 12,
        kv_heads: 4,
        head_dim: 64,
        vocab_size: 32_000,
        ..presets::llama3_1_8b()
    }
}

#[cfg(test)]
mod tests {
    use graft_recipes::Preset;

    use super::*;
    use crate::plan::parameters;

    #[test]
    fn every_release_has_the_name_that_recipes_give_it() {
        for (name, _) in Preset::ALL {
            assert!(SHAPES.iter().any(|(shape, _)| shape == name), "{name}");
        }
        assert_eq!(SHAPES.len(), Preset::ALL.len() + 1);
    }

    #[test]
    fn the_small_shape_has_about_as_many_weights_as_its_name_says() {
        assert_eq!(parameters(&small_100m()), 124_668_672);
    }
}
