//! Line charts as inline SVG. Colours come from the page's style sheet, so dark mode and print apply.

use std::fmt::Write;

use super::html::{escape, value};
use super::scale::{Origin, Scale};

/// How a line is drawn; the name of a class in the style sheet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stroke {
    /// Thin and pale: single steps.
    Faint,
    /// Strong: what to look at.
    Strong,
    /// In the second colour with a dot on each value.
    Dotted,
}

/// One line of a chart: `(step, value)` in order of steps. Values that are no number leave a gap.
pub(super) struct Line {
    pub(super) label: String,
    pub(super) stroke: Stroke,
    pub(super) points: Vec<(f64, f64)>,
}

/// A chart of values over steps.
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) lines: Vec<Line>,
    pub(super) origin: Origin,
    /// Drawing size in user units, about the pixels of its column.
    pub(super) size: (f64, f64),
    /// Whether the lines are named; small charts beside one that names them go without.
    pub(super) legend: bool,
}

const LEFT: f64 = 58.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 38.0;

impl Chart {
    /// A `<figure>` with title, legend and picture, or a line that says that there is nothing to show.
    pub(super) fn render(&self) -> String {
        let mut html =
            format!("<figure class=\"chart\"><figcaption><b>{}</b>", escape(&self.title));
        let drawn: Vec<&Line> =
            self.lines.iter().filter(|line| last_value(line).is_some()).collect();
        for line in drawn.iter().filter(|_| self.legend) {
            let _ = write!(
                html,
                "<span class=\"key {}\"><i></i>{}</span>",
                line.stroke.class(),
                escape(&line.label)
            );
        }
        html.push_str("</figcaption>");
        if drawn.is_empty() {
            html.push_str("<p class=\"none\">No values were logged.</p></figure>\n");
            return html;
        }
        self.picture(&drawn, &mut html);
        html.push_str("</figure>\n");
        html
    }

    fn picture(&self, drawn: &[&Line], html: &mut String) {
        let (width, height) = self.size;
        let all = || drawn.iter().flat_map(|line| line.points.iter().copied()).filter(finite);
        let across = Scale::steps(all().map(|(step, _)| step), if width < 500.0 { 5 } else { 6 });
        let up = Scale::values(all().map(|(_, value)| value), self.origin);
        let x = |step: f64| LEFT + across.place(step) * (width - LEFT - RIGHT);
        let y = |value: f64| height - BOTTOM - up.place(value) * (height - TOP - BOTTOM);

        let _ = write!(
            html,
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{}\">",
            escape(&self.description(drawn))
        );
        for tick in up.ticks() {
            let (at, label) = (y(tick), up.label(tick));
            let (end, before, below) = (width - RIGHT, LEFT - 8.0, at + 4.0);
            let _ = write!(html, "<path class=\"grid\" d=\"M{LEFT:.1} {at:.1}H{end:.1}\"/>");
            let _ =
                write!(html, "<text class=\"y\" x=\"{before:.1}\" y=\"{below:.1}\">{label}</text>");
        }
        for tick in across.ticks() {
            let (at, label, base) = (x(tick), across.label(tick), height - BOTTOM);
            let below = base + 17.0;
            let _ = write!(html, "<path class=\"axis\" d=\"M{at:.1} {base:.1}v4\"/>");
            let _ = write!(html, "<text class=\"x\" x=\"{at:.1}\" y=\"{below:.1}\">{label}</text>");
        }
        let (base, end) = (height - BOTTOM, width - RIGHT);
        let _ = write!(html, "<path class=\"axis\" d=\"M{LEFT:.1} {base:.1}H{end:.1}\"/>");
        let (middle, bottom) = (f64::midpoint(LEFT, end), height - 4.0);
        let _ = write!(html, "<text class=\"x\" x=\"{middle:.1}\" y=\"{bottom:.1}\">step</text>");
        for line in drawn {
            // No screen shows more points apart than it has columns.
            let points = thinned(&line.points, (width - LEFT - RIGHT) as usize);
            draw(&points, line.stroke, x, y, html);
        }
        html.push_str("</svg>");
    }

    fn description(&self, drawn: &[&Line]) -> String {
        let ends: Vec<String> = drawn
            .iter()
            .filter(|line| line.stroke != Stroke::Faint || drawn.len() == 1)
            .filter_map(|line| Some(format!("{} ends at {}", line.label, value(last_value(line)?))))
            .collect();
        format!("{} over steps: {}", self.title, ends.join("; "))
    }
}

impl Stroke {
    fn class(self) -> &'static str {
        match self {
            Self::Faint => "faint",
            Self::Strong => "strong",
            Self::Dotted => "dotted",
        }
    }
}

fn finite((step, value): &(f64, f64)) -> bool {
    step.is_finite() && value.abs() <= f64::from(f32::MAX)
}

fn last_value(line: &Line) -> Option<f64> {
    line.points.iter().rev().find(|point| finite(point)).map(|point| point.1)
}

fn draw(
    points: &[(f64, f64)],
    stroke: Stroke,
    x: impl Fn(f64) -> f64,
    y: impl Fn(f64) -> f64,
    html: &mut String,
) {
    let class = stroke.class();
    for piece in points.split(|point| !finite(point)).filter(|piece| !piece.is_empty()) {
        if piece.len() > 1 {
            let _ = write!(html, "<path class=\"line {class}\" d=\"M");
            for (step, value) in piece {
                let _ = write!(html, "{:.1} {:.1} ", x(*step), y(*value));
            }
            html.push_str("\"/>");
        }
        // A value without neighbours would be an invisible line.
        if piece.len() == 1 || (stroke == Stroke::Dotted && piece.len() <= 60) {
            for (step, value) in piece {
                let (at, up) = (x(*step), y(*value));
                let _ = write!(
                    html,
                    "<circle class=\"{class}\" cx=\"{at:.1}\" cy=\"{up:.1}\" r=\"3\"/>"
                );
            }
        }
    }
}

