//! First weights of a model that is trained from nothing.
//!
//! Normal with standard deviation 0.02, as transformers' `initializer_range`; the projections that write
//! to the residual stream are scaled by `1 / √(2 · layers)` (Radford et al. 2019, section 2.3).

use graft_data::{CounterRng, Purpose};
use graft_kernels::FrozenMatrix;
use graft_model::load::Weights;
use graft_model::{Error, LlamaConfig, Site};

pub(crate) const DEVIATION: f64 = 0.02;

/// Weights as a function of the seed and the tensor's name.
#[derive(Clone, Copy, Debug)]
pub struct RandomWeights {
    seed: u64,
    residual: f64,
}

impl RandomWeights {
    /// Weights for a model of this configuration.
    pub fn new(config: &LlamaConfig, seed: u64) -> Self {
        Self { seed, residual: 1.0 / (2.0 * config.layers as f64).sqrt() }
    }
}

impl Weights for RandomWeights {
    fn matrix(&self, name: &str, [out, inner]: [usize; 2]) -> Result<FrozenMatrix, Error> {
        let writes_residual =
            Site::from_checkpoint_name(name).is_some_and(|site| site.kind.ends_a_branch());
        let deviation = if writes_residual { DEVIATION * self.residual } else { DEVIATION };
        let random = CounterRng::new(self.seed, Purpose::ModelInit, name_hash(name), 0);
        let values: Vec<f32> =
            (0..(out * inner) as u64).map(|i| (normal(&random, i) * deviation) as f32).collect();
        Ok(FrozenMatrix::from_f32(out, inner, &values))
    }

    fn vector(&self, _name: &str, len: usize) -> Result<Vec<f32>, Error> {
        Ok(vec![1.0; len])
    }
}

/// Box and Muller 1958.
pub(crate) fn normal(random: &CounterRng, index: u64) -> f64 {
    // One minus a number below one is above zero, so the logarithm is finite.
    let radius = (-2.0 * (1.0 - random.uniform_f64_at(2 * index)).ln()).sqrt();
    radius * (2.0 * std::f64::consts::PI * random.uniform_f64_at(2 * index + 1)).cos()
}

/// FNV-1a, so that each tensor has numbers of its own whatever the order of loading.
pub(crate) fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_the_stated_deviation_and_depend_on_seed_and_name() {
        let config = graft_model::presets::llama3_2_1b();
        let weights = RandomWeights::new(&config, 7);
        let matrix = |weights: RandomWeights, name: &str| {
            weights.matrix(name, [100, 200]).map(|matrix| matrix.to_f32()).unwrap_or_default()
        };
        let deviation = |values: &[f32]| {
            (values.iter().map(|v| f64::from(v * v)).sum::<f64>() / values.len() as f64).sqrt()
        };
        let q = matrix(weights, "model.layers.0.self_attn.q_proj.weight");
        let o = matrix(weights, "model.layers.0.self_attn.o_proj.weight");
        assert!((deviation(&q) / DEVIATION - 1.0).abs() < 0.03, "{}", deviation(&q));
        assert!((deviation(&o) / DEVIATION * 32.0_f64.sqrt() - 1.0).abs() < 0.03);
        assert_ne!(q, matrix(weights, "model.layers.1.self_attn.q_proj.weight"));
        let other = RandomWeights::new(&config, 8);
        assert_ne!(q, matrix(other, "model.layers.0.self_attn.q_proj.weight"));
    }
}
