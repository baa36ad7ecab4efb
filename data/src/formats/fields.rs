//! Typed access to the fields of a JSON object, with the field's path in every message.

use serde_json::{Map, Value};

use crate::error::RowProblem;

/// An object and the path that leads to it (empty for the row itself).
pub(super) struct Object<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Object<'a> {
    /// The row itself; `expected` names the format's fields.
    pub(super) fn new(value: &'a Value, expected: &'static str) -> Result<Self, RowProblem> {
        match value {
            Value::Object(map) => Ok(Self { map, path: String::new() }),
            other => Err(RowProblem::NotAnObject {
                expected,
                found: type_name(other),
                hint: match other {
                    Value::Array(_) => "; write one object a line (JSONL), not one list",
                    _ => "",
                },
            }),
        }
    }

    /// An object inside the row.
    pub(super) fn inside(value: &'a Value, path: String) -> Result<Self, RowProblem> {
        match value {
            Value::Object(map) => Ok(Self { map, path }),
            other => Err(wrong_type(path, "an object", other)),
        }
    }

    /// Path of one of this object's fields.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A field that may be absent; null counts as absent.
    pub(super) fn optional(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A field that must be there.
    pub(super) fn required(&self, key: &str) -> Result<&'a Value, RowProblem> {
        self.map.get(key).ok_or_else(|| self.missing(key))
    }

    /// A text that must be there.
    pub(super) fn text(&self, key: &str) -> Result<&'a str, RowProblem> {
        as_text(self.required(key)?, || self.path(key))
    }

    /// A text that may be absent or null.
    pub(super) fn optional_text(&self, key: &str) -> Result<Option<&'a str>, RowProblem> {
        self.optional(key).map(|value| as_text(value, || self.path(key))).transpose()
    }

    /// A list that must be there and hold something.
    pub(super) fn list(&self, key: &str) -> Result<&'a [Value], RowProblem> {
        match self.required(key)? {
            Value::Array(list) if list.is_empty() => {
                Err(RowProblem::Empty { field: self.path(key) })
            }
            Value::Array(list) => Ok(list),
            other => Err(wrong_type(self.path(key), "a list", other)),
        }
    }

    /// Refuses fields that are known elsewhere and would change the meaning of the row.
    pub(super) fn refuse(&self, keys: &[&str], why: &str) -> Result<(), RowProblem> {
        match keys.iter().find(|key| self.optional(key).is_some_and(|value| !is_empty(value))) {
            Some(key) => Err(RowProblem::Unsupported(format!(
                "`{}` is not supported: {why}",
                self.path(key)
            ))),
            None => Ok(()),
        }
    }

    /// Refuses every field with a value that is not among `known`.
    pub(super) fn only(&self, known: &[&str], why: &str) -> Result<(), RowProblem> {
        let unknown = self.map.iter().find(|(key, value)| {
            !known.contains(&key.as_str()) && !value.is_null() && !is_empty(value)
        });
        match unknown {
            Some((key, _)) => Err(RowProblem::Unsupported(format!(
                "`{}` is not supported: {why}",
                self.path(key)
            ))),
            None => Ok(()),
        }
    }

    fn missing(&self, key: &str) -> RowProblem {
        let found: Vec<&str> = self.map.keys().take(8).map(String::as_str).collect();
        let hint = match found[..] {
            [] => " (the object is empty)".to_owned(),
            _ => format!(" (found: {})", found.join(", ")),
        };
        RowProblem::Missing { field: self.path(key), hint }
    }
}

/// The fields at the top of a row that no format here supports.
pub(super) const UNSUPPORTED_IN_ROWS: [&str; 9] =
    ["chosen", "rejected", "image", "images", "video", "videos", "audio", "audios", "documents"];

/// Why they are refused.
pub(super) const UNSUPPORTED_WHY: &str = "a row trained without it would mean something else; \
     remove the field if that is what you want";

pub(super) fn as_text(value: &Value, path: impl FnOnce() -> String) -> Result<&str, RowProblem> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong_type(path(), "a text", other)),
    }
}

pub(super) fn wrong_type(field: String, expected: &'static str, found: &Value) -> RowProblem {
    RowProblem::WrongType { field, expected, found: type_name(found) }
}

/// `Object` of element `index` of the list at `path`.
pub(super) fn element<'a>(
    list: &'a [Value],
    index: usize,
    path: &str,
) -> Result<Object<'a>, RowProblem> {
    Object::inside(&list[index], format!("{path}[{index}]"))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
