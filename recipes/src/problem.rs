//! What is wrong with a recipe: every problem at once, each with its place and the way out.
//!
//! The form of a line is the compilers': `file:line:column: key: message`, then `help: …`.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Problems of one recipe that are kept: nobody reads more, and a hostile file has a million.
pub(crate) const MAX_PROBLEMS: usize = 1_000;
/// Problems that are shown to people at once.
const SHOWN: usize = 40;

/// Where a key or value was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Location {
    /// In a recipe file (or a shipped recipe). Lines and columns start at 1.
    File {
        /// The file as it was named.
        #[serde(serialize_with = "as_text")]
        file: Arc<str>,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// In an override on the command line.
    CommandLine {
        /// The argument as it was given, `key=value` or `~key`.
        #[serde(serialize_with = "as_text")]
        argument: Arc<str>,
    },
}

fn as_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => {
                write!(f, "{}:{line}:{column}", escaped(file))
            }
            Self::CommandLine { argument } => write!(f, "command line: {}", printable(argument)),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The key in full, such as `adapter.rank` or `data.train.0.path`; empty for the whole file.
    pub key: String,
    /// Where it is written; `None` for what is written nowhere.
    pub location: Option<Location>,
    /// What was found and what is allowed.
    pub message: String,
    /// The way out, where there is an obvious one.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", printable(&self.key))?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  help: {hint}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a recipe; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// The recipe that was asked for: a shipped name or a path.
    pub source: String,
    /// The problems, in the order of their places: files first, then the command line.
    pub list: Vec<Problem>,
}

impl Problem {
    /// Where the problem stands among others.
    fn place(&self) -> (u8, &str, usize, usize) {
        match &self.location {
            Some(Location::File { file, line, column }) => (0, file, *line, *column),
            Some(Location::CommandLine { argument }) => (1, argument, 0, 0),
            None => (2, "", 0, 0),
        }
    }
}

impl Problems {
    /// Problems of one recipe, sorted by place.
    pub(crate) fn new(source: &str, mut list: Vec<Problem>) -> Self {
        list.sort_by(|a, b| a.place().cmp(&b.place()));
        Self { source: source.to_owned(), list }
    }

    /// A single problem with the recipe as a whole.
    pub(crate) fn whole(source: &str, message: String, hint: Option<String>) -> Self {
        let problem = Problem { key: String::new(), location: None, message, hint };
        Self::new(source, vec![problem])
    }
}

// By hand: `thiserror` would take the field `source` for the error that caused this one.
impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = escaped(&self.source);
        match self.list.len() {
            1 => write!(f, "recipe `{source}` has a problem:")?,
            MAX_PROBLEMS.. => write!(f, "recipe `{source}` has {MAX_PROBLEMS} problems or more:")?,
            count => write!(f, "recipe `{source}` has {count} problems:")?,
        }
        for problem in self.list.iter().take(SHOWN) {
            write!(f, "\n{problem}")?;
        }
        if self.list.len() > SHOWN {
            write!(f, "\n… and {} more", self.list.len() - SHOWN)?;
        }
        Ok(())
    }
}

/// The candidate nearest to `word`, if one is near enough to be what was meant.
///
/// Near enough is an edit distance, with swaps of neighbours counted once (optimal string alignment), of a
/// third of the longer name, at least one; or being the
/// beginning of one candidate only.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A key longer than this is no slip of the keyboard, and the distance costs the product.
    if word.chars().count() > 64 {
        return None;
    }
    let candidates: Vec<&str> = candidates.into_iter().collect();
    let close = candidates
        .iter()
        .map(|candidate| (strsim::osa_distance(word, candidate), *candidate))
        .filter(|(cost, candidate)| *cost <= (word.len().max(candidate.len()) / 3).max(1))
        .min_by_key(|(cost, _)| *cost)
        .map(|(_, candidate)| candidate);
    let mut longer = candidates.into_iter().filter(|candidate| candidate.starts_with(word));
    close.or_else(|| longer.next().filter(|_| word.len() > 2 && longer.next().is_none()))
}

/// Text for a terminal: as [`escaped`], and not for pages.
pub(crate) fn printable(text: &str) -> String {
    const MAX_CHARS: usize = 100;
    if text.chars().nth(MAX_CHARS).is_none() {
        return escaped(text);
    }
    let shown: String = text.chars().take(MAX_CHARS - 1).collect();
    escaped(&shown) + "…"
}

/// Text on one line of a terminal: characters that are not seen, or that turn what is around them,
/// stand as their escapes.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_hidden(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Marks of direction, joiners, and line breaks beside the usual one.
fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_stands_escaped() {
        assert_eq!(escaped("a\u{1b}[31mb\n\u{202e}c\u{9b}d"), r"a\u{1b}[31mb\n\u{202e}c\u{9b}d");
        assert_eq!(printable("żółw 亀"), "żółw 亀");
        assert_eq!(printable(&"x".repeat(1_000)).chars().count(), 100);
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let problem = |line: usize| Problem {
            key: "k\u{7}".to_owned(),
            location: Some(Location::File { file: "f\u{1b}".into(), line, column: 1 }),
            message: "unknown key".to_owned(),
            hint: None,
        };
        let shown = Problems::new("r", (0..50).map(problem).collect()).to_string();
        assert_eq!(shown.lines().count(), 42);
        assert!(
            shown.starts_with("recipe `r` has 50 problems:\nf\\u{1b}:0:1: k\\u{7}: unknown key\n"),
            "{shown}"
        );
        assert!(shown.ends_with("\n… and 10 more"), "{shown}");
    }

    #[test]
    fn nearest_refuses_what_is_far() {
        assert_eq!(nearest("learning_rat", ["learning_rate", "seed"]), Some("learning_rate"));
        assert_eq!(nearest("learn", ["learning_rate", "seed"]), Some("learning_rate"));
        // Neighbours that changed places count once.
        assert_eq!(nearest("aplha", ["seed", "alpha"]), Some("alpha"));
        assert_eq!(nearest("sede", ["need", "seed"]), Some("seed"));
        assert_eq!(nearest("zebra", ["learning_rate", "seed"]), None);
    }
}
