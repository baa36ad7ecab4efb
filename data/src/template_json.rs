//! JSON as chat templates write it: Python's `json.dumps(value, ensure_ascii=False)`, which is what
//! the `tojson` filter of transformers' `apply_chat_template` calls (keys keep their order).

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// One line: `{"a": 1, "b": [2, 3]}`.
pub(crate) fn compact(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value, None);
    text
}

/// `indent=4`: one field a line.
pub(crate) fn indented(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value, Some(0));
    text
}

/// `level` is the depth of indentation, `None` on one line. Depth is bounded by the JSON parser.
fn write_value(out: &mut String, value: &Value, level: Option<usize>) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => out.push_str(&number_text(number)),
        Value::String(text) => write_string(out, text),
        Value::Array(list) => {
            write_items(out, ['[', ']'], level, list.iter(), |out, item, level| {
                write_value(out, item, level);
            });
        }
        Value::Object(map) => {
            write_items(out, ['{', '}'], level, map.iter(), |out, (key, item), level| {
                write_string(out, key);
                out.push_str(": ");
                write_value(out, item, level);
            });
        }
    }
}

fn write_items<T>(
    out: &mut String,
    [open, close]: [char; 2],
    level: Option<usize>,
    items: impl ExactSizeIterator<Item = T>,
    write_item: impl Fn(&mut String, T, Option<usize>),
) {
    out.push(open);
    let inner = level.map(|level| level + 1);
    let filled = items.len() > 0;
    for (index, item) in items.enumerate() {
        match (index, inner) {
            (0, None) => {}
            (_, None) => out.push_str(", "),
            (index, Some(level)) => {
                out.push_str(if index > 0 { ",\n" } else { "\n" });
                out.push_str(&" ".repeat(4 * level));
            }
        }
        write_item(out, item, inner);
    }
    if let (true, Some(level)) = (filled, level) {
        out.push('\n');
        out.push_str(&" ".repeat(4 * level));
    }
    out.push(close);
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            control if control < ' ' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", control as u32);
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// Integers as they are, floats as Python's `repr`: an exponent below 1e-4 and from 1e16 on.
fn number_text(number: &Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        return number.to_string();
    };
    let scientific = format!("{float:e}");
    let exponent: i32 = scientific.rsplit('e').next().and_then(|e| e.parse().ok()).unwrap_or(0);
    if float == 0.0 || (-4..16).contains(&exponent) {
        return format!("{float:?}");
    }
    let mantissa = scientific.split('e').next().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_equals_python_json_dumps() {
        // python3 -c "import json; print(json.dumps(json.loads(s), ensure_ascii=False))"
        let text = r#"{"b":[1,-2.50,1e5,1e16,1.5e-5,0.0001,true,null],"a":{},"é":"\"\\\u0001\n/\u007f","l":[]}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        let expected = "{\"b\": [1, -2.5, 100000.0, 1e+16, 1.5e-05, 0.0001, true, null], \"a\": {}, \"é\": \"\\\"\\\\\\u0001\\n/\u{7f}\", \"l\": []}";
        assert_eq!(compact(&value), expected);
    }

    #[test]
    fn indentation_equals_python_json_dumps() {
        let value: Value = serde_json::from_str(r#"{"a":[1,{"b":{}}],"c":[]}"#).unwrap();
        let expected = "{\n    \"a\": [\n        1,\n        {\n            \"b\": {}\n        }\n    ],\n    \"c\": []\n}";
        assert_eq!(indented(&value), expected);
    }
}
