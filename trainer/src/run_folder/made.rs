//! What a run makes of its steps: claimed before it is made, and known again by the step, by what else it
//! is made of, and by the hashes of its files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use graft_files::atomic;
use graft_files::sha256::sha256_hex;

use super::manifest::{FileHash, Made, Mended, hash_file};
use super::{Error, Result, RunFolder, checkpoints, hashes, plain};

/// A file that an earlier part of the run made.
#[derive(Debug)]
pub enum Content {
    /// It is as it was made.
    Whole(Vec<u8>),
    /// It was never made, or of another step.
    None,
    /// It was made of something else.
    Other,
    /// It is not as it was made, as a sentence says.
    Damaged(String),
}

impl RunFolder {
    /// Whether `name` lies in the folder as this run made it after `step`, and `of` what else it depends on;
    /// files that somebody else put beside those of the run do not count.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn has(&self, name: &str, step: u64, of: &str) -> Result<bool> {
        let Some(made) = self.manifest.made.get(name) else { return Ok(false) };
        if made.after_step != Some(step) || made.of != of || !self.path.join(name).exists() {
            return Ok(false);
        }
        for (file, hash) in &made.files {
            let path = self.path.join(file);
            if !path.exists() || hash_file(&path, |_| ())? != *hash {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A file that this run made after `step`, of `of`.
    ///
    /// # Errors
    /// It is there, and cannot be read.
    pub fn content(&self, name: &str, step: u64, of: &str) -> Result<Content> {
        let Some(made) = self.manifest.made.get(name).filter(|it| it.after_step == Some(step))
        else {
            return Ok(Content::None);
        };
        if made.of != of {
            return Ok(Content::Other);
        }
        let path = self.path.join(name);
        match plain::read(&path) {
            Ok(content) if made.files.get(name) == Some(&FileHash::of(&content)) => {
                Ok(Content::Whole(content))
            }
            Ok(_) => Ok(Content::Damaged("it was damaged or changed".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Content::Damaged("it is missing".to_owned()))
            }
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// Where `name` is to be made, or made again.
    ///
    /// # Errors
    /// Something is there that the run did not make, or a link in the place of what it made.
    pub(super) fn own_place(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        match path.symlink_metadata() {
            Ok(found) if found.is_symlink() || !self.manifest.made.contains_key(name) => {
                Err(Error::NotOwn { path })
            }
            _ => Ok(path),
        }
    }

    /// Records that `name` is being made, with the files that it had and the one that it gets, so that a run
    /// killed meanwhile knows its own.
    pub(super) fn claim(&mut self, name: &str, coming: Option<FileHash>) -> Result<()> {
        let files = self.manifest.made.get(name).map(|made| made.files.clone()).unwrap_or_default();
        let claimed = Made { files, coming, ..Made::default() };
        if self.manifest.made.get(name) != Some(&claimed) {
            self.manifest.made.insert(name.to_owned(), claimed);
            self.record()?;
        }
        Ok(())
    }

    /// Records that `name`, which was claimed, is made of the values after `step`, and of `of`.
    pub(super) fn made(&mut self, name: &str, step: u64, of: &str) -> Result<()> {
        let files = self.files_of(name)?;
        let made = Made { after_step: Some(step), of: of.to_owned(), files, coming: None };
        self.manifest.made.insert(name.to_owned(), made);
        self.record()
    }

    /// Makes the file `name` of the values after `step`, and of `of`. Where what is there is not what the run
    /// made, that is kept under another name, and given to be recorded and told.
    pub fn put(
        &mut self,
        name: &str,
        step: u64,
        of: &str,
        content: &[u8],
    ) -> Result<Option<Mended>> {
        self.check_place()?;
        let path = self.own_place(name)?;
        let coming = FileHash::of(content);
        let made = self.manifest.made.get(name);
        let own: Vec<FileHash> = made
            .iter()
            .flat_map(|made| made.files.get(name).into_iter().chain(&made.coming))
            .chain([&coming])
            .cloned()
            .collect();
        self.claim(name, Some(coming))?;
        let is_no_file = path.symlink_metadata().is_ok_and(|found| !found.is_file());
        let mut aside = is_no_file.then(|| checkpoints::set_aside(&path)).transpose()?;
        atomic::exchange_bytes(&path, content, None, |old| {
            aside = keep_unless(&own, old, &path)?;
            Ok::<_, Error>(())
        })?;
        self.made(name, step, of)?;
        Ok(aside.map(|aside| Mended {
            file: name.to_owned(),
            found: format!(
                "it was damaged or changed, and is made again; what it was is kept as `{aside}`"
            ),
        }))
    }

    /// Notes the hash of the values that the last step left.
    pub fn trained(&mut self, sha256: String) {
        self.manifest.trained_sha256 = Some(sha256);
    }

    /// Records a checkpoint that is about to take its place, by its `state.json`.
    pub fn makes_checkpoint(&mut self, step: u64, state: &[u8]) -> Result<()> {
        if let Some(made) = &mut self.manifest.checkpoints {
            made.insert(checkpoints::name(step), sha256_hex(state));
            self.record()?;
        }
        Ok(())
    }

    /// Records a checkpoint that is there, and the hash of its values.
    pub fn checkpointed(&mut self, step: u64, trained_sha256: String) -> Result<()> {
        self.trained(trained_sha256);
        self.manifest.last_checkpoint = Some(step);
        self.record()
    }

    /// The step whose values `name` holds, where they are not those that the last step left: something made
    /// earlier, that is still there and was not made again.
    pub fn left_behind(&self, name: &str) -> Option<u64> {
        let made = self.manifest.made.get(name).filter(|_| self.path.join(name).exists())?;
        made.after_step.filter(|_| self.manifest.is_left_behind(made))
    }

    /// The hash of the values that the last step left; empty before any.
    pub fn trained_sha256(&self) -> &str {
        self.manifest.trained_sha256.as_deref().unwrap_or_default()
    }

    /// Every file of what the run made as `name`, to its hash.
    fn files_of(&self, name: &str) -> Result<BTreeMap<String, FileHash>> {
        let path = self.path.join(name);
        if !path.is_dir() {
            return Ok(BTreeMap::from([(name.to_owned(), hash_file(&path, |_| ())?)]));
        }
        files_below(name, &path)
    }
}

/// Gives what lies at `found` a name like that of `path`, unless it has one of these hashes; which name.
pub(super) fn keep_unless(own: &[FileHash], found: &Path, path: &Path) -> Result<Option<String>> {
    if hash_file(found, |_| ()).is_ok_and(|found| own.contains(&found)) {
        return Ok(None);
    }
    checkpoints::set_aside_as(found, path).map(Some)
}

/// Every file of `folder`, by its path in the run folder once it is called `name` there, to its hash.
pub(super) fn files_below(name: &str, folder: &Path) -> Result<BTreeMap<String, FileHash>> {
    let files = hashes::hash_folder(folder)?;
    Ok(files.into_iter().map(|(file, hash)| (format!("{name}/{file}"), hash)).collect())
}
