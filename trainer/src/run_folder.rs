//! What a run leaves behind: `recipe.yaml`, `manifest.json`, `metrics.jsonl`, `tensorboard/`,
//! `checkpoints/step-000100/`, `adapter/`, `report.html`.
//!
//! A folder belongs to one run, and one process at a time writes to it. A killed run leaves a folder
//! that can be gone on with: `manifest.json` appears first when everything before it is in place, and
//! whatever is replaced later is replaced whole.

pub mod checkpoints;
pub mod contract;
mod going_on;
mod hashes;
mod kept;
mod made;
pub mod manifest;
pub mod metrics;
pub(crate) mod plain;
pub mod seal;
pub mod tensorboard;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use graft_files::{atomic, disk};

use crate::last_words::{self, End};
use checkpoints::Checkpoints;
use contract::{Change, Refusal};
pub use made::Content;
use manifest::{Manifest, Status};

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
    Replace(io::Error),
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
            Self::Move { .. } => false,
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

/// A run's folder, locked for this process until dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    manifest: Manifest,
    goes_on: bool,
    _lock: Option<File>,
}

const RECIPE: &str = "recipe.yaml";
const MANIFEST: &str = "manifest.json";
/// What a folder with a run in it has, the recipe aside.
const PARTS: [&str; 4] = [MANIFEST, "metrics.jsonl", "tensorboard", "checkpoints"];
/// What a run makes of its steps, and may make again.
const RESULTS: [&str; 6] = [ADAPTER, MODEL, MERGED, BEFORE, AFTER, REPORT];
/// The adapter.
pub const ADAPTER: &str = "adapter";
/// The model of full training.
pub const MODEL: &str = "model";
/// The merged model.
pub const MERGED: &str = "merged";
/// The base's scores.
pub const BEFORE: &str = "before.json";
/// The result's scores.
pub const AFTER: &str = "after.json";
/// The report.
pub const REPORT: &str = "report.html";

impl RunFolder {
    /// Begins a run in `path`, which may hold other files but no run and no recipe of another one.
    /// A recipe equal to `recipe_yaml` is what a run killed in this very function leaves.
    pub fn create(path: &Path, recipe_yaml: &str, manifest: Manifest) -> Result<Self> {
        refuse_another_run(path, recipe_yaml)?;
        fs::create_dir_all(path).map_err(|source| Error::write(path, source))?;
        let lock = lock(path)?;
        // A process that came first may have begun between the look above and the lock.
        refuse_another_run(path, recipe_yaml)?;
        let mut run = Self { path: path.to_owned(), manifest, goes_on: false, _lock: lock };
        atomic::write_bytes(run.recipe_path(), recipe_yaml.as_bytes()).map_err(Error::Replace)?;
        if let Err(error) = run.record() {
            // What is in its place, though not surely on the disk, says that a run goes on.
            if run.manifest_path().exists() {
                let _ = run.end(Status::Failed { reason: error.to_string() });
            }
            return Err(error);
        }
        Ok(run)
    }

    /// Refuses a folder that [`RunFolder::create`] would refuse; nothing is created.
    pub fn check_free(path: &Path, recipe_yaml: &str) -> Result<()> {
        refuse_another_run(path, recipe_yaml)
    }

    /// Refuses a folder that holds no run to go on with.
    pub fn check_resumable(path: &Path) -> Result<()> {
        if Self::holds_run(path) {
            return Ok(());
        }
        let manifest = path.join(MANIFEST);
        if manifest.symlink_metadata().is_ok() {
            // What it is in place of a file.
            Manifest::read(&manifest)?;
        }
        let path = path.to_owned();
        match parts_in(&path) {
            parts if parts.is_empty() => Err(Error::NoRun { path }),
            parts => Err(Error::NoManifest { path, parts: format!("`{}`", parts.join("`, `")) }),
        }
    }

    /// Refuses a run to go on with where something that it would make was put by somebody else.
    pub fn check_own(path: &Path, results: &[&str]) -> Result<()> {
        let manifest = Self::read_manifest(path)?;
        let foreign = |name: &&&str| {
            let found = path.join(name).symlink_metadata();
            found.is_ok_and(|found| found.is_symlink() || !manifest.made.contains_key(**name))
        };
        match results.iter().find(foreign) {
            None => Ok(()),
            Some(name) => Err(Error::NotOwn { path: path.join(name) }),
        }
    }

    /// Opens the folder of a run to go on with; nothing is changed yet.
    pub fn open_for_resume(path: &Path) -> Result<Self> {
        Self::check_resumable(path)?;
        let lock = lock(path)?;
        let manifest = Manifest::read(&path.join(MANIFEST))?;
        Ok(Self { path: path.to_owned(), manifest, goes_on: true, _lock: lock })
    }

    /// The manifest of the run in `path`, without claiming the folder.
    pub fn read_manifest(path: &Path) -> Result<Manifest> {
        Manifest::read(&path.join(MANIFEST))
    }

