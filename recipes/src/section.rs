//! Typed reading of one mapping: every key is asked for once, every problem is kept, and what was
//! never asked for is an unknown key.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::elsewhere;
use crate::keys;
use crate::paths::{PathOrBuiltin, expand};
use crate::problem::{Location, MAX_PROBLEMS, Problem, nearest};
use crate::tree::{Entry, Node, Value, join};

/// The problems found so far; shared by all sections of a recipe.
#[derive(Debug, Default)]
pub(crate) struct Sink(RefCell<Vec<Problem>>);

impl Sink {
    pub(crate) fn push(&self, problem: Problem) {
        if !self.is_full() {
            self.0.borrow_mut().push(problem);
        }
    }

    /// Whether no more problems are kept.
    fn is_full(&self) -> bool {
        self.0.borrow().len() >= MAX_PROBLEMS
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

/// The one of `names` that someone who wrote `word` most likely meant: what another tool calls it, or
/// the nearest.
fn meant<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    let named = elsewhere::value(word);
    let named = names.iter().copied().find(|name| Some(*name) == named);
    named.or_else(|| nearest(word, names.iter().copied()))
}

/// A mapping being read.
pub(crate) struct Section<'a> {
    path: String,
    location: Option<Location>,
    entries: &'a [Entry],
    known: Vec<&'static str>,
    sink: &'a Sink,
}

