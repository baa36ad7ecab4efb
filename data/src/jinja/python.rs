//! Python's side of a template: how values are written, and the methods of texts, lists and dicts.
//!
//! Crate `minijinja-contrib` 2 has such methods, too, but others: `"a".count("")` never ends, places are counted
//! in bytes, nothing is all digits, and what `replace` and `join` make has no bound.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use serde_json::{Map, Number, Value as Json};

use super::{budget, environment, numbers};
use crate::python_text::{is_space, strip};
use crate::template_json::number_text;
use crate::written;

/// `str(value)`.
pub(super) fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_undefined() => String::new(),
        None => repr(value),
    }
}

/// `repr(value)`.
fn repr(value: &Value) -> String {
    let items = |value: &Value| value.try_iter().map(Iterator::collect).unwrap_or_default();
    match value.kind() {
        ValueKind::None => "None".to_owned(),
        ValueKind::Undefined => "Undefined".to_owned(),
        ValueKind::Bool if value.is_true() => "True".to_owned(),
        ValueKind::Bool => "False".to_owned(),
        ValueKind::Number => match f64::try_from(value.clone()).ok().and_then(Number::from_f64) {
            Some(float) if !value.is_integer() => number_text(&float),
            _ => value.to_string(),
        },
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            let list: Vec<Value> = items(value);
            format!("[{}]", list.iter().map(repr).collect::<Vec<_>>().join(", "))
        }
        ValueKind::Map => {
            let keys: Vec<Value> = items(value);
            let field = |key: &Value| {
                let item = value.get_item(key).unwrap_or_default();
                format!("{}: {}", repr(key), repr(&item))
            };
            format!("{{{}}}", keys.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}

/// `repr` of a text: in single quotes unless it holds some and no double ones.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            quoted if quoted == quote => out.extend(['\\', quote]),
            control if control.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\x{:02x}", control as u32);
            }
            other => out.push(other),
        }
    }
    out.push(quote);
    out
}

/// What `json.dumps` makes of the value.
pub(super) fn json(value: &Value) -> Result<Json, Error> {
    if let Some(text) = numbers::text_of(value) {
        return Ok(written::number(text));
    }
    Ok(match value.kind() {
        ValueKind::None => Json::Null,
        ValueKind::Bool => Json::Bool(value.is_true()),
        ValueKind::String => Json::String(value.as_str().unwrap_or_default().to_owned()),
        ValueKind::Number => number(value)?,
        ValueKind::Seq | ValueKind::Iterable => {
            Json::Array(value.try_iter()?.map(|item| json(&item)).collect::<Result<_, _>>()?)
        }
        ValueKind::Map => {
            let mut map = Map::new();
            for key in value.try_iter()? {
                let item = json(&value.get_item(&key)?)?;
                let Some(key) = key.as_str() else {
                    return Err(not_json("an object whose keys are not texts"));
                };
                map.insert(key.to_owned(), item);
            }
            Json::Object(map)
        }
        other => return Err(not_json(&other.to_string())),
    })
}

fn number(value: &Value) -> Result<Json, Error> {
    if value.is_integer() {
        let (signed, unsigned) = (i64::try_from(value.clone()), u64::try_from(value.clone()));
        let number = signed.map(Json::from).or_else(|_| unsigned.map(Json::from));
        return Ok(number.unwrap_or_else(|_| written::number(&value.to_string())));
    }
    let float = f64::try_from(value.clone())?;
    Number::from_f64(float).map(Json::Number).ok_or_else(|| not_json("a number without end"))
}

fn not_json(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("tojson: {what} has no form in JSON"))
}

/// A method that minijinja's values lack and Python's have.
pub(super) fn method(
    _: &State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => of_text(value.as_str().unwrap_or_default(), name, args),
        ValueKind::Map => of_map(value, name, args),
        ValueKind::Seq => of_list(value, name, args),
        _ => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::UnknownMethod, format!("the method `{name}` is not known here"))
}

