//! Problems and warnings as they are found, each with the place of the key that is to blame.

use std::fmt::Display;
use std::path::Path;

use graft_recipes::{Location, Problem, Problems, Recipe, Source};

use super::absent::{Absent, how_to_write};

/// Collects what is wrong with a recipe.
pub(super) struct Findings<'a> {
    recipe: &'a Recipe,
    problems: Vec<Problem>,
    warnings: Vec<String>,
    /// What is done without; `None` where nothing may be missing.
    absent: Option<Absent>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(recipe: &'a Recipe) -> Self {
        Self { recipe, problems: Vec::new(), warnings: Vec::new(), absent: None }
    }

    /// Findings for someone who asks before models and data are there.
    pub(super) fn that_may_lack(recipe: &'a Recipe) -> Self {
        Self { absent: Some(Absent::default()), ..Self::new(recipe) }
    }

    /// What is done without, where something may be missing.
    pub(super) fn absent(&mut self) -> Option<&mut Absent> {
        self.absent.as_mut()
    }

    /// Records rows that cannot be read: a problem, unless they are only not there yet.
    pub(super) fn unreadable(
        &mut self,
        key: &str,
        path: &Path,
        source: &Source,
        error: &std::io::Error,
    ) {
        let is_missing = error.kind() == std::io::ErrorKind::NotFound;
        if let Some(absent) = self.absent.as_mut().filter(|_| is_missing) {
            absent.lacks_rows(path, source);
            return;
        }
        let message = format!("cannot read `{}`: {error}", path.display());
        self.push(key, message, how_to_write(path).filter(|_| is_missing));
    }

    /// Records what is wrong with `key`.
    pub(super) fn problem(&mut self, key: &str, message: impl Display) {
        self.push(key, message.to_string(), None);
    }

    /// Records what is wrong with `key`, and the way out.
    pub(super) fn problem_with_hint(&mut self, key: &str, message: impl Display, hint: &str) {
        self.push(key, message.to_string(), Some(hint.to_owned()));
    }

    /// Records what is allowed, but hardly meant.
    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    fn push(&mut self, key: &str, message: String, hint: Option<String>) {
        let location = self.locate(key).cloned();
        self.problems.push(Problem { key: key.to_owned(), location, message, hint });
    }

    /// Where the key was written, or the nearest section that it belongs to.
    fn locate(&self, key: &str) -> Option<&'a Location> {
        let mut keys = std::iter::successors(Some(key), |key| Some(key.rsplit_once('.')?.0));
        keys.find_map(|key| self.recipe.locate(key))
    }

    /// The warnings, unless there are problems.
    pub(super) fn finish(self) -> Result<Vec<String>, Problems> {
        let Self { recipe, problems: mut list, warnings, absent: _ } = self;
        if list.is_empty() {
            return Ok(warnings);
        }
        // Stable: problems of one key stay in the order they were found.
        list.sort_by(|a, b| place(a).cmp(&place(b)));
        Err(Problems { source: recipe.name.clone(), list })
    }
}

/// Files first, by line; then the command line; then what is written nowhere.
fn place(problem: &Problem) -> (u8, &str, usize, usize) {
    match &problem.location {
        Some(Location::File { file, line, column }) => (0, file, *line, *column),
        Some(Location::CommandLine { argument }) => (1, argument, 0, 0),
        None => (2, "", 0, 0),
    }
}
