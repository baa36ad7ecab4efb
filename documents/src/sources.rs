//! Which files are meant by files and folders: folders are walked in the order of names, hidden files are left out
//! and counted.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Files in order, and what of the folders is none.
#[derive(Debug, Default)]
pub struct Sources {
    /// Each file once, in the order of sources and of names.
    pub files: Vec<Found>,
    /// Files and folders left out since their names begin with a dot.
    pub hidden: u64,
    /// Files that were reached again.
    pub again: u64,
}

/// A file, or what cannot be one.
#[derive(Debug)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// Why there is nothing to read, where that is known already.
    pub problem: Option<String>,
}

/// Folders in folders further than this are no order that a person keeps.
const DEEPEST: usize = 64;

impl Sources {
    /// The files that `sources` name: files themselves, and all that lie in folders, however deep.
    ///
    /// A source that is not there, and a folder that does not open, are found as problems.
    pub fn find(sources: &[PathBuf]) -> Self {
        let mut found = Self::default();
        let mut known = BTreeSet::new();
        for source in sources {
            match fs::metadata(source) {
                Ok(is) if is.is_dir() => found.walk(source, 0, &mut known),
                Ok(_) => found.file(source.clone(), &mut known),
                Err(error) => found.problem(source.clone(), error.to_string()),
            }
        }
        found
    }

    fn walk(&mut self, folder: &Path, depth: usize, known: &mut BTreeSet<PathBuf>) {
        if depth > DEEPEST {
            let why = format!("it lies in more than {DEEPEST} folders: name a folder further down");
            return self.problem(folder.to_path_buf(), why);
        }
        let list = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut list = match list {
            Ok(list) => list,
            Err(error) => return self.problem(folder.to_path_buf(), error.to_string()),
        };
        list.sort_by_key(fs::DirEntry::file_name);
        for entry in list {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                self.hidden += 1;
                continue;
            }
            let path = entry.path();
            match entry.file_type() {
                Ok(is) if is.is_dir() => self.walk(&path, depth + 1, known),
                // It may lead back to where it lies.
                Ok(is) if is.is_symlink() && path.is_dir() => {
                    self.problem(path, "it is a link to a folder, which is not followed: name that folder itself, or allow it to be left out".to_owned());
                }
                Ok(_) => self.file(path, known),
                Err(error) => self.problem(path, error.to_string()),
            }
        }
    }

    fn file(&mut self, path: PathBuf, known: &mut BTreeSet<PathBuf>) {
        // What has no true place is read, and refused, by its name.
        let place = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        if known.insert(place) {
            self.files.push(Found { path, problem: None });
        } else {
            self.again += 1;
        }
    }

    fn problem(&mut self, path: PathBuf, why: String) {
        self.files.push(Found { path, problem: Some(why) });
    }
}

#[cfg(all(test, unix))]
#[expect(clippy::disallowed_methods, reason = "tests write their own input files")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folders_are_walked_in_the_order_of_names_and_nothing_is_followed_in_circles() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("docs/b/.git")).unwrap();
        for name in ["docs/c.txt", "docs/a.txt", "docs/b/z.txt", "docs/.hidden", "docs/b/.git/x"] {
            fs::write(at(name), name).unwrap();
        }
        symlink("..", at("docs/b/up")).unwrap();
        symlink("../a.txt", at("docs/b/again")).unwrap();
        let Sources { files, hidden, again } =
            Sources::find(&[at("docs"), at("docs/c.txt"), at("none")]);
        let shown: Vec<String> = files
            .iter()
            .map(|Found { path, problem }| {
                let name = path.strip_prefix(root.path()).unwrap().display();
                problem.as_ref().map_or(format!("{name}"), |problem| format!("{name}: {problem}"))
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @"
        docs/a.txt
        docs/b/up: it is a link to a folder, which is not followed: name that folder itself, or allow it to be left out
        docs/b/z.txt
        docs/c.txt
        none: No such file or directory (os error 2)
        ");
        assert_eq!((hidden, again), (2, 2));
    }
}
