//! What a template may use: Jinja2's environment as transformers sets it up, made of minijinja's.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value};

use super::{budget, clock, mask, numbers, python};
use crate::python_text::strip;
use crate::template_json::JsonStyle;

/// Name of the variable that holds the pinned date.
pub(super) const DATE: &str = "date_string";

/// An environment without templates.
pub(super) fn new() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(|out, _, value| {
        if value.as_str().is_none() {
            budget::check_spread(value, 16)?;
        }
        let text = python::text(value);
        budget::write(text.len())?;
        out.write_str(&text).map_err(Error::from)
    });
    environment.set_unknown_method_callback(python::method);
    budget::add_to(&mut environment);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_function(mask::FUNCTION, mask::generation);
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |value: &Value| python::text(value));
    environment.add_filter("trim", trim);
    environment.add_filter("join", join);
    // What Jinja2 asks of Python: whether it has a length and items, and whether it can be iterated.
    environment.add_test("sequence", |value: &Value| {
        use ValueKind::{Map, Seq, String, Undefined};
        matches!(value.kind(), String | Seq | Map | Undefined)
    });
    environment.add_test("iterable", |value: &Value| {
        use ValueKind::{Iterable, Map, Seq, String, Undefined};
        matches!(value.kind(), String | Seq | Map | Iterable | Undefined)
    });
    environment.add_test("number", |value: &Value| {
        matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
            || numbers::text_of(value).is_some()
    });
    environment
}

/// What the template refused with, if it did.
pub(super) fn raised(error: &Error) -> Option<&str> {
    let source = std::error::Error::source(error)?;
    source.downcast_ref::<Raised>().map(|Raised(message)| message.as_str())
}

/// The template called `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let raised = Raised(python::text(message));
    Err(Error::new(ErrorKind::InvalidOperation, "refused").with_source(raised))
}

fn strftime_now(state: &State<'_, '_>, format: &str) -> Result<String, Error> {
    let date = state.lookup(DATE).unwrap_or_default();
    clock::strftime(date.as_str().unwrap_or_default(), format)
        .map_err(|message| Error::new(ErrorKind::InvalidOperation, message))
}

/// `tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
fn tojson(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    const NAMES: [&str; 4] = ["ensure_ascii", "indent", "separators", "sort_keys"];
    if positional.len() > NAMES.len() {
        return Err(ErrorKind::TooManyArguments.into());
    }
    let mut given = [const { None::<Value> }; 4];
    for (index, name) in NAMES.iter().enumerate() {
        given[index] = positional.get(index).cloned().or(named.get::<Option<Value>>(name)?);
    }
    named.assert_all_used()?;
    let [ascii, indent, separators, sorted] = given;
    let long = |value: &Option<Value>| value.as_ref().is_some_and(|value| !value.is_none());
    if let Some(indent) = indent.as_ref().filter(|_| long(&indent)) {
        budget::check_number(indent)?;
        let width = indent.as_usize().unwrap_or_default();
        budget::check_spread(value, width.saturating_mul(32))?;
    }
    if let Some(pair) = separators.as_ref().filter(|_| long(&separators)) {
        budget::check_spread(value, python::text(pair).len())?;
    }
    budget::check_spread(value, 16)?;
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => Some(indent.as_usize().ok_or_else(|| {
            Error::new(ErrorKind::InvalidOperation, "tojson: `indent` must be a number of blanks")
        })?),
    };
    let separators = match separators.filter(|pair| !pair.is_none()) {
        None => None,
        Some(pair) => {
            let texts: Vec<String> = pair.try_iter()?.map(|text| python::text(&text)).collect();
            Some(<[String; 2]>::try_from(texts).map_err(|_| {
                Error::new(ErrorKind::InvalidOperation, "tojson: `separators` must be two texts")
            })?)
        }
    };
    let mut layout = JsonStyle {
        indent,
        sorted: is_true(sorted),
        ascii: is_true(ascii),
        ..JsonStyle::default()
    };
    if let Some([between, behind_key]) = &separators {
        layout.between = Some(between);
        layout.behind_key = behind_key;
    }
    Ok(layout.write(&python::json(value)?))
}

/// `str.strip`, of whatever was given as text.
fn trim(value: &Value, characters: Option<&str>) -> String {
    let text = python::text(value);
    match characters {
        None => strip(&text).to_owned(),
        Some(characters) => text.trim_matches(|c| characters.contains(c)).to_owned(),
    }
}

/// Filter `join`, by texts or by an attribute of each, and `str.join`.
pub(super) fn join(list: &Value, separator: Option<&str>, named: Kwargs) -> Result<String, Error> {
    let separator = separator.map(str::to_owned).or(named.get("d")?).unwrap_or_default();
    let attribute: Option<String> = named.get("attribute")?;
    named.assert_all_used()?;
    let mut texts = Vec::new();
    for item in list.try_iter()? {
        budget::check_spread(&item, 16)?;
        let item = match &attribute {
            Some(attribute) => item.get_attr(attribute)?,
            None => item,
        };
        let text = python::text(&item);
        budget::check_length(text.len() + separator.len())?;
        texts.push(text);
    }
    budget::check_length(texts.iter().map(|text| text.len() + separator.len()).sum())?;
    Ok(texts.join(&separator))
}
