//! Problems and warnings as they are found, each with the place of the key that is to blame.

use std::fmt::Display;

use graft_recipes::{Location, Problem, Problems, Recipe};

/// Collects what is wrong with a recipe.
pub(super) struct Findings<'a> {
    recipe: &'a Recipe,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(recipe: &'a Recipe) -> Self {
        Self { recipe, problems: Vec::new(), warnings: Vec::new() }
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
        let Self { recipe, problems: mut list, warnings } = self;
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
