//! The keys of a model: what `set_gguf_parameters` of llama.cpp's converter writes for a Llama.

use graft_gguf::Value;
use graft_gguf::rope::Scaling;
use graft_model::LlamaConfig;
use graft_model::checkpoint::expected;
use graft_model::config::Llama3Scaling;

use super::Export;

/// The version of the blocks, `GGML_QNT_VERSION`.
const BLOCKS: u32 = 2;

/// All keys of the file.
pub(super) fn model(export: &Export<'_>, config: &LlamaConfig) -> Vec<(String, Value)> {
    let number = |number: usize| Value::u32(number as u32);
    let head_dim = number(config.head_dim);
    let own = [
        ("general.architecture", Value::text("llama")),
        ("general.type", Value::text("model")),
        ("general.name", Value::text(&export.name)),
        ("general.size_label", Value::text(size_label(config))),
        ("general.file_type", Value::u32(export.mixture.file_type())),
        ("general.quantization_version", Value::u32(BLOCKS)),
        ("llama.block_count", number(config.layers)),
        ("llama.context_length", number(config.max_position_embeddings)),
        ("llama.embedding_length", number(config.d_model)),
        ("llama.feed_forward_length", number(config.d_ff)),
        ("llama.attention.head_count", number(config.heads)),
        ("llama.attention.head_count_kv", number(config.kv_heads)),
        ("llama.attention.key_length", head_dim.clone()),
        ("llama.attention.value_length", head_dim.clone()),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps as f32)),
        ("llama.rope.freq_base", Value::F32(config.rope_theta as f32)),
        ("llama.rope.dimension_count", head_dim),
        ("llama.vocab_size", number(config.vocab_size)),
    ];
    let own = own.into_iter().map(|(key, value)| (key.to_owned(), value));
    own.chain(export.tokenizer.iter().cloned()).collect()
}

/// What frequencies are divided by, where the model stretches them.
pub(super) fn divisors(config: &LlamaConfig) -> Option<Vec<f32>> {
    let scaling = config.rope_scaling?;
    let Llama3Scaling {
        factor,
        low_freq_factor,
        high_freq_factor,
        original_max_position_embeddings,
    } = scaling;
    let original = original_max_position_embeddings as f64;
    let scaling = Scaling { factor, low: low_freq_factor, high: high_freq_factor, original };
    Some(scaling.divisors(config.rope_theta, config.head_dim))
}

/// `135M`, `8.0B`: two digits at least, as `gguf.utility.size_label` writes it.
fn size_label(config: &LlamaConfig) -> String {
    let parameters: f64 = expected(config)
        .iter()
        .map(|tensor| tensor.shape.iter().map(|&size| size as f64).product::<f64>())
        .sum();
    let (scale, unit) = match parameters {
        _ if parameters > 1e12 => (1e12, "T"),
        _ if parameters > 1e9 => (1e9, "B"),
        _ if parameters > 1e6 => (1e6, "M"),
        _ => (1e3, "K"),
    };
    let scaled = parameters / scale;
    let digits = scaled.round().to_string().trim_start_matches('0').len();
    format!("{scaled:.*}{unit}", 2usize.saturating_sub(digits))
}

#[cfg(test)]
mod tests {
    use graft_model::presets;

    use super::*;

    #[test]
    fn sizes_are_labelled_as_the_converter_does() {
        assert_eq!(size_label(&presets::llama3_1_8b()), "8.0B");
        assert_eq!(size_label(&presets::llama3_1_70b()), "71B");
        assert_eq!(size_label(&presets::llama3_2_1b()), "1.2B");
    }
}