impl<'a> Section<'a> {
    /// Begins reading `node`, which stands at `path`. Anything but a mapping is a problem, and
    /// reads like an empty one.
    pub(crate) fn new(path: String, node: &'a Node, sink: &'a Sink) -> Self {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            _ => {
                sink.push(Problem {
                    key: path.clone(),
                    location: Some(node.location.clone()),
                    message: format!("found {}; allowed: a mapping of keys", node.describe()),
                    hint: None,
                });
                &[]
            }
        };
        let location = Some(node.location.clone());
        Self { path, location, entries, known: Vec::new(), sink }
    }

    /// A section that is not written, so that its defaults are read in one way.
    fn absent(path: String, sink: &'a Sink) -> Self {
        Self { path, location: None, entries: &[], known: Vec::new(), sink }
    }

    /// The value of `key`; `null` is as good as absent.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        let node = &self.entries.iter().find(|entry| entry.key == key)?.value;
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    /// The mapping under `key`, or an empty one.
    pub(crate) fn section(&mut self, key: &'static str) -> Section<'a> {
        let path = join(&self.path, key);
        match self.get(key) {
            Some(node) => Section::new(path, node, self.sink),
            None => Section::absent(path, self.sink),
        }
    }

    /// Records that the value of `key` is wrong.
    pub(crate) fn refuse(&self, key: &str, node: &Node, allowed: &str) {
        let message = format!("found {}; allowed: {allowed}", node.describe());
        self.problem(key, Some(node.location.clone()), message, None);
    }

    /// Records any problem with `key` of this section.
    pub(crate) fn problem(
        &self,
        key: &str,
        location: Option<Location>,
        message: String,
        hint: Option<String>,
    ) {
        let key = join(&self.path, key);
        self.sink.push(Problem { key, location, message, hint });
    }

    /// Records that `key` must be given.
    pub(crate) fn missing(&self, key: &str, allowed: &str) {
        let message = format!("missing; allowed: {allowed}");
        self.problem(key, self.location.clone(), message, None);
    }

    /// Reads `key` with `read`; what `read` refuses is a problem naming what is `allowed`.
    pub(crate) fn value<T>(
        &mut self,
        key: &'static str,
        default: T,
        allowed: &str,
        read: impl FnOnce(&Node) -> Option<T>,
    ) -> T {
        let Some(node) = self.get(key) else { return default };
        read(node).unwrap_or_else(|| {
            self.refuse(key, node, allowed);
            default
        })
    }

    pub(crate) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.value(key, default, "true or false", |node| match node.value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        })
    }

    pub(crate) fn text(&mut self, key: &'static str) -> Option<String> {
        self.value(key, None, "a text", |node| text(node).map(|text| Some(text.to_owned())))
    }

    /// A path; nothing here looks whether it exists.
    pub(crate) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let node = self.get(key)?;
        let Some(text) = text(node).filter(|text| !text.is_empty()) else {
            self.refuse(key, node, "a path");
            return None;
        };
        self.expanded(key, node, text)
    }

    /// A place; an empty one where it is missing or wrong, which is recorded.
    pub(crate) fn path_or_builtin(&mut self, key: &'static str, allowed: &str) -> PathOrBuiltin {
        let unknown = PathOrBuiltin::Path(PathBuf::new());
        let Some(node) = self.get(key) else {
            self.missing(key, allowed);
            return unknown;
        };
        match text(node).and_then(PathOrBuiltin::parse) {
            Some(PathOrBuiltin::Path(path)) => {
                let path = path.to_string_lossy();
                self.expanded(key, node, &path).map_or(unknown, PathOrBuiltin::Path)
            }
            Some(builtin) => builtin,
            None => {
                self.refuse(key, node, allowed);
                unknown
            }
        }
    }

    /// A path as it is meant, or a problem.
    fn expanded(&self, key: &str, node: &Node, text: &str) -> Option<PathBuf> {
        expand(text)
            .map_err(|message| {
                self.problem(key, Some(node.location.clone()), message, None);
            })
            .ok()
    }

    pub(crate) fn texts(&mut self, key: &'static str) -> Vec<String> {
        let items = self.get(key).and_then(list).unwrap_or_default();
        for (index, item) in items.iter().enumerate() {
            if text(item).is_some_and(|text| text.trim().is_empty()) {
                self.refuse(&format!("{key}.{index}"), item, "a text that says something");
            }
        }
        self.value(key, Vec::new(), "a list of texts", |node| {
            list(node)?.iter().map(|item| text(item).map(str::to_owned)).collect()
        })
    }

    /// A text for each of any names.
    pub(crate) fn names(
        &mut self,
        key: &'static str,
        allowed: &'static str,
    ) -> BTreeMap<String, String> {
        self.value(key, BTreeMap::new(), allowed, |node| {
            let Value::Map(entries) = &node.value else { return None };
            let named = |entry: &Entry| Some((entry.key.clone(), text(&entry.value)?.to_owned()));
            entries.iter().map(named).collect()
        })
    }

    /// A whole number, at least 1.
    pub(crate) fn count(&mut self, key: &'static str, default: usize) -> NonZeroUsize {
        let default = NonZeroUsize::new(default).expect("defaults of counts are at least 1");
        let Some(node) = self.get(key) else { return default };
        count(node).unwrap_or_else(|| {
            self.refuse(key, node, count_words(node));
            default
        })
    }

    /// A whole number, at least 1, or the word `none`.
    pub(crate) fn count_or_none(
        &mut self,
        key: &'static str,
        default: Option<usize>,
    ) -> Option<NonZeroUsize> {
        let default = default.and_then(NonZeroUsize::new);
        let Some(node) = self.get(key) else { return default };
        if text(node) == Some("none") {
            return None;
        }
        let found = count(node);
        if found.is_none() {
            self.refuse(key, node, &format!("{}, or `none`", count_words(node)));
        }
        found.or(default)
    }

    /// A whole number, at least 0.
    pub(crate) fn whole(&mut self, key: &'static str, default: u64) -> u64 {
        let Some(node) = self.get(key) else { return default };
        let found = whole(node);
        if found.is_none() {
            // YAML's whole numbers beyond this one are read as numbers with a point.
            let allowed = if is_large(node) {
                format!("a whole number from 0 to {}", i64::MAX)
            } else {
                "a whole number, at least 0".to_owned()
            };
            self.refuse(key, node, &allowed);
        }
        found.unwrap_or(default)
    }

    /// A whole number from 0 to the largest count.
    pub(crate) fn tally(&mut self, key: &'static str, default: u64) -> u64 {
        let allowed = format!("a whole number from 0 to {MAX_COUNT}");
        self.value(key, default, &allowed, |node| {
            whole(node).filter(|&number| number <= MAX_COUNT as u64)
        })
    }

    /// A number for which `fits` holds.
    pub(crate) fn number(
        &mut self,
        key: &'static str,
        default: f64,
        allowed: &str,
        fits: impl FnOnce(f64) -> bool,
    ) -> f64 {
        self.value(key, default, allowed, |node| number(node).filter(|&number| fits(number)))
    }

    /// One of the named values.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        choices: &[(&'static str, T)],
    ) -> T {
        let Some(node) = self.get(key) else { return default };
        self.chosen(key, node, choices).unwrap_or(default)
    }

    /// Any of the named values, each once.
    pub(crate) fn choices<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Vec<T> {
        let Some(node) = self.get(key) else { return Vec::new() };
        let Some(items) = list(node) else {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.refuse(key, node, &format!("a list of {}", names.join(", ")));
            return Vec::new();
        };
        self.chosen_each(key, items, choices)
    }

    /// The named values of a list, each once; a problem for every item that is none.
    pub(crate) fn chosen_each<T: Copy + PartialEq>(
        &self,
        key: &str,
        items: &[Node],
        choices: &[(&'static str, T)],
    ) -> Vec<T> {
        let mut chosen = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let found = self.chosen(&format!("{key}.{index}"), item, choices);
            chosen.extend(found.filter(|found| !chosen.contains(found)));
        }
        chosen
    }

    /// One of the named values, or nothing.
    pub(crate) fn named<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let node = self.get(key)?;
        self.chosen(key, node, choices)
    }

    /// The named value that `node` is; anything else is recorded.
    pub(crate) fn chosen<T: Copy>(
        &self,
        key: &str,
        node: &Node,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let found = text(node);
        if let Some((_, choice)) = choices.iter().find(|(name, _)| Some(*name) == found) {
            return Some(*choice);
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let message = format!("found {}; allowed: {}", node.describe(), names.join(", "));
        let hint = found
            .and_then(|word| meant(&word.to_lowercase(), &names))
            .map(|name| format!("did you mean `{name}`?"));
        self.problem(key, Some(node.location.clone()), message, hint);
        None
    }

    /// The list under `key`, each item read as a section of its own.
    pub(crate) fn list<T>(&mut self, key: &'static str, read: impl Fn(Section<'a>) -> T) -> Vec<T> {
        let Some(node) = self.get(key) else { return Vec::new() };
        let Some(items) = list(node) else {
            self.refuse(key, node, "a list");
            return Vec::new();
        };
        let item_path = |index: usize| join(&join(&self.path, key), &index.to_string());
        let items = items.iter().enumerate();
        items.map(|(index, item)| read(Section::new(item_path(index), item, self.sink))).collect()
    }

    /// A key that names one of several forms: `key: form` or `key: {form: {…}}`.
    pub(crate) fn form(
        &mut self,
        key: &'static str,
        forms: &[&'static str],
    ) -> Option<(&'static str, Section<'a>)> {
        let node = self.get(key)?;
        let path = join(&self.path, key);
        let named: Vec<(&'static str, &'static str)> = forms.iter().map(|f| (*f, *f)).collect();
        match &node.value {
            Value::Map(entries) if entries.len() == 1 => {
                let entry = &entries[0];
                let Some(form) = forms.iter().find(|form| **form == entry.key) else {
                    let hint = meant(&entry.key, forms);
                    let hint = hint.map(|form| format!("did you mean `{form}`?"));
                    let message = format!("unknown form; allowed: {}", forms.join(", "));
                    let at = Some(entry.location.clone());
                    self.problem(&join(key, &entry.key), at, message, hint);
                    return None;
                };
                Some((*form, Section::new(join(&path, form), &entry.value, self.sink)))
            }
            Value::Map(_) => {
                self.refuse(key, node, &format!("exactly one of {}", forms.join(", ")));
                None
            }
            _ => {
                let form = self.chosen(key, node, &named)?;
                Some((form, Section::absent(join(&path, form), self.sink)))
            }
        }
    }

    /// The place of `key` as it is written here, if it is.
    pub(crate) fn written(&self, key: &str) -> Option<Location> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!matches!(entry.value.value, Value::Null)).then(|| entry.value.location.clone())
    }

    /// Records the given keys as errors where they are written: they mean nothing because of
    /// `reason`.
    pub(crate) fn meaningless(&mut self, names: &[&'static str], reason: &str) {
        for name in names {
            // Nobody is told of one that is not there.
            let is_there = self.entries.iter().any(|entry| entry.key == *name);
            if let Some(node) = is_there.then(|| self.get(name)).flatten() {
                let at = Some(node.location.clone());
                let hint = Some(format!("drop `{}`", join(&self.path, name)));
                self.problem(name, at, format!("found {}, but {reason}", node.describe()), hint);
            }
        }
    }

    /// Records two keys that exclude each other.
    pub(crate) fn exclusive(&mut self, first: &'static str, second: &'static str) {
        if let (Some(one), Some(other)) = (self.get(first), self.get(second)) {
            let message = format!(
                "found {} = {} and {} = {}; allowed: one of the two",
                first,
                one.describe(),
                second,
                other.describe()
            );
            let hint = Some(format!(
                "drop `{}` or `{}`",
                join(&self.path, first),
                join(&self.path, second)
            ));
            self.problem(second, Some(other.location.clone()), message, hint);
        }
    }

    /// Ends reading: every key that was never asked for is unknown.
    pub(crate) fn close(self) {
        for entry in self.entries {
            if self.known.contains(&entry.key.as_str()) || self.sink.is_full() {
                continue;
            }
            let key = join(&self.path, &entry.key);
            let near = || nearest(&entry.key, self.known.iter().copied());
            let near = || near().map(|name| format!("did you mean `{}`?", join(&self.path, name)));
            let hint = elsewhere::hint(&entry.key)
                .or_else(near)
                .or_else(|| keys::hint(&entry.key))
                .unwrap_or_else(|| format!("keys here: {}", sorted(&self.known).join(", ")));
            self.sink.push(Problem {
                key,
                location: Some(entry.location.clone()),
                message: "unknown key".to_owned(),
                hint: Some(hint),
            });
        }
    }
}

