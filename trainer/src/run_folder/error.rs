//! What can be wrong with a run's folder, with the way out.

use std::io;
use std::path::{Path, PathBuf};

use graft_files::disk;

use super::contract::{Change, Refusal};
use super::manifest;
use super::{MANIFEST, seal};

/// What can go wrong with a run folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder of a new run holds another one.
    #[error("`{}` already holds a run: {found}{}", path.display(), ways_out(path, *resumable))]
    AnotherRun {
        /// The folder.
        path: PathBuf,
        /// What lies in it.
        found: String,
        /// Whether `--resume` can go on with it.
        resumable: bool,
    },
    /// A file stands where the folder of a run should be.
    #[error("`{}` is a file, but a run needs a folder: choose another `output_dir=…`", path.display())]
    NotAFolder {
        /// The file.
        path: PathBuf,
    },
    /// The folder holds no run to go on with.
    #[error("`{}` holds no run to go on with: leave out `--resume` to start one", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// Another process is writing to the folder.
    #[error(
        "another process is training in `{}`: wait for it, or choose another folder with `output_dir=…`",
        path.display()
    )]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The run's folder went from its place while the run wrote to it.
    #[error(
        "`{}` was moved away or replaced while the run was on: nothing more is written there. Where it was \
         moved, go on with it by `--resume output_dir=…`: its last checkpoint is whole",
        path.display()
    )]
    Moved {
        /// Where it was.
        path: PathBuf,
    },
    /// Parts of a run without its manifest.
    #[error(
        "`{}` holds {parts} of a run, but not its `{MANIFEST}`, without which nobody can say what it is \
         of: put that file back, or start a new run in another folder with `output_dir=…`",
        path.display()
    )]
    NoManifest {
        /// The folder.
        path: PathBuf,
        /// What lies in it.
        parts: String,
    },
    /// A run cannot go on because it would be another one.
    #[error(
        "the run in `{}` cannot go on, it would be another one:{}\n  restore what has changed, or start \
         a new run in another folder with `output_dir=…`",
        path.display(), listed(refusals)
    )]
    Changed {
        /// The folder.
        path: PathBuf,
        /// What is not as it was.
        refusals: Vec<Refusal>,
    },
    /// The manifest cannot be believed.
    #[error(
        "`{}` cannot be used: {damage}\n  put the file back from a copy, or start a new run in another \
         folder with `output_dir=…`",
        path.display()
    )]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: seal::Damage,
    },
    /// The manifest is of another version of this program.
    #[error(
        "`{}` has {}, this Graft goes on with runs of format {}: go on with the Graft{program} that wrote \
         it, or start a new run in another folder with `output_dir=…`",
        path.display(),
        format.map_or("no format".to_owned(), |format| format!("format {format}")),
        manifest::FORMAT
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: Option<u64>,
        /// The version of the program that wrote it, behind a space.
        program: String,
    },
    /// The recipe in the manifest is not one that this program reads.
    #[error(
        "the recipe in `{}` is of another Graft:\n{problems}\n  go on with the Graft that wrote it",
        path.display()
    )]
    Recipe {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with the recipe.
        problems: Box<graft_recipes::Problems>,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`: {source}{}", path.display(), disk::way_out(source))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Something stands where the run would put what it makes, and the run did not make it.
    #[error(
        "`{}` was not made by this run and is not replaced: move it away, or train in another folder \
         with `output_dir=…`", path.display()
    )]
    NotOwn {
        /// The file or folder.
        path: PathBuf,
    },
    /// Something that is not the run's cannot be moved from where the run makes its own.
    #[error(
        "`{}` is not of this run, and cannot be moved out of the way of what is made there: {source}. Move it \
         elsewhere, then go on with `--resume`", path.display()
    )]
    Move {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file cannot be replaced; the message names it.
    #[error(transparent)]
    Replace(#[from] io::Error),
}

/// The result of a run folder's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether what the user asked for is wrong (exit code 2), rather than the machine (exit code 1).
    pub fn is_wrong_input(&self) -> bool {
        match self {
            Self::AnotherRun { .. }
            | Self::NotAFolder { .. }
            | Self::NoRun { .. }
            | Self::Busy { .. }
            | Self::NoManifest { .. }
            | Self::Changed { .. }
            | Self::NotOwn { .. }
            | Self::Manifest { .. }
            | Self::Foreign { .. }
            | Self::Recipe { .. } => true,
            // It is no plain file, or too large: somebody put it there.
            Self::Read { source, .. } => source.kind() == io::ErrorKind::InvalidData,
            Self::Write { source, .. } | Self::Replace(source) => {
                source.kind() == io::ErrorKind::InvalidFilename
            }
            Self::Move { .. } | Self::Moved { .. } => false,
        }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }
}

fn ways_out(path: &Path, resumable: bool) -> String {
    let resume = if resumable { "\n  to go on with it: add `--resume`" } else { "" };
    let free = (2..u32::MAX)
        .map(|count| format!("{}-{count}", path.display()))
        .find(|free| !Path::new(free).exists())
        .expect("a folder has fewer than 2^32 neighbours");
    format!("{resume}\n  to keep it and train anew: choose another folder, `output_dir={free}`")
}

fn listed(refusals: &[Refusal]) -> String {
    let line = |Refusal { change: Change { what, from, to }, way }: &Refusal| {
        let way = way.as_ref().map_or_else(String::new, |way| format!("\n    {way}"));
        format!("\n  {what}: was {from}, is now {to}{way}")
    };
    refusals.iter().map(line).collect()
}
