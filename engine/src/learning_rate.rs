//! The learning rate as a function of the step: constant, linear or cosine after a linear warm-up.
//!
//! After the warm-up the curves are those of transformers' `get_*_schedule_with_warmup`; during it step
//! `s` of `w` has `s / w` of the rate, so that no step is spent at zero.

/// How the rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decay {
    /// It does not.
    Constant,
    /// On a straight line to `final_ratio` of the peak.
    Linear {
        /// Rate at the end, as a part of the peak.
        final_ratio: f64,
    },
    /// On half a cosine to `final_ratio` of the peak.
    Cosine {
        /// Rate at the end, as a part of the peak.
        final_ratio: f64,
    },
}

/// A learning-rate schedule over a known number of steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearningRate {
    /// The highest rate.
    pub peak: f64,
    /// Warm-up steps.
    pub warmup: u64,
    /// All steps.
    pub total: u64,
    /// How it falls.
    pub decay: Decay,
}

impl LearningRate {
    /// The rate of optimizer step `step`, counted from 1.
    pub fn at(&self, step: u64) -> f64 {
        if step <= self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let falling = self.total.saturating_sub(self.warmup).max(1) as f64;
        let progress = ((step - 1 - self.warmup) as f64 / falling).min(1.0);
        let factor = match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear { final_ratio } => 1.0 - (1.0 - final_ratio) * progress,
            Decay::Cosine { final_ratio } => {
                let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
                final_ratio + (1.0 - final_ratio) * cosine
            }
        };
        self.peak * factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(decay: Decay) -> LearningRate {
        LearningRate { peak: 1.0, warmup: 4, total: 104, decay }
    }

    #[test]
    fn warm_up_is_linear_and_wastes_no_step() {
        let rates: Vec<f64> = (1..=5).map(|s| schedule(Decay::Constant).at(s)).collect();
        assert_eq!(rates, [0.25, 0.5, 0.75, 1.0, 1.0]);
    }

    #[test]
    fn curves_pass_their_middle_and_end_where_they_should() {
        let linear = schedule(Decay::Linear { final_ratio: 0.1 });
        let cosine = schedule(Decay::Cosine { final_ratio: 0.1 });
        assert!((linear.at(55) - 0.55).abs() < 1e-12);
        assert!((cosine.at(55) - 0.55).abs() < 1e-12);
        for schedule in [linear, cosine] {
            assert!((schedule.at(105) - 0.1).abs() < 1e-12);
            assert!(schedule.at(20) > schedule.at(21));
        }
    }

    #[test]
    fn without_warm_up_the_first_step_has_the_peak() {
        let cosine = Decay::Cosine { final_ratio: 0.0 };
        let rate = LearningRate { peak: 3.0, warmup: 0, total: 10, decay: cosine }.at(1);
        assert!((rate - 3.0).abs() < 1e-12);
    }
}
