//! `checkpoints/step-000100/`: which there are, which is the newest, and which may go.
//!
//! A checkpoint appears under its name only when it is whole, and leaves it before its first file goes.
//! Everything else in the folder, unfinished checkpoints and what people put there, is left alone, and what
//! they put into a checkpoint stays when that goes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::kept::{self, Own};
use super::manifest::FileHash;
use super::{Error, Result, plain, seal};

/// A whole checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Checkpoint {
    /// Optimizer steps taken before it was written.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
}

/// The `checkpoints/` of a run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
}

const REMOVED: &str = ".removed-";
/// What says how far a checkpoint came: without it a folder is none.
pub const STATE: &str = "state.json";
/// The trained values.
pub const WEIGHTS: &str = "trainable.safetensors";
/// The optimizer's states.
pub const OPTIMIZER: &str = "optimizer.safetensors";

/// Of larger files the length alone tells whether they were changed: a checkpoint goes every few minutes.
const COMPARED: u64 = 256 << 20;
/// The files of an adapter in PEFT's form, by their paths in a checkpoint: older ones have no hashes of them.
pub const ADAPTER_FILES: [&str; 2] =
    ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"];

/// What a checkpoint has.
struct OfCheckpoint {
    path: PathBuf,
    /// Its files as they were written; none where nothing tells that any more: then all are somebody's.
    written: Option<Written>,
}

/// What of [`STATE`] says how the others were written.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    files: BTreeMap<String, FileHash>,
}

impl OfCheckpoint {
    fn at(path: &Path) -> Self {
        let state = plain::read(&path.join(STATE)).ok();
        let written = state.and_then(|text| seal::opened(&text).ok());
        Self { path: path.to_owned(), written }
    }
}

impl Own for OfCheckpoint {
    fn is_file(&self, file: &Path) -> bool {
        let Some(name) = file.to_str() else { return false };
        let Some(Written { files }) = &self.written else { return false };
        match files.get(name) {
            Some(written) => kept::is_still(&self.path.join(file), written, COMPARED),
            None => [STATE, WEIGHTS, OPTIMIZER].contains(&name) || ADAPTER_FILES.contains(&name),
        }
    }

    fn is_folder(&self, folder: &Path) -> bool {
        folder == Path::new(super::ADAPTER)
    }
}

