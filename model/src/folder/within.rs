//! Whether something lies in a model's folder, by whatever spelling or link: nothing is written into a base.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use graft_files::place::resolve;

use super::ModelFolder;
use crate::error::Error;

impl ModelFolder {
    /// Refuses a place that is the folder or lies in it.
    ///
    /// # Errors
    /// It does.
    pub fn check_outside(&self, path: &Path) -> Result<(), Error> {
        if self.holds(path)? {
            return Err(Error::InBase { path: path.to_path_buf(), base: self.display() });
        }
        Ok(())
    }

    /// Whether a place is the folder or lies in it.
    fn holds(&self, path: &Path) -> Result<bool, Error> {
        let Some(own) = self.real_path()? else { return Ok(false) };
        Ok(resolve(path).map_err(|error| failed(path, error))?.starts_with(own))
    }

    /// Whether the folder is a place, which need not be there yet, or lies in it.
    ///
    /// # Errors
    /// The system does not say.
    pub fn lies_in(&self, path: &Path) -> Result<bool, Error> {
        let Some(own) = self.real_path()? else { return Ok(false) };
        Ok(own.starts_with(resolve(path).map_err(|error| failed(path, error))?))
    }

    fn real_path(&self) -> Result<Option<PathBuf>, Error> {
        let real = |path| fs::canonicalize(path).map_err(|error| failed(path, error));
        self.named.as_deref().or(self.path()).map(real).transpose()
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Io { action: "find", path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_base_is_found_behind_every_spelling() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("models/base/deeper")).unwrap();
        symlink(at("models/base"), at("link")).unwrap();
        let base = ModelFolder::at(&at("link")).unwrap();
        for name in ["models/base", "models/base/x", "link", "link/x/y", "models/../link/deeper"] {
            assert!(base.holds(&at(name)).unwrap(), "{name}");
            assert!(matches!(base.check_outside(&at(name)), Err(Error::InBase { .. })), "{name}");
        }
        for name in ["models", "models/based", "x"] {
            base.check_outside(&at(name)).unwrap();
        }
        for name in ["", "models", "link", "models/base/deeper/../.."] {
            assert!(base.lies_in(&at(name)).unwrap(), "{name}");
        }
        assert!(!base.lies_in(&at("models/base/deeper")).unwrap());
        let builtin = ModelFolder::open("builtin:quickstart").unwrap();
        assert!(!builtin.lies_in(root.path()).unwrap() && !builtin.holds(root.path()).unwrap());
    }
}