    /// The checkpoints of the run in `path`, which has this manifest, without claiming the folder.
    pub fn checkpoints_of(path: &Path, manifest: &Manifest) -> Checkpoints {
        Checkpoints::new(path.join("checkpoints"), manifest.checkpoints.clone())
    }

    /// Whether `path` holds a run that `open_for_resume` opens.
    pub fn holds_run(path: &Path) -> bool {
        path.join(MANIFEST).is_file()
    }

    /// Whether the run began before it was opened here.
    pub fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// Records how the run ended.
    pub fn end(&mut self, status: Status) -> Result<()> {
        self.manifest.end(status);
        self.record()
    }

    /// The manifest of a run that ends so now; it is not recorded.
    pub fn ending(&self, status: &Status) -> Manifest {
        let mut manifest = self.manifest.clone();
        manifest.end(status.clone());
        manifest
    }

    /// Writes the manifest, and makes ready what it says if the process ends on the spot.
    fn record(&self) -> Result<()> {
        let path = self.manifest_path();
        if self.manifest.status == Status::Running {
            last_words::prepare(
                &path,
                End::ALL.map(|end| self.ending(&on_the_spot(end)).to_text()),
            );
        } else {
            last_words::forget(&path);
        }
        self.manifest.write(&path)
    }

    /// The manifest as last written.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The recipe that the run began with.
    pub fn recipe(&self) -> Result<String> {
        let path = self.recipe_path();
        let text = plain::read(&path).and_then(|text| {
            String::from_utf8(text)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        });
        text.map_err(|source| Error::Read { path, source })
    }

    /// The checkpoints of the run.
    pub fn checkpoints(&self) -> Checkpoints {
        Self::checkpoints_of(&self.path, &self.manifest)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `recipe.yaml`.
    pub fn recipe_path(&self) -> PathBuf {
        self.path.join(RECIPE)
    }

    /// `manifest.json`.
    pub fn manifest_path(&self) -> PathBuf {
        self.path.join(MANIFEST)
    }

    /// `metrics.jsonl`.
    pub fn metrics_path(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// `tensorboard/`.
    pub fn tensorboard_path(&self) -> PathBuf {
        self.path.join("tensorboard")
    }
}

/// How a run ended that ended on the spot.
fn on_the_spot(end: End) -> Status {
    match end {
        End::LostPage => Status::Failed {
            reason:
                "a file of the base cannot be read any more: it was cut short, or its disk failed"
                    .to_owned(),
        },
        End::AtOnce => Status::Stopped { reason: "ended at once, asked to stop twice".to_owned() },
        End::NoMemory => Status::Failed { reason: "the system gave no more memory".to_owned() },
    }
}

/// The parts of a run that `path` has, the recipe aside.
fn parts_in(path: &Path) -> Vec<&'static str> {
    let all = PARTS.into_iter().chain(RESULTS);
    all.filter(|part| path.join(part).symlink_metadata().is_ok()).collect()
}

fn refuse_another_run(path: &Path, recipe_yaml: &str) -> Result<()> {
    if path.exists() && !path.is_dir() {
        return Err(Error::NotAFolder { path: path.to_owned() });
    }
    let parts = parts_in(path);
    let recipe = plain::read(&path.join(RECIPE)).ok();
    let foreign_recipe = recipe.is_some_and(|recipe| recipe != recipe_yaml.as_bytes());
    if parts.is_empty() && !foreign_recipe {
        return Ok(());
    }
    let found = match Manifest::read(&path.join(MANIFEST)) {
        Ok(manifest) => described(path, &manifest)?,
        Err(_) if parts.is_empty() => format!("`{RECIPE}`, another one than this run's"),
        Err(_) => format!("`{}`, but no readable `{MANIFEST}`", parts.join("`, `")),
    };
    let resumable = Manifest::read(&path.join(MANIFEST))
        .is_ok_and(|manifest| manifest.status != Status::Finished && RunFolder::holds_run(path));
    Err(Error::AnotherRun { path: path.to_owned(), found, resumable })
}

fn described(path: &Path, manifest: &Manifest) -> Result<String> {
    let status = match &manifest.status {
        Status::Running => "not ended".to_owned(),
        Status::Finished => "finished".to_owned(),
        Status::Stopped { reason } => format!("stopped ({reason})"),
        Status::Failed { reason } => format!("failed ({reason})"),
    };
    let reached = match RunFolder::checkpoints_of(path, manifest).latest()? {
        Some(checkpoint) => format!("checkpoints up to step {}", checkpoint.step),
        None => "no checkpoint".to_owned(),
    };
    let Manifest { started, inputs, .. } = manifest;
    Ok(format!("`{}`, begun {started}, {status}, {reached}", inputs.run))
}

/// Locks the folder itself, so that no lock file stays behind. Systems that cannot lock a folder go
/// without: the lock guards against a mistake, the files are whole either way.
fn lock(path: &Path) -> Result<Option<File>> {
    let Ok(folder) = File::open(path) else { return Ok(None) };
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Err(Error::Busy { path: path.to_owned() }),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

#[cfg(test)]
#[path = "run_folder/tests.rs"]
mod tests;
