//! The scale of a chart's axis: where a value lies and which round values get a tick.
//! Steps of 1, 2 or 5 times a power of ten, as in Heckbert, "Nice numbers for graph labels", 1990.

/// An axis from `low` to `high`, both finite, `low < high`, with round ticks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    step: f64,
}

/// Whether an axis must show zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Begins at zero: sizes are compared by height.
    Zero,
    /// Begins near the smallest value, unless zero is close anyway.
    Near,
}

impl Scale {
    /// An axis for values, ends on ticks. What is no number is passed over; no values give 0 to 1.
    pub(super) fn values(values: impl Iterator<Item = f64>, origin: Origin) -> Self {
        let (mut low, mut high) = range(values).unwrap_or((0.0, 1.0));
        if low > 0.0 && (origin == Origin::Zero || low < 0.3 * high) {
            low = 0.0;
        }
        if high - low <= 1e-9 * high.abs().max(low.abs()) {
            // One value alone lies in the middle of its axis.
            let around = if high == 0.0 { 1.0 } else { high.abs() / 2.0 };
            (low, high) = if low < 0.0 {
                (low - around, high + around)
            } else {
                (low - around, low + around)
            };
        }
        let step = nice_step((high - low) / 5.0);
        Self { low: (low / step).floor() * step, high: (high / step).ceil() * step, step }
    }

    /// An axis for step numbers: whole ticks, about `ticks` of them, exact ends.
    pub(super) fn steps(values: impl Iterator<Item = f64>, ticks: u32) -> Self {
        let (low, high) = range(values).unwrap_or((0.0, 1.0));
        let (low, high) = if low < high { (low, high) } else { (low - 1.0, low + 1.0) };
        Self { low, high, step: nice_step((high - low) / f64::from(ticks)).max(1.0) }
    }

    /// 0 at the low end, 1 at the high end.
    pub(super) fn place(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// The round values on the axis, lowest first.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let slack = self.step * 1e-6;
        let first = ((self.low - slack) / self.step).ceil() as i64;
        let last = ((self.high + slack) / self.step).floor() as i64;
        (first..=last).map(|count| count as f64 * self.step).collect()
    }

    /// A tick's label, with as many digits as tell neighbours apart.
    pub(super) fn label(&self, tick: f64) -> String {
        let largest = self.low.abs().max(self.high.abs());
        if tick == 0.0 {
            return "0".to_owned();
        }
        if !(1e-3..1e6).contains(&largest) {
            let digits = (magnitude(largest) - magnitude(self.step)).max(0) as usize;
            let own = magnitude(tick.abs());
            let fewer = (magnitude(largest) - own).max(0) as usize;
            return format!("{tick:.*e}", digits.saturating_sub(fewer));
        }
        let places = (-magnitude(self.step)).max(0) as usize;
        if largest >= 10_000.0 {
            let sign = if tick < 0.0 { "−" } else { "" };
            return format!("{sign}{}", super::html::grouped(tick.abs().round() as u64));
        }
        format!("{tick:.places$}")
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    // Beyond f32 the arithmetic of an axis would overflow; no logged value means anything there.
    let plausible = values.filter(|value| value.abs() <= f64::from(f32::MAX));
    plausible.fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

fn magnitude(value: f64) -> i32 {
    // The slack keeps 1000 from being 10^2.9999….
    (value.log10() + 1e-9).floor() as i32
}

fn nice_step(rough: f64) -> f64 {
    let power = 10f64.powi(rough.max(f64::MIN_POSITIVE).log10().floor() as i32);
    let nice = [1.0, 2.0, 5.0, 10.0].into_iter().find(|nice| rough <= nice * power * (1.0 + 1e-9));
    nice.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(scale: &Scale) -> Vec<String> {
        scale.ticks().into_iter().map(|tick| scale.label(tick)).collect()
    }

    #[test]
    fn familiar_axes() {
        let values =
            |values: &[f64], origin| labels(&Scale::values(values.iter().copied(), origin));
        assert_eq!(values(&[0.21, 3.9], Origin::Near), ["0", "1", "2", "3", "4"]);
        assert_eq!(values(&[2.05, 2.31], Origin::Near), ["2.0", "2.1", "2.2", "2.3", "2.4"]);
        assert_eq!(values(&[2e-4, 0.0], Origin::Zero), ["0", "5e-5", "1.0e-4", "1.5e-4", "2.0e-4"]);
        assert_eq!(values(&[15_300.0], Origin::Zero), ["0", "5,000", "10,000", "15,000", "20,000"]);
        let steps = Scale::steps([1.0, 1_000.0].into_iter(), 6);
        assert_eq!(labels(&steps), ["200", "400", "600", "800", "1000"]);
        assert_eq!(labels(&Scale::steps([1.0, 3.0].into_iter(), 6)), ["1", "2", "3"]);
        assert_eq!(labels(&Scale::steps([1.0].into_iter(), 6)), ["0", "1", "2"]);
    }

    proptest! {
        #[test]
        fn every_axis_holds_its_values_between_few_distinct_round_ticks(
            values in prop::collection::vec(
                prop_oneof![-1e9..1e9f64, -1e-6..1e-6f64, any::<f64>(), Just(f64::NAN)], 0..6),
            zero in any::<bool>(),
        ) {
            let origin = if zero { Origin::Zero } else { Origin::Near };
            let scale = Scale::values(values.iter().copied(), origin);
            prop_assert!(scale.low.is_finite() && scale.high.is_finite() && scale.low < scale.high);
            for value in values.iter().filter(|value| value.abs() <= f64::from(f32::MAX)) {
                prop_assert!(scale.low <= *value + scale.step * 1e-6, "{scale:?} {value}");
                prop_assert!(scale.high >= *value - scale.step * 1e-6, "{scale:?} {value}");
                prop_assert!((0.0..=1.0).contains(&scale.place(*value)));
            }
            let ticks = scale.ticks();
            prop_assert!((2..=9).contains(&ticks.len()), "{scale:?} {ticks:?}");
            let mut labels = labels(&scale);
            labels.dedup();
            prop_assert_eq!(labels.len(), ticks.len(), "{:?} {:?}", scale, labels);
        }
    }
}