impl Checkpoints {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the checkpoint of `step` belongs. Nothing is created.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(name(step))
    }

    /// All whole checkpoints, oldest step first; none when there is no folder yet.
    pub fn list(&self) -> Result<Vec<Checkpoint>> {
        let read = |source| Error::Read { path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(read(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(read)?;
            let path = entry.path();
            if let Some(step) = entry.file_name().to_str().and_then(step)
                && entry.file_type().map_err(read)?.is_dir()
            {
                found.push(Checkpoint { step, path });
            }
        }
        found.sort();
        Ok(found)
    }

    /// The newest whole checkpoint.
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        Ok(self.list()?.pop())
    }

    /// Makes room for the checkpoint of `step`: what somebody put where it belongs is kept.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn make_room(&self, step: u64) -> Result<PathBuf> {
        let path = self.path(step);
        if path.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
            set_aside(&path)?;
        }
        kept::set_aside(&path, &kept::beside(&path), &OfCheckpoint::at(&path))?;
        Ok(path)
    }

    /// Removes all but the `keep` newest and returns what went, oldest first. What is no checkpoint stays, also
    /// one whose state was changed, and what somebody put into one is kept beside it.
    pub fn prune(&self, keep: NonZeroUsize) -> Result<Vec<Checkpoint>> {
        self.sweep()?;
        let with_state =
            self.list()?.into_iter().map(|found| (OfCheckpoint::at(&found.path), found));
        let mut all: Vec<_> = with_state.filter(|(own, _)| own.written.is_some()).collect();
        all.truncate(all.len().saturating_sub(keep.get()));
        for (own, old) in &all {
            let aside = self.folder.join(format!("{REMOVED}{}", name(old.step)));
            kept::set_aside(&old.path, &kept::beside(&old.path), own)?;
            fs::rename(&old.path, &aside).map_err(|source| Error::write(&old.path, source))?;
            remove(&aside)?;
        }
        Ok(all.into_iter().map(|(_, old)| old).collect())
    }

    /// Finishes removals that a kill cut short.
    fn sweep(&self) -> Result<()> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Ok(()) };
        for entry in entries.flatten() {
            let file_name = entry.file_name();
            let removed = file_name.to_str().and_then(|name| name.strip_prefix(REMOVED));
            if removed.and_then(step).is_some() {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Renames a damaged file or folder of the run to `damaged-…`, beside where it was: it is kept, and a
/// checkpoint counts no longer. Gives its new name.
pub fn set_aside(path: &Path) -> Result<String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = kept::free(path.with_file_name(format!("damaged-{name}")));
    fs::rename(path, &aside).map_err(|source| Error::write(path, source))?;
    Ok(aside.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// The name of the checkpoint of a step.
pub fn name(step: u64) -> String {
    format!("step-{step:06}")
}

/// The step of a name that [`name`] gives, and of no other: `step-100` or `step-000100-copy` are not ours.
fn step(found: &str) -> Option<u64> {
    let step = found.strip_prefix("step-")?.parse().ok()?;
    (name(step) == found).then_some(step)
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_dir_all(path).map_err(|source| Error::write(path, source))
}

#[cfg(test)]
mod tests {
    use graft_files::atomic;

    use super::*;

    /// A state that says how these files were written.
    fn state(files: &[(&str, &[u8])]) -> Vec<u8> {
        let files: BTreeMap<_, _> =
            files.iter().map(|&(name, content)| (name, FileHash::of(content))).collect();
        seal::sealed(&BTreeMap::from([("files", files)]))
    }

    fn with(names: &[&str]) -> (tempfile::TempDir, Checkpoints) {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir_all(root.path().join(name)).unwrap();
            atomic::write_bytes(root.path().join(name).join(STATE), &state(&[])).unwrap();
        }
        let checkpoints = Checkpoints::new(root.path().to_owned());
        (root, checkpoints)
    }

    fn steps(checkpoints: &Checkpoints) -> Vec<u64> {
        checkpoints.list().unwrap().iter().map(|checkpoint| checkpoint.step).collect()
    }

    const OTHERS: [&str; 5] =
        [".step-000400.tmp-17-0", "step-000300-mine", "step-99", "step-+00001", "notes"];

    #[test]
    fn only_whole_checkpoints_count_in_order_of_steps() {
        let (_root, checkpoints) =
            with(&[&OTHERS[..], &["step-1000000", "step-000200", "step-000100"]].concat());
        assert_eq!(steps(&checkpoints), [100, 200, 1_000_000]);
        let latest = checkpoints.latest().unwrap().unwrap();
        assert_eq!(latest.path, checkpoints.path(1_000_000));
    }

    #[test]
    fn a_folder_that_is_not_there_holds_none() {
        let checkpoints = Checkpoints::new(PathBuf::from("no/such/folder"));
        assert_eq!(checkpoints.latest().unwrap(), None);
        assert!(checkpoints.prune(NonZeroUsize::MIN).unwrap().is_empty());
    }

    #[test]
    fn pruning_keeps_the_newest_and_what_is_not_ours() {
        let (root, checkpoints) = with(&[&OTHERS[..], &["step-000100", "step-000200"]].concat());
        let write = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            atomic::write_bytes(path, b"mine").unwrap();
        };
        for mine in ["step-000100/adapter/README.md", "step-000100/a/b", "step-000150/mine"] {
            write(mine);
        }
        // It says how its files were written, and one of them is no longer so.
        let written = state(&[("adapter/adapter_config.json", b"another")]);
        atomic::write_bytes(root.path().join("step-000100").join(STATE), &written).unwrap();
        write("step-000100/adapter/adapter_config.json");
        fs::create_dir(root.path().join("step-000300")).unwrap();
        atomic::write_bytes(root.path().join("step-000300").join(STATE), &state(&[])).unwrap();
        write("step-000300/optimizer.safetensors");
        let gone = checkpoints.prune(NonZeroUsize::new(2).unwrap()).unwrap();
        assert_eq!(gone.iter().map(|old| old.step).collect::<Vec<_>>(), [100]);
        // That of 150 was never a checkpoint.
        assert_eq!(steps(&checkpoints), [150, 200, 300]);
        let kept = [
            "kept-step-000100/adapter/README.md",
            "kept-step-000100/adapter/adapter_config.json",
            "kept-step-000100/a/b",
            "step-000150/mine",
        ];
        assert!(kept.iter().all(|mine| root.path().join(mine).is_file()));
        // Where the state was changed, nothing tells what is the run's: all of it stays. A link is nobody's.
        let (other, touched) = with(&["step-000100", "step-000200", "step-000300"]);
        for name in ["step-000100/state.json", "step-000100/adapter/adapter_config.json"] {
            fs::create_dir_all(other.path().join(name).parent().unwrap()).unwrap();
            atomic::write_bytes(other.path().join(name), b"mine").unwrap();
        }
        let elsewhere = tempfile::tempdir().unwrap();
        fs::rename(other.path().join("step-000200"), elsewhere.path().join("c")).unwrap();
        let link = other.path().join("step-000200");
        std::os::unix::fs::symlink(elsewhere.path().join("c"), &link).unwrap();
        assert!(touched.prune(NonZeroUsize::MIN).unwrap().is_empty());
        assert!(other.path().join("step-000100/adapter/adapter_config.json").is_file());
        assert!(link.is_symlink() && elsewhere.path().join("c").join(STATE).is_file());
        // Whoever takes a place that a checkpoint needs is kept beside it.
        write("step-000400/mine");
        assert!(!checkpoints.make_room(400).unwrap().join("mine").exists());
        assert!(root.path().join("kept-step-000400/mine").is_file());
        assert!(OTHERS.iter().all(|other| root.path().join(other).is_dir()));
        assert!(checkpoints.prune(NonZeroUsize::new(2).unwrap()).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_checkpoint_is_set_aside_and_kept() {
        let (root, checkpoints) = with(&["step-000100", "step-000200", "damaged-step-000200"]);
        let damaged = checkpoints.latest().unwrap().unwrap();
        let aside = root.path().join(set_aside(&damaged.path).unwrap());
        assert_eq!(aside, root.path().join("damaged-step-000200-2"));
        assert_eq!(steps(&checkpoints), [100]);
        checkpoints.prune(NonZeroUsize::MIN).unwrap();
        assert!(aside.join(STATE).is_file() && root.path().join("damaged-step-000200").is_dir());
    }

    #[test]
    fn a_removal_cut_short_is_no_checkpoint_and_is_finished_later() {
        let (root, checkpoints) = with(&[".removed-step-000100", "step-000200"]);
        assert_eq!(steps(&checkpoints), [200]);
        checkpoints.prune(NonZeroUsize::MIN).unwrap();
        assert!(!root.path().join(".removed-step-000100").exists());
        assert_eq!(steps(&checkpoints), [200]);
    }
}
