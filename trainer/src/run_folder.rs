//! What a run leaves behind: `recipe.yaml`, `manifest.json`, `metrics.jsonl`, `tensorboard/`,
//! `checkpoints/step-000100/`, `adapter/`, `report.html`.
//!
//! A folder belongs to one run, and one process at a time writes to it. A killed run leaves a folder
//! that can be gone on with: `manifest.json` appears first when everything before it is in place, and
//! whatever is replaced later is replaced whole.

pub mod checkpoints;
pub mod contract;
mod error;
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
use std::path::{Path, PathBuf};

use graft_files::atomic;

use crate::last_words::{self, End};
use crate::progress::warn;
use checkpoints::Checkpoints;
pub use error::{Error, Result};
pub use made::Content;
use manifest::{FileHash, Manifest, Status, hash_file};

/// A run's folder, locked for this process until dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    manifest: Manifest,
    goes_on: bool,
    /// Locked, where the system can.
    open: Option<File>,
    /// The manifest as it was last written here.
    recorded: Option<FileHash>,
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
        let path = path.to_owned();
        let mut run = Self { path, manifest, goes_on: false, open: lock, recorded: None };
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
        let file = path.join(MANIFEST);
        let (manifest, recorded) = (Manifest::read(&file)?, hash_file(&file, |_| ())?);
        let (path, recorded) = (path.to_owned(), Some(recorded));
        Ok(Self { path, manifest, goes_on: true, open: lock, recorded })
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
    fn record(&mut self) -> Result<()> {
        self.check_place()?;
        let path = self.manifest_path();
        if self.manifest.status == Status::Running {
            last_words::prepare(
                &path,
                End::ALL.map(|end| self.ending(&on_the_spot(end)).to_text()),
            );
        } else {
            last_words::forget(&path);
        }
        let text = self.manifest.to_text();
        let written = FileHash::of(&text);
        let own: Vec<FileHash> = self.recorded.iter().chain([&written]).cloned().collect();
        atomic::exchange_bytes(&path, &text, None, |old| {
            if let Some(aside) = made::keep_unless(&own, old, &path)? {
                warn(&format!(
                    "`{}` was not as the run wrote it; what it was is kept as `{aside}`",
                    path.display()
                ));
            }
            Ok::<_, Error>(())
        })?;
        self.recorded = Some(written);
        Ok(())
    }

    /// Refuses to write where the folder was moved away, and what is there now is somebody else's.
    pub fn check_place(&self) -> Result<()> {
        let is_here = self.open.as_ref().is_none_or(|open| atomic::is_at(open, &self.path));
        is_here.then_some(()).ok_or_else(|| Error::Moved { path: self.path.clone() })
    }

    /// The manifest as last written.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
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
