//! What a folder holds beside the cache that was just made: Graft removes none of it by itself, as another run may read it.

use std::fs;
use std::path::{Path, PathBuf};

use super::stored;

/// Hexadecimal digits behind `rows-`.
const DIGITS: usize = 32;

/// A sentence about the other caches of a folder; `None` where there is none.
pub(super) fn told(folder: &Path, place: &Path) -> Option<String> {
    let sizes: Vec<u64> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path != place && is_cache(path))
        .map(|path| bytes(&path))
        .collect();
    let all: u64 = sizes.iter().sum();
    (!sizes.is_empty()).then(|| {
        format!(
            "{} holds {:.1} MB of samples of other rows, or for other settings ({} of its folders `rows-…`): remove \
             those that no run reads any more, as nobody else does",
            folder.display(),
            all as f64 / 1e6,
            sizes.len()
        )
    })
}

/// By its name, and by what is in it.
fn is_cache(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let digits = name.and_then(|name| name.strip_prefix("rows-"));
    let is_named = digits.is_some_and(|digits| {
        digits.len() == DIGITS && digits.bytes().all(|it| it.is_ascii_hexdigit())
    });
    is_named && files(path).is_some_and(|files| files.iter().all(|file| is_part(file)))
}

fn is_part(path: &Path) -> bool {
    path.file_name().is_some_and(stored::is_part)
}

fn files(folder: &Path) -> Option<Vec<PathBuf>> {
    Some(fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect())
}

fn bytes(folder: &Path) -> u64 {
    let size = |path: &PathBuf| path.symlink_metadata().map_or(0, |found| found.len());
    files(folder).unwrap_or_default().iter().map(size).sum()
}
