//! Where a command may put what it makes: nothing that is there is replaced, and nothing goes into the
//! folder of a base. Asked before the work begins; [`crate::atomic::create_file`] and
//! [`crate::atomic::create_folder`] see to it again when the work is done.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::folder::ModelFolder;

/// The path of a new file, the links of its existing part resolved.
///
/// # Errors
/// Something is there already, be it a link that leads nowhere; the folder to hold it is not there.
pub fn new_file(path: &Path) -> Result<PathBuf, Error> {
    if path.symlink_metadata().is_ok() {
        return Err(Error::FileTaken { path: path.to_path_buf() });
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent
        && !parent.is_dir()
    {
        return Err(Error::NoParent { path: path.to_path_buf(), parent: parent.to_path_buf() });
    }
    resolve(path).map_err(|source| failed("use as a file to write", path, source))
}

/// The path of a new folder, the links of its existing part resolved.
///
/// # Errors
/// There is something other than an empty folder.
pub fn new_folder(path: &Path) -> Result<PathBuf, Error> {
    let failed = |source| failed("use as a folder to write", path, source);
    let resolved = resolve(path).map_err(failed)?;
    let is_free = match fs::symlink_metadata(&resolved) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(failed(error)),
        Ok(found) if found.is_dir() => fs::read_dir(&resolved).map_err(failed)?.next().is_none(),
        Ok(_) => false,
    };
    if is_free { Ok(resolved) } else { Err(Error::FolderTaken { path: path.to_path_buf() }) }
}

/// Refuses a place that is the base's folder or lies in it, by whatever spelling or link.
///
/// # Errors
/// It does.
pub fn outside(path: &Path, base: &ModelFolder) -> Result<(), Error> {
    if is_in(path, base)? {
        return Err(Error::InBase { path: path.to_path_buf(), base: base.display() });
    }
    Ok(())
}

/// Whether a place is the base's folder or lies in it.
///
/// # Errors
/// The system does not say.
pub fn is_in(path: &Path, base: &ModelFolder) -> Result<bool, Error> {
    let Some(base_path) = base.path() else { return Ok(false) };
    let base_path = fs::canonicalize(base_path).map_err(|e| failed("find", base_path, e))?;
    Ok(resolve(path).map_err(|e| failed("find", path, e))?.starts_with(base_path))
}

/// Whether the base's folder lies in a place that may not be there yet.
///
/// # Errors
/// The system does not say.
pub fn holds(path: &Path, base: &ModelFolder) -> Result<bool, Error> {
    let Some(base_path) = base.path() else { return Ok(false) };
    let base_path = fs::canonicalize(base_path).map_err(|e| failed("find", base_path, e))?;
    Ok(base_path.starts_with(resolve(path).map_err(|e| failed("find", path, e))?))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { action, path: path.to_path_buf(), source }
}

/// The path with the links of its existing part resolved.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let existing = absolute.ancestors().find(|folder| folder.exists()).unwrap_or(&absolute);
    let rest = absolute.strip_prefix(existing).unwrap_or(Path::new(""));
    let resolved = fs::canonicalize(existing)?;
    // Joining nothing would put a slash behind the name.
    Ok(if rest.as_os_str().is_empty() { resolved } else { resolved.join(rest) })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests prepare plain files")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_that_is_there_is_a_place_for_something_new() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("file"), "mine").unwrap();
        fs::create_dir(at("empty")).unwrap();
        fs::create_dir(at("full")).unwrap();
        fs::write(at("full/file"), "mine").unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        symlink(at("full"), at("full-link")).unwrap();
        fs::hard_link(at("file"), at("hard")).unwrap();
        for name in
            ["file", "empty", "full", "link", "dangling", "hard", "full/file", "empty/../file"]
        {
            assert!(matches!(new_file(&at(name)), Err(Error::FileTaken { .. })), "{name}");
        }
        for name in ["file", "full", "link", "dangling", "full-link", "empty/../full"] {
            assert!(matches!(new_folder(&at(name)), Err(Error::FolderTaken { .. })), "{name}");
        }
        for name in ["empty", "new", "deep/er/new", "full/new"] {
            assert!(new_folder(&at(name)).is_ok(), "{name}");
        }
        assert!(new_file(&at("new")).is_ok() && new_file(&at("full/new")).is_ok());
        let shown = [new_file(&at("file")), new_file(&at("deep/new")), new_folder(&at("full"))];
        let shown = shown.map(|refused| refused.unwrap_err().to_string()).join("\n");
        insta::assert_snapshot!(shown.replace(&root.path().display().to_string(), "ROOT"), @"
        `ROOT/file` exists and is not replaced: choose another name, or remove this one
        there is no folder `ROOT/deep` to write `ROOT/deep/new` into: make it, or choose another
        `ROOT/full` exists and is not an empty folder: nothing is overwritten. Choose another folder or remove this one
        ");
    }

    #[test]
    fn a_base_is_found_behind_every_spelling() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("models/base/deeper")).unwrap();
        symlink(at("models/base"), at("link")).unwrap();
        let base = ModelFolder::at(&at("link")).unwrap();
        for name in ["models/base", "models/base/x", "link", "link/x/y", "models/../link/deeper"] {
            assert!(is_in(&at(name), &base).unwrap(), "{name}");
            assert!(matches!(outside(&at(name), &base), Err(Error::InBase { .. })), "{name}");
        }
        for name in ["models", "models/based", "x"] {
            outside(&at(name), &base).unwrap();
        }
        for name in ["", "models", "link", "models/base/deeper/../.."] {
            assert!(holds(&at(name), &base).unwrap(), "{name}");
        }
        assert!(!holds(&at("models/base/deeper"), &base).unwrap());
        let builtin = ModelFolder::open("builtin:quickstart").unwrap();
        assert!(!holds(root.path(), &builtin).unwrap() && !is_in(root.path(), &builtin).unwrap());
    }
}
