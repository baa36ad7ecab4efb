//! Typed access to the fields of a JSON object, with the field's path in every message.

use serde_json::{Map, Value};

use crate::error::RowProblem;
use crate::shown::{shown, some};
use crate::written;

/// An object and the path that leads to it (empty for the row itself).
pub(super) struct Object<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Object<'a> {
    /// The row itself; `expected` names the format's fields.
    pub(super) fn new(value: &'a Value, expected: &'static str) -> Result<Self, RowProblem> {
        match value {
            Value::Object(map) if written::text_in(map).is_none() => {
                Ok(Self { map, path: String::new() })
            }
            other => Err(RowProblem::NotAnObject {
                expected,
                found: found(other),
                hint: match other {
                    Value::Array(_) => "; write one object a line (JSONL), or one list of objects",
                    _ => "",
                },
            }),
        }
    }

    /// An object inside the row.
    pub(super) fn inside(value: &'a Value, path: String) -> Result<Self, RowProblem> {
        match value {
            Value::Object(map) if written::text_in(map).is_none() => Ok(Self { map, path }),
            other => Err(wrong_type(path, "an object", other)),
        }
    }

    /// Path of one of this object's fields.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { shown(key) } else { format!("{}.{}", self.path, shown(key)) }
    }

    /// Every field, in the order they were written.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.map.iter()
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

    /// Refuses every field with a value that is not among `known`.
    pub(super) fn only(
        &self,
        known: &[&str],
        why: impl Fn(&str) -> String,
    ) -> Result<(), RowProblem> {
        let unknown = self.map.iter().find(|(key, value)| {
            !known.contains(&key.as_str()) && !value.is_null() && !is_empty(value)
        });
        match unknown {
            Some((key, _)) => Err(RowProblem::Unsupported(format!(
                "`{}` is not supported: {}",
                self.path(key),
                why(key)
            ))),
            None => Ok(()),
        }
    }

    fn missing(&self, key: &str) -> RowProblem {
        let hint = if self.map.is_empty() {
            " (the object is empty)".to_owned()
        } else {
            format!(" (found: {})", some(self.map.keys().map(String::as_str)))
        };
        RowProblem::Missing { field: self.path(key), hint }
    }
}

pub(super) fn as_text(value: &Value, path: impl FnOnce() -> String) -> Result<&str, RowProblem> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong_type(path(), "a text", other)),
    }
}

pub(super) fn wrong_type(field: String, expected: &'static str, value: &Value) -> RowProblem {
    RowProblem::WrongType { field, expected, found: found(value) }
}

/// `Object` of element `index` of the list at `path`.
pub(super) fn element<'a>(
    list: &'a [Value],
    index: usize,
    path: &str,
) -> Result<Object<'a>, RowProblem> {
    Object::inside(&list[index], format!("{path}[{index}]"))
}

/// A value as a message names it: what is text by its kind alone, as it may be anybody's.
fn found(value: &Value) -> String {
    let number = |text: &str| format!("the number {}", shown(text));
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(found) => number(&found.to_string()),
        Value::String(_) => "a text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => match written::text_of(value) {
            Some(text) => number(text),
            None => "an object".to_owned(),
        },
    }
}

/// Whether the value says nothing, so that nothing is lost with it.
pub(in crate::formats) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
