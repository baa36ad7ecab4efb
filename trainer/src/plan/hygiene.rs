//! What `data.hygiene` asks for, and what follows from it for the files of a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use graft_data::hygiene::personal::{Kind, MaskKey, Names, Pattern, Personal};
use graft_data::hygiene::{self, Action, Cleaning, Report, Section, Survey};
use graft_data::{Origin, SourceFile, Tokenizer};
use graft_files::plain_file;
use graft_files::sha256::sha256_hex;
use graft_recipes::{Contamination, Hygiene, NearDuplicates, Recipe, RowAction, ValueAction};

use super::findings::Findings;
use super::keeping::Keeping;
use super::{Plan, PlanErrors};
use crate::run_folder::manifest::{DataFile, FileHash};

/// Bytes of a list of names, and of a key.
const LARGEST_LIST: u64 = 64 << 20;
/// Bytes that a key has at least: nobody tries all of them.
const SHORTEST_KEY: usize = 16;

/// What is looked for, and the files that say it.
#[derive(Debug, Default)]
pub struct HygienePlan {
    /// What is looked for.
    pub asked: hygiene::Hygiene,
    /// Files beside the rows that decide of it, by the recipe's keys.
    pub(super) files: BTreeMap<String, DataFile>,
}

impl HygienePlan {
    /// The files beside the rows.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.files.values().map(|file| PathBuf::from(&file.path))
    }
}

/// A recipe's section as it is meant; lists and patterns that cannot be read are recorded.
pub(super) fn resolve(recipe: &Recipe, findings: &mut Findings<'_>) -> HygienePlan {
    let Hygiene {
        duplicates,
        near_duplicates,
        contamination,
        leaks,
        personal,
        patterns,
        names,
        mask_key,
    } = &recipe.data.hygiene;
    let mut files = BTreeMap::new();
    let key = mask_key.as_ref().and_then(|path| secret(path, &mut files, findings));
    let key = key.unwrap_or_else(|| MaskKey::of_seed(recipe.training.seed));
    let mut sought = Personal::with_key(key);
    for kind in Kind::ALL {
        if let Some(action) = personal.get(kind.name()).and_then(|action| value_action(*action)) {
            sought = sought.kind(kind, action);
        }
    }
    for (index, pattern) in patterns.iter().enumerate() {
        match (Pattern::new(&pattern.name, &pattern.regex), value_action(pattern.action)) {
            (Ok(pattern), Some(action)) => sought = sought.pattern(pattern, action),
            (Ok(_), None) => {}
            (Err(problem), _) => {
                findings.problem(&format!("data.hygiene.patterns.{index}.regex"), problem);
            }
        }
    }
    for (index, list) in names.iter().enumerate() {
        let key = format!("data.hygiene.names.{index}.path");
        let read = text(&key, &list.path, &mut files, findings);
        let read = read.map(|text| Names::new(&list.path, &text));
        match (read, value_action(list.action)) {
            (Some(Ok(names)), Some(action)) => sought = sought.names(names, action),
            (Some(Err(problem)), _) => findings.problem(&key, problem),
            _ => {}
        }
    }
    let NearDuplicates { action: near, threshold } = *near_duplicates;
    let Contamination { action: contaminated, ngram } = *contamination;
    let asked = hygiene::Hygiene {
        duplicates: action(*duplicates),
        near_duplicates: action(near).map(|action| hygiene::Near { action, threshold }),
        contamination: action(contaminated)
            .map(|action| hygiene::Contamination { action, words: ngram.get() }),
        leaks: action(*leaks).unwrap_or(Action::Report),
        personal: Arc::new(sought),
    };
    HygienePlan { asked, files }
}

/// What masks are keyed with.
fn secret(
    path: &Path,
    files: &mut BTreeMap<String, DataFile>,
    findings: &mut Findings<'_>,
) -> Option<MaskKey> {
    const KEY: &str = "data.hygiene.mask_key";
    let bytes = bytes(KEY, path, files, findings)?;
    if bytes.len() < SHORTEST_KEY {
        let message = format!(
            "`{}` has {} bytes, and a key at least {SHORTEST_KEY}: `head -c 32 /dev/urandom` makes one",
            path.display(),
            bytes.len()
        );
        findings.problem(KEY, message);
        return None;
    }
    Some(MaskKey::of_secret(&bytes))
}

fn text(
    key: &str,
    path: &Path,
    files: &mut BTreeMap<String, DataFile>,
    findings: &mut Findings<'_>,
) -> Option<String> {
    let bytes = bytes(key, path, files, findings)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        findings.problem(key, format_args!("`{}`: no UTF-8 at byte {at}", path.display()));
    });
    text.ok()
}

fn bytes(
    key: &str,
    path: &Path,
    files: &mut BTreeMap<String, DataFile>,
    findings: &mut Findings<'_>,
) -> Option<Vec<u8>> {
    match plain_file::read(path, LARGEST_LIST) {
        Ok(bytes) => {
            let (path, hash) = (path.display().to_string(), FileHash::of(&bytes));
            files.insert(key.to_owned(), DataFile { path, hash });
            Some(bytes)
        }
        Err(why) => {
            findings.problem(key, format_args!("cannot read `{}`: {why}", path.display()));
            None
        }
    }
}

