//! What a template may spend, counted by the calls that [`super::guard`] puts into it.
//!
//! A unit is a value looked at, a pass of a loop, or 16 bytes of text. The count does not depend on the
//! machine, so a template that is refused is refused everywhere. A release's template spends some
//! hundred units on a turn.

use std::cell::Cell;

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::python;

/// Units of one rendering: about a second.
const MOST_WORK: usize = 10_000_000;
/// Units of one value: 16 MiB of text, or a million items.
const LARGEST_VALUE: usize = 1 << 20;
/// Bytes written in one rendering, what is kept for later included: so many for the template's own
/// words, and so many times what the conversation has. All of it will be tokens.
const MOST_WORDS: usize = 4 << 20;
const MOST_TIMES: usize = 16;
/// Lists in lists.
const DEEPEST: usize = 160;
/// Blanks, columns, digits: more than anybody writes.
const LARGEST_NUMBER: u32 = 1_000;

/// How a refusal begins.
pub(super) const TOO_MUCH: &str = "the template asks for too much";

thread_local! {
    /// What the rendering of this thread has spent, in units and in bytes written.
    static SPENT: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    /// The bytes that it may write.
    static ALLOWED: Cell<usize> = const { Cell::new(MOST_WORDS) };
}

/// A rendering begins on this thread, of a conversation of so many bytes.
pub(super) fn begin(conversation: usize) {
    SPENT.set((0, 0));
    ALLOWED.set(conversation.saturating_mul(MOST_TIMES).saturating_add(MOST_WORDS));
}

/// Counts what is written.
pub(super) fn write(bytes: usize) -> Result<(), Error> {
    let (units, written) = SPENT.get();
    let written = written.saturating_add(bytes);
    SPENT.set((units, written));
    if written > ALLOWED.get() {
        return Err(too_much("it writes far more than the conversation has"));
    }
    spend(1 + bytes / 16)
}

fn spend(more: usize) -> Result<(), Error> {
    let (units, written) = SPENT.get();
    let units = units.saturating_add(more);
    SPENT.set((units, written));
    if units > MOST_WORK {
        return Err(too_much(
            "it does not come to an end within the work that a template is given",
        ));
    }
    Ok(())
}

fn too_much(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{TOO_MUCH}: {what}"))
}

/// The calls that count, and the filters that need a look at their arguments first.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_function("graft_tick", || spend(1).map(|()| Value::UNDEFINED));
    environment.add_function("graft_raw", |text: Value| text);
    environment.add_function("graft_see", |value: Value| {
        spend(measure(&value, Rule { bytes_of_a_unit: 16, ..Rule::SEEN })?).map(|()| value)
    });
    // What becomes a list of its characters.
    environment.add_function("graft_see_each", |value: Value| {
        spend(measure(&value, Rule { bytes_of_a_unit: 1, ..Rule::SEEN })?).map(|()| value)
    });
    environment.add_function("graft_sized", sized);
    environment.add_function("graft_store", |value: Value| {
        spend(measure(&value, Rule { stored: true, ..Rule::MADE })?).map(|()| value)
    });
    environment.add_function("graft_concat", |parts: Rest<Value>| fold(&parts, concat));
    environment.add_function("graft_add", |parts: Rest<Value>| fold(&parts, add));
    environment.add_function("graft_mul", |parts: Rest<Value>| fold(&parts, mul));
    // Jinja2 has none of these.
    for filter in ["chain", "zip", "pprint", "lines", "split"] {
        environment.remove_filter(filter);
    }
    environment.remove_global("debug");
    environment.add_filter("replace", replace);
    for name in ["indent", "batch", "slice", "round", "format"] {
        bound(environment, name);
    }
}

/// The value, whose size was counted and is bounded.
pub(super) fn sized(value: Value) -> Result<Value, Error> {
    spend(measure(&value, Rule::MADE)?)?;
    Ok(value)
}