fn of_text(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    Ok(match name {
        "strip" | "lstrip" | "rstrip" => {
            let (characters,): (Option<String>,) = from_args(args)?;
            let drop =
                |c: char| characters.as_ref().map_or_else(|| is_space(c), |set| set.contains(c));
            let start = if name == "rstrip" { text } else { text.trim_start_matches(drop) };
            Value::from(if name == "lstrip" { start } else { start.trim_end_matches(drop) })
        }
        "split" | "rsplit" => {
            let (separator, limit): (Option<String>, Option<i64>) = from_args(args)?;
            let limit = limit.and_then(|limit| usize::try_from(limit).ok());
            // Each part is a value of its own.
            budget::check_length(text.matches(separator.as_deref().unwrap_or(" ")).count() * 64)?;
            Value::from(split(text, separator.as_deref(), limit, name == "rsplit")?)
        }
        "splitlines" => {
            let (keep,): (Option<bool>,) = from_args(args)?;
            budget::check_length(text.bytes().filter(|byte| *byte < b' ').count() * 64)?;
            Value::from(lines(text, keep.unwrap_or(false)))
        }
        "startswith" | "endswith" => {
            let (affix,): (Value,) = from_args(args)?;
            let has = |affix: &Value| match (affix.as_str(), name) {
                (Some(affix), "startswith") => Ok(text.starts_with(affix)),
                (Some(affix), _) => Ok(text.ends_with(affix)),
                (None, _) => {
                    let what = format!("{name}: expected a text or a tuple of texts");
                    Err(Error::new(ErrorKind::InvalidOperation, what))
                }
            };
            let any = match affix.kind() {
                ValueKind::Seq => {
                    let found = affix.try_iter()?.map(|affix| has(&affix));
                    found.collect::<Result<Vec<_>, _>>()?.contains(&true)
                }
                _ => has(&affix)?,
            };
            Value::from(any)
        }
        "removeprefix" => {
            let (affix,): (String,) = from_args(args)?;
            Value::from(text.strip_prefix(&affix).unwrap_or(text))
        }
        "removesuffix" => {
            let (affix,): (String,) = from_args(args)?;
            Value::from(text.strip_suffix(&affix).unwrap_or(text))
        }
        "replace" => {
            let (old, new, limit): (String, String, Option<i64>) = from_args(args)?;
            Value::from(budget::replaced(text, &old, &new, limit)?)
        }
        "find" | "rfind" => {
            let (part,): (String,) = from_args(args)?;
            let at = if name == "find" { text.find(&part) } else { text.rfind(&part) };
            Value::from(at.map_or(-1, |at| text[..at].chars().count() as i64))
        }
        "count" => {
            let (part,): (String,) = from_args(args)?;
            Value::from(text.matches(&part).count())
        }
        "join" => {
            let (list,): (Value,) = from_args(args)?;
            let named: Kwargs = std::iter::empty::<(&str, Value)>().collect();
            Value::from(environment::join(&list, Some(text), named)?)
        }
        _ => return without_arguments(text, name, args),
    })
}

fn without_arguments(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let all = |test: fn(char) -> bool| Value::from(!text.is_empty() && text.chars().all(test));
    let value = match name {
        "upper" => Value::from(text.to_uppercase()),
        "lower" => Value::from(text.to_lowercase()),
        "capitalize" => Value::from(capitalized(text)),
        "title" => {
            let words = text.split_inclusive(|c: char| !c.is_alphabetic());
            Value::from(words.map(capitalized).collect::<String>())
        }
        "isspace" => all(is_space),
        "isdigit" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        _ => return Err(unknown(name)),
    };
    from_args::<()>(args)?;
    Ok(value)
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first: String = characters.next().into_iter().flat_map(char::to_uppercase).collect();
    first + &characters.as_str().to_lowercase()
}

fn split(
    text: &str,
    separator: Option<&str>,
    limit: Option<usize>,
    from_end: bool,
) -> Result<Vec<String>, Error> {
    if separator == Some("") {
        return Err(Error::new(ErrorKind::InvalidOperation, "split: the separator is empty"));
    }
    let most = limit.map_or(usize::MAX, |limit| limit.saturating_add(1));
    let owned = |parts: Vec<&str>| parts.into_iter().map(str::to_owned).collect();
    Ok(match (separator, from_end) {
        (Some(separator), false) => owned(text.splitn(most, separator).collect()),
        (Some(separator), true) => {
            let mut parts: Vec<&str> = text.rsplitn(most, separator).collect();
            parts.reverse();
            owned(parts)
        }
        (None, _) if limit.is_some() => {
            let what = "split: a limit without a separator is not known here";
            return Err(Error::new(ErrorKind::InvalidOperation, what));
        }
        (None, _) => owned(strip(text).split(is_space).filter(|part| !part.is_empty()).collect()),
    })
}

/// Ends of lines as `str.splitlines` knows them.
fn lines(text: &str, keep: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = text;
    let ends = [
        '\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}',
        '\u{2029}',
    ];
    while let Some(at) = rest.find(ends) {
        let end = rest[at..].chars().next().map_or(0, char::len_utf8);
        let end = at + if rest[at..].starts_with("\r\n") { 2 } else { end };
        lines.push(rest[..if keep { end } else { at }].to_owned());
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        lines.push(rest.to_owned());
    }
    lines
}

fn of_map(map: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let keys: Vec<Value> = map.try_iter()?.collect();
    match name {
        "get" => {
            let (key, default): (Value, Option<Value>) = from_args(args)?;
            let item = map.get_item(&key)?;
            let absent = || default.unwrap_or_else(|| Value::from(()));
            return Ok(if item.is_undefined() { absent() } else { item });
        }
        "keys" | "values" | "items" => from_args::<()>(args)?,
        _ => return Err(unknown(name)),
    }
    let list = keys.into_iter().map(|key| {
        let item = || map.get_item(&key);
        Ok(match name {
            "keys" => key,
            "values" => item()?,
            _ => Value::from(vec![key.clone(), item()?]),
        })
    });
    list.collect::<Result<Vec<Value>, Error>>().map(Value::from)
}

fn of_list(list: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let (wanted,): (Value,) = from_args(args)?;
    match name {
        "count" => Ok(Value::from(list.try_iter()?.filter(|item| *item == wanted).count())),
        "index" => match list.try_iter()?.position(|item| item == wanted) {
            Some(at) => Ok(Value::from(at)),
            None => Err(Error::new(ErrorKind::InvalidOperation, "index: no such item")),
        },
        _ => Err(unknown(name)),
    }
}
