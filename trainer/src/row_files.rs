//! Which files of rows a path means: the file itself, those that lie in a folder, or those that fit a pattern.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern, PatternError};
use graft_data::{Format, SourceFile};

/// What a path means.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RowFiles {
    /// Files of rows, in the order of their names; never empty.
    pub(crate) files: Vec<PathBuf>,
    /// What lies beside them and is no file of rows.
    pub(crate) left_out: Vec<PathBuf>,
}

/// Files that describe those beside them, as the library `datasets` saves a table.
const DESCRIPTIONS: [&str; 2] = ["dataset_info.json", "state.json"];

/// What makes a name a pattern of names.
const META: [char; 3] = ['*', '?', '['];
/// Folders in folders further than this are no order that a person keeps.
const DEEPEST: usize = 64;
/// More files than anybody keeps rows in.
const MOST_FILES: usize = 100_000;

/// The files that `path` means.
///
/// A folder means the files in it whose names end as those of rows do, and not what lies in folders in it:
/// these are often other splits. A pattern (`*`, `?`, `[…]`, `**` for any folders) means what fits it. Names that
/// begin with a dot are passed over, as a shell does.
///
/// # Errors
/// Nothing is there, a folder cannot be listed, or there is no file of rows.
pub(crate) fn find(path: &Path, format: Format) -> io::Result<RowFiles> {
    match path.metadata() {
        Ok(found) if found.is_dir() => in_folder(path, format),
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_pattern(path) => fitting(path),
        // What cannot be looked at is told by whoever opens it.
        Ok(_) | Err(_) => Ok(RowFiles { files: vec![path.to_owned()], ..RowFiles::default() }),
    }
}

/// Whether the name of something that is not there is a pattern of names.
pub(crate) fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(META)
}

fn in_folder(folder: &Path, format: Format) -> io::Result<RowFiles> {
    let mut entries = folder.read_dir()?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let (mut found, mut folders) = (RowFiles::default(), Vec::new());
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        if name.as_encoded_bytes().starts_with(b".") {
            // A shell passes over it, too; but rows that nobody reads are told.
            if !path.is_dir() && SourceFile::new(&path, format).ends_as_rows_do() {
                found.left_out.push(path);
            }
            continue;
        }
        if path.is_dir() {
            folders.push(path);
        } else if DESCRIPTIONS.iter().any(|known| name == **known) {
            // Nothing of it is a row, and nothing is missed.
        } else if SourceFile::new(&path, format).ends_as_rows_do() {
            found.files.push(path);
        } else {
            found.left_out.push(path);
        }
    }
    if found.files.is_empty() {
        return Err(no_rows(folder, format, &folders, &found.left_out));
    }
    found.left_out.extend(folders);
    Ok(found)
}

fn no_rows(folder: &Path, format: Format, folders: &[PathBuf], others: &[PathBuf]) -> io::Error {
    let names = |paths: &[PathBuf]| {
        let shown: Vec<String> = paths.iter().take(8).map(|path| name_of(path)).collect();
        let more = if paths.len() > shown.len() { ", …" } else { "" };
        format!("{}{more}", shown.join(", "))
    };
    let way_out = match (folders, others) {
        ([], []) => "; it is empty".to_owned(),
        ([], others) => format!(
            "; there is {}. Name a file itself, if it is one of rows, or `format: documents`",
            names(others)
        ),
        (folders, _) => format!(
            "; its folders are {}: name one of them, or all by the pattern `{}`",
            names(folders),
            folder.join("**/*").display()
        ),
    };
    io::Error::other(format!("it is a folder without a file of `format: {format}`{way_out}"))
}

fn name_of(path: &Path) -> String {
    format!("`{}`", path.file_name().unwrap_or_default().to_string_lossy())
}

/// Files that fit a pattern: each of its parts fits the name of a folder, or of the file; `**` fits any folders.
fn fitting(pattern: &Path) -> io::Result<RowFiles> {
    let mut parts = Vec::new();
    for part in pattern.components() {
        let text = part.as_os_str().to_str();
        let text = text.ok_or_else(|| io::Error::other("a pattern is a text in UTF-8"))?;
        let part = match part {
            Component::Normal(_) if text == "**" => Part::AnyFolders,
            Component::Normal(_) if text.contains(META) => Part::Like(like(text)?),
            _ => Part::Named(text),
        };
        parts.push(part);
    }
    if let Some(Part::AnyFolders) = parts.last() {
        parts.push(Part::Like(like("*")?));
    }
    let mut files = BTreeSet::new();
    walk(Path::new(""), &parts, 0, &mut files)?;
    if files.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no file fits this pattern"));
    }
    Ok(RowFiles { files: files.into_iter().collect(), left_out: Vec::new() })
}

/// A part of a pattern.
enum Part<'a> {
    /// The folder, or file, of this name.
    Named(&'a str),
    /// All whose names are like this.
    Like(Pattern),
    /// Folders in folders, as many as there are. Links to folders are not among them: they may lead back.
    AnyFolders,
}

fn like(part: &str) -> io::Result<Pattern> {
    Pattern::new(part).map_err(|error| {
        let PatternError { pos, msg } = error;
        let place = pos + 1;
        io::Error::other(format!(
            "it is no file, and no pattern of files: {msg} at character {place} of `{part}`"
        ))
    })
}