fn action(action: RowAction) -> Option<Action> {
    match action {
        RowAction::Off => None,
        RowAction::Report => Some(Action::Report),
        RowAction::Drop => Some(Action::Drop),
        RowAction::Error => Some(Action::Error),
    }
}

fn value_action(action: ValueAction) -> Option<Action> {
    match action {
        ValueAction::Off => None,
        ValueAction::Report => Some(Action::Report),
        ValueAction::Mask => Some(Action::Mask),
        ValueAction::Drop => Some(Action::Drop),
        ValueAction::Error => Some(Action::Error),
    }
}

/// What a survey led to.
#[derive(Default)]
pub(super) struct Surveyed {
    /// What it found; `None` where there was none.
    pub(super) report: Option<Report>,
    /// By section.
    cleanings: BTreeMap<String, Vec<Option<Arc<Cleaning>>>>,
    /// Pairs of rows that stand on one side of a split.
    pub(super) together: Vec<(Origin, Origin)>,
}

impl Surveyed {
    /// The files of a section as they are read from now on.
    pub(super) fn cleaned(&self, section: &str, files: &[SourceFile]) -> Vec<SourceFile> {
        let cleanings = self.cleanings.get(section).map_or(&[][..], Vec::as_slice);
        let cleaning = |at: usize| cleanings.get(at).cloned().flatten();
        files.iter().enumerate().map(|(at, file)| file.clone().cleaned(cleaning(at))).collect()
    }

    /// What was found and is told only.
    pub(super) fn warnings(&self) -> Vec<String> {
        let findings = self.report.iter().flat_map(|report| &report.findings);
        let told = findings.filter(|it| it.action == Action::Report && it.rows > 0);
        told.map(|finding| format!("{}: {finding}", finding.key)).collect()
    }

    /// What was found, by the recipe's keys.
    pub(super) fn found(&self) -> BTreeMap<String, String> {
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        for finding in self.report.iter().flat_map(|report| &report.findings) {
            let said = format!("{}: {finding}", finding.action.name());
            let of_key = found.entry(finding.key.clone()).or_default();
            of_key.push_str(if of_key.is_empty() { "" } else { "; " });
            of_key.push_str(&said);
        }
        found
    }

    /// A hash of what is done to the rows of `data.train`; `None` where nothing is.
    pub(super) fn sha256(&self) -> Option<String> {
        let cleanings = self.cleanings.get("data.train").into_iter().flatten();
        let done = cleanings.flatten().map(|cleaning| cleaning.sha256());
        let all = done.collect::<Vec<_>>().join(" ");
        (!all.is_empty()).then(|| sha256_hex(all.as_bytes()))
    }
}

impl Plan {
    /// Reads all rows for what `data.hygiene` asks for, if it asks for any.
    ///
    /// # Errors
    /// What was found forbids the run, or a file cannot be read.
    pub(super) fn survey(
        &self,
        tokenizer: &Tokenizer,
        keeping: &mut Keeping,
    ) -> Result<Surveyed, PlanErrors> {
        let mut findings = Findings::new(&self.recipe);
        let asked = &self.hygiene.asked;
        let section = |key, sources, leaves_out_empty| hygiene::Section {
            key,
            sources,
            leaves_out_empty,
            tokenizer: Some(tokenizer),
        };
        let may_be_empty = self.sample.allow_empty_targets;
        let measured = [
            section("data.validation", self.validation.files(), may_be_empty),
            section("evaluation.held_out", &self.held_out, false),
            section("evaluation.general", &self.general, true),
        ];
        let train = section("data.train", &self.train, may_be_empty);
        let surveyed = survey(asked, &measured, train, keeping, &mut findings);
        for finding in surveyed.report.iter().flat_map(Report::errors) {
            let hint = match finding.values {
                None => "mend the files, or have the rows left out: `drop` in place of `error`",
                Some(_) => "mend the files, or say `mask` or `drop` in place of `error`",
            };
            findings.problem_with_hint(&finding.key, finding, hint);
        }
        findings.finish()?;
        Ok(surveyed)
    }
}

/// Reads the rows of sections for what is asked of them, if anything is; or what an earlier start found.
pub(super) fn survey(
    asked: &hygiene::Hygiene,
    measured: &[Section<'_>],
    train: Section<'_>,
    keeping: &mut Keeping,
    findings: &mut Findings<'_>,
) -> Surveyed {
    if !asked.needs_survey() {
        return Surveyed::default();
    }
    match keeping.survey(measured, train, asked) {
        Ok(Survey { report, cleanings, alike, files: _ }) => {
            let keys = measured.iter().chain([&train]).map(|section| section.key.to_owned());
            let cleanings = keys.zip(cleanings).collect();
            Surveyed { report: Some(report), cleanings, together: alike }
        }
        Err(hygiene::Unread { key, error }) => {
            findings.problem(&key, error);
            Surveyed::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_and_data_name_the_same_kinds() {
        let mut kinds = Kind::ALL.map(Kind::name);
        kinds.sort_unstable();
        let mut named = graft_recipes::PERSONAL;
        named.sort_unstable();
        assert_eq!(kinds, named);
    }
}
