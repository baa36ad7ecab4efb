//! Folders of the run that are made again, and what somebody else put into them: it stays.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::manifest::Made;
use super::{Error, Result, RunFolder, plain};

/// Where such files are while their folder is made again, and where one stays whose place is taken.
const KEPT: &str = "kept-";

impl RunFolder {
    /// Makes the folder `name` of the values after `step`, and of `of`, at the path that `make` is given.
    /// Files in it that the run did not make are there again afterwards, also where `make` fails; a file
    /// whose place is taken then is kept beside the folder, and told of in a sentence.
    ///
    /// # Errors
    /// Something else stands there that the run did not make; a file cannot be moved; those of `make`.
    pub fn make_folder<T, E: From<Error>>(
        &mut self,
        name: &str,
        step: u64,
        of: &str,
        make: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<(T, Vec<String>), E> {
        let path = self.claim(name)?;
        let kept = self.path.join(format!("{KEPT}{name}"));
        for file in files_in(&path)? {
            if !self.made_it(name, &file) {
                move_to(&path.join(&file), free(kept.join(&file)))?;
            }
        }
        let made = make(&path);
        let files = if made.is_ok() { self.files_of(name)? } else { Default::default() };
        let told = put_back(&kept, &path, &|file| self.made_it(name, file))?;
        let made = made?;
        let entry = Made { after_step: Some(step), of: of.to_owned(), files };
        self.manifest.made.insert(name.to_owned(), entry);
        self.record()?;
        Ok((made, told))
    }

    /// Whether the run made this file of its folder `name`: its list says so, or, as the list is written
    /// behind the folder, the name by which every such folder has it.
    fn made_it(&self, name: &str, file: &Path) -> bool {
        let file = file.to_string_lossy();
        let listed = self.manifest.made.get(name);
        listed.is_some_and(|made| made.files.contains_key(&format!("{name}/{file}")))
            || is_of_weights(&file)
    }
}

/// Weights, and what describes them.
fn is_of_weights(file: &str) -> bool {
    const NAMES: [&str; 4] = [
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
        "model.safetensors.index.json",
    ];
    let shard = file.strip_prefix("model").and_then(|rest| rest.strip_suffix(".safetensors"));
    let counts = |c: char| c.is_ascii_digit() || c == '-' || "of".contains(c);
    NAMES.contains(&file) || shard.is_some_and(|between| between.chars().all(counts))
}

/// Every file of a folder and of the folders in it, links as such, by its path inside; none where there is
/// no folder.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    fn walk(folder: &Path, inside: &Path, out: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(folder.join(inside))? {
            let entry = entry?;
            let file = inside.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                walk(folder, &file, out)?;
            } else {
                out.push(file);
            }
        }
        Ok(())
    }
    let mut files = Vec::new();
    match walk(folder, Path::new(""), &mut files) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Read { path: folder.to_owned(), source })
        }
        _ => Ok(files),
    }
}

/// The path, or one like it where that is taken.
fn free(path: PathBuf) -> PathBuf {
    let like = |count: u32| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!("-{count}"));
        path.with_file_name(name)
    };
    let taken = |path: &Path| path.symlink_metadata().is_ok();
    if taken(&path) {
        return (2..u32::MAX)
            .map(like)
            .find(|path| !taken(path))
            .expect("a folder has fewer than 2^32 files");
    }
    path
}

fn move_to(from: &Path, to: PathBuf) -> Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|source| Error::write(folder, source))?;
    fs::rename(from, &to).map_err(|source| Error::write(&to, source))
}

/// Moves what is in `kept` back into `folder`, but for files that would be taken for the run's own there.
/// What was made in the place of one stays there; the other is told of, unless it is the same.
fn put_back(kept: &Path, folder: &Path, is_own: &dyn Fn(&Path) -> bool) -> Result<Vec<String>> {
    let mut told = Vec::new();
    for file in files_in(kept)? {
        let (from, to) = (kept.join(&file), folder.join(&file));
        if to.symlink_metadata().is_err() {
            if !is_own(&file) {
                move_to(&from, to)?;
            }
        } else if matches!((plain::read(&from), plain::read(&to)), (Ok(one), Ok(other)) if one == other)
        {
            fs::remove_file(&from).map_err(|source| Error::write(&from, source))?;
        } else {
            told.push(format!(
                "`{}` was made anew; the file that was there and that no run made is `{}`",
                to.display(),
                from.display()
            ));
        }
    }
    remove_empty(kept);
    Ok(told)
}

/// Removes a folder that holds nothing but such folders; only rmdir(2) is asked, which never takes a file.
fn remove_empty(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|it| it.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}
