//! Rotary frequencies with Llama 3's scaling.
//!
//! Follows `_compute_llama3_parameters` of Hugging Face transformers (`modeling_rope_utils.py`): long
//! wavelengths are stretched by `factor`, short ones kept, those between interpolated. Frequencies and
//! angles are f32 there, so they are here.

use graft_kernels::Rotation;

use crate::config::LlamaConfig;

/// The angular frequency of every pair of a head.
#[derive(Clone, Debug)]
pub struct Rope {
    frequencies: Vec<f32>,
}

impl Rope {
    /// Frequencies of a configuration.
    pub fn new(config: &LlamaConfig) -> Self {
        let half = config.head_dim / 2;
        let frequencies = (0..half).map(|i| {
            let exponent = (2 * i) as f32 / config.head_dim as f32;
            1.0 / (config.rope_theta as f32).powf(exponent)
        });
        let Some(scaling) = config.rope_scaling else {
            return Self { frequencies: frequencies.collect() };
        };
        let original = scaling.original_max_position_embeddings as f64;
        let longest_kept = (original / scaling.high_freq_factor) as f32;
        let shortest_scaled = (original / scaling.low_freq_factor) as f32;
        let [original, factor, low] =
            [original, scaling.factor, scaling.low_freq_factor].map(|value| value as f32);
        let band = (scaling.high_freq_factor - scaling.low_freq_factor) as f32;
        let scaled = frequencies.map(|frequency| {
            // Each step in f32, in the reference's order: f64 would land a unit or two beside it.
            let wavelength = 2.0 * std::f32::consts::PI / frequency;
            if wavelength < longest_kept {
                frequency
            } else if wavelength > shortest_scaled {
                frequency / factor
            } else {
                let smooth = (original / wavelength - low) / band;
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        });
        Self { frequencies: scaled.collect() }
    }

    /// Frequencies, `[head_dim / 2]`.
    pub fn frequencies(&self) -> &[f32] {
        &self.frequencies
    }

    /// Cosines and sines at these positions.
    pub fn rotation(&self, positions: &[u32]) -> Rotation {
        let half = self.frequencies.len();
        let [mut all_cos, mut all_sin] =
            [(); 2].map(|()| Vec::with_capacity(positions.len() * half));
        for &position in positions {
            for frequency in &self.frequencies {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                all_cos.push(cos);
                all_sin.push(sin);
            }
        }
        Rotation::new(half, all_cos, all_sin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    #[test]
    fn scaling_keeps_short_waves_and_stretches_long_ones() {
        let config = presets::llama3_1_8b();
        let scaled = Rope::new(&config);
        let plain = Rope::new(&LlamaConfig { rope_scaling: None, ..config });
        assert_eq!(scaled.frequencies[0].to_bits(), plain.frequencies[0].to_bits());
        let (last, last_plain) = (scaled.frequencies[63], plain.frequencies[63]);
        assert_eq!(last.to_bits(), (last_plain / 8.0).to_bits());
        for (scaled, plain) in scaled.frequencies.iter().zip(&plain.frequencies) {
            assert!(*scaled <= *plain && *scaled >= *plain / 8.0, "{scaled} from {plain}");
        }
    }

    #[test]
    fn blended_frequencies_are_those_of_transformers_to_the_bit() {
        // `LlamaRotaryEmbedding.inv_freq[28:36]` of transformers 5.17.0 for Llama 3.1.
        let expected = [
            0x3b52_7720,
            0x3b0d_fd06,
            0x3ab3_d11d,
            0x3a60_979e,
            0x3a09_95d2,
            0x39a3_f108,
            0x393b_2dd2,
            0x38c8_6886,
        ];
        let rope = Rope::new(&presets::llama3_1_8b());
        let found: Vec<u32> = rope.frequencies[28..36].iter().map(|f| f.to_bits()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn position_zero_is_not_rotated() {
        let rotation = Rope::new(&presets::llama3_2_1b()).rotation(&[0]);
        assert!(rotation.cos.iter().all(|&cos| cos.to_bits() == 1.0_f32.to_bits()));
        assert!(rotation.sin.iter().all(|&sin| sin == 0.0));
    }
}
