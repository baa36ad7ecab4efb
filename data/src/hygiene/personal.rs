//! Personal data and secrets in texts: where they stand, and what stands in their place.
//!
//! A kind is a file that finds its values; of kinds what overlaps belongs to the one that stands first in
//! [`Kind::ALL`]. Patterns and names of the user's own are looked for by themselves: each has its action, whatever
//! overlaps it, and masks that would overlap are one for the whole stretch. Kinds with a checksum (IBAN, cards) are held
//! to it, all others go by their form alone.

mod card;
mod iban;
mod ip;
mod mail;
mod mask;
mod named;
mod password;
mod phone;
mod secret;

use std::borrow::Cow;
use std::ops::Range;

use super::{Action, texts};
use crate::formats::Row;

pub use mask::MaskKey;
pub use named::{Names, NamesProblem, Pattern, PatternProblem};

/// Something that is told from other text by its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Keys of services, tokens, private keys.
    Secret,
    /// A password within a URL.
    Password,
    /// A mail address.
    Mail,
    /// An international bank account number.
    Iban,
    /// The number of a payment card.
    Card,
    /// An address of the Internet Protocol.
    Ip,
    /// A telephone number.
    Phone,
}

impl Kind {
    /// All of them; what overlaps belongs to the first.
    pub const ALL: [Self; 7] =
        [Self::Secret, Self::Password, Self::Mail, Self::Iban, Self::Card, Self::Ip, Self::Phone];

    /// Its word in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Password => "password",
            Self::Mail => "mail",
            Self::Iban => "iban",
            Self::Card => "card",
            Self::Ip => "ip",
            Self::Phone => "phone",
        }
    }

    /// What it finds, for people.
    fn words(self) -> &'static str {
        match self {
            Self::Secret => "keys and tokens",
            Self::Password => "passwords in URLs",
            Self::Mail => "mail addresses",
            Self::Iban => "IBANs",
            Self::Card => "numbers of payment cards",
            Self::Ip => "IP addresses",
            Self::Phone => "telephone numbers",
        }
    }

    fn find(self, text: &str, found: &mut Vec<Range<usize>>) {
        match self {
            Self::Secret => secret::find(text, found),
            Self::Password => password::find(text, found),
            Self::Mail => mail::find(text, found),
            Self::Iban => iban::find(text, found),
            Self::Card => card::find(text, found),
            Self::Ip => ip::find(text, found),
            Self::Phone => phone::find(text, found),
        }
    }
}

/// What is looked for in texts, and what happens to it.
#[derive(Debug, Clone, Default)]
pub struct Personal {
    sought: Vec<Sought>,
    key: MaskKey,
}

/// One thing that is looked for.
#[derive(Debug, Clone)]
struct Sought {
    by: Finder,
    action: Action,
}

#[derive(Debug, Clone)]
enum Finder {
    Kind(Kind),
    Pattern(Pattern),
    Names(Names),
}

/// A value that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    /// The stretch of the text that it stands for: its own, and that of all that overlap it.
    at: Range<usize>,
    /// Its own place in the text.
    own: Range<usize>,
    /// The number of what found it.
    pub(super) by: usize,
}

impl Personal {
    /// Looks for nothing yet; masks are made with this key.
    pub fn with_key(key: MaskKey) -> Self {
        Self { sought: Vec::new(), key }
    }

    /// Looks for all kinds, to tell them.
    pub fn that_reports(key: MaskKey) -> Self {
        Kind::ALL.into_iter().fold(Self::with_key(key), |all, kind| all.kind(kind, Action::Report))
    }

    /// Looks for a kind, too.
    #[must_use]
    pub fn kind(self, kind: Kind, action: Action) -> Self {
        self.and(Finder::Kind(kind), action)
    }

    /// Looks for a pattern, too.
    #[must_use]
    pub fn pattern(self, pattern: Pattern, action: Action) -> Self {
        self.and(Finder::Pattern(pattern), action)
    }

    /// Looks for names, too.
    #[must_use]
    pub fn names(self, names: Names, action: Action) -> Self {
        self.and(Finder::Names(names), action)
    }

    fn and(mut self, by: Finder, action: Action) -> Self {
        self.sought.push(Sought { by, action });
        // Patterns and names first, then kinds in their order.
        self.sought.sort_by_key(|sought| match &sought.by {
            Finder::Pattern(_) => (0, None),
            Finder::Names(_) => (1, None),
            Finder::Kind(kind) => (2, Some(*kind)),
        });
        self
    }

