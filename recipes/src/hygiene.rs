//! Section `data.hygiene`: which rows a run goes without, and what of them is masked.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::named::named;
use crate::paths::written;
use crate::section::{Section, text};
use crate::tree;

named! {
    /// What happens to rows of a kind.
    pub enum RowAction {
        /// Nothing is looked for.
        Off = "off",
        /// They are told.
        Report = "report",
        /// They are left out, counted.
        Drop = "drop",
        /// No run begins.
        Error = "error",
    }
}

named! {
    /// What happens to values in rows.
    pub enum ValueAction {
        /// Nothing is looked for.
        Off = "off",
        /// They are told.
        Report = "report",
        /// They are replaced, the same ones by the same mask.
        Mask = "mask",
        /// Their rows are left out, counted.
        Drop = "drop",
        /// No run begins.
        Error = "error",
    }
}

/// Kinds of personal data and secrets that are known by their form.
pub const PERSONAL: [&str; 7] = ["mail", "phone", "iban", "card", "ip", "secret", "password"];

/// A pattern of one's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// What its masks are called. Required.
    pub name: String,
    /// What it finds. Required.
    pub regex: String,
    /// What happens to what it finds. Required.
    pub action: ValueAction,
}

/// A list of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// A file with one a line. Required.
    pub path: PathBuf,
    /// What happens to them. Required.
    pub action: ValueAction,
}

/// Section `data.hygiene.near_duplicates`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NearDuplicates {
    /// What happens to rows that are nearly equal to an earlier one. Default: nothing is looked for.
    pub action: RowAction,
    /// The share of stretches of words from which on they are. Default 0.8.
    pub threshold: f64,
}

/// Section `data.hygiene.contamination`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contamination {
    /// What happens to rows that share a stretch of words with a measured one. Default: nothing is
    /// looked for.
    pub action: RowAction,
    /// Words of a stretch. Default 13.
    pub ngram: NonZeroUsize,
}

/// Section `data.hygiene`. By default only rows that are both trained on and measured are told.
#[derive(Debug, Clone, PartialEq)]
pub struct Hygiene {
    /// Rows that are equal to an earlier one. Default: nothing is looked for.
    pub duplicates: RowAction,
    /// Rows that are nearly equal to an earlier one.
    pub near_duplicates: NearDuplicates,
    /// Rows that share a stretch of words with a measured one.
    pub contamination: Contamination,
    /// Rows that are both trained on and measured. Default: they are told.
    pub leaks: RowAction,
    /// What happens to personal data, by kind; one that is not there is not looked for. Default none.
    pub personal: BTreeMap<&'static str, ValueAction>,
    /// Patterns of one's own. Default none.
    pub patterns: Vec<Pattern>,
    /// Lists of names. Default none.
    pub names: Vec<Names>,
    /// A file of secret bytes that masks are made with. Default: the run's seed.
    pub mask_key: Option<PathBuf>,
}

impl NearDuplicates {
    pub(crate) const THRESHOLD: f64 = 0.8;
}

impl Contamination {
    pub(crate) const NGRAM: usize = 13;
}

impl Default for Hygiene {
    fn default() -> Self {
        let ngram = NonZeroUsize::new(Contamination::NGRAM).expect("it is no zero");
        Self {
            duplicates: RowAction::Off,
            near_duplicates: NearDuplicates {
                action: RowAction::Off,
                threshold: NearDuplicates::THRESHOLD,
            },
            contamination: Contamination { action: RowAction::Off, ngram },
            leaks: RowAction::Report,
            personal: BTreeMap::new(),
            patterns: Vec::new(),
            names: Vec::new(),
            mask_key: None,
        }
    }
}

impl Pattern {
    fn read(mut section: Section<'_>) -> Self {
        const NAME: &str = "a name of small letters, digits and `_`";
        let name = section.text("name").unwrap_or_default();
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let is_name = !name.is_empty() && name.len() <= 40 && name.chars().all(fits);
        match section.get("name") {
            None => section.missing("name", NAME),
            Some(node) if !is_name => section.refuse("name", node, NAME),
            Some(_) => {}
        }
        let regex = section.text("regex").unwrap_or_default();
        if section.get("regex").is_none() {
            section.missing("regex", "a regular expression");
        }
        let action = required_action(&mut section);
        section.close();
        Self { name, regex, action }
    }
}

impl Names {
    fn read(mut section: Section<'_>) -> Self {
        let path = section.path("path").unwrap_or_default();
        if section.get("path").is_none() {
            section.missing("path", "a file with a name a line");
        }
        let action = required_action(&mut section);
        section.close();
        Self { path, action }
    }
}

fn required_action(section: &mut Section<'_>) -> ValueAction {
    if section.get("action").is_none() {
        section.missing("action", ValueAction::LISTED);
    }
    section.choice("action", ValueAction::Off, ValueAction::ALL)
}

