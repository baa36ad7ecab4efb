//! Where a model's files come from: a Hugging Face folder on disk, one embedded in the program, or a GGUF file, which
//! stands for the folder that it was made of.
//!
//! Nothing is downloaded, ever: a file that is not there is an error that says how to get it.

mod gguf;
mod limits;
mod within;

pub use gguf::{GgufModel, is_gguf};

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use graft_files::plain_file::{self, Unreadable};

use crate::builtin::{BUILTINS, Builtin};
use crate::error::Error;
use crate::own_file;

/// Names an embedded model in place of a path: `builtin:quickstart`.
const BUILTIN_PREFIX: &str = "builtin:";

/// How a hub's cache begins the folder above `snapshots/REVISION`: `models--OWNER--NAME`.
const CACHED: &str = "models--";
/// The folder of a model's chat templates beside the usual one, as transformers lays them out.
pub const TEMPLATES: &str = "additional_chat_templates";

/// A readable model folder. Cheap to clone; holds no open file.
#[derive(Clone)]
pub struct ModelFolder {
    backing: Backing,
    /// Where the tokenizer and chat templates of models made from this one are, if not here.
    tokenizer: Option<PathBuf>,
    /// The folder that was named, where the GGUF file in it was meant: a second one in it would part the two.
    named: Option<PathBuf>,
}

#[derive(Clone)]
enum Backing {
    Disk(PathBuf),
    Builtin(&'static Builtin),
    Gguf(Arc<GgufModel>),
}

impl ModelFolder {
    /// Opens a folder on disk, a GGUF file, a folder that holds one and no config.json, or an embedded model by
    /// `builtin:NAME`.
    ///
    /// # Errors
    /// Nothing is there, or another file; the GGUF file is broken; no embedded model has that name.
    pub fn open(location: &str) -> Result<Self, Error> {
        if let Some(name) = location.strip_prefix(BUILTIN_PREFIX) {
            let found = BUILTINS.iter().find(|builtin| builtin.name == name);
            let builtin = found.ok_or_else(|| Error::UnknownBuiltin {
                found: location.to_owned(),
                known: BUILTINS.iter().map(|b| format!("{BUILTIN_PREFIX}{}", b.name)).collect(),
            })?;
            return Ok(Self { backing: Backing::Builtin(builtin), tokenizer: None, named: None });
        }
        let folder = Self::at(Path::new(location))?;
        match (folder.contains("config.json"), folder.gguf_files().as_slice()) {
            (false, [only]) => {
                let file = Self::at(&Path::new(location).join(only))?;
                Ok(Self { named: Some(PathBuf::from(location)), ..file })
            }
            _ => Ok(folder),
        }
    }

