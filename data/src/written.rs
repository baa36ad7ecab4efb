//! Numbers as they were written, where a number of 64 bits would be written otherwise: `1e5`, `1.10`, integers of any
//! length. What a row says of a tool's arguments is learnt as it stands there.
//!
//! Such a number is an object of one field, whose name no other object has and whose text is the number. (Feature
//! `arbitrary_precision` of `serde_json` does the same, for every crate of the program.)

use serde_json::{Map, Value};

use crate::template_json::number_text;

/// The field's name.
pub(crate) const NAME: &str = "\0number";

/// Whether `text`, a number of JSON, is written otherwise once it is read.
pub(crate) fn is_changed_by_reading(text: &str) -> bool {
    let is_plain = || text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    !is_plain() && text.parse().map_or(true, |number| number_text(&number) != text)
}

/// The text of such a number; `None` for every other value.
pub(crate) fn text_of(value: &Value) -> Option<&str> {
    let Value::Object(map) = value else { return None };
    text_in(map)
}

/// [`text_of`] an object.
pub(crate) fn text_in(map: &Map<String, Value>) -> Option<&str> {
    if map.len() != 1 {
        return None;
    }
    let text = map.get(NAME)?.as_str()?;
    // Whatever a row says by such a name, what is written is a number.
    text.bytes().all(is_of_number).then_some(text)
}

/// Whether a number may have this character.
pub(crate) fn is_of_number(byte: u8) -> bool {
    b"+-.eE0123456789".contains(&byte)
}

/// What stands for the number in JSON.
pub(crate) fn marked(text: &str) -> String {
    format!("{{\"\\u0000number\":\"{text}\"}}")
}

/// The number that is written so.
pub(crate) fn number(text: &str) -> Value {
    match text.parse() {
        Ok(number) if !is_changed_by_reading(text) => Value::Number(number),
        _ => Value::Object(Map::from_iter([(NAME.to_owned(), Value::String(text.to_owned()))])),
    }
}