    /// Looks for all other kinds, too, to tell them.
    #[must_use]
    pub fn and_reports(self) -> Self {
        let is_sought = |all: &Self, kind: Kind| {
            all.sought
                .iter()
                .any(|sought| matches!(sought.by, Finder::Kind(known) if known == kind))
        };
        Kind::ALL.into_iter().fold(self, |all, kind| {
            if is_sought(&all, kind) { all } else { all.kind(kind, Action::Report) }
        })
    }

    /// Whether nothing is looked for.
    pub fn is_empty(&self) -> bool {
        self.sought.is_empty()
    }

    /// How many things are looked for.
    pub(super) fn len(&self) -> usize {
        self.sought.len()
    }

    pub(super) fn action(&self, by: usize) -> Action {
        self.sought[by].action
    }

    /// The recipe's key of what is looked for, and what it finds, for people.
    pub(super) fn said(&self, by: usize) -> (String, String) {
        match &self.sought[by].by {
            Finder::Kind(kind) => {
                (format!("data.hygiene.personal.{}", kind.name()), kind.words().to_owned())
            }
            Finder::Pattern(pattern) => {
                let name = pattern.name();
                ("data.hygiene.patterns".to_owned(), format!("values of the pattern `{name}`"))
            }
            Finder::Names(names) => {
                ("data.hygiene.names".to_owned(), format!("names of `{}`", names.path().display()))
            }
        }
    }

    /// What is in a text, in order; nothing overlaps.
    fn find(&self, text: &str) -> Vec<Value> {
        self.find_apart(text, |_| true)
    }

    /// What is in a text of what `is_meant` says, in order. Of values that overlap the one with the strictest action
    /// stands for all, of these the longest.
    fn find_apart(&self, text: &str, is_meant: impl Fn(usize) -> bool) -> Vec<Value> {
        let mut apart: Vec<Value> = Vec::new();
        for value in self.find_all(text).into_iter().filter(|value| is_meant(value.by)) {
            let rank = |value: &Value| (self.action(value.by), value.own.len());
            match apart.last_mut() {
                Some(last) if value.at.start < last.at.end => {
                    let at = last.at.start..last.at.end.max(value.at.end);
                    if rank(&value) > rank(last) {
                        *last = value;
                    }
                    last.at = at;
                }
                _ => apart.push(value),
            }
        }
        apart
    }

    /// Everything that is in a text, in order: each of the user's own patterns and lists of names by itself, and kinds.
    pub(super) fn find_all(&self, text: &str) -> Vec<Value> {
        let (mut all, mut kinds): (Vec<Value>, Vec<Value>) = Default::default();
        let mut found: Vec<Range<usize>> = Vec::new();
        for (by, sought) in self.sought.iter().enumerate() {
            match &sought.by {
                Finder::Kind(kind) => kind.find(text, &mut found),
                Finder::Pattern(pattern) => pattern.find(text, &mut found),
                Finder::Names(names) => {
                    names.find(text, &mut found);
                    // `weber@example.org` is a mail address, where these are looked for.
                    let mails = if found.is_empty() { Vec::new() } else { self.mails(text) };
                    let is_within = |name: &Range<usize>| {
                        mails.iter().any(|mail| mail.start <= name.start && name.end <= mail.end)
                    };
                    found.retain(|name| !is_within(name));
                }
            }
            if found.is_empty() {
                continue;
            }
            found.sort_unstable_by_key(|at| at.start);
            if let Finder::Kind(_) = &sought.by {
                kinds = with_those_between(kinds, &mut found, by);
            } else {
                all.extend(with_those_between(Vec::new(), &mut found, by));
            }
        }
        if all.is_empty() {
            return kinds;
        }
        all.extend(kinds);
        all.sort_by_key(|value| (value.at.start, value.by));
        all
    }

    /// The mail addresses in a text, where they are looked for.
    fn mails(&self, text: &str) -> Vec<Range<usize>> {
        let is_sought = |sought: &Sought| matches!(sought.by, Finder::Kind(Kind::Mail));
        let mut mails = Vec::new();
        if self.sought.iter().any(is_sought) {
            Kind::Mail.find(text, &mut mails);
        }
        mails
    }

    /// What stands in the place of a value.
    pub(super) fn mask(&self, text: &str, Value { own, by, .. }: &Value) -> String {
        let value = &text[own.clone()];
        match &self.sought[*by].by {
            Finder::Kind(kind) => self.key.mask(kind.name(), &spelled_alike(*kind, value)),
            Finder::Pattern(pattern) => self.key.mask(pattern.name(), value),
            Finder::Names(_) => self.key.mask("name", &named::folded(value)),
        }
    }

