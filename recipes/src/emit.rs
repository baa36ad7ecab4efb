//! A value as YAML: blocks for what holds something, text quoted unless it can only be text.

use std::fmt::Write as _;

use serde_json::Value;

/// Words that some YAML reader takes for a flag, nothing, or a number.
const RESERVED: &[&str] =
    &["null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan", ".inf", ".nan"];

/// `value`, a mapping, as a YAML document ending in a line break.
pub(crate) fn document(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let _ = write!(out, "{:indent$}{}:", "", text(key));
                nested(value, indent, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                let _ = write!(out, "{:indent$}-", "");
                nested(item, indent, out);
            }
        }
        _ => {}
    }
}

/// What follows `key:` or `-`: on the same line where it is small, else as a deeper block.
fn nested(value: &Value, indent: usize, out: &mut String) {
    if is_small(value) {
        let _ = writeln!(out, " {}", flow(value));
    } else {
        out.push('\n');
        block(value, indent + 2, out);
    }
}

fn is_small(value: &Value) -> bool {
    let is_leaf = |value: &Value| !value.is_object() && !value.is_array();
    match value {
        Value::Object(entries) => entries.len() <= 2 && entries.values().all(is_leaf),
        Value::Array(items) => {
            items.is_empty() || items.iter().all(is_leaf) && flow(value).len() <= 80
        }
        _ => true,
    }
}

fn flow(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            let entries =
                entries.iter().map(|(key, value)| format!("{}: {}", text(key), flow(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Value::String(string) => text(string),
        Value::Number(number) => float_or_whole(number),
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
    }
}

/// Readers of YAML 1.1 take `1e-8` for text: a float gets its point.
fn float_or_whole(number: &serde_json::Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        return number.to_string();
    };
    let digits = format!("{float:?}");
    match digits.split_once('e') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0e{exponent}"),
        _ => digits,
    }
}

fn text(string: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-' | ':');
    let begins = string.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '/');
    let is_reserved = RESERVED.contains(&string.to_ascii_lowercase().as_str());
    if begins && string.chars().all(is_plain) && !string.ends_with(':') && !is_reserved {
        return string.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in string.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            // Control characters, the line breaks of Unicode, and the byte order mark.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn small_things_stay_on_their_line() {
        let value = json!({"a": {"b": 1e-8, "c": "yes"}, "d": [{"e": "x y"}], "f": [], "g": "n:m"});
        insta::assert_snapshot!(document(&value), @r#"
        a: {b: 1.0e-8, c: "yes"}
        d:
          - {e: "x y"}
        f: []
        g: n:m
        "#);
    }
}
