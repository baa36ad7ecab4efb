//! What a run makes of its steps: claimed before it is made, and known again by the step, by what else it
//! is made of, and by the hashes of its files.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use graft_files::atomic;

use super::manifest::{FileHash, Made, Mended, hash_file};
use super::{Error, Result, RunFolder, hashes, plain};

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
        let path = self.own_place(name)?;
        let coming = FileHash::of(content);
        let mut mended = None;
        if let Some(made) = self.manifest.made.get(name)
            && path.exists()
        {
            let found = hash_file(&path, |_| ()).ok();
            let own = [made.files.get(name), made.coming.as_ref(), Some(&coming)];
            if found.is_none() || !own.contains(&found.as_ref()) {
                let aside = super::checkpoints::set_aside(&path)?;
                let found = format!(
                    "it was damaged or changed, and is made again; what it was is kept as `{aside}`"
                );
                mended = Some(Mended { file: name.to_owned(), found });
            }
        }
        self.claim(name, Some(coming))?;
        atomic::write_bytes(&path, content).map_err(Error::Replace)?;
        self.made(name, step, of)?;
        Ok(mended)
    }

    /// Notes the hash of the values that the last step left.
    pub fn trained(&mut self, sha256: String) {
        self.manifest.trained_sha256 = Some(sha256);
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
    pub(super) fn files_of(&self, name: &str) -> Result<BTreeMap<String, FileHash>> {
        let path = self.path.join(name);
        if !path.is_dir() {
            return Ok(BTreeMap::from([(name.to_owned(), hash_file(&path, |_| ())?)]));
        }
        let files = hashes::hash_folder(&path)?;
        Ok(files.into_iter().map(|(file, hash)| (format!("{name}/{file}"), hash)).collect())
    }
}