/// Adds the files below `folder` that fit `parts`.
fn walk(
    folder: &Path,
    parts: &[Part<'_>],
    depth: usize,
    files: &mut BTreeSet<PathBuf>,
) -> io::Result<()> {
    let Some((first, rest)) = parts.split_first() else { return Ok(()) };
    if depth > DEEPEST {
        let message = format!("`{}` lies in more than {DEEPEST} folders", folder.display());
        return Err(io::Error::other(message));
    }
    let mut found = |path: PathBuf| {
        if files.len() == MOST_FILES {
            return Err(io::Error::other(format!("it fits more than {MOST_FILES} files")));
        }
        if !rest.is_empty() {
            return walk(&path, rest, depth + 1, files);
        }
        if !path.is_dir() {
            files.insert(path);
        }
        Ok(())
    };
    match first {
        Part::Named(name) => {
            let path = folder.join(name);
            if path.symlink_metadata().is_ok() { found(path) } else { Ok(()) }
        }
        Part::Like(pattern) => {
            let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
            for name in names(folder)? {
                let path = folder.join(&name);
                let fits = name.to_str().is_some_and(|name| pattern.matches_with(name, options));
                if fits && (rest.is_empty() || path.is_dir()) {
                    found(path)?;
                }
            }
            Ok(())
        }
        Part::AnyFolders => {
            walk(folder, rest, depth, files)?;
            for name in names(folder)? {
                let path = folder.join(&name);
                let is_folder = path.symlink_metadata().is_ok_and(|found| found.is_dir());
                if is_folder && !name.as_encoded_bytes().starts_with(b".") {
                    walk(&path, parts, depth + 1, files)?;
                }
            }
            Ok(())
        }
    }
}

/// What lies in a folder.
fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let told =
        |error: io::Error| io::Error::new(error.kind(), format!("`{}`: {error}", here.display()));
    let entries = here.read_dir().map_err(told)?;
    entries.map(|entry| Ok(entry.map_err(told)?.file_name())).collect()
}

/// A warning for what lies in a folder and is no file of rows.
pub(crate) fn warning(folder: &Path, left_out: &[PathBuf]) -> Option<String> {
    const SHOWN: usize = 4;
    let names: Vec<String> = left_out.iter().take(SHOWN).map(|path| name_of(path)).collect();
    let more = match left_out.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!left_out.is_empty()).then(|| {
        format!(
            "`{}`: {}{more} is not read: what a folder means is the files of rows that lie right in it",
            folder.display(),
            names.join(", ")
        )
    })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write their own input files")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn folders_and_patterns_mean_their_files_in_the_order_of_names() {
        let room = tempfile::tempdir().unwrap();
        let at = |name: &str| room.path().join(name);
        fs::create_dir_all(at("d/train")).unwrap();
        fs::create_dir_all(at("d/.cache")).unwrap();
        fs::create_dir_all(at("split/train")).unwrap();
        for name in [
            "d/b.jsonl.zst",
            "d/a.parquet",
            "d/.hidden.jsonl",
            "d/notes.md",
            "d/state.json",
            "d/dataset_info.json",
            "d/train/c.jsonl",
            "d/.cache/c.jsonl",
            "d/x.py",
            "[1].jsonl",
        ] {
            fs::write(at(name), "x").unwrap();
        }
        let prefix = format!("{}/", room.path().display());
        let shown = |path: &str, format: Format| match find(&at(path), format) {
            Ok(RowFiles { files, left_out }) => {
                format!("{files:?} without {left_out:?}").replace(&prefix, "")
            }
            Err(error) => format!("{:?}: {error}", error.kind()).replace(&prefix, ""),
        };
        let of = |path: &str| shown(path, Format::Messages);
        insta::assert_snapshot!(of("d"), @r#"["d/a.parquet", "d/b.jsonl.zst"] without ["d/.hidden.jsonl", "d/notes.md", "d/x.py", "d/train"]"#);
        insta::assert_snapshot!(shown("d", Format::Text), @r#"["d/a.parquet", "d/b.jsonl.zst", "d/notes.md"] without ["d/.hidden.jsonl", "d/x.py", "d/train"]"#);
        insta::assert_snapshot!(of("d/*.jsonl*"), @r#"["d/b.jsonl.zst"] without []"#);
        insta::assert_snapshot!(of("**/*.jsonl"), @r#"["[1].jsonl", "d/train/c.jsonl"] without []"#);
        insta::assert_snapshot!(of("[1].jsonl"), @r#"["[1].jsonl"] without []"#);
        insta::assert_snapshot!(of("d/?.csv"), @"NotFound: no file fits this pattern");
        insta::assert_snapshot!(of("d/[.csv"), @"Other: it is no file, and no pattern of files: invalid range pattern at character 1 of `[.csv`");
        std::os::unix::fs::symlink("..", at("d/train/up")).unwrap();
        insta::assert_snapshot!(of("d/**/c.*"), @r#"["d/train/c.jsonl"] without []"#);
        insta::assert_snapshot!(of("d/train/up/*.zst"), @r#"["d/train/up/b.jsonl.zst"] without []"#);
        insta::assert_snapshot!(of("d/.h*"), @r#"["d/.hidden.jsonl"] without []"#);
        insta::assert_snapshot!(of("d/train/**"), @r#"["d/train/c.jsonl"] without []"#);
        insta::assert_snapshot!(of("split"), @"Other: it is a folder without a file of `format: messages`; its folders are `train`: name one of them, or all by the pattern `split/**/*`");
        insta::assert_snapshot!(of("split/train"), @"Other: it is a folder without a file of `format: messages`; it is empty");
        insta::assert_snapshot!(of("none.jsonl"), @r#"["none.jsonl"] without []"#);
        let left_out = ["a", "b", "c", "d", "e"].map(PathBuf::from);
        insta::assert_snapshot!(warning(Path::new("rows"), &left_out).unwrap(), @"`rows`: `a`, `b`, `c`, `d` and 1 more is not read: what a folder means is the files of rows that lie right in it");
        assert_eq!(warning(Path::new("rows"), &[]), None);
    }
}
