//! What can go wrong between a model's files and a model in memory.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use graft_files::plain_file::{self, Unreadable};

use crate::checkpoint::{HeaderProblem, Nf4Problem, TensorProblem};
use crate::config::ConfigProblem;

/// The errors of this crate: each names the file, the place in it, both values and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused an action on a file.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried, as an English verb: `read`, `map`.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Something that is no file, or never ends.
    #[error("`{}` is {found}, and only plain files are read", path.display())]
    NotPlain {
        /// Its path.
        path: PathBuf,
        /// What it is.
        found: plain_file::FileKind,
    },
    /// More bytes than a file of its kind has.
    #[error("`{}` has {found} bytes; of such a file at most {limit} are read", path.display())]
    TooLarge {
        /// Its path.
        path: PathBuf,
        /// Its size.
        found: plain_file::FileSize,
        /// The most that is read.
        limit: u64,
    },
    /// Writing failed; the text names the file.
    #[error(transparent)]
    Write(#[from] std::io::Error),
    /// A JSON file that is none.
    #[error("`{file}` is not valid JSON: {source}")]
    Json {
        /// The file.
        file: String,
        /// Line, column and reason.
        source: serde_json::Error,
    },
    /// A config.json of a model that Graft does not compute, or that is inconsistent.
    #[error("`{file}` does not describe a model that Graft can run:{}", lines(problems))]
    Config {
        /// The file.
        file: String,
        /// Everything that is wrong with it.
        problems: Vec<ConfigProblem>,
    },
    /// The model folder does not exist.
    #[error(
        "there is no model folder `{}`. {}, or use `builtin:quickstart`",
        path.display(), crate::releases::way_to_get(*release, path)
    )]
    FolderMissing {
        /// Where it was looked for.
        path: PathBuf,
        /// What it should hold, where that is known.
        release: Option<&'static crate::releases::Release>,
    },
    /// A link that would bring a stranger's file into a new folder.
    #[error(
        "`{}` is a link to `{}`, which is no file of the model's, and what goes along into a new folder gets \
         published with it: put the file itself there, or remove the link", path.display(), target.display()
    )]
    ForeignLink {
        /// The link.
        path: PathBuf,
        /// Where it leads to in the end.
        target: PathBuf,
    },
    /// A file stands where a model folder was expected.
    #[error("`{}` is {what}; a model is the folder that holds config.json, or a GGUF file", path.display())]
    NotAFolder {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A link whose target was not copied with it.
    #[error(
        "`{}` is a link to `{}`, which is not there: copy the files that the links of this folder \
         lead to, too (`cp -rL` does)", path.display(), target.display()
    )]
    Dangling {
        /// The link.
        path: PathBuf,
        /// What it leads to.
        target: PathBuf,
    },
    /// The folder has weights, but in a form that is not read.
    #[error(
        "the model folder `{folder}` has its weights as `{file}`, {what}; in a folder Graft reads safetensors: \
         fetch the release's `*.safetensors`, or convert the weights"
    )]
    OtherWeights {
        /// The folder.
        folder: String,
        /// One of the files.
        file: String,
        /// What it is.
        what: &'static str,
    },
    /// A GGUF file that breaks its format.
    #[error("`{}` cannot be read: {problem}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: Box<graft_gguf::Problem>,
    },
    /// A GGUF file that describes no Llama.
    #[error("`{}` is no model that Graft can run: {problem}", path.display())]
    GgufModel {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: Box<graft_gguf::hugging_face::ModelProblem>,
    },
    /// A GGUF file whose tokenizer cannot be used.
    #[error("the tokenizer of `{}` cannot be used: {problem}", path.display())]
    GgufTokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: Box<graft_gguf::tokenizer::TokenizerProblem>,
    },
    /// A folder without config.json and with more than one GGUF file.
    #[error(
        "the folder `{folder}` holds no config.json and several GGUF files: give the path of one: {}", files.join(", ")
    )]
    SeveralGguf {
        /// The folder.
        folder: String,
        /// The files.
        files: Vec<String>,
    },
    /// A file that a model needs is not in its folder.
    #[error(
        "`{file}` is not in the model folder `{folder}`. Graft downloads nothing: copy the file \
         there from where the model comes from"
    )]
    FileMissing {
        /// The folder.
        folder: String,
        /// The file's name.
        file: String,
    },
    /// A GGUF file lacks what a file of a model folder says.
    #[error("`{file}` {lacks}: {way_out}")]
    GgufLacks {
        /// The file.
        file: String,
        /// What it lacks.
        lacks: &'static str,
        /// What helps.
        way_out: &'static str,
    },
    /// No embedded model has this name.
    #[error("`{found}` is not in this program; built in: {}", known.join(", "))]
    UnknownBuiltin {
        /// The name asked for.
        found: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A file name that leads out of the model folder, as a hostile index could hold.
    #[error("`{name}` is refused: a file of the model folder `{folder}` is a name without a path")]
    UnsafeName {
        /// The folder.
        folder: String,
        /// The name.
        name: String,
    },
    /// A safetensors file that breaks its format.
    #[error("`{file}` is not a usable safetensors file: {problem}")]
    Header {
        /// The file.
        file: String,
        /// What is wrong.
        problem: Box<HeaderProblem>,
    },
    /// Shards that the index names but the folder lacks.
    #[error(
        "`{index}` names shards that are not there: {}. Copy them from where the model comes from",
        missing.join(", ")
    )]
    ShardsMissing {
        /// The index.
        index: String,
        /// The missing files' names.
        missing: Vec<String>,
    },
    /// The index places tensors in a file that does not hold them.
    #[error("`{index}` places `{tensor}` in `{shard}`, which does not hold it{}", and_more(*more))]
    NotInShard {
        /// The index.
        index: String,
        /// The first such tensor.
        tensor: String,
        /// The file that the index names.
        shard: String,
        /// How many tensors more are misplaced.
        more: usize,
    },
    /// Two files of one checkpoint hold the same tensor.
    #[error("tensor `{tensor}` is in both `{first}` and `{second}`: remove the stale file")]
    TwoShards {
        /// The tensor.
        tensor: String,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
    /// The tensors are not those of the model that config.json describes.
    #[error("the tensors of `{folder}` are not those of its {}:{}", says(folder), lines(problems))]
    Tensors {
        /// The folder.
        folder: String,
        /// Every difference.
        problems: Vec<TensorProblem>,
    },
    /// A bitsandbytes weight that cannot be read.
    #[error("`{file}`: quantised weight `{tensor}` cannot be read: {problem}")]
    Nf4 {
        /// The file.
        file: String,
        /// The weight.
        tensor: String,
        /// What is wrong.
        problem: Nf4Problem,
    },
    /// A tensor of a type that has no place where it was asked for.
    #[error("tensor `{tensor}` holds {found}, but must hold F32, F16 or BF16")]
    NotFloat {
        /// The tensor.
        tensor: String,
        /// The type it holds.
        found: safetensors::Dtype,
    },
    /// The process was asked to stop.
    #[error(transparent)]
    Stopped(#[from] crate::stop::Stopped),
    /// A place that is not free for something new.
    #[error(transparent)]
    Taken(#[from] graft_files::place::Refused),
    /// What is to be written is the base, or lies in it.
    #[error(
        "`{}` is or lies in the base's folder `{base}`, which is never written to: choose another \
         folder", path.display()
    )]
    InBase {
        /// The file or folder to write.
        path: PathBuf,
        /// The base.
        base: String,
    },
    /// A file cannot be laid out as asked.
    #[error("cannot write tensor `{tensor}`: {reason}")]
    Layout {
        /// The tensor.
        tensor: String,
        /// Why.
        reason: String,
    },
    /// A tensor that a checked checkpoint no longer has.
    #[error("tensor `{tensor}` is not in the checkpoint")]
    NoTensor {
        /// The tensor.
        tensor: String,
    },
    /// A stored weight whose bytes do not fit its shape.
    #[error("tensor `{tensor}`: {problem}")]
    Stored {
        /// The tensor.
        tensor: String,
        /// Found and expected sizes.
        problem: graft_kernels::frozen::SizeMismatch,
    },
    /// A weight that cannot be quantised.
    #[error("tensor `{tensor}` cannot be quantised to NF4: {problem}")]
    Quantise {
        /// The tensor.
        tensor: String,
        /// Why.
        problem: graft_kernels::nf4::Nf4Error,
    },
    /// A 4-bit weight with another code than NF4.
    #[error(
        "tensor `{tensor}`: entry {index} of its code is {found}, that of NF4 is {expected}; \
         other 4-bit codes are not supported"
    )]
    Code {
        /// The tensor.
        tensor: String,
        /// Which entry.
        index: usize,
        /// Its value.
        found: f32,
        /// That of NF4.
        expected: f32,
    },
}

