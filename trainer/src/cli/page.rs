//! Results on stdout: whole pages, so that a reader that leaves early is noticed and no line tears.

use std::fmt::Write as _;
use std::io::{self, Write};

use graft_data::{is_visible, visible};
use serde::Serialize;

pub use crate::quantity::{bytes, counted, grouped};

/// Writes text and a line break. Text of files and models is part of most pages, so what would steer
/// the reader's terminal is spelled out, in pipes and files too: from there it reaches one later.
///
/// # Errors
/// stdout is closed or full.
pub fn print(text: &str) -> io::Result<()> {
    print_exact(&visible(text))
}

/// Writes text as it is and a line break: text that is coloured here and was escaped before, or that a
/// program reads.
///
/// # Errors
/// As [`print()`].
pub fn print_exact(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut write = || {
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    write().map_err(at_stdout)
}

/// An error of the system with the place that it is about, of the kind that it was.
pub fn at_stdout(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write to standard output: {error}"))
}

/// Writes a value as JSON, indented.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &impl Serialize) -> io::Result<()> {
    print_exact(&escaped_json(&serde_json::to_string_pretty(value)?))
}

/// Writes a value as JSON on one line.
///
/// # Errors
/// As [`print()`].
pub fn print_json_line(value: &impl Serialize) -> io::Result<()> {
    print_exact(&escaped_json(&serde_json::to_string(value)?))
}

/// JSON with every character spelled `\uXXXX` that a terminal must not get; its meaning stays, as outside of
/// strings JSON has none of them.
fn escaped_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        if is_visible(character) || character == '\n' {
            out.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_meaning_and_steers_no_terminal() {
        let value = serde_json::json!({"a\u{1b}]0;x\u{7}": "\u{9b}2J \u{202e}b\u{e0041} 👩\u{200d}👩 ü\n\"\\"});
        let written = escaped_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(written.chars().all(|c| is_visible(c) || c == '\n'), "{written}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), value);
        assert!(written.contains("ü") && written.contains("\\udb40\\udc41"), "{written}");
    }

    #[test]
    fn values_stand_below_each_other() {
        let rows = [("model", "a".to_owned()), ("x", "b\nc".to_owned())];
        assert_eq!(table(&rows), "model  a\nx      b\n       c\n");
    }
}
