//! Dropout's noise as a function of its place, so that a replayed block drops what it dropped before.

use graft_data::{CounterRng, Purpose};
use graft_kernels::Dropout;
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
    fn dropout(&self, site: Site, rate: f64) -> Option<Dropout> {
        let kind = ProjectionKind::ALL.iter().position(|&kind| kind == site.kind);
        let place = site.layer * ProjectionKind::ALL.len() + kind.unwrap_or_default();
        let stream = ((self.micro_batch as u64) << 32) | place as u64;
        let random = CounterRng::new(self.seed, Purpose::Dropout, self.step, stream);
        Dropout::new(random.name(), rate)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const RATE: f64 = 0.25;
    const SIDE: usize = 64;

    /// What is dropped of a square.
    fn drawn(noise: DropoutNoise, site: Site) -> Vec<bool> {
        let dropout = noise.dropout(site, RATE).unwrap();
        (0..SIDE * SIDE).map(|i| !dropout.keeps(i / SIDE, i % SIDE)).collect()
    }

    #[test]
    fn noise_repeats_at_its_place_and_is_independent_of_every_other() {
        let mut places = BTreeMap::new();
        for (seed, step, micro_batch) in [(7, 3, 1), (8, 3, 1), (7, 4, 1), (7, 3, 0)] {
            let noise = DropoutNoise { seed, step, micro_batch };
            for (layer, kind) in
                [0, 1].into_iter().flat_map(|layer| ProjectionKind::ALL.map(|kind| (layer, kind)))
            {
                let site = Site { layer, kind };
                let name = format!("seed {seed}, step {step}, micro-batch {micro_batch}, {site}");
                let values = drawn(noise, site);
                assert_eq!(values, drawn(noise, site), "{name} repeats");
                places.insert(name, values);
            }
        }
        assert_eq!(places.len(), 4 * 14);
        for (name, values) in &places {
            let dropped = values.iter().filter(|&&dropped| dropped).count();
            // 1,024 expected; six standard deviations of a binomial are 166.
            assert!(dropped.abs_diff(1_024) < 166, "{name}: {dropped} of 4096 dropped");
            for (other, others) in places.range(name.clone()..).skip(1) {
                let both = values.iter().zip(others).filter(|(one, other)| **one && **other);
                // 256 expected, six standard deviations are 93.
                assert!(both.count().abs_diff(256) < 93, "{name} and {other}");
            }
        }
    }

    #[test]
    fn without_a_rate_there_is_no_noise() {
        let noise = DropoutNoise { seed: 7, step: 3, micro_batch: 1 };
        let site = Site { layer: 2, kind: ProjectionKind::Up };
        assert_eq!(noise.dropout(site, 0.0), None);
    }
}
