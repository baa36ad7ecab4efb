//! Numbers that a template writes as the row does ([`crate::written`]).

use std::fmt;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Object, ObjectRepr};
use serde_json::Value as Json;

use crate::written;

/// A number that is its text. Integers of up to 128 bits are numbers to templates anyway.
#[derive(Debug)]
struct Written(String);

impl Object for Written {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.0.parse().is_ok_and(|number: f64| number != 0.0)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The values as a template sees them.
pub(super) fn values(list: &[Json]) -> Value {
    if list.iter().any(has_written) {
        list.iter().map(value).collect()
    } else {
        Value::from_serialize(list)
    }
}

/// The text of such a number.
pub(super) fn text_of(value: &Value) -> Option<&str> {
    value.downcast_object_ref::<Written>().map(|Written(text)| &text[..])
}

// Depth is bounded by the JSON parser.
fn has_written(value: &Json) -> bool {
    match value {
        number if written::text_of(number).is_some() => true,
        Json::Array(list) => list.iter().any(has_written),
        Json::Object(map) => map.values().any(has_written),
        _ => false,
    }
}

fn value(json: &Json) -> Value {
    if let Some(text) = written::text_of(json) {
        let integer = text.parse::<i128>().ok().filter(|integer| integer.to_string() == text);
        return integer.map_or_else(|| Value::from_object(Written(text.to_owned())), Value::from);
    }
    match json {
        Json::Array(list) => list.iter().map(value).collect(),
        Json::Object(map) => map.iter().map(|(key, item)| (key.as_str(), value(item))).collect(),
        other => Value::from_serialize(other),
    }
}