/// What happens to each kind: one word for all, or a mapping.
fn personal(section: &mut Section<'_>) -> BTreeMap<&'static str, ValueAction> {
    const KEY: &str = "personal";
    let Some(node) = section.get(KEY) else { return BTreeMap::new() };
    let mut chosen: BTreeMap<_, _> = if text(node).is_some() {
        let action = section.chosen(KEY, node, ValueAction::ALL).unwrap_or(ValueAction::Off);
        PERSONAL.into_iter().map(|kind| (kind, action)).collect()
    } else if matches!(node.value, tree::Value::Map(_)) {
        let mut below = section.section(KEY);
        let kinds = PERSONAL.into_iter();
        let chosen = kinds
            .map(|kind| (kind, below.choice(kind, ValueAction::Off, ValueAction::ALL)))
            .collect();
        below.close();
        chosen
    } else {
        let allowed = format!("{}, or one of them for each kind", ValueAction::LISTED);
        section.refuse(KEY, node, &allowed);
        BTreeMap::new()
    };
    chosen.retain(|_, action| *action != ValueAction::Off);
    chosen
}

/// A key that may be an action alone, or a mapping with `action` and settings.
fn action_and<'a>(
    section: &mut Section<'a>,
    key: &'static str,
    settings: &str,
) -> (RowAction, Option<Section<'a>>) {
    let Some(node) = section.get(key) else { return (RowAction::Off, None) };
    if text(node).is_some() {
        return (section.chosen(key, node, RowAction::ALL).unwrap_or(RowAction::Off), None);
    }
    if !matches!(node.value, tree::Value::Map(_)) {
        section.refuse(key, node, &format!("{}, or {{action, {settings}}}", RowAction::LISTED));
        return (RowAction::Off, None);
    }
    let mut below = section.section(key);
    (below.choice("action", RowAction::Off, RowAction::ALL), Some(below))
}

impl Hygiene {
    pub(crate) fn read(mut section: Section<'_>) -> Self {
        let mut hygiene = Self {
            duplicates: section.choice("duplicates", RowAction::Off, RowAction::ALL),
            leaks: section.choice("leaks", RowAction::Report, &RowAction::ALL[1..]),
            ..Self::default()
        };
        let (action, below) = action_and(&mut section, "near_duplicates", "threshold");
        hygiene.near_duplicates.action = action;
        if let Some(mut below) = below {
            let allowed = "a number from 0.5 to 1";
            let fits = |share| (0.5..=1.0).contains(&share);
            let threshold = below.number("threshold", NearDuplicates::THRESHOLD, allowed, fits);
            hygiene.near_duplicates.threshold = threshold;
            below.close();
        }
        let (action, below) = action_and(&mut section, "contamination", "ngram");
        hygiene.contamination.action = action;
        if let Some(mut below) = below {
            hygiene.contamination.ngram = below.count("ngram", Contamination::NGRAM);
            below.close();
        }
        hygiene.personal = personal(&mut section);
        hygiene.patterns = section.list("patterns", Pattern::read);
        hygiene.names = section.list("names", Names::read);
        hygiene.mask_key = section.path("mask_key");
        section.close();
        hygiene
    }

    /// Whether anything is masked.
    pub(crate) fn masks(&self) -> bool {
        let of_kinds = self.personal.values();
        let of_patterns = self.patterns.iter().map(|pattern| &pattern.action);
        let of_names = self.names.iter().map(|names| &names.action);
        of_kinds.chain(of_patterns).chain(of_names).any(|action| *action == ValueAction::Mask)
    }

    /// Keys that are as nobody wrote them are left out; `None` where all are.
    pub(crate) fn to_value(&self) -> Option<Value> {
        let Self {
            duplicates,
            near_duplicates,
            contamination,
            leaks,
            personal,
            patterns,
            names,
            mask_key,
        } = self;
        let (of_nobody, mut value) = (Self::default(), Map::new());
        if *duplicates != of_nobody.duplicates {
            value.insert("duplicates".to_owned(), json!(duplicates.name()));
        }
        if *near_duplicates != of_nobody.near_duplicates {
            let NearDuplicates { action, threshold } = near_duplicates;
            let near = json!({"action": action.name(), "threshold": threshold});
            value.insert("near_duplicates".to_owned(), near);
        }
        if *contamination != of_nobody.contamination {
            let Contamination { action, ngram } = contamination;
            let contamination = json!({"action": action.name(), "ngram": ngram});
            value.insert("contamination".to_owned(), contamination);
        }
        if *leaks != of_nobody.leaks {
            value.insert("leaks".to_owned(), json!(leaks.name()));
        }
        if !personal.is_empty() {
            let kinds = PERSONAL.iter().filter_map(|kind| Some((kind, personal.get(kind)?)));
            let kinds = kinds.map(|(kind, action)| ((*kind).to_owned(), json!(action.name())));
            value.insert("personal".to_owned(), Value::Object(kinds.collect()));
        }
        if !patterns.is_empty() {
            let pattern = |Pattern { name, regex, action }: &Pattern| json!({"name": name, "regex": regex, "action": action.name()});
            value.insert("patterns".to_owned(), patterns.iter().map(pattern).collect());
        }
        if !names.is_empty() {
            let list = |Names { path, action }: &Names| json!({"path": written(path), "action": action.name()});
            value.insert("names".to_owned(), names.iter().map(list).collect());
        }
        if let Some(path) = mask_key {
            value.insert("mask_key".to_owned(), json!(written(path)));
        }
        (!value.is_empty()).then_some(Value::Object(value))
    }
}
