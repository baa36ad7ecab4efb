//! YAML text as a tree of values that know their place.
//!
//! `saphyr` parses and marks (YAML 1.2, core schema: `yes` is text, `true` is a flag); this file
//! turns its nodes into ours, which an override or an inherited recipe can also make.

use std::sync::Arc;

use saphyr::{LoadableYamlNode, MarkedYaml, Marker, Scalar, YamlData};

use crate::problem::{Location, Problem, printable};

/// Larger text is no recipe.
const MAX_BYTES: usize = 1 << 20;
/// Columns that block indicators and indentation may take; bounds the depth of the tree.
const MAX_INDENT: usize = 200;
/// Depth of a tree; a recipe needs 6. Beyond it stands an alias in an alias in an alias.
const MAX_DEPTH: usize = 32;
/// Stack for the parser, which copies and drops its own, deeper tree recursively.
const PARSER_STACK: usize = 64 << 20;
/// Repeated keys that are told apart before reading gives up.
const MAX_DUPLICATES: usize = 32;
/// Repeated keys are renamed to runs of these private characters, so that parsing goes on.
const FIRST_STAND_IN: u32 = 0xE000;

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) location: Location,
}

/// The forms a value takes.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) location: Location,
    pub(crate) value: Node,
}

impl Node {
    /// The value as an error message names it.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(flag) => format!("`{flag}`"),
            Value::Integer(number) => format!("{number}"),
            Value::Float(number) => format!("{number:?}"),
            Value::Text(text) => format!("the text `{}`", printable(text)),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Map(entries) => {
                let keys: Vec<&str> = entries.iter().take(4).map(|e| e.key.as_str()).collect();
                printable(&format!("a mapping ({})", keys.join(", ")))
            }
        }
    }
}

/// Where the nodes of one text are: a file, or one command-line argument.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    File(Arc<str>),
    CommandLine(Arc<str>),
}

impl Origin {
    fn at(&self, marker: Marker) -> Location {
        match self {
            Self::File(file) => Location::File {
                file: file.clone(),
                line: marker.line().max(1),
                column: marker.col() + 1,
            },
            Self::CommandLine(argument) => Location::CommandLine { argument: argument.clone() },
        }
    }

    pub(crate) fn start(&self) -> Location {
        self.at(Marker::new(0, 1, 0))
    }
}

/// Reads YAML text of one document. An empty document is nothing.
///
/// Beside the tree come the problems that do not stop reading: repeated keys, keys that are not
/// text, tags.
///
/// # Errors
/// What stops reading: syntax, several documents, hostile nesting.
pub(crate) fn read(text: &str, origin: &Origin) -> Result<(Node, Vec<Problem>), Problem> {
    refuse_hostile(text, origin)?;
    let gave_up = |_| syntax("the parser gave up on it", origin.start());
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(PARSER_STACK);
        let parser = thread.spawn_scoped(scope, || parse(text, origin));
        let parser = parser
            .map_err(|error| syntax(&format!("no thread to parse it: {error}"), origin.start()))?;
        parser.join().map_err(gave_up)?
    })
}

fn parse(text: &str, origin: &Origin) -> Result<(Node, Vec<Problem>), Problem> {
    let (text, repeated) = tell_repeated_keys_apart(text.trim_start_matches('\u{feff}'), origin)?;
    let documents = MarkedYaml::load_from_str(&text)
        .map_err(|error| syntax(error.info(), origin.at(*error.marker())))?;
    let mut documents = documents.into_iter();
    let Some(document) = documents.next() else {
        return Ok((Node { value: Value::Null, location: origin.start() }, Vec::new()));
    };
    if let Some(second) = documents.next() {
        let at = origin.at(second.span.start);
        return Err(syntax("a second document begins here; allowed: one", at));
    }
    let mut reading = Reading { origin, repeated: &repeated, depth: 0, problems: Vec::new() };
    let node = reading.node(&document, "");
    Ok((node, reading.problems))
}

fn syntax(message: &str, location: Location) -> Problem {
    Problem {
        key: String::new(),
        location: Some(location),
        message: format!("not valid YAML: {message}"),
        hint: None,
    }
}

/// Refuses text whose size or nesting only an attack would have: the tree is walked recursively.
fn refuse_hostile(text: &str, origin: &Origin) -> Result<(), Problem> {
    if text.len() > MAX_BYTES {
        let message = format!("{} bytes; allowed: at most {MAX_BYTES}", text.len());
        return Err(syntax(&message, origin.start()));
    }
    for (row, line) in text.lines().enumerate() {
        let prefix = line.bytes().take_while(|byte| b" \t-?:".contains(byte)).count();
        let indicators = line.matches("- ").count() + line.matches("? ").count();
        if prefix > MAX_INDENT && prefix < line.len() || indicators > 4 * MAX_INDENT {
            let at = origin.at(Marker::new(0, row + 1, 0));
            let message = format!("indented deeper than {MAX_INDENT} columns");
            return Err(syntax(&message, at));
        }
    }
    Ok(())
}

/// A key that stands twice in its mapping, and the name that stands for it in the parsed text.
struct Repeated {
    stand_in: String,
    name: String,
}

