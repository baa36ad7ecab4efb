//! Reads keys of a JSON object and collects every problem instead of stopping at the first.

use std::fmt;

use serde_json::{Map, Value};

/// A key of config.json that is not as it must be, with both values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The key; nested ones are written `rope_scaling.factor`.
    pub key: String,
    /// The value in the file.
    pub found: String,
    /// The value that would do.
    pub expected: String,
}

impl ConfigProblem {
    pub(crate) fn new(
        key: impl Into<String>,
        found: impl fmt::Display,
        expected: impl fmt::Display,
    ) -> Self {
        Self { key: key.into(), found: found.to_string(), expected: expected.to_string() }
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, found, expected } = self;
        write!(formatter, "`{key}` is {found}, but must be {expected}")
    }
}

/// A value as an error shows it: on one line, shortened.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Typed access to one object. A key that is absent and one that is null read the same.
pub(super) struct Reader<'a> {
    object: &'a Map<String, Value>,
    prefix: String,
    problems: Vec<ConfigProblem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(object: &'a Map<String, Value>) -> Self {
        Self { object, prefix: String::new(), problems: Vec::new() }
    }

    pub(super) fn into_problems(self) -> Vec<ConfigProblem> {
        self.problems
    }

    /// Reads an object inside this one; its problems are added to this reader's.
    pub(super) fn nested<T>(
        &mut self,
        key: &str,
        object: &Map<String, Value>,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> T {
        let prefix = format!("{}{key}.", self.prefix);
        let mut inner = Reader { object, prefix, problems: Vec::new() };
        let result = read(&mut inner);
        self.problems.append(&mut inner.problems);
        result
    }

    pub(super) fn problem(
        &mut self,
        key: &str,
        found: impl fmt::Display,
        expected: impl fmt::Display,
    ) {
        let key = format!("{}{key}", self.prefix);
        self.problems.push(ConfigProblem::new(key, found, expected));
    }

    /// Whether a key was found wrong: what stands in for its value says nothing about others.
    pub(super) fn is_wrong(&self, key: &str) -> bool {
        let key = format!("{}{key}", self.prefix);
        self.problems.iter().any(|problem| problem.key == key)
    }

    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// A whole number above 0; 1 stands in where it is a problem.
    pub(super) fn size(&mut self, key: &str, default: Option<usize>) -> usize {
        const EXPECTED: &str = "a whole number from 1 to 4294967295";
        let Some(value) = self.value(key) else {
            return default.unwrap_or_else(|| {
                self.problem(key, "missing", EXPECTED);
                1
            });
        };
        let size = value.as_u64().filter(|&size| (1..=u64::from(u32::MAX)).contains(&size));
        size.map_or_else(
            || {
                self.problem(key, shown(value), EXPECTED);
                1
            },
            |size| size as usize,
        )
    }

    /// A number above 0; 1 stands in where it is a problem.
    pub(super) fn positive(&mut self, key: &str) -> f64 {
        let value = self.value(key);
        if let Some(number) = value.and_then(Value::as_f64).filter(|number| *number > 0.0) {
            return number;
        }
        let found = value.map_or_else(|| "missing".to_owned(), shown);
        self.problem(key, found, "a number above 0");
        1.0
    }

    /// `true` or `false`; absent is `false`.
    pub(super) fn flag(&mut self, key: &str) -> bool {
        match self.value(key) {
            None => false,
            Some(Value::Bool(flag)) => *flag,
            Some(other) => {
                self.problem(key, shown(other), "true or false");
                false
            }
        }
    }

    /// A string; `None` where absent.
    pub(super) fn text(&mut self, key: &str) -> Option<&'a str> {
        let value = self.value(key)?;
        if value.as_str().is_none() {
            self.problem(key, shown(value), "a text in quotes");
        }
        value.as_str()
    }
}
