//! A GGUF file in the place of a folder: its metadata as the folder's small files, made when they are asked for.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use graft_files::plain_file::{self, FileSize};
use graft_gguf::{File, MAGIC, hugging_face, tokenizer};

use super::map_file;
use crate::error::Error;

/// A GGUF file, mapped, with its header read.
#[derive(Debug)]
pub struct GgufModel {
    path: PathBuf,
    map: Bytes,
    file: File,
}

/// Whether a path is called as GGUF files are.
pub(super) fn is_named_so(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"))
}

/// Whether a file is one, by its name or what it begins with.
pub fn is_gguf(path: &Path) -> bool {
    use std::io::Read;
    let begins_so = || {
        let mut found = [0; MAGIC.len()];
        let read = plain_file::open(path).ok().map(|mut file| file.read_exact(&mut found));
        matches!(read, Some(Ok(()))) && found == MAGIC
    };
    is_named_so(path) || begins_so()
}

impl GgufModel {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = plain_file::open(path).map_err(|why| Error::unreadable(path, why))?;
        let failed = |source| Error::Io { action: "map", path: path.to_path_buf(), source };
        let map = map_file(&file).map_err(failed)?;
        let file = File::read(&map).map_err(|problem| Error::Gguf {
            path: path.to_path_buf(),
            problem: Box::new(problem),
        })?;
        Ok(Self { path: path.to_path_buf(), map, file })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Metadata and tensors.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// All of it.
    pub(crate) fn map(&self) -> &Bytes {
        &self.map
    }

    /// Its name without the ending.
    pub(super) fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The files of the folder that it stands for, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let has_tokenizer = self.file.value("tokenizer.ggml.model").is_some();
        let tokenizer = ["tokenizer.json", "tokenizer_config.json"];
        let tokenizer = tokenizer.into_iter().filter(|_| has_tokenizer);
        let names = ["config.json", "generation_config.json"].into_iter().chain(tokenizer);
        names.map(str::to_owned).collect()
    }

    /// One of those files.
    pub(super) fn bytes(&self, name: &str, limit: u64) -> Result<Option<Bytes>, Error> {
        if !self.names().iter().any(|found| found == name) {
            return Ok(None);
        }
        let path = || self.path.clone();
        let text = match name {
            "config.json" => hugging_face::config(&self.file)
                .map_err(|problem| Error::GgufModel { path: path(), problem: Box::new(problem) })?
                .to_string(),
            "generation_config.json" => hugging_face::generation_config(&self.file).to_string(),
            "tokenizer_config.json" => hugging_face::tokenizer_config(&self.file).to_string(),
            _ => tokenizer::tokenizer_json(self.file.metadata()).map_err(|problem| {
                Error::GgufTokenizer { path: path(), problem: Box::new(problem) }
            })?,
        };
        if text.len() as u64 > limit {
            let found = FileSize::Exactly(text.len() as u64);
            return Err(Error::TooLarge { path: path(), found, limit });
        }
        Ok(Some(text.into()))
    }
}
