//! Text for a page: escaping, and numbers as people read them, on the terminal too.

use graft_data::visible;

pub(super) use crate::quantity::{bytes, grouped};

/// Text that a browser shows as it is, in content and in quoted attributes. Characters that HTML does not
/// allow, that are not seen or that turn the reading order around are spelled out as on a terminal.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in visible(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// `8030261248` as `8.03 B`; counts below ten thousand are written out.
pub(super) fn short_count(count: u64) -> String {
    match count {
        0..10_000 => grouped(count),
        10_000..1_000_000 => format!("{:.1} K", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} M", count as f64 / 1e6),
        _ => format!("{:.2} B", count as f64 / 1e9),
    }
}

/// `3725.0` seconds as `1 h 2 min`.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "—".to_owned();
    }
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 10.0 => format!("{seconds:.1} s"),
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {} min", whole / 3_600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3_600 % 24),
    }
}

/// A value with about four significant digits; `—` for what is no number.
pub(super) fn value(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if !value.is_finite() => "—".to_owned(),
        _ if (10_000.0..1e15).contains(&size) => grouped_signed(value),
        _ if (100.0..1e15).contains(&size) => format!("{value:.1}"),
        _ if (0.01..100.0).contains(&size) => format!("{value:.3}"),
        _ if size == 0.0 => "0".to_owned(),
        _ => format!("{value:.2e}"),
    }
}

fn grouped_signed(value: f64) -> String {
    let sign = if value < 0.0 { "−" } else { "" };
    format!("{sign}{}", grouped(value.abs().round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_shown_and_not_obeyed() {
        assert_eq!(
            escape("<script>alert('&\"')</script>\u{0}\n\t\u{202e}txt.exe\u{1b}[2J"),
            "&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;\\u{0}\n\t\\u{202e}txt.exe\\u{1b}[2J"
        );
    }

    #[test]
    fn numbers_read_well() {
        let counts = [0, 999, 1_000, 12_345, 1_234_567, 8_030_261_248].map(short_count);
        assert_eq!(counts, ["0", "999", "1,000", "12.3 K", "1.23 M", "8.03 B"]);
        let times = [0.25, 59.6, 61.0, 3_725.0, 90_000.0, f64::NAN].map(duration);
        assert_eq!(times, ["0.2 s", "1 min 0 s", "1 min 1 s", "1 h 2 min", "1 d 1 h", "—"]);
        let values = [0.0, 2e-4, 0.5, -12.3456, 123.46, 45_678.9, f64::INFINITY].map(value);
        assert_eq!(values, ["0", "2.00e-4", "0.500", "-12.346", "123.5", "45,679", "—"]);
    }
}