    /// Opens a folder on disk, or a GGUF file.
    ///
    /// # Errors
    /// Nothing is there, or another file; the GGUF file is broken.
    pub fn at(path: &Path) -> Result<Self, Error> {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Ok(Self {
                backing: Backing::Disk(path.to_path_buf()),
                tokenizer: None,
                named: None,
            }),
            Ok(_) if gguf::is_gguf(path) => {
                let model = Arc::new(GgufModel::open(path)?);
                Ok(Self { backing: Backing::Gguf(model), tokenizer: None, named: None })
            }
            Ok(_) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let what = weights(&name).unwrap_or("a file");
                Err(Error::NotAFolder { path: path.to_path_buf(), what })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let missing = || Error::FolderMissing { path: path.to_path_buf(), release: None };
                Err(dangling(path).unwrap_or_else(missing))
            }
            Err(source) => Err(Error::Io { action: "open", path: path.to_path_buf(), source }),
        }
    }

    /// A folder that is still to be made: every file of it is missing.
    pub fn to_come(path: &Path) -> Self {
        Self { backing: Backing::Disk(path.to_path_buf()), tokenizer: None, named: None }
    }

    /// This folder's model, used with the tokenizer and chat templates of another folder: models that are made
    /// from it get those. Files are read by name from here all the same.
    #[must_use]
    pub fn with_tokenizer_of(self, other: &Self) -> Self {
        Self { tokenizer: other.path().map(Path::to_path_buf), ..self }
    }

    /// The folder whose tokenizer and chat templates go along with models made from this one; `None`
    /// where that is this one.
    pub fn tokenizer_home(&self) -> Result<Option<Self>, Error> {
        self.tokenizer.as_deref().map(Self::at).transpose()
    }

    /// The chat templates in [`TEMPLATES`], by their paths in the folder, sorted.
    pub fn additional_templates(&self) -> Result<Vec<(String, Bytes)>, Error> {
        let Backing::Disk(path) = &self.backing else { return Ok(Vec::new()) };
        let path = path.join(TEMPLATES);
        let inner = match Self::at(&path) {
            Ok(inner) => inner,
            Err(Error::FolderMissing { .. } | Error::NotAFolder { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let is_template =
            |name: &String| Path::new(name).extension().is_some_and(|it| it == "jinja");
        let names = inner.names()?.into_iter().filter(is_template);
        names.map(|name| Ok((format!("{TEMPLATES}/{name}"), inner.required(&name)?))).collect()
    }

    /// The path on disk, of a GGUF file its own; `None` for an embedded model.
    pub fn path(&self) -> Option<&Path> {
        match &self.backing {
            Backing::Disk(path) => Some(path),
            Backing::Gguf(model) => Some(model.path()),
            Backing::Builtin(_) => None,
        }
    }

    /// Where the bytes of a file of [`Checkpoint::files`](crate::checkpoint::Checkpoint::files) lie; `None` for an
    /// embedded model.
    pub fn path_of(&self, name: &str) -> Option<PathBuf> {
        match &self.backing {
            Backing::Disk(path) => Some(path.join(name)),
            Backing::Gguf(model) => Some(model.path().to_path_buf()),
            Backing::Builtin(_) => None,
        }
    }

    /// The GGUF file that stands for the folder, where one does.
    pub fn gguf(&self) -> Option<&GgufModel> {
        match &self.backing {
            Backing::Gguf(model) => Some(model),
            Backing::Disk(_) | Backing::Builtin(_) => None,
        }
    }

    /// The names of the GGUF files in the folder.
    fn gguf_files(&self) -> Vec<String> {
        let Backing::Disk(_) = &self.backing else { return Vec::new() };
        let names = self.names().unwrap_or_default();
        names.into_iter().filter(|name| gguf::is_named_so(Path::new(name))).collect()
    }

    /// Whether the folder holds weights that are read, by the names of its files.
    pub fn has_weights(&self) -> bool {
        use crate::checkpoint::{INDEX_FILE, SINGLE_FILE};
        self.gguf().is_some() || self.contains(SINGLE_FILE) || self.contains(INDEX_FILE)
    }

    /// How errors name the folder: its path, or `builtin:NAME`.
    pub fn display(&self) -> String {
        match &self.backing {
            Backing::Disk(path) => path.display().to_string(),
            Backing::Gguf(model) => model.path().display().to_string(),
            Backing::Builtin(builtin) => format!("{BUILTIN_PREFIX}{}", builtin.name),
        }
    }

    /// How errors name a file of the folder.
    pub fn display_file(&self, name: &str) -> String {
        match &self.backing {
            Backing::Gguf(_) => {
                let keys = if name == "config.json" { "llama" } else { "tokenizer" };
                format!("{} (its `{keys}.` keys)", self.display())
            }
            Backing::Disk(_) | Backing::Builtin(_) => format!("{}/{name}", self.display()),
        }
    }

    /// The folder's files by name, sorted; folders inside are left out.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let mut names: Vec<String> = match &self.backing {
            Backing::Builtin(builtin) => {
                builtin.files.iter().map(|(name, _)| (*name).to_owned()).collect()
            }
            Backing::Gguf(model) => model.names(),
            Backing::Disk(path) => {
                let failed = |source| Error::Io { action: "list", path: path.clone(), source };
                let mut names = Vec::new();
                for entry in fs::read_dir(path).map_err(failed)? {
                    let entry = entry.map_err(failed)?;
                    // Follows links: caches of models are made of them.
                    let is_file = fs::metadata(entry.path()).is_ok_and(|found| found.is_file());
                    if let (true, Ok(name)) = (is_file, entry.file_name().into_string()) {
                        names.push(name);
                    }
                }
                names
            }
        };
        names.sort();
        Ok(names)
    }

    /// The folder's files by path, with those of the folder whose tokenizer is used; none of an embedded
    /// model.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub fn paths(&self) -> Result<Vec<PathBuf>, Error> {
        let mut paths = Vec::new();
        for folder in [Some(self), self.tokenizer_home()?.as_ref()].into_iter().flatten() {
            let Some(path) = folder.path() else { continue };
            if folder.gguf().is_some() {
                paths.push(path.to_path_buf());
                continue;
            }
            paths.extend(folder.names()?.iter().map(|name| path.join(name)));
            let templates = folder.additional_templates()?;
            paths.extend(templates.iter().map(|(name, _)| path.join(name)));
        }
        Ok(paths)
    }

    /// Refuses a file that is to go along into a new folder, by its path in this one, where it is a link to
    /// somebody else's: to one whose own name is none that `goes_along`.
    ///
    /// # Errors
    /// It is, or leads nowhere.
    pub fn check_own(&self, name: &str, goes_along: &dyn Fn(&str) -> bool) -> Result<(), Error> {
        match &self.backing {
            Backing::Disk(path) => own_file::check(path, name, goes_along),
            Backing::Gguf(_) | Backing::Builtin(_) => Ok(()),
        }
    }

    /// What a file that gets published calls the model: the folder's own name, as a hub writes it where
    /// the folder is one of a hub's cache, and nothing of where it lies.
    pub fn published_name(&self) -> String {
        let path = match &self.backing {
            Backing::Builtin(_) => return self.display(),
            Backing::Gguf(model) => return model.name(),
            Backing::Disk(path) => path,
        };
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        let names: Vec<_> = path.iter().map(|name| name.to_string_lossy()).collect();
        let cached = |name: &&std::borrow::Cow<'_, str>| name.strip_prefix(CACHED).is_some();
        match names.iter().rev().nth(2).filter(cached) {
            Some(cached) => cached[CACHED.len()..].replacen("--", "/", 1),
            None => names.last().map_or_else(String::new, |name| name.clone().into_owned()),
        }
    }

    /// Whether the folder has the file.
    pub fn contains(&self, name: &str) -> bool {
        match &self.backing {
            Backing::Builtin(builtin) => builtin.files.iter().any(|(found, _)| *found == name),
            Backing::Gguf(model) => model.names().iter().any(|found| found == name),
            Backing::Disk(path) => is_plain(name) && path.join(name).is_file(),
        }
    }

    /// Reads a small file, up to what one of its name may have; `None` where it does not exist.
    pub fn bytes(&self, name: &str) -> Result<Option<Bytes>, Error> {
        match &self.backing {
            Backing::Builtin(builtin) => Ok(builtin_file(builtin, name)),
            Backing::Gguf(model) => model.bytes(name, limits::limit_of(name)),
            Backing::Disk(_) => {
                let path = self.disk_path(name)?;
                match plain_file::read(&path, limits::limit_of(name)) {
                    Ok(bytes) => Ok(Some(bytes.into())),
                    Err(why) if why.is_missing() => Ok(None),
                    Err(why) => Err(Error::unreadable(&path, why)),
                }
            }
        }
    }

    /// Reads a small file that must exist.
    pub fn required(&self, name: &str) -> Result<Bytes, Error> {
        self.bytes(name)?.ok_or_else(|| self.missing(name))
    }

    /// Maps a file into memory; pages are read when touched and shared between processes.
    ///
    /// The file must not shrink or change while the map is in use: the system would kill the
    /// process, or the frozen weights would change under it. Graft itself only replaces files
    /// whole, which leaves an existing map as it was.
    pub fn map(&self, name: &str) -> Result<Bytes, Error> {
        let Backing::Disk(_) = &self.backing else { return self.required(name) };
        let path = self.disk_path(name)?;
        let file = match plain_file::open(&path) {
            Ok(file) => file,
            Err(why) if why.is_missing() => return Err(self.missing(name)),
            Err(why) => return Err(Error::unreadable(&path, why)),
        };
        map_file(&file).map_err(|source| Error::Io { action: "map", path, source })
    }

    /// The error for a folder without safetensors: it may have its weights in another form.
    pub fn without_weights(&self, name: &str) -> Error {
        if let Some(error) = self.not_plain(name.split('`').next().unwrap_or(name)) {
            return error;
        }
        let names = self.names().unwrap_or_default();
        match names.iter().find_map(|name| Some((name.clone(), weights(name)?))) {
            Some((file, what)) => Error::OtherWeights { folder: self.display(), file, what },
            None => self.missing(name),
        }
    }

    /// The error for a file that the folder should have, or has as a link that leads nowhere.
    pub fn missing(&self, name: &str) -> Error {
        if self.gguf().is_some() {
            let is_tokenizer = name.starts_with("tokenizer");
            let (lacks, way_out) = if is_tokenizer {
                (
                    "brings no tokenizer (`tokenizer.ggml.model`)",
                    "give the folder of one with --tokenizer DIR, in a recipe as `model.tokenizer`",
                )
            } else {
                (
                    "has nothing in the place of such a file",
                    "take the model's folder, or another GGUF file",
                )
            };
            return Error::GgufLacks { file: self.display(), lacks, way_out };
        }
        let files = if name == "config.json" { self.gguf_files() } else { Vec::new() };
        if files.len() > 1 {
            return Error::SeveralGguf { folder: self.display(), files };
        }
        if let Some(error) = self.path().and_then(|path| dangling(&path.join(name))) {
            return error;
        }
        if let Some(error) = self.not_plain(name) {
            return error;
        }
        Error::FileMissing { folder: self.display(), file: name.to_owned() }
    }

    /// The error for something of the name that is there, but no file.
    fn not_plain(&self, name: &str) -> Option<Error> {
        let path = self.path()?.join(name);
        match plain_file::open(&path) {
            Err(why @ Unreadable::NotPlain(_)) => Some(Error::unreadable(&path, why)),
            _ => None,
        }
    }

    fn disk_path(&self, name: &str) -> Result<PathBuf, Error> {
        match &self.backing {
            Backing::Disk(path) if is_plain(name) => Ok(path.join(name)),
            _ => Err(Error::UnsafeName { folder: self.display(), name: name.to_owned() }),
        }
    }
}

