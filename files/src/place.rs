//! Where a command may put what it makes: nothing that is there is replaced. Asked before the work begins;
//! [`crate::atomic::create_file`] and [`crate::atomic::create_folder`] see to it again when the work is done.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why nothing new may be put into a place.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The system does not say what is there.
    #[error("cannot {action} `{}`: {source}", path.display())]
    System {
        /// What was tried, as an English verb.
        action: &'static str,
        /// The place.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Where a new file should go, something is.
    #[error(
        "`{}` exists and is not replaced: choose another name, or remove this one", path.display()
    )]
    FileTaken {
        /// The file.
        path: PathBuf,
    },
    /// Where a new file should go, there is no folder.
    #[error(
        "there is no folder `{}` to write `{}` into: make it, or choose another",
        parent.display(), path.display()
    )]
    NoParent {
        /// The file.
        path: PathBuf,
        /// The folder.
        parent: PathBuf,
    },
    /// The folder to write holds something already.
    #[error(
        "`{}` exists and is not an empty folder: nothing is overwritten. Choose another folder or \
         remove this one", path.display()
    )]
    FolderTaken {
        /// The folder.
        path: PathBuf,
    },
}

/// The path of a new file, the links of its existing part resolved.
///
/// # Errors
/// Something is there already, be it a link that leads nowhere; the folder to hold it is not there.
pub fn new_file(path: &Path) -> Result<PathBuf, Refused> {
    if path.symlink_metadata().is_ok() {
        return Err(Refused::FileTaken { path: path.to_path_buf() });
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent
        && !parent.is_dir()
    {
        return Err(Refused::NoParent { path: path.to_path_buf(), parent: parent.to_path_buf() });
    }
    resolve(path).map_err(|source| failed("use as a file to write", path, source))
}

/// The path of a new folder, the links of its existing part resolved.
///
/// # Errors
/// There is something other than an empty folder.
pub fn new_folder(path: &Path) -> Result<PathBuf, Refused> {
    let failed = |source| failed("use as a folder to write", path, source);
    let resolved = resolve(path).map_err(failed)?;
    let is_free = match fs::symlink_metadata(&resolved) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(failed(error)),
        Ok(found) if found.is_dir() => fs::read_dir(&resolved).map_err(failed)?.next().is_none(),
        Ok(_) => false,
    };
    if is_free { Ok(resolved) } else { Err(Refused::FolderTaken { path: path.to_path_buf() }) }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Refused {
    Refused::System { action, path: path.to_path_buf(), source }
}

/// The path with the links of its existing part resolved.
///
/// # Errors
/// The system does not say where a link leads.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
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
            assert!(matches!(new_file(&at(name)), Err(Refused::FileTaken { .. })), "{name}");
        }
        for name in ["file", "full", "link", "dangling", "full-link", "empty/../full"] {
            assert!(matches!(new_folder(&at(name)), Err(Refused::FolderTaken { .. })), "{name}");
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
}