    /// The text with masks for all that `is_masked` says of; `None` where nothing is.
    fn masked_where(
        &self,
        text: &str,
        is_masked: impl Fn(usize) -> bool,
    ) -> Option<(String, Vec<usize>)> {
        // What is only told covers nothing that is masked, and makes no mask wider.
        let values = self.find_apart(text, is_masked);
        let mut by: Vec<usize> = Vec::new();
        let (mut out, mut end) = (String::new(), 0);
        for value in &values {
            out.push_str(&text[end..value.at.start]);
            out.push_str(&self.mask(text, value));
            end = value.at.end;
            by.push(value.by);
        }
        out.push_str(&text[end..]);
        (!by.is_empty()).then_some((out, by))
    }

    /// The text as people may see it: everything that is looked for is masked, whatever happens to it.
    pub fn shown(&self, text: &str) -> String {
        self.shown_within(text, 0..text.len())
    }

    /// The text as it is learnt: with masks for what is to be masked.
    pub fn learnt<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.masked_where(text, |by| self.sought[by].action == Action::Mask)
            .map_or(Cow::Borrowed(text), |(masked, _)| Cow::Owned(masked))
    }

    /// Whether something is to be masked.
    pub fn masks(&self) -> bool {
        self.sought.iter().any(|sought| sought.action == Action::Mask)
    }

    /// A part of a text as people may see it; a value that it has a part of stands in it as its mask.
    pub(crate) fn shown_within(&self, text: &str, part: Range<usize>) -> String {
        let (mut out, mut end) = (String::new(), part.start);
        let values = self.find(text);
        // What was learnt has masks in it, of which nothing is a value.
        let within = |it: &&Value| {
            it.at.end > part.start && it.at.start < part.end && !mask::holds(text, &it.at)
        };
        for value in values.iter().filter(within) {
            out.push_str(text.get(end..value.at.start.max(end)).unwrap_or_default());
            out.push_str(&self.mask(text, value));
            end = value.at.end;
        }
        out.push_str(text.get(end..part.end.max(end)).unwrap_or_default());
        out
    }

    /// Masks in a row what is to be masked, and counts it.
    pub(super) fn mask_row(&self, row: &mut Row, counts: &mut dyn FnMut(String)) {
        let is_masked = |by: usize| self.sought[by].action == Action::Mask;
        texts::change(row, &mut |text| {
            let (masked, by) = self.masked_where(text, is_masked)?;
            for &by in &by {
                counts(self.said(by).1);
            }
            Some(masked)
        });
    }

    /// What tells these settings from others, where masks depend on it.
    pub(super) fn identity(&self) -> String {
        let sought = self.sought.iter().map(|Sought { by, action }| {
            let by = match by {
                Finder::Kind(kind) => kind.name().to_owned(),
                Finder::Pattern(pattern) => pattern.identity(),
                Finder::Names(names) => names.sha256().to_owned(),
            };
            format!("{by} {}", action.name())
        });
        let sought: Vec<String> = sought.collect();
        // The rule for what overlaps is the second one.
        format!("2\n{}\n{}", self.key.mask("key", ""), sought.join("\n"))
    }
}

impl PartialEq for Personal {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

/// Values, in order, and what `by` has found that overlaps none of them.
fn with_those_between(values: Vec<Value>, found: &mut Vec<Range<usize>>, by: usize) -> Vec<Value> {
    let mut all = Vec::with_capacity(values.len() + found.len());
    let (mut known, mut end) = (values.into_iter().peekable(), 0);
    for at in found.drain(..) {
        while let Some(value) = known.next_if(|value| value.at.end <= at.start) {
            all.push(value);
        }
        if at.start >= end && known.peek().is_none_or(|value| value.at.start >= at.end) {
            end = at.end;
            all.push(Value { own: at.clone(), at, by });
        }
    }
    all.extend(known);
    all
}

/// A value as all its spellings have it.
fn spelled_alike(kind: Kind, value: &str) -> String {
    match kind {
        Kind::Mail => value.to_lowercase(),
        Kind::Iban | Kind::Card => {
            value.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_uppercase()
        }
        Kind::Phone => phone::digits(value),
        Kind::Ip => value.parse().map_or(value.to_owned(), |ip: std::net::IpAddr| ip.to_string()),
        Kind::Secret | Kind::Password => value.to_owned(),
    }
}

/// Bytes of a line's end and the indentation behind it, where these begin with one; 0 otherwise.
fn line_end(bytes: &[u8]) -> usize {
    let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let blanks = bytes.iter().take(8).take_while(is_blank).count();
    if bytes[..blanks].contains(&b'\n') { blanks } else { 0 }
}

/// Whether a value may begin at this place, or end there: not within a word or number.
fn is_edge(text: &str, at: usize) -> bool {
    let before = text[..at].chars().next_back();
    let behind = text[at..].chars().next();
    let within = |character: Option<char>| character.is_some_and(char::is_alphanumeric);
    !(within(before) && within(behind))
}

#[cfg(test)]
mod tests;