impl Error {
    /// What kept the file `path` from being read.
    pub(crate) fn unreadable(path: &Path, why: Unreadable) -> Self {
        let path = path.to_path_buf();
        match why {
            Unreadable::System(source) => Self::Io { action: "read", path, source },
            Unreadable::NotPlain(found) => Self::NotPlain { path, found },
            Unreadable::TooLarge { found, limit } => Self::TooLarge { path, found, limit },
        }
    }

    /// A folder that is missing gets the name of the release that it should hold, where its own name or the
    /// recipe's `preset` tells; any other error stays as it is.
    #[must_use]
    pub fn of_preset(self, preset: Option<&str>) -> Self {
        match self {
            Self::FolderMissing { path, release: None } => {
                // A folder's own name says more: whether the release was tuned.
                let release = crate::releases::of_folder(&path);
                let release = release.or_else(|| crate::releases::of_preset(preset?));
                Self::FolderMissing { path, release }
            }
            other => other,
        }
    }
}

/// What describes the tensors of a model: its folder's config.json, or the keys of its GGUF file.
fn says(model: &str) -> &'static str {
    let is_gguf =
        std::path::Path::new(model).extension().is_some_and(|it| it.eq_ignore_ascii_case("gguf"));
    if is_gguf { "keys" } else { "config.json" }
}

/// One indented line an item; a list that no one would read to its end is cut.
fn lines<T: std::fmt::Display>(items: &[T]) -> String {
    const SHOWN: usize = 40;
    let mut text = String::new();
    for item in items.iter().take(SHOWN) {
        let _ = write!(text, "\n  {item}");
    }
    if items.len() > SHOWN {
        let _ = write!(text, "\n  … and {} more", items.len() - SHOWN);
    }
    text
}

fn and_more(count: usize) -> String {
    if count == 0 { String::new() } else { format!(" (and {count} more like it)") }
}
