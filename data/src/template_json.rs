//! JSON as chat templates write it: Python's `json.dumps(value, ensure_ascii=False)`, which is what
//! the `tojson` filter of transformers' `apply_chat_template` calls (keys keep their order).

use std::fmt::Write as _;

use serde_json::{Number, Value};

use crate::written;

/// What `json.dumps` was asked for.
#[derive(Clone, Debug)]
pub(crate) struct JsonStyle<'a> {
    /// Blanks a level, one field a line; `None` for one line.
    pub indent: Option<usize>,
    /// Between two items; `None` for Python's own.
    pub between: Option<&'a str>,
    /// Between a key and its value.
    pub behind_key: &'a str,
    /// Keys by their code points, not in the order they were written.
    pub sorted: bool,
    /// Escapes everything that is not ASCII.
    pub ascii: bool,
}

impl Default for JsonStyle<'_> {
    fn default() -> Self {
        Self { indent: None, between: None, behind_key: ": ", sorted: false, ascii: false }
    }
}

impl JsonStyle<'_> {
    /// The value as JSON.
    pub(crate) fn write(&self, value: &Value) -> String {
        let mut out = String::new();
        self.value(&mut out, value, 0);
        out
    }

    /// `level` counts the lists and objects around the value. Depth is bounded by the JSON parser.
    fn value(&self, out: &mut String, value: &Value, level: usize) {
        match value {
            Value::Null => out.push_str("null"),
            Value::Bool(true) => out.push_str("true"),
            Value::Bool(false) => out.push_str("false"),
            Value::Number(number) => out.push_str(&number_text(number)),
            Value::String(text) => self.string(out, text),
            Value::Array(list) => {
                self.items(out, ['[', ']'], level, list.iter(), |out, item| {
                    self.value(out, item, level + 1);
                });
            }
            Value::Object(map) => {
                if let Some(number) = written::text_in(map) {
                    return out.push_str(number);
                }
                let mut fields: Vec<(&String, &Value)> = map.iter().collect();
                if self.sorted {
                    fields.sort_by_key(|(key, _)| *key);
                }
                self.items(out, ['{', '}'], level, fields.into_iter(), |out, (key, item)| {
                    self.string(out, key);
                    out.push_str(self.behind_key);
                    self.value(out, item, level + 1);
                });
            }
        }
    }

    fn items<T>(
        &self,
        out: &mut String,
        [open, close]: [char; 2],
        level: usize,
        items: impl ExactSizeIterator<Item = T>,
        write: impl Fn(&mut String, T),
    ) {
        let line = |out: &mut String, level: usize| {
            if let Some(width) = self.indent {
                out.push('\n');
                out.push_str(&" ".repeat(width * level));
            }
        };
        let between = self.between.unwrap_or(if self.indent.is_some() { "," } else { ", " });
        let filled = items.len() > 0;
        out.push(open);
        for (index, item) in items.enumerate() {
            if index > 0 {
                out.push_str(between);
            }
            line(out, level + 1);
            write(out, item);
        }
        if filled {
            line(out, level);
        }
        out.push(close);
    }

    fn string(&self, out: &mut String, text: &str) {
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
                control if control < ' ' => escape(out, control),
                // Python escapes DEL with what is not ASCII.
                other if self.ascii && other > '~' => escape(out, other),
                other => out.push(other),
            }
        }
        out.push('"');
    }
}

/// As UTF-16: two escapes for a character beyond the basic plane.
fn escape(out: &mut String, character: char) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

/// One line: `{"a": 1, "b": [2, 3]}`.
pub(crate) fn compact(value: &Value) -> String {
    JsonStyle::default().write(value)
}

/// `indent=width`: one field a line.
pub(crate) fn indented(value: &Value, width: usize) -> String {
    JsonStyle { indent: Some(width), ..JsonStyle::default() }.write(value)
}

/// Integers as they are, floats as Python's `repr`: an exponent below 1e-4 and from 1e16 on.
pub(crate) fn number_text(number: &Number) -> String {
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
        assert_eq!(indented(&value, 4), expected);
    }
}
