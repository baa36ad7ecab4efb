//! The JSON of a row as a value. A key that stands twice is an error, where other readers keep one
//! of the two; a number that they would write otherwise, such as `1e5`, stays as it is written.

use std::cell::RefCell;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

use crate::error::RowProblem;
use crate::shown::shown;
use crate::written;

/// Reads a row.
pub(super) fn read(text: &str) -> Result<Value, RowProblem> {
    let value = parse(text)?;
    match &changed_numbers(text)[..] {
        [] => Ok(value),
        changed => parse(&marked(text, changed)),
    }
}

fn parse(text: &str) -> Result<Value, RowProblem> {
    let twice = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Unique(&twice).deserialize(&mut deserializer);
    let value = value.and_then(|value| deserializer.end().map(|()| value));
    match (value, twice.into_inner()) {
        (_, Some(field)) => Err(RowProblem::Twice { field }),
        (Ok(value), None) => Ok(value),
        (Err(error), None) => Err(problem(&error, text)),
    }
}

/// What the parser said about the JSON of a row.
pub(super) fn problem(error: &serde_json::Error, json: &str) -> RowProblem {
    let (line, column) = (error.line(), error.column());
    RowProblem::Json { line, column, message: message(error, json) }
}

/// The parser's message without its own line and column: the line is known better here.
fn message(error: &serde_json::Error, json: &str) -> String {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(&text[..], |(message, _)| message);
    // What the parser calls `\ud800` without its other half, depending on what follows.
    if message.contains("surrogate") || message == "unexpected end of hex escape" {
        return format!(
            "{message}: half of a surrogate pair (\\ud800 to \\udfff) is no character; remove it, or \
             write the pair"
        );
    }
    if message == "key must be a string" && json.trim_start().starts_with("{'") {
        return format!(
            "{message}: this is how Python prints a dict; write the row with `json.dumps` instead"
        );
    }
    message.to_owned()
}

/// Builds a value, and notes the path of a key that stands twice.
struct Unique<'a>(&'a RefCell<Option<String>>);

impl Unique<'_> {
    /// Notes what stands in front of a path that was found deeper down.
    fn prefix(&self, place: &str) {
        if let Some(path) = self.0.borrow_mut().as_mut() {
            *path = joined(place, path);
        }
    }
}

/// `messages` and `[1].content` as one path.
fn joined(place: &str, rest: &str) -> String {
    let dot = if rest.is_empty() || rest.starts_with('[') { "" } else { "." };
    format!("{}{dot}{rest}", shown(place))
}

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        // The parser refuses what is beyond the largest number before.
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        loop {
            let next = list.next_element_seed(Unique(self.0));
            match next.inspect_err(|_| self.prefix(&format!("[{}]", out.len())))? {
                Some(value) => out.push(value),
                None => return Ok(Value::Array(out)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            match out.entry(key) {
                Entry::Occupied(entry) => {
                    *self.0.borrow_mut() = Some(shown(entry.key()));
                    return Err(A::Error::custom("a key stands twice"));
                }
                Entry::Vacant(entry) => {
                    let value = fields.next_value_seed(Unique(self.0));
                    let value = value.inspect_err(|_| self.prefix(entry.key()))?;
                    entry.insert(value);
                }
            }
        }
        Ok(Value::Object(out))
    }
}

/// Where numbers stand, outside of texts, that would be written otherwise.
fn changed_numbers(text: &str) -> Vec<Range<usize>> {
    let (bytes, mut found, mut at) = (text.as_bytes(), Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while let Some(&byte) = bytes.get(at) {
                    at += if byte == b'\\' { 2 } else { 1 };
                    if byte == b'"' {
                        break;
                    }
                }
            }
            b'-' | b'0'..=b'9' => {
                let is_number = |byte: &&u8| written::is_of_number(**byte);
                let end = at + bytes[at..].iter().take_while(is_number).count();
                if written::is_changed_by_reading(&text[at..end]) {
                    found.push(at..end);
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    found
}

/// The JSON with what stands for these numbers.
fn marked(text: &str, numbers: &[Range<usize>]) -> String {
    let (mut out, mut at) = (String::with_capacity(text.len() + 24 * numbers.len()), 0);
    for Range { start, end } in numbers.iter().cloned() {
        out.push_str(&text[at..start]);
        out.push_str(&written::marked(&text[start..end]));
        at = end;
    }
    out + &text[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn a_key_that_stands_twice_is_named_at_any_depth() {
        insta::assert_snapshot!(problem(r#"{"a": 1, "a": 1}"#), @"`a` stands twice; keep one of the two");
        insta::assert_snapshot!(problem(r#"{"messages": [{"role": "x"}, {"content": "FIRST", "content": "SECOND"}]}"#), @"`messages[1].content` stands twice; keep one of the two");
        insta::assert_snapshot!(problem(r#"[[{"a": {"b\u001b[2J": 1, "b\u001b[2J": null}}]]"#), @r"`[0][0].a.b\u{1b}[2J` stands twice; keep one of the two");
    }

    #[test]
    fn numbers_stay_as_they_are_written() {
        let long = "9".repeat(300);
        for number in [
            "1e5",
            "1E5",
            "1.0",
            "1.10",
            "-0",
            "-0.0",
            "0.1",
            "1e-7",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775809",
            "12345678901234567890.5",
            "0.30000000000000004441",
            "1e+30",
            "100",
            &long,
        ] {
            let text = format!("{{\"a\": [{number}, {{\"b\": {number}}}], \"s\": \"{number}\"}}");
            let value = read(&text).unwrap();
            assert_eq!(crate::template_json::compact(&value), text);
        }
        insta::assert_snapshot!(problem(&format!(r#"{{"n": -{}}}"#, "9".repeat(10_000))), @"malformed JSON at column 10007: number out of range");
    }

    #[test]
    fn other_values_are_those_of_the_parser() {
        let text = r#"{"b": [1, -2.5, 10000.0, true, null, {}], "a": {"é": "\"\u0001"}}"#;
        let value = read(text).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(value.as_object().unwrap().keys().collect::<Vec<_>>(), ["b", "a"]);
        insta::assert_snapshot!(problem("{'messages': []}"), @"malformed JSON at column 2: key must be a string: this is how Python prints a dict; write the row with `json.dumps` instead");
        insta::assert_snapshot!(problem(&"[".repeat(10_000)), @"malformed JSON at column 128: recursion limit exceeded");
        insta::assert_snapshot!(problem(r#"{"a": 1e999}"#), @"malformed JSON at column 11: number out of range");
        insta::assert_snapshot!(problem("{} {}"), @"malformed JSON at column 4: trailing characters");
    }
}
