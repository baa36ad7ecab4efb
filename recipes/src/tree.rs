//! YAML text as a tree of values that know their place.
//!
//! `saphyr-parser` gives events (YAML 1.2, core schema: `yes` is text, `true` is a flag); this file
//! makes nodes of them, which an override or an inherited recipe can also make. What a text may
//! grow to is bounded while it is read, aliases included: 1 MiB of it never takes more than some
//! hundred MiB.

use std::collections::BTreeMap;
use std::sync::Arc;

use saphyr::{Scalar, ScalarStyle, Tag};
use saphyr_parser::{Event, Marker, Parser};

use crate::problem::{Location, MAX_PROBLEMS, Problem, escaped, printable};

/// Larger text is no recipe.
pub(crate) const MAX_BYTES: u64 = 1 << 20;
/// Depth of a tree; a recipe needs 6.
const MAX_DEPTH: usize = 32;
/// Keys of one mapping; a recipe's have 14 at most.
const MAX_KEYS: usize = 256;
/// Characters of a key; the longest of the schema has 27.
const MAX_KEY: usize = 128;
/// Values that all aliases together may stand for.
const MAX_ALIASED: usize = 10_000;
/// Bytes of text that they may stand for.
const MAX_ALIASED_BYTES: usize = 1 << 20;

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
/// What stops reading: syntax, several documents, more than any recipe has of anything.
pub(crate) fn read(text: &str, origin: &Origin) -> Result<(Node, Vec<Problem>), Problem> {
    if text.len() as u64 > MAX_BYTES {
        let message = format!("{} bytes; allowed: at most {MAX_BYTES}", text.len());
        return Err(syntax(&message, origin.start()));
    }
    let mut reading = Reading::new(origin);
    for event in Parser::new_from_str(text.trim_start_matches('\u{feff}')) {
        let (event, span) =
            event.map_err(|error| syntax(error.info(), origin.at(*error.marker())))?;
        reading.take(event, span.start)?;
    }
    let nothing = || Node { value: Value::Null, location: origin.start() };
    Ok((reading.root.unwrap_or_else(nothing), reading.problems))
}

fn syntax(message: &str, location: Location) -> Problem {
    Problem {
        key: String::new(),
        location: Some(location),
        message: format!("not valid YAML: {}", escaped(message)),
        hint: None,
    }
}

/// A finished value, and what it takes.
#[derive(Clone)]
struct Done {
    node: Node,
    size: Size,
}

/// What a value takes.
#[derive(Clone, Copy)]
struct Size {
    values: usize,
    bytes: usize,
    height: usize,
}

/// A list or mapping whose end has not come yet.
struct Open {
    value: Value,
    location: Location,
    /// Its anchor; 0 for none.
    anchor: usize,
    size: Size,
    /// What the next value of a mapping is.
    next: Next,
    /// The lines of a mapping's keys.
    lines: BTreeMap<String, usize>,
}

/// What the next value of a mapping is.
enum Next {
    Key,
    /// The value of this key.
    Of(String, Location),
    /// The value of a key that was refused.
    Refused,
}

struct Reading<'a> {
    origin: &'a Origin,
    open: Vec<Open>,
    /// Finished values that aliases may name.
    anchors: BTreeMap<usize, Done>,
    aliased: Size,
    documents: usize,
    root: Option<Node>,
    problems: Vec<Problem>,
}

impl<'a> Reading<'a> {
    fn new(origin: &'a Origin) -> Self {
        let aliased = Size { values: 0, bytes: 0, height: 0 };
        let (open, anchors, problems) = (Vec::new(), BTreeMap::new(), Vec::new());
        Self { origin, open, anchors, aliased, documents: 0, root: None, problems }
    }

