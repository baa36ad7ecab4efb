//! Whether a file that would go along into a new folder is one of the model's own.
//!
//! A hub's cache is made of links, `snapshots/REVISION/NAME` to `blobs/HASH`, and people link to files of other
//! folders. But a folder from a stranger may have a link to any file of this machine, and what goes along is
//! published with the model. So a link is followed to a file of the folder or of its cache, or to one whose
//! own name is one that goes along.

use std::fs;
use std::path::Path;

use crate::error::Error;

/// Refuses a link out of the folder to something that is none of the files that go along, by `goes_along` and
/// its own name. What is no link is the folder's own.
///
/// # Errors
/// It is such a link, or leads nowhere.
pub(crate) fn check(
    folder: &Path,
    name: &str,
    goes_along: &dyn Fn(&str) -> bool,
) -> Result<(), Error> {
    let path = folder.join(name);
    let real = |path: &Path| {
        fs::canonicalize(path).map_err(|source| Error::Io {
            action: "find",
            path: path.to_path_buf(),
            source,
        })
    };
    let (home, target) = (real(folder)?, real(&path)?);
    let own_name = target.file_name().unwrap_or_default().to_string_lossy();
    if target.starts_with(&home) || is_of_cache(&home, &target) || goes_along(&own_name) {
        return Ok(());
    }
    Err(Error::ForeignLink { path, target })
}

/// Whether the target is `CACHE/blobs/HASH`, and the folder below `CACHE/snapshots`.
fn is_of_cache(home: &Path, target: &Path) -> bool {
    let blobs = target.parent().filter(|folder| folder.file_name().is_some_and(|it| it == "blobs"));
    let cache = blobs.and_then(Path::parent);
    cache.is_some_and(|cache| home.starts_with(cache.join("snapshots")))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests prepare plain files")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_of_caches_and_to_files_that_go_along_are_followed_and_no_others() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["hub/models--o--n/blobs", "hub/models--o--n/snapshots/1a/sub", "model", "x"]
        {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for file in ["hub/models--o--n/blobs/0a1b", "model/file", "x/passwd", "x/LICENSE", "x/0a1b"]
        {
            fs::write(at(file), "text").unwrap();
        }
        let goes_along = |name: &str| name == "LICENSE";
        let followed = |folder: &str, name: &str, target: &str| {
            let _ = fs::remove_file(at(folder).join(name));
            symlink(target, at(folder).join(name)).unwrap();
            check(&at(folder), name, &goes_along).is_ok()
        };
        let cached = "hub/models--o--n/snapshots/1a";
        assert!(check(&at("model"), "file", &goes_along).is_ok());
        assert!(followed(cached, "LICENSE", "../../blobs/0a1b"));
        assert!(followed(&format!("{cached}/sub"), "LICENSE", "../../../blobs/0a1b"));
        assert!(followed("model", "LICENSE", "file"));
        assert!(followed("model", "LICENSE", "../x/LICENSE"));
        assert!(!followed("model", "LICENSE", "../x/passwd"));
        assert!(!followed("model", "LICENSE", "../x/0a1b"));
        assert!(!followed("model", "LICENSE", "../hub/models--o--n/blobs/0a1b"));
        // A link to a link is one to its end.
        assert!(!followed("model", "LICENSE", "../x/passwd"));
        assert!(!followed(cached, "LICENSE", "../../../../model/LICENSE"));
        let refused = followed("model", "LICENSE", "../x/passwd");
        let error = check(&at("model"), "LICENSE", &goes_along).unwrap_err().to_string();
        let real = fs::canonicalize(root.path()).unwrap().display().to_string();
        let shown =
            error.replace(&real, "ROOT").replace(&root.path().display().to_string(), "ROOT");
        assert!(!refused);
        insta::assert_snapshot!(shown, @"`ROOT/model/LICENSE` is a link to `ROOT/x/passwd`, which is no file of the model's, and what goes along into a new folder gets published with it: put the file itself there, or remove the link");
    }
}