impl fmt::Debug for ModelFolder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ModelFolder({})", self.display())
    }
}

/// The error for a link whose target was not copied with it, as from a hub's cache.
fn dangling(path: &Path) -> Option<Error> {
    let target = fs::read_link(path).ok()?;
    Some(Error::Dangling { path: path.to_path_buf(), target })
}

/// What a file of weights that are not read is, by its name.
fn weights(name: &str) -> Option<&'static str> {
    const PICKLE: &str = "a file of PyTorch's (a pickle, which can run programs)";
    let ending = Path::new(name).extension()?.to_str()?.to_ascii_lowercase();
    match ending.as_str() {
        "gguf" => {
            Some("a GGUF file, which is a model by itself: give its path in place of the folder's")
        }
        "ggml" => Some("a file of an old llama.cpp (GGML)"),
        "pth" | "pt" | "ckpt" => Some(PICKLE),
        "bin" if name.contains("model") => Some(PICKLE),
        "h5" | "msgpack" | "onnx" => Some("a file of another framework's"),
        _ => None,
    }
}

/// A file of the folder itself: no path out of it or deeper into it.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

fn builtin_file(builtin: &'static Builtin, name: &str) -> Option<Bytes> {
    let (_, bytes) = builtin.files.iter().find(|(found, _)| *found == name)?;
    Some(Bytes::from_static(bytes))
}

#[expect(unsafe_code, reason = "a memory map is shared with whoever writes the file")]
pub(crate) fn map_file(file: &File) -> std::io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the map is private and read-only. A change of the file by another process is outside
    // of what Rust can rule out; `ModelFolder::map` tells the caller.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(Bytes::from_owner(map))
}

#[cfg(test)]
mod tests;
