//! Dropout's noise as a function of its place, so that a replayed block drops what it dropped before.

use graft_data::{CounterRng, Purpose};
use graft_model::site::ProjectionKind;
use graft_model::{Noise, Site};

/// The noise of one micro-batch of one optimizer step.
#[derive(Clone, Copy, Debug)]
pub struct DropoutNoise {
    /// The run's seed.
    pub seed: u64,
    /// The optimizer step.
    pub step: u64,
    /// The micro-batch within the step.
    pub micro_batch: usize,
}

impl Noise for DropoutNoise {
    fn keep(&self, site: Site, len: usize, probability: f32) -> Vec<f32> {
        let kind = ProjectionKind::ALL.iter().position(|&kind| kind == site.kind);
        let place = site.layer * ProjectionKind::ALL.len() + kind.unwrap_or_default();
        let stream = ((self.micro_batch as u64) << 32) | place as u64;
        let random = CounterRng::new(self.seed, Purpose::Dropout, self.step, stream);
        let kept = 1.0 / (1.0 - probability);
        let value = |i| if random.uniform_f32_at(i) < probability { 0.0 } else { kept };
        (0..len as u64).map(value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_repeats_at_its_place_and_differs_elsewhere() {
        let noise = DropoutNoise { seed: 7, step: 3, micro_batch: 1 };
        let site = Site { layer: 2, kind: ProjectionKind::Up };
        let drawn = noise.keep(site, 4_096, 0.25);
        assert_eq!(drawn, noise.keep(site, 4_096, 0.25));
        assert_ne!(drawn, noise.keep(Site { kind: ProjectionKind::Down, ..site }, 4_096, 0.25));
        assert_ne!(drawn, DropoutNoise { step: 4, ..noise }.keep(site, 4_096, 0.25));
        assert_ne!(drawn, DropoutNoise { micro_batch: 0, ..noise }.keep(site, 4_096, 0.25));
        let dropped = drawn.iter().filter(|&&value| value == 0.0).count();
        // 1,024 expected; six standard deviations of a binomial are 166.
        assert!(dropped.abs_diff(1_024) < 166, "{dropped} of 4096 dropped");
        let kept = drawn.iter().copied().fold(0.0, f32::max);
        assert!((kept - 4.0 / 3.0).abs() < 1e-6, "{kept}");
    }
}