/// The parser stops at a repeated key. To report all of them together with everything else, each
/// is renamed, at its own length so that no column moves, and parsing starts again.
fn tell_repeated_keys_apart(
    text: &str,
    origin: &Origin,
) -> Result<(String, Vec<Repeated>), Problem> {
    let mut text = text.to_owned();
    let mut repeated = Vec::new();
    while let Err(error) = MarkedYaml::load_from_str(&text) {
        let stop = || syntax(error.info(), origin.at(*error.marker()));
        if !error.info().starts_with("duplicated key") || repeated.len() == MAX_DUPLICATES {
            return Err(stop());
        }
        let from = text.char_indices().nth(error.marker().index()).map_or(text.len(), |(at, _)| at);
        let quote = text[from..].chars().next().filter(|c| matches!(c, '"' | '\''));
        let from = from + quote.map_or(0, char::len_utf8);
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        let length = text[from..].find(|c| !is_name(c)).unwrap_or(text.len() - from);
        let name = text[from..from + length].to_owned();
        let private = char::from_u32(FIRST_STAND_IN + repeated.len() as u32);
        let (Some(private), false) = (private, name.is_empty()) else {
            return Err(stop());
        };
        let stand_in: String = name.chars().map(|_| private).collect();
        text.replace_range(from..from + length, &stand_in);
        repeated.push(Repeated { stand_in, name });
    }
    Ok((text, repeated))
}

struct Reading<'a> {
    origin: &'a Origin,
    repeated: &'a [Repeated],
    depth: usize,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn node(&mut self, yaml: &MarkedYaml<'_>, path: &str) -> Node {
        let location = self.origin.at(yaml.span.start);
        if self.depth == MAX_DEPTH {
            let message = format!("nested too deep; allowed: {MAX_DEPTH} levels");
            self.refuse(path, location.clone(), message);
            return Node { value: Value::Null, location };
        }
        self.depth += 1;
        let value = match &yaml.data {
            YamlData::Value(Scalar::Null) => Value::Null,
            YamlData::Value(Scalar::Boolean(flag)) => Value::Bool(*flag),
            YamlData::Value(Scalar::Integer(number)) => Value::Integer(*number),
            YamlData::Value(Scalar::FloatingPoint(number)) => Value::Float(number.into_inner()),
            YamlData::Value(Scalar::String(text)) => Value::Text(text.to_string()),
            YamlData::Sequence(items) => {
                let items = items.iter().enumerate();
                Value::List(
                    items.map(|(i, item)| self.node(item, &join(path, &i.to_string()))).collect(),
                )
            }
            YamlData::Mapping(entries) => {
                let known = |name: &str| {
                    let mut keys = entries.keys();
                    keys.find(|key| key.data.as_str() == Some(name)).map(|key| key.span.start)
                };
                Value::Map(
                    entries.iter().filter_map(|(k, v)| self.entry(k, v, path, &known)).collect(),
                )
            }
            YamlData::Tagged(tag, inner) => {
                self.refuse(
                    path,
                    location.clone(),
                    format!("found the tag `{tag}`; allowed: plain values"),
                );
                self.node(inner, path).value
            }
            YamlData::BadValue | YamlData::Representation(..) | YamlData::Alias(_) => {
                // An empty document arrives as a bad value as well.
                if !path.is_empty() {
                    let message = "found a value that does not fit its tag; allowed: plain values";
                    self.refuse(path, location.clone(), message.to_owned());
                }
                Value::Null
            }
        };
        self.depth -= 1;
        Node { value, location }
    }

    fn entry(
        &mut self,
        key: &MarkedYaml<'_>,
        value: &MarkedYaml<'_>,
        path: &str,
        known: &dyn Fn(&str) -> Option<Marker>,
    ) -> Option<Entry> {
        let location = self.origin.at(key.span.start);
        let Some(name) = key.data.as_str() else {
            self.refuse(path, location, "found a key that is not text; allowed: names".to_owned());
            return None;
        };
        if let Some(repeated) = self.repeated.iter().find(|r| r.stand_in == name) {
            let first = known(&repeated.name).map_or(0, |marker| marker.line());
            let message = format!("given twice; it is on line {first} already");
            self.refuse(&join(path, &repeated.name), location, message);
            return None;
        }
        let value = self.node(value, &join(path, name));
        Some(Entry { key: name.to_owned(), location, value })
    }

    fn refuse(&mut self, key: &str, location: Location, message: String) {
        self.problems.push(Problem {
            key: key.to_owned(),
            location: Some(location),
            message,
            hint: None,
        });
    }
}

/// `path.key`, or the key alone at the top.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_file(text: &str) -> Result<(Node, Vec<Problem>), Problem> {
        read(text, &Origin::File(Arc::from("t.yaml")))
    }

    #[test]
    fn every_repeated_key_is_reported_at_its_own_place() {
        let text = "a: 1\nb: {c: 1, 'c': 2, c: 3}\na: 2\n\"b\": 3\n";
        let (_, problems) = read_file(text).unwrap();
        let mut lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "t.yaml:2:11: b.c: given twice; it is on line 2 already",
                "t.yaml:2:19: b.c: given twice; it is on line 2 already",
                "t.yaml:3:1: a: given twice; it is on line 1 already",
                "t.yaml:4:1: b: given twice; it is on line 2 already",
            ]
        );
    }

    #[test]
    fn an_alias_has_the_value_of_its_anchor() {
        let (node, problems) = read_file("a: &x [1, 2]\nb: *x\n").unwrap();
        assert!(problems.is_empty());
        let Value::Map(entries) = node.value else { panic!("not a mapping") };
        assert_eq!(entries[1].value.describe(), "a list of 2");
    }

    #[test]
    fn tags_second_documents_and_keys_that_are_no_text_are_refused() {
        assert_eq!(read_file("a: !x 1\n1: 2\n").unwrap().1.len(), 2);
        assert!(read_file("a: 1\n---\nb: 2\n").unwrap_err().message.contains("second document"));
    }
}