/// How a value is measured.
#[derive(Clone, Copy)]
struct Rule {
    /// The units at which it is too large.
    most: usize,
    bytes_of_a_unit: usize,
    /// In a namespace, in which there can be none: it could hold itself.
    stored: bool,
}

impl Rule {
    /// Even what is only looked at comes to an end.
    const SEEN: Self = Self { most: MOST_WORK, bytes_of_a_unit: 16, stored: false };
    const MADE: Self = Self { most: LARGEST_VALUE, bytes_of_a_unit: 16, stored: false };

    fn walk(self, value: &Value, depth: usize, units: &mut usize) -> Result<(), Error> {
        *units += 1;
        if depth > DEEPEST {
            return Err(too_much(&format!("it puts lists into lists, more than {DEEPEST} deep")));
        }
        if self.stored
            && value.as_object().is_some_and(|object| object.type_name().ends_with("Namespace"))
        {
            return Err(too_much("it puts a namespace into a namespace"));
        }
        match value.kind() {
            ValueKind::String => {
                *units += value.as_str().map_or(0, str::len) / self.bytes_of_a_unit;
            }
            ValueKind::Map => {
                for key in value.try_iter()? {
                    self.walk(&key, depth + 1, units)?;
                    self.walk(&value.get_item(&key)?, depth + 1, units)?;
                }
            }
            ValueKind::Seq | ValueKind::Iterable if value.len().is_some() => {
                for item in value.try_iter()? {
                    self.walk(&item, depth + 1, units)?;
                }
            }
            // Made while it is gone through.
            ValueKind::Iterable => *units += 1_000,
            _ => {}
        }
        if *units > self.most {
            return Err(too_large());
        }
        Ok(())
    }
}

/// Units of a value.
fn measure(value: &Value, rule: Rule) -> Result<usize, Error> {
    let mut units = 0;
    rule.walk(value, 0, &mut units)?;
    Ok(units)
}

fn too_large() -> Error {
    too_much("it makes a value that is larger than any conversation")
}

/// What a filter makes of a value with so many bytes for each of its parts.
pub(super) fn check_spread(value: &Value, bytes: usize) -> Result<(), Error> {
    check_length(measure(value, Rule::MADE)?.saturating_mul(bytes))
}

fn fold(parts: &[Value], op: fn(&Value, &Value) -> Result<Value, Error>) -> Result<Value, Error> {
    let mut parts = parts.iter();
    let first = parts.next().cloned().unwrap_or_default();
    parts.try_fold(first, |left, right| sized(op(&left, right)?))
}

/// `~`: texts as minijinja writes them.
fn concat(left: &Value, right: &Value) -> Result<Value, Error> {
    let text = |value: &Value| match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => measure(value, Rule::MADE).map(|_| value.to_string()),
    };
    Ok(Value::from(text(left)? + &text(right)?))
}

fn add(left: &Value, right: &Value) -> Result<Value, Error> {
    let is_list = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    if is_list(left) && is_list(right) {
        return Ok(left.try_iter()?.chain(right.try_iter()?).collect());
    }
    if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
        return Ok(Value::from(left.to_owned() + right));
    }
    match integers(left, right).and_then(|(left, right)| left.checked_add(right)) {
        Some(sum) => Ok(Value::from(sum)),
        None => native("a + b", left, right),
    }
}

fn mul(left: &Value, right: &Value) -> Result<Value, Error> {
    for (many, count) in [(left, right), (right, left)] {
        let length = match many.kind() {
            ValueKind::String => many.as_str().map(str::len),
            ValueKind::Seq | ValueKind::Iterable => Some(16 * many.len().unwrap_or(1_000)),
            _ => None,
        };
        if let (Some(length), Some(count)) = (length, count.as_usize())
            && length.saturating_mul(count) / 16 > LARGEST_VALUE
        {
            return Err(too_large());
        }
    }
    match integers(left, right).and_then(|(left, right)| left.checked_mul(right)) {
        Some(product) => Ok(Value::from(product)),
        None => native("a * b", left, right),
    }
}

