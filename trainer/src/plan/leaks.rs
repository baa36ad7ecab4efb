//! Rows that are both trained on and measured: they make every score look better than it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use graft_data::{Origin, RowDigest, Sample, SourceFile};

/// Files of one section, and what their rows say.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    /// The section's key.
    pub(super) key: &'a str,
    pub(super) sources: &'a [SourceFile],
    pub(super) rows: &'a [(Origin, RowDigest)],
}

/// A warning for every file that is measured and trained on, however its path is spelled.
pub(super) fn of_files(train: &[SourceFile], measured: &[&[SourceFile]]) -> Vec<String> {
    let train = same_files(train);
    let leaks = measured.iter().copied().flatten().filter(|source| train.contains(&file(source)));
    let warning = |source: &SourceFile| {
        format!("`{}` is both trained on and measured: scores will flatter", source.path.display())
    };
    leaks.map(warning).collect()
}

/// A warning for every measured file with rows that are trained on; files that are trained on
/// themselves are left to [`of_files`].
pub(super) fn of_rows(
    train: Section<'_>,
    trained: &[Sample],
    measured: &[Section<'_>],
) -> Vec<String> {
    let trained: BTreeSet<Origin> = trained.iter().map(|sample| sample.origin).collect();
    let mut places = BTreeMap::new();
    for (origin, digest) in train.rows {
        if trained.contains(origin) {
            places.entry(digest).or_insert(origin);
        }
    }
    let known = same_files(train.sources);
    let mut warnings = Vec::new();
    for Section { key, sources, rows } in measured {
        for (index, source) in sources.iter().enumerate() {
            let of_file = rows.iter().filter(|(origin, _)| origin.file == index);
            let leaks: Vec<(&Origin, &Origin)> = of_file
                .clone()
                .filter_map(|(origin, digest)| Some((origin, *places.get(digest)?)))
                .collect();
            let Some((one, other)) = leaks.first() else { continue };
            if known.contains(&file(source)) {
                continue;
            }
            warnings.push(format!(
                "{key}: of the {} rows of `{}`, {} are trained on, too ({} says what {} says): \
                 scores will flatter",
                of_file.count(),
                source.path.display(),
                leaks.len(),
                one.place(sources),
                other.place(train.sources)
            ));
        }
    }
    warnings
}

fn same_files(sources: &[SourceFile]) -> BTreeSet<PathBuf> {
    sources.iter().map(file).collect()
}

/// The file behind links and other spellings of its path.
fn file(source: &SourceFile) -> PathBuf {
    let path: &Path = &source.path;
    if source.embedded_text().is_some() {
        return path.to_owned();
    }
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