    fn take(&mut self, event: Event<'_>, at: Marker) -> Result<(), Problem> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(self.stop("a second document begins here; allowed: one", at));
                }
                Ok(())
            }
            Event::Alias(anchor) => {
                let done = self.alias(anchor, at)?;
                self.finished(done, at)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let done = self.scalar(text.into_owned(), style, tag.as_deref(), at);
                self.remember(anchor, &done, at)?;
                self.finished(done, at)
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(Value::List(Vec::new()), anchor, tag.as_deref(), at)
            }
            Event::MappingStart(anchor, tag) => {
                self.begin(Value::Map(Vec::new()), anchor, tag.as_deref(), at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(at),
        }
    }

    fn stop(&self, message: &str, at: Marker) -> Problem {
        syntax(message, self.origin.at(at))
    }

    fn begin(
        &mut self,
        value: Value,
        anchor: usize,
        tag: Option<&Tag>,
        at: Marker,
    ) -> Result<(), Problem> {
        if self.open.len() == MAX_DEPTH {
            return Err(self.stop(&format!("nested deeper than {MAX_DEPTH} levels"), at));
        }
        self.refuse_tag(tag, at);
        let (location, size) = (self.origin.at(at), Size { values: 1, bytes: 0, height: 1 });
        let (next, lines) = (Next::Key, BTreeMap::new());
        self.open.push(Open { value, location, anchor, size, next, lines });
        Ok(())
    }

    fn end(&mut self, at: Marker) -> Result<(), Problem> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let Open { value, location, anchor, size, next: _, lines: _ } = open;
        let done = Done { node: Node { value, location }, size };
        self.remember(anchor, &done, at)?;
        self.finished(done, at)
    }

    /// Puts a finished value where it belongs.
    fn finished(&mut self, done: Done, at: Marker) -> Result<(), Problem> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(done.node);
            return Ok(());
        };
        open.size.values += done.size.values;
        open.size.bytes += done.size.bytes;
        open.size.height = open.size.height.max(1 + done.size.height);
        match &mut open.value {
            Value::List(items) => items.push(done.node),
            Value::Map(entries) => match std::mem::replace(&mut open.next, Next::Key) {
                Next::Key => return self.key(done.node, at),
                Next::Of(key, location) => {
                    entries.push(Entry { key, location, value: done.node });
                }
                Next::Refused => {}
            },
            _ => {}
        }
        Ok(())
    }

    /// The next key of the innermost mapping.
    fn key(&mut self, node: Node, at: Marker) -> Result<(), Problem> {
        let path = self.path();
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        open.next = Next::Refused;
        let Node { value: Value::Text(name), location } = node else {
            let message = "found a key that is not text; allowed: names".to_owned();
            self.problem(path, node.location, message);
            return Ok(());
        };
        let length = name.chars().count();
        if length > MAX_KEY {
            let message = format!(
                "found a key of {length} characters, `{}`; allowed: at most {MAX_KEY}",
                printable(&name)
            );
            self.problem(path, location, message);
            return Ok(());
        }
        if let Some(first) = open.lines.get(&name) {
            let message = format!("given twice; it is on line {first} already");
            self.problem(join(&path, &name), location, message);
            return Ok(());
        }
        if open.lines.len() == MAX_KEYS {
            return Err(self.stop(&format!("a mapping of more than {MAX_KEYS} keys"), at));
        }
        open.lines.insert(name.clone(), at.line());
        open.next = Next::Of(name, location);
        Ok(())
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, tag: Option<&Tag>, at: Marker) -> Done {
        let size = Size { values: 1, bytes: text.len(), height: 0 };
        let is_foreign = self.refuse_tag(tag, at);
        let core = tag.filter(|_| !is_foreign).map(std::borrow::Cow::Borrowed);
        let value = match Scalar::parse_from_cow_and_metadata(text.into(), style, core.as_ref()) {
            Some(Scalar::Null) => Value::Null,
            Some(Scalar::Boolean(flag)) => Value::Bool(flag),
            Some(Scalar::Integer(number)) => Value::Integer(number),
            Some(Scalar::FloatingPoint(number)) => Value::Float(number.into_inner()),
            Some(Scalar::String(text)) => Value::Text(text.into_owned()),
            None => {
                let message = "found a value that does not fit its tag; allowed: plain values";
                self.problem(self.path(), self.origin.at(at), message.to_owned());
                Value::Null
            }
        };
        Done { node: Node { value, location: self.origin.at(at) }, size }
    }

    /// Refuses a tag that is not of the core schema; whether it is.
    fn refuse_tag(&mut self, tag: Option<&Tag>, at: Marker) -> bool {
        let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) else { return false };
        let message =
            format!("found the tag `{}`; allowed: plain values", printable(&tag.to_string()));
        self.problem(self.path(), self.origin.at(at), message);
        true
    }

    /// Keeps a value that has an anchor.
    fn remember(&mut self, anchor: usize, done: &Done, at: Marker) -> Result<(), Problem> {
        if anchor == 0 {
            return Ok(());
        }
        self.pay(done.size, at)?;
        self.anchors.insert(anchor, done.clone());
        Ok(())
    }

    /// The value that an alias stands for.
    fn alias(&mut self, anchor: usize, at: Marker) -> Result<Done, Problem> {
        let Some(size) = self.anchors.get(&anchor).map(|done| done.size) else {
            return Err(self.stop("an alias stands inside what it names", at));
        };
        self.pay(size, at)?;
        if self.open.len() + size.height > MAX_DEPTH {
            return Err(self.stop(&format!("nested deeper than {MAX_DEPTH} levels"), at));
        }
        let mut done = self.anchors[&anchor].clone();
        done.node.location = self.origin.at(at);
        Ok(done)
    }

    /// Counts a copy of a value against what aliases may make.
    fn pay(&mut self, size: Size, at: Marker) -> Result<(), Problem> {
        self.aliased.values += size.values;
        self.aliased.bytes += size.bytes;
        if self.aliased.values > MAX_ALIASED || self.aliased.bytes > MAX_ALIASED_BYTES {
            let message = format!(
                "its anchors and aliases stand for more than {MAX_ALIASED} values or \
                 {MAX_ALIASED_BYTES} bytes"
            );
            return Err(self.stop(&message, at));
        }
        Ok(())
    }

    /// The key in full of the value that comes next.
    fn path(&self) -> String {
        self.open.iter().fold(String::new(), |path, open| match (&open.value, &open.next) {
            (Value::List(items), _) => join(&path, &items.len().to_string()),
            (_, Next::Of(key, _)) => join(&path, key),
            _ => path,
        })
    }

    fn problem(&mut self, key: String, location: Location, message: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { key, location: Some(location), message, hint: None });
        }
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

    fn refused(text: &str) -> String {
        read_file(text).map(|_| ()).unwrap_err().to_string()
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

    #[test]
    fn aliases_are_bounded_by_what_they_stand_for() {
        let long = "x".repeat(200_000);
        let scalars = format!("a: &a {long}\nb: [{}]\n", "*a, ".repeat(100_000));
        insta::assert_snapshot!(refused(&scalars), @"t.yaml:2:21: not valid YAML: its anchors and aliases stand for more than 10000 values or 1048576 bytes");
        let key = format!("? &a {long}\n: 1\nb: {{{}}}\n", "*a : 1, ".repeat(10_000));
        assert!(refused(&key).contains("its anchors and aliases stand for more"));
        let anchors = format!("a: {}{}", "&a [".repeat(20), "1, ".repeat(100_000));
        refused(&anchors);
        let many = (0..5_000).fold(String::new(), |text, i| text + &format!("- &a{i} [1, 2, 3]\n"));
        assert!(refused(&many).contains("its anchors and aliases stand for more"));
        insta::assert_snapshot!(refused("a: &a [*a]\n"), @"t.yaml:1:8: not valid YAML: an alias stands inside what it names");
    }

    #[test]
    fn an_alias_goes_no_deeper_than_what_is_written() {
        let nest = |levels: usize, inner: &str| {
            format!("{}{inner}{}", "[".repeat(levels), "]".repeat(levels))
        };
        let text = |under: usize| format!("a: &a {}\nb: {}\n", nest(16, "1"), nest(under, "*a"));
        read_file(&text(15)).unwrap();
        insta::assert_snapshot!(refused(&text(16)), @"t.yaml:2:20: not valid YAML: nested deeper than 32 levels");
        insta::assert_snapshot!(refused(&nest(33, "1")), @"t.yaml:1:33: not valid YAML: nested deeper than 32 levels");
    }

    #[test]
    fn keys_are_bounded_in_length_and_number() {
        let long = "k".repeat(200_000);
        let (node, problems) = read_file(&format!("? {long}\n: [1, 2]\na: 1\n")).unwrap();
        assert_eq!(node.describe(), "a mapping (a)");
        assert!(
            problems[0].message.starts_with("found a key of 200000 characters"),
            "{problems:?}"
        );
        let many = (0..300).fold(String::new(), |text, i| text + &format!("k{i}: 1\n"));
        insta::assert_snapshot!(refused(&many), @"t.yaml:257:1: not valid YAML: a mapping of more than 256 keys");
    }

    #[test]
    fn endless_problems_are_not_collected_without_end() {
        let text = "- !x 1\n".repeat(100_000);
        assert_eq!(read_file(&text).unwrap().1.len(), MAX_PROBLEMS);
    }
}
