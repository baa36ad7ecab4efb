//! Results on stdout: whole pages, so that a reader that leaves early is noticed and no line tears.

use std::io::{self, Write};

use serde::Serialize;

/// Writes text and a line break.
///
/// # Errors
/// stdout is closed or full.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Writes a value as JSON, indented.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &impl Serialize) -> io::Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `name: value` lines with the values below each other.
pub fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let indent = format!("\n{:1$}", "", width + 2);
    let line = |(name, value): &(&str, String)| {
        format!("{name:<width$}  {}\n", value.replace('\n', &indent))
    };
    rows.iter().map(line).collect()
}

/// Bytes for people: `5.20 GiB`.
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three_from_the_right() {
        let shown = [0, 12, 123, 1_234, 123_456, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "12", "123", "1,234", "123,456", "1,234,567"]);
    }

    #[test]
    fn values_stand_below_each_other() {
        let rows = [("model", "a".to_owned()), ("x", "b\nc".to_owned())];
        assert_eq!(table(&rows), "model  a\nx      b\n       c\n");
    }
}