/// Keeps the smallest and the largest value of each run of steps, so that no spike is lost.
fn thinned(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    if points.len() <= most {
        return points.to_vec();
    }
    let run = points.len().div_ceil(most / 2);
    let mut kept = Vec::with_capacity(most);
    for run in points.chunks(run) {
        let value = |index: &usize| run[*index].1;
        let numbers = || (0..run.len()).filter(|index| finite(&run[*index]));
        let low = numbers().min_by(|one, other| value(one).total_cmp(&value(other)));
        let high = numbers().max_by(|one, other| value(one).total_cmp(&value(other)));
        match (low, high) {
            (Some(low), Some(high)) if low != high => {
                kept.extend([run[low.min(high)], run[low.max(high)]]);
            }
            (Some(only), _) => kept.push(run[only]),
            (None, _) => kept.push((run[0].0, f64::NAN)),
        }
    }
    kept
}

/// The mean of the `width` values around each one; at both ends, where fewer lie on one side, the
/// straight line fitted to those there are, so that the ends neither lag nor jump. Values that are no
/// number stay so and count for nothing.
pub(super) fn smoothed(points: &[(f64, f64)], width: usize) -> Vec<(f64, f64)> {
    let numbers: Vec<(f64, f64)> = points.iter().copied().filter(finite).collect();
    let low = numbers.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = numbers.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    let reach = width / 2;
    let mut sums = vec![0.0]; // running sum of the numbers before each index
    for point in &numbers {
        sums.push(sums[sums.len() - 1] + point.1);
    }
    let smooth = |index: usize| {
        let (from, to) = (index.saturating_sub(reach), (index + reach + 1).min(numbers.len()));
        let value = if to - from == 2 * reach + 1 {
            (sums[to] - sums[from]) / (to - from) as f64
        } else {
            fitted(&numbers[from..to], numbers[index].0)
        };
        value.clamp(low, high)
    };
    let mut index = 0;
    let mut next = |point: &(f64, f64)| {
        if !finite(point) {
            return (point.0, f64::NAN);
        }
        index += 1;
        (point.0, smooth(index - 1))
    };
    points.iter().map(&mut next).collect()
}

/// Least squares through `points`, read at `step`.
fn fitted(points: &[(f64, f64)], step: f64) -> f64 {
    let count = points.len() as f64;
    let mean_step = points.iter().map(|point| point.0).sum::<f64>() / count;
    let mean_value = points.iter().map(|point| point.1).sum::<f64>() / count;
    let spread: f64 = points.iter().map(|point| (point.0 - mean_step).powi(2)).sum();
    let slope: f64 =
        points.iter().map(|point| (point.0 - mean_step) * (point.1 - mean_value)).sum::<f64>()
            / spread;
    if spread > 0.0 { mean_value + slope * (step - mean_step) } else { mean_value }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> String {
        let strong =
            Line { label: "a".to_owned(), stroke: Stroke::Strong, points: smoothed(&points, 5) };
        let raw = Line { label: "b".to_owned(), stroke: Stroke::Faint, points };
        let size = (640.0, 240.0);
        Chart {
            title: "Loss".to_owned(),
            lines: vec![raw, strong],
            origin: Origin::Near,
            size,
            legend: true,
        }
        .render()
    }

    #[test]
    fn one_value_is_a_dot_and_none_is_said() {
        assert!(chart(vec![(1.0, 2.5)]).contains("<circle"));
        assert!(chart(vec![]).contains("No values were logged."));
        assert!(chart(vec![(1.0, f64::NAN)]).contains("No values were logged."));
    }

    #[test]
    fn a_missing_value_is_a_gap() {
        let points = [1.0, 2.0, f64::NAN, 3.0, 4.0];
        let points = points.iter().enumerate().map(|(step, value)| (step as f64, *value)).collect();
        assert_eq!(chart(points).matches("class=\"line faint\"").count(), 2);
    }

    #[test]
    fn thinning_keeps_every_spike_and_the_order() {
        let mut points: Vec<_> = (0..100_000).map(|step| (f64::from(step), 1.0)).collect();
        points[54_321].1 = 9.0;
        points[54_322].1 = -9.0;
        let kept = thinned(&points, 800);
        assert!(kept.len() <= 800, "{}", kept.len());
        assert!(kept.contains(&(54_321.0, 9.0)) && kept.contains(&(54_322.0, -9.0)));
        assert!(kept.is_sorted_by(|one, other| one.0 < other.0));
    }

    #[test]
    fn smoothing_keeps_a_straight_line_to_its_ends() {
        let line: Vec<_> = (0..50).map(|step| (f64::from(step), 2.0 * f64::from(step))).collect();
        for (smooth, exact) in smoothed(&line, 9).iter().zip(&line) {
            assert!((smooth.1 - exact.1).abs() < 1e-9, "{smooth:?} {exact:?}");
        }
    }

    proptest! {
        #[test]
        fn a_picture_never_says_nan_or_inf(
            values in prop::collection::vec(
                prop_oneof![any::<f64>(), any::<f32>().prop_map(f64::from), -9.0..9.0f64], 0..40)
        ) {
            let points = values.iter().enumerate().map(|(step, value)| (step as f64, *value)).collect();
            let svg = chart(points).to_lowercase();
            prop_assert!(!svg.contains("nan") && !svg.contains("inf"), "{}", svg);
        }
    }
}
