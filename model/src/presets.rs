//! The Llama 3.x releases that Graft knows, each from its config.json, to check a folder against.

use serde_json::Value;

use crate::config::{ConfigProblem, FloatType, Llama3Scaling, LlamaConfig};
use crate::site::{ProjectionKind, Site};

/// A release's name and its configuration.
pub type Preset = (&'static str, fn() -> LlamaConfig);

/// Every release, by name. 3.1 and 3.3 70B share all sizes; the first stands for both.
pub const PRESETS: [Preset; 6] = [
    ("Llama 3.1 8B", llama3_1_8b),
    ("Llama 3.1 70B", llama3_1_70b),
    ("Llama 3.1 405B", llama3_1_405b),
    ("Llama 3.2 1B", llama3_2_1b),
    ("Llama 3.2 3B", llama3_2_3b),
    ("Llama 3.3 70B", llama3_3_70b),
];

/// Llama 3.1 8B, from the config.json of meta-llama/Llama-3.1-8B-Instruct.
pub fn llama3_1_8b() -> LlamaConfig {
    release(Sizes { d_model: 4_096, d_ff: 14_336, layers: 32, heads: 32, ..SIZES })
}

/// Llama 3.1 70B, from the config.json of meta-llama/Llama-3.1-70B-Instruct.
pub fn llama3_1_70b() -> LlamaConfig {
    release(Sizes { d_model: 8_192, d_ff: 28_672, layers: 80, heads: 64, ..SIZES })
}

/// Llama 3.1 405B, from the config.json of meta-llama/Llama-3.1-405B-Instruct; its first revision
/// had 16 key and value heads.
pub fn llama3_1_405b() -> LlamaConfig {
    release(Sizes { d_model: 16_384, d_ff: 53_248, layers: 126, heads: 128, ..SIZES })
}

/// Llama 3.2 1B, from the config.json of meta-llama/Llama-3.2-1B-Instruct.
pub fn llama3_2_1b() -> LlamaConfig {
    let small = Sizes { rope_factor: 32.0, tied: true, ..SIZES };
    release(Sizes { d_model: 2_048, d_ff: 8_192, layers: 16, heads: 32, head_dim: 64, ..small })
}

/// Llama 3.2 3B, from the config.json of meta-llama/Llama-3.2-3B-Instruct.
pub fn llama3_2_3b() -> LlamaConfig {
    let small = Sizes { rope_factor: 32.0, tied: true, ..SIZES };
    release(Sizes { d_model: 3_072, d_ff: 8_192, layers: 28, heads: 24, ..small })
}

/// Llama 3.3 70B, from the config.json of meta-llama/Llama-3.3-70B-Instruct: the sizes of 3.1 70B.
pub fn llama3_3_70b() -> LlamaConfig {
    llama3_1_70b()
}

/// What differs between the releases.
struct Sizes {
    d_model: usize,
    d_ff: usize,
    layers: usize,
    heads: usize,
    head_dim: usize,
    rope_factor: f64,
    tied: bool,
}

const SIZES: Sizes = Sizes {
    d_model: 0,
    d_ff: 0,
    layers: 0,
    heads: 0,
    head_dim: 128,
    rope_factor: 8.0,
    tied: false,
};

fn release(sizes: Sizes) -> LlamaConfig {
    let Sizes { d_model, d_ff, layers, heads, head_dim, rope_factor, tied } = sizes;
    let config = LlamaConfig {
        d_model,
        d_ff,
        layers,
        heads,
        kv_heads: 8,
        head_dim,
        vocab_size: 128_256,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        rope_scaling: Some(Llama3Scaling {
            factor: rope_factor,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8_192,
        }),
        max_position_embeddings: 131_072,
        tied,
        bos_token_id: Some(128_000),
        eos_token_ids: vec![128_001, 128_008, 128_009],
        dtype: Some(FloatType::Bf16),
        quantization: None,
        raw: serde_json::Map::new(),
    };
    config.with_fresh_raw()
}

/// The release whose width and depth a configuration has, and what is otherwise different from it.
pub fn recognise(config: &LlamaConfig) -> Option<(&'static str, Vec<ConfigProblem>)> {
    PRESETS.into_iter().find_map(|(name, preset)| {
        let preset = preset();
        let alike = (config.d_model, config.layers) == (preset.d_model, preset.layers);
        alike.then(|| (name, config.check_against(&preset)))
    })
}

impl LlamaConfig {
    /// Every key that differs from `preset`, with the value here and the preset's. End tokens, the
    /// saved number type and quantisation differ between a release's own variants: not compared.
    pub fn check_against(&self, preset: &Self) -> Vec<ConfigProblem> {
        let Self {
            d_model,
            d_ff,
            layers,
            heads,
            kv_heads,
            head_dim,
            vocab_size,
            rms_norm_eps,
            rope_theta,
            rope_scaling,
            max_position_embeddings,
            tied,
            bos_token_id,
            eos_token_ids: _,
            dtype: _,
            quantization: _,
            raw: _,
        } = self;
        let mut differences = Vec::new();
        let mut compare = |key: &str, found: &dyn std::fmt::Debug, expected: String| {
            let found = format!("{found:?}");
            if found != expected {
                differences.push(ConfigProblem::new(key, found, expected));
            }
        };
        compare("hidden_size", d_model, format!("{:?}", preset.d_model));
        compare("intermediate_size", d_ff, format!("{:?}", preset.d_ff));
        compare("num_hidden_layers", layers, format!("{:?}", preset.layers));
        compare("num_attention_heads", heads, format!("{:?}", preset.heads));
        compare("num_key_value_heads", kv_heads, format!("{:?}", preset.kv_heads));
        compare("head_dim", head_dim, format!("{:?}", preset.head_dim));
        compare("vocab_size", vocab_size, format!("{:?}", preset.vocab_size));
        compare("rms_norm_eps", rms_norm_eps, format!("{:?}", preset.rms_norm_eps));
        compare("rope_theta", rope_theta, format!("{:?}", preset.rope_theta));
        let longest = format!("{:?}", preset.max_position_embeddings);
        compare("max_position_embeddings", max_position_embeddings, longest);
        compare("tie_word_embeddings", tied, format!("{:?}", preset.tied));
        if *bos_token_id != preset.bos_token_id {
            let shown = |id: Option<u32>| id.map_or("missing".to_owned(), |id| id.to_string());
            let (found, expected) = (shown(*bos_token_id), shown(preset.bos_token_id));
            differences.push(ConfigProblem::new("bos_token_id", found, expected));
        }
        let shown = |scaling: Option<Llama3Scaling>| scaling.map(Llama3Scaling::to_json);
        let (found, expected) = (shown(*rope_scaling), shown(preset.rope_scaling));
        if found != expected {
            let text = |value: Option<Value>| value.unwrap_or_default().to_string();
            differences.push(ConfigProblem::new("rope_scaling", text(found), text(expected)));
        }
        differences
    }
}

/// Weights of the model, a tied head counted once. Sizes beyond `u64` saturate.
pub fn parameter_count(config: &LlamaConfig) -> u64 {
    let size = |sides: [usize; 2]| (sides[0] as u64).saturating_mul(sides[1] as u64);
    let projections = ProjectionKind::ALL
        .into_iter()
        .map(|kind| size(Site { layer: 0, kind }.weight_shape(config)))
        .fold(0, u64::saturating_add);
    let norms = size([2, config.d_model]);
    let blocks = projections.saturating_add(norms).saturating_mul(config.layers as u64);
    let table = size([config.vocab_size, config.d_model]);
    let tables = table.saturating_mul(if config.tied { 1 } else { 2 });
    blocks.saturating_add(tables).saturating_add(config.d_model as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts_are_those_of_the_releases() {
        let counts = PRESETS.map(|(_, preset)| parameter_count(&preset()));
        assert_eq!(
            counts,
            [
                8_030_261_248,
                70_553_706_496,
                405_853_388_800,
                1_235_814_400,
                3_212_749_824,
                70_553_706_496,
            ]
        );
    }

    #[test]
    fn a_preset_reads_back_from_its_own_json() {
        for (name, preset) in PRESETS {
            let preset = preset();
            let text = preset.to_json(FloatType::Bf16, None);
            let read = LlamaConfig::from_json(text.as_bytes(), name).unwrap();
            assert_eq!(read, preset);
            assert_eq!(preset.check_against(&preset), []);
        }
    }

    #[test]
    fn differences_name_the_key_and_both_values() {
        let mut config = llama3_1_8b();
        config.rope_theta = 10_000.0;
        config.rope_scaling = None;
        config.eos_token_ids = vec![128_001];
        let (name, differences) = recognise(&config).unwrap();
        assert_eq!(name, "Llama 3.1 8B");
        let text: Vec<_> = differences.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(text.join("\n"), @r#"
        `rope_theta` is 10000.0, but must be 500000.0
        `rope_scaling` is null, but must be {"factor":8.0,"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":8192,"rope_type":"llama3"}
        "#);
        config.layers = 33;
        assert_eq!(recognise(&config), None);
    }
}
