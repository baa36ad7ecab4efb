//! Patterns and lists of names of the user's own.

use std::ops::Range;
use std::path::{Path, PathBuf};

use aho_corasick::{AhoCorasick, MatchKind};
use graft_files::sha256::sha256_hex;
use regex::{Regex, RegexBuilder};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// Bytes that a compiled pattern may take.
const LARGEST_PATTERN: usize = 1 << 20;
/// Bytes of a name.
const LONGEST_NAME: usize = 256;
/// Names of a file, and bytes of all.
const MOST_NAMES: usize = 1_000_000;

/// A regular expression under a name, which its masks have.
#[derive(Debug, Clone)]
pub struct Pattern {
    name: String,
    regex: Regex,
}

/// What is wrong with a pattern.
#[derive(Debug, thiserror::Error)]
pub enum PatternProblem {
    /// It cannot be read.
    #[error("found `{regex}`, which is no regular expression that is read here: {why}")]
    Regex {
        /// As it is written.
        regex: String,
        /// Why.
        why: String,
    },
    /// It is found everywhere.
    #[error("found `{regex}`, which is found in every text, also in an empty one")]
    Empty {
        /// As it is written.
        regex: String,
    },
}

impl Pattern {
    /// # Errors
    /// The expression cannot be read, is too large, or finds nothing at all.
    pub fn new(name: &str, regex: &str) -> Result<Self, PatternProblem> {
        let built = RegexBuilder::new(regex).size_limit(LARGEST_PATTERN).build();
        let built = built.map_err(|error| {
            // Its message draws the expression on lines of its own.
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            PatternProblem::Regex { regex: regex.to_owned(), why: why.to_owned() }
        })?;
        if built.is_match("") {
            return Err(PatternProblem::Empty { regex: regex.to_owned() });
        }
        Ok(Self { name: name.to_owned(), regex: built })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn identity(&self) -> String {
        format!("{} {}", self.name, self.regex)
    }

    pub(super) fn find(&self, text: &str, found: &mut Vec<Range<usize>>) {
        found.extend(
            self.regex.find_iter(text).map(|value| value.range()).filter(|it| !it.is_empty()),
        );
    }
}

/// Names of a file, one a line, found in capitals and small letters, in every form of Unicode and over line ends, and not
/// within other words.
#[derive(Debug, Clone)]
pub struct Names {
    path: PathBuf,
    sha256: String,
    automaton: AhoCorasick,
}

/// What is wrong with a list of names.
#[derive(Debug, thiserror::Error)]
pub enum NamesProblem {
    /// A line has no letter.
    #[error("`{}`:{line}: {name:?} is no name: one has at least two characters, of them a letter", path.display())]
    NoName {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What stands there.
        name: String,
    },
    /// A line is longer than a name.
    #[error("{}:{line}: the line has {found} bytes, and a name at most {LONGEST_NAME}: write one a line", path.display())]
    LongName {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Its bytes.
        found: usize,
    },
    /// There is none.
    #[error("`{}` holds no names: write one a line", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// There are too many.
    #[error("`{}` holds {found} names, and at most {MOST_NAMES} are looked for", path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
        /// How many.
        found: usize,
    },
    /// They are too long together.
    #[error("`{}`: {why}", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// What the automaton says.
        why: String,
    },
}

impl Names {
    /// Of a file's text.
    ///
    /// # Errors
    /// There is no name, or too many, or a line is none.
    pub fn new(path: &Path, text: &str) -> Result<Self, NamesProblem> {
        let path = path.to_path_buf();
        let mut names = Vec::new();
        for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let name = line.trim();
            if name.is_empty() {
                continue;
            }
            if name.chars().count() < 2 || !name.chars().any(char::is_alphabetic) {
                return Err(NamesProblem::NoName {
                    path,
                    line: at + 1,
                    name: crate::shown::shown(name),
                });
            }
            if name.len() > LONGEST_NAME {
                return Err(NamesProblem::LongName { path, line: at + 1, found: name.len() });
            }
            names.push(Folded::of(name).text);
        }
        if names.is_empty() {
            return Err(NamesProblem::Empty { path });
        }
        if names.len() > MOST_NAMES {
            return Err(NamesProblem::TooMany { path, found: names.len() });
        }
        let automaton =
            AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(names).map_err(
                |error| NamesProblem::TooLong { path: path.clone(), why: error.to_string() },
            )?;
        Ok(Self { path, sha256: sha256_hex(text.as_bytes()), automaton })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Of the file's text.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    pub(super) fn find(&self, text: &str, found: &mut Vec<Range<usize>>) {
        let folded = Folded::of(text);
        let values = self.automaton.find_iter(&folded.text).filter_map(|name| {
            let (place, name) = (folded.place(name.range()), name.range());
            let behind = folded.text[name.end..].chars().next();
            // It ends within a letter: `Jose` in `José`.
            let is_cut = behind.is_some_and(is_combining_mark)
                || Folded::of(text.get(place.clone())?).text != folded.text[name];
            (!is_cut).then_some(place)
        });
        found.extend(
            values.filter(|it| super::is_edge(text, it.start) && super::is_edge(text, it.end)),
        );
    }
}

/// The same for every way of writing a name.
pub(super) fn folded(name: &str) -> String {
    Folded::of(name).text
}

/// A text in which names are compared: small letters, each with its marks behind it (NFD), and one blank for white space of any
/// length.
struct Folded {
    text: String,
    /// Where the characters stand that bytes of it are of: a byte here and a byte there, where the two run apart.
    places: Vec<(usize, usize)>,
    /// Bytes of the text that it was made of.
    end: usize,
}

impl Folded {
    fn of(text: &str) -> Self {
        let mut folded =
            Self { text: String::with_capacity(text.len()), places: vec![(0, 0)], end: text.len() };
        let mut is_blank = false;
        for (at, character) in text.char_indices() {
            let was_blank = std::mem::replace(&mut is_blank, character.is_whitespace());
            if is_blank && was_blank {
                continue;
            }
            folded.stands_at(at);
            if is_blank {
                folded.text.push(' ');
            } else {
                folded.text.extend(character.to_lowercase().nfd());
            }
        }
        folded
    }

    /// What comes next stands there.
    fn stands_at(&mut self, at: usize) {
        let here = self.text.len();
        let (last_here, last_there) = self.places[self.places.len() - 1];
        if at - last_there != here - last_here {
            self.places.push((here, at));
        }
    }

    /// The stretch of the text that it was made of.
    fn place(&self, range: Range<usize>) -> Range<usize> {
        let of = |here: usize| {
            let known = self.places.partition_point(|(begin, _)| *begin <= here) - 1;
            let (begin, there) = self.places[known];
            (there + here - begin).min(self.end)
        };
        of(range.start)..of(range.end)
    }
}