fn integers(left: &Value, right: &Value) -> Option<(i64, i64)> {
    let integer = |value: &Value| {
        let is_number = value.kind() == ValueKind::Number && value.is_integer();
        i64::try_from(value.clone()).ok().filter(|_| is_number)
    };
    Some((integer(left)?, integer(right)?))
}

/// The engine's own operator.
fn native(expression: &str, left: &Value, right: &Value) -> Result<Value, Error> {
    thread_local! {
        static PLAIN: Environment<'static> = Environment::empty();
    }
    PLAIN.with(|plain| {
        let context = Value::from_iter([("a", left.clone()), ("b", right.clone())]);
        plain.compile_expression(expression)?.eval(context).map_err(|error| {
            Error::new(error.kind(), error.detail().unwrap_or_default().to_owned())
        })
    })
}

/// The filter, once its result is known to be of a size that can be held.
fn replace(value: &Value, from: &Value, to: &Value, count: Option<i64>) -> Result<String, Error> {
    let (text, from, to) = (python::text(value), python::text(from), python::text(to));
    replaced(&text, &from, &to, count)
}

/// `str.replace`.
pub(super) fn replaced(
    text: &str,
    from: &str,
    to: &str,
    count: Option<i64>,
) -> Result<String, Error> {
    let found = text.matches(from).count();
    let limit = count.and_then(|count| usize::try_from(count).ok());
    let found = limit.map_or(found, |limit| found.min(limit));
    check_length(text.len().saturating_add(found.saturating_mul(to.len())))?;
    Ok(match limit {
        Some(limit) => text.replacen(from, to, limit),
        None => text.replace(from, to),
    })
}

/// Before a text of so many bytes is made.
pub(super) fn check_length(bytes: usize) -> Result<(), Error> {
    if bytes / 16 > LARGEST_VALUE {
        return Err(too_large());
    }
    spend(bytes / 16)
}

/// A filter of the engine whose numbers are looked at first.
fn bound(environment: &mut Environment<'static>, name: &'static str) {
    use minijinja::filters;
    let inner = match name {
        "indent" => Value::from_function(filters::indent),
        "batch" => Value::from_function(filters::batch),
        "slice" => Value::from_function(filters::slice),
        "round" => Value::from_function(filters::round),
        _ => Value::from_function(filters::format),
    };
    environment.add_filter(name, move |state: &State<'_, '_>, arguments: Rest<Value>| {
        for value in arguments.iter().skip(1) {
            check_number(value)?;
            if value.kind() == ValueKind::Map {
                for key in value.try_iter()? {
                    check_number(&value.get_item(&key)?)?;
                }
            }
        }
        let text = arguments.first().and_then(Value::as_str).unwrap_or_default();
        let lines = text.bytes().filter(|&byte| byte == b'\n').count() + 1;
        match name {
            "indent" => check_length(text.len() + lines * LARGEST_NUMBER as usize)?,
            "batch" | "slice" => spend(LARGEST_NUMBER as usize)?,
            "format" => check_format(text)?,
            _ => {}
        }
        inner.call(state, &arguments)
    });
}

pub(super) fn check_number(value: &Value) -> Result<(), Error> {
    // The engine takes 9.0 for 9, and true for 1.
    let number = f64::try_from(value.clone()).unwrap_or_default();
    if value.kind() == ValueKind::Number && number.abs() > f64::from(LARGEST_NUMBER) {
        return Err(too_much(&format!(
            "it asks for {value}, and at most {LARGEST_NUMBER} is given"
        )));
    }
    Ok(())
}

/// Widths in a text that formats.
fn check_format(text: &str) -> Result<(), Error> {
    let mut digits = 0;
    spend(64)?;
    for character in text.chars() {
        digits = if character.is_ascii_digit() { digits + 1 } else { 0 };
        if digits > 3 || character == '*' {
            return Err(too_much("its format asks for a width that no text has"));
        }
    }
    Ok(())
}
