//! Rows that are both trained on and measured: they make every score look better than it is.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use graft_data::{Error, Origin, RowDigest, RowRecord, Rows, Samples, SourceFile};

/// Files of one section, and what their rows say.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    /// The section's key.
    pub(super) key: &'a str,
    pub(super) sources: &'a [SourceFile],
    pub(super) rows: &'a Rows,
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
/// themselves are left to [`of_files`]. Memory grows with the rows that are measured.
///
/// # Errors
/// Rows that are kept in files cannot be read.
pub(super) fn of_rows(
    train: Section<'_>,
    trained: &Samples,
    measured: &[Section<'_>],
) -> Result<Vec<String>, Error> {
    let mut places: BTreeMap<RowDigest, Option<Origin>> = BTreeMap::new();
    for row in measured.iter().flat_map(|section| section.rows.iter()) {
        places.insert(row?.digest, None);
    }
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let sought: HashSet<RowDigest> = places.keys().copied().collect();
    // Of each block, how many samples it has and how many are before those of each row that is sought.
    let blocks = train.rows.in_blocks(|rows| {
        let (mut found, mut before) = (Vec::new(), 0);
        for row in rows {
            if sought.contains(&row.digest) {
                found.push((before, row));
            }
            before += row.samples as usize;
        }
        (before, found)
    })?;
    let mut first = 0;
    for (samples, found) in blocks {
        for (before, RowRecord { origin, digest, samples, .. }) in found {
            let mut samples = first + before..first + before + samples as usize;
            if let Some(place @ None) = places.get_mut(&digest)
                && samples.any(|sample| trained.holds(sample))
            {
                *place = Some(origin);
            }
        }
        first += samples;
    }
    let known = same_files(train.sources);
    let mut warnings = Vec::new();
    for Section { key, sources, rows } in measured {
        let mut found: Vec<Found> = vec![Found::default(); sources.len()];
        for row in rows.iter() {
            let RowRecord { origin, digest, .. } = row?;
            let found = &mut found[origin.file];
            found.rows += 1;
            if let Some(Some(place)) = places.get(&digest) {
                found.leaks += 1;
                found.first.get_or_insert((origin, *place));
            }
        }
        for (source, found) in sources.iter().zip(found) {
            let Some((one, other)) = found.first else { continue };
            if known.contains(&file(source)) {
                continue;
            }
            warnings.push(format!(
                "{key}: of the {} rows of `{}`, {} are trained on, too ({} says what {} says): \
                 scores will flatter",
                found.rows,
                source.path.display(),
                found.leaks,
                one.place(sources),
                other.place(train.sources)
            ));
        }
    }
    Ok(warnings)
}

/// Rows of a measured file.
#[derive(Clone, Default)]
struct Found {
    rows: usize,
    /// How many of them are trained on.
    leaks: usize,
    /// Where the first of these stands, and where it is trained on.
    first: Option<(Origin, Origin)>,
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