fn sorted(known: &[&'static str]) -> Vec<&'static str> {
    let mut known = known.to_vec();
    known.sort_unstable();
    known.dedup();
    known
}

pub(crate) fn text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

pub(crate) fn list(node: &Node) -> Option<&[Node]> {
    match &node.value {
        Value::List(items) => Some(items),
        _ => None,
    }
}

/// No run has more of anything. Products of two counts, and of one with the tokens or the bytes of a
/// model, stay within 64 bits.
pub(crate) const MAX_COUNT: usize = 1_000_000_000;

/// What a count may be, for someone who wrote `node`.
fn count_words(node: &Node) -> &'static str {
    match node.value {
        Value::Integer(number) if number > 0 => "a whole number from 1 to 1000000000",
        _ if is_large(node) => "a whole number from 1 to 1000000000",
        _ => "a whole number, at least 1",
    }
}

pub(crate) fn count(node: &Node) -> Option<NonZeroUsize> {
    let number = whole(node).and_then(|number| usize::try_from(number).ok());
    number.filter(|&number| number <= MAX_COUNT).and_then(NonZeroUsize::new)
}

/// Whether a number is larger than any whole one that is read.
fn is_large(node: &Node) -> bool {
    matches!(node.value, Value::Float(number) if number >= i64::MAX as f64)
}

fn whole(node: &Node) -> Option<u64> {
    match node.value {
        Value::Integer(number) => u64::try_from(number).ok(),
        _ => None,
    }
}

/// A finite number, written with a point or without.
pub(crate) fn number(node: &Node) -> Option<f64> {
    match node.value {
        Value::Integer(number) => Some(number as f64),
        Value::Float(number) => Some(number).filter(|number| number.is_finite()),
        _ => None,
    }
}
