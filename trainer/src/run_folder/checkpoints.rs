//! `checkpoints/step-000100/`: which there are, which is the newest, and which may go.
//!
//! A checkpoint appears under its name only when it is whole, and leaves it before its first file goes.
//! Everything else in the folder, unfinished checkpoints and what people put there, is left alone, and what
//! they put into a checkpoint stays when that goes.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use graft_files::atomic;
use graft_files::sha256::sha256_hex;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::kept::{self, Looks, Own};
use super::manifest::FileHash;
use super::{Error, Result, plain, seal};

/// A whole checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Checkpoint {
    /// Optimizer steps taken before it was written.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
    /// SHA-256 of the [`STATE`] that the run wrote there; `None` in runs that did not record it.
    pub written: Option<String>,
}

impl Checkpoint {
    /// The content of its [`STATE`].
    ///
    /// # Errors
    /// It cannot be read, is not as it was written, or is of another step, as a sentence.
    pub fn state<T: DeserializeOwned>(&self) -> Result<T, String> {
        /// What every state says.
        #[derive(Deserialize)]
        struct OfStep {
            step: u64,
        }
        let text = plain::read(&self.path.join(STATE)).map_err(|error| error.to_string())?;
        let OfStep { step } = seal::opened(&text).map_err(|damage| damage.to_string())?;
        if self.written.as_ref().is_some_and(|written| *written != sha256_hex(&text)) {
            return Err("it is not the one that this run wrote".to_owned());
        }
        if step != self.step || step == 0 {
            return Err(format!("it is of step {step}, its folder of step {}", self.step));
        }
        seal::opened(&text).map_err(|damage| damage.to_string())
    }
}

/// The `checkpoints/` of a run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
    /// Name of each that the run made, to the SHA-256 of its [`STATE`]; `None` where that was not recorded.
    made: Option<BTreeMap<String, String>>,
}

/// What went, or had its place taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone {
    /// Its name.
    pub name: String,
    /// Where that is kept which in it was not the run's, or not as the run wrote it, beside it.
    pub kept: Option<String>,
}

impl Gone {
    /// What is said of it, where somebody has something there.
    pub fn sentence(&self) -> Option<String> {
        let Self { name, kept } = self;
        let kept = kept.as_ref()?;
        Some(format!(
            "what was not of this run in `checkpoints/{name}`, or was changed there, is kept as \
             `checkpoints/{kept}`: the run no longer keeps that checkpoint"
        ))
    }
}

const REMOVED: &str = ".removed-";
/// What says how far a checkpoint came: without it a folder is none.
pub const STATE: &str = "state.json";
/// The trained values.
pub const WEIGHTS: &str = "trainable.safetensors";
/// The optimizer's states.
pub const OPTIMIZER: &str = "optimizer.safetensors";

/// The files of an adapter in PEFT's form, by their paths in a checkpoint: older ones have no hashes of them.
pub const ADAPTER_FILES: [&str; 2] =
    ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"];

/// What a checkpoint has.
struct OfCheckpoint {
    path: PathBuf,
    /// Its files as they were written; none where nothing tells that any more: then all are somebody's.
    written: Option<Written>,
    /// When its state was, behind all others.
    stated: Option<Metadata>,
    looks: Looks,
}

/// What of [`STATE`] says how the others were written.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    files: BTreeMap<String, FileHash>,
}

impl OfCheckpoint {
    fn of(checkpoint: &Checkpoint) -> Self {
        let stated = checkpoint.path.join(STATE).symlink_metadata().ok();
        let (path, written) = (checkpoint.path.clone(), checkpoint.state().ok());
        Self { path, written, stated, looks: Looks::default() }
    }
}

impl Own for OfCheckpoint {
    fn is_file(&self, file: &Path) -> bool {
        let Some(name) = file.to_str() else { return false };
        let Some(Written { files }) = &self.written else { return false };
        match files.get(name) {
            Some(written) => {
                self.looks.is_still(&self.path.join(file), written, self.stated.as_ref())
            }
            None => [STATE, WEIGHTS, OPTIMIZER].contains(&name) || ADAPTER_FILES.contains(&name),
        }
    }

    fn is_folder(&self, folder: &Path) -> bool {
        folder == Path::new(super::ADAPTER)
    }
}

impl Checkpoints {
    pub(super) fn new(folder: PathBuf, made: Option<BTreeMap<String, String>>) -> Self {
        Self { folder, made }
    }

    /// Where the checkpoint of `step` belongs. Nothing is created.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(name(step))
    }

    /// That of `step` at `path`, if the run made one.
    fn of_run(&self, step: u64, path: PathBuf) -> Option<Checkpoint> {
        let written = match &self.made {
            None => None,
            Some(made) => Some(made.get(&name(step))?.clone()),
        };
        Some(Checkpoint { step, path, written })
    }

    /// All checkpoints in places of those that the run made, oldest step first; none when there is no folder
    /// yet. Of one of them only [`Checkpoint::state`] tells whether it is the run's.
    pub fn list(&self) -> Result<Vec<Checkpoint>> {
        let mut found = self.named(step)?;
        found.sort();
        Ok(found)
    }

    /// Folders of the run's checkpoints, whose names say of which step they are.
    fn named(&self, step: impl Fn(&str) -> Option<u64>) -> Result<Vec<Checkpoint>> {
        let read = |source| Error::Read { path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(read(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(read)?;
            if let Some(step) = entry.file_name().to_str().and_then(&step)
                && entry.file_type().map_err(read)?.is_dir()
            {
                found.extend(self.of_run(step, entry.path()));
            }
        }
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
    pub fn make_room(&self, step: u64) -> Result<(PathBuf, Option<Gone>)> {
        let path = self.path(step);
        match path.symlink_metadata() {
            Err(_) => Ok((path, None)),
            Ok(found) if !found.is_dir() => {
                let (name, kept) = (name(step), Some(set_aside(&path)?));
                Ok((path, Some(Gone { name, kept })))
            }
            Ok(_) => {
                let gone = self.remove(step, &path)?;
                Ok((path, Some(gone)))
            }
        }
    }

    /// Removes all but the `keep` newest and returns what went, oldest first. What is no checkpoint of the run
    /// stays, also one whose state was changed, and what somebody put into one is kept beside it.
    pub fn prune(&self, keep: NonZeroUsize) -> Result<Vec<Gone>> {
        // Of checkpoints that were never whole.
        atomic::remove_leftovers_in(&self.folder);
        let mut gone = self.finish_removals()?;
        let mut all = self.list()?;
        all.retain(|found| OfCheckpoint::of(found).written.is_some());
        all.truncate(all.len().saturating_sub(keep.get()));
        for old in &all {
            gone.push(self.remove(old.step, &old.path)?);
        }
        Ok(gone)
    }

    /// Removes what a kill let stand of a checkpoint that was being removed.
    fn finish_removals(&self) -> Result<Vec<Gone>> {
        let left = self.named(|name| name.strip_prefix(REMOVED).and_then(step))?;
        let own = left.iter().filter(|left| OfCheckpoint::of(left).written.is_some());
        own.map(|left| self.retire(left)).collect()
    }

    /// Removes what is the run's of the checkpoint of `step` at `path`, which loses its name first.
    fn remove(&self, step: u64, path: &Path) -> Result<Gone> {
        let aside = kept::free(self.folder.join(format!("{REMOVED}{}", name(step))));
        fs::rename(path, &aside).map_err(|source| Error::write(path, source))?;
        let nobodys = Checkpoint { step, path: aside.clone(), written: Some(String::new()) };
        self.retire(&self.of_run(step, aside).unwrap_or(nobodys))
    }

    /// Removes what is the run's of a checkpoint that has lost its name. Its state goes last: as long as
    /// anything is there, it tells whose.
    fn retire(&self, aside: &Checkpoint) -> Result<Gone> {
        let name = name(aside.step);
        let beside = kept::beside(&self.folder.join(&name));
        let own = OfCheckpoint::of(aside);
        let mut is_kept = kept::set_aside(&aside.path, &beside, &own)?;
        kept::remove_own(&aside.path, &own, &|file| file == Path::new(STATE))?;
        if fs::remove_dir(&aside.path).is_err() {
            // Of somebody who came meanwhile.
            is_kept |= kept::set_aside(&aside.path, &beside, &kept::Nobody)?;
            fs::remove_dir(&aside.path).map_err(|source| Error::write(&aside.path, source))?;
        }
        let kept = is_kept.then(|| kept::name_of(&beside));
        Ok(Gone { name, kept })
    }
}

/// Renames a damaged file or folder of the run to `damaged-…`, beside where it was: it is kept, and a
/// checkpoint counts no longer. Gives its new name.
pub fn set_aside(path: &Path) -> Result<String> {
    set_aside_as(path, path)
}

/// [`set_aside`] for what lies at `found`, and was at `path`.
pub(super) fn set_aside_as(found: &Path, path: &Path) -> Result<String> {
    let aside = kept::free(path.with_file_name(format!("damaged-{}", kept::name_of(path))));
    fs::rename(found, &aside).map_err(|source| Error::write(path, source))?;
    Ok(kept::name_of(&aside))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A state of `step` that says how these files were written.
    fn state(step: u64, files: &[(&str, &[u8])]) -> Vec<u8> {
        #[derive(serde::Serialize)]
        struct State {
            step: u64,
            files: BTreeMap<String, FileHash>,
        }
        let hash = |&(name, content): &(&str, &[u8])| (name.to_owned(), FileHash::of(content));
        seal::sealed(&State { step, files: files.iter().map(hash).collect() })
    }

    /// Checkpoints of a run that made those of these names which are of steps.
    fn with(names: &[&str]) -> (tempfile::TempDir, Checkpoints) {
        let root = tempfile::tempdir().unwrap();
        let mut made = BTreeMap::new();
        for name in names {
            let step = step(name.strip_prefix(REMOVED).unwrap_or(name)).unwrap_or(1);
            let state = state(step, &[]);
            fs::create_dir_all(root.path().join(name)).unwrap();
            atomic::write_bytes(root.path().join(name).join(STATE), &state).unwrap();
            made.insert(super::name(step), sha256_hex(&state));
        }
        let checkpoints = Checkpoints::new(root.path().to_owned(), Some(made));
        (root, checkpoints)
    }

    fn steps(checkpoints: &Checkpoints) -> Vec<u64> {
        checkpoints.list().unwrap().iter().map(|checkpoint| checkpoint.step).collect()
    }

    fn gone(step: u64, is_kept: bool) -> Gone {
        Gone { name: name(step), kept: is_kept.then(|| format!("kept-{}", name(step))) }
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
        let checkpoints = Checkpoints::new(PathBuf::from("no/such/folder"), None);
        assert_eq!(checkpoints.latest().unwrap(), None);
        assert!(checkpoints.prune(NonZeroUsize::MIN).unwrap().is_empty());
    }

    #[test]
    fn pruning_keeps_the_newest_and_what_is_not_ours() {
        let all = [&OTHERS[..], &["step-000100", "step-000200", "step-000300"]].concat();
        let (root, mut checkpoints) = with(&all);
        let write = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            atomic::write_bytes(path, b"mine").unwrap();
        };
        for mine in ["step-000100/adapter/README.md", "step-000100/a/b", "step-000150/mine"] {
            write(mine);
        }
        // It says how its files were written, and one of them is no longer so.
        let written =
            state(100, &[("adapter/adapter_config.json", b"another"), ("adapter/own", b"mine")]);
        atomic::write_bytes(root.path().join("step-000100").join(STATE), &written).unwrap();
        checkpoints.made.as_mut().unwrap().insert(name(100), sha256_hex(&written));
        write("step-000100/adapter/adapter_config.json");
        write("step-000100/adapter/own");
        write("step-000300/optimizer.safetensors");
        let went = checkpoints.prune(NonZeroUsize::new(2).unwrap()).unwrap();
        assert_eq!(went, [gone(100, true)]);
        assert_eq!(steps(&checkpoints), [200, 300]);
        let kept = [
            "kept-step-000100/adapter/README.md",
            "kept-step-000100/adapter/adapter_config.json",
            "kept-step-000100/a/b",
            "step-000150/mine",
        ];
        assert!(kept.iter().all(|mine| root.path().join(mine).is_file()));
        assert!(!root.path().join("kept-step-000100/adapter/own").exists());
        // Whoever takes a place that a checkpoint needs is kept beside it.
        write("step-000400/mine");
        let (room, taken) = checkpoints.make_room(400).unwrap();
        assert_eq!((room.exists(), taken), (false, Some(gone(400, true))));
        assert!(root.path().join("kept-step-000400/mine").is_file());
        assert_eq!(checkpoints.make_room(200).unwrap().1, Some(gone(200, false)));
        assert_eq!(checkpoints.make_room(200).unwrap().1, None);
        assert!(OTHERS.iter().all(|other| root.path().join(other).is_dir()));
        assert!(checkpoints.prune(NonZeroUsize::new(2).unwrap()).unwrap().is_empty());
    }

    /// Where nothing tells what is the run's, all of it stays.
    #[test]
    fn what_is_not_as_the_run_made_it_is_no_checkpoint_of_its_own_and_stays_whole() {
        let (root, checkpoints) =
            with(&["step-000100", "step-000200", "step-000300", "step-000400"]);
        let path = |name: &str| root.path().join(name);
        let copy = |from: &str, to: &str| {
            fs::create_dir_all(path(to)).unwrap();
            atomic::write_bytes(path(to).join(STATE), &fs::read(path(from).join(STATE)).unwrap())
                .unwrap();
        };
        // Its state was changed, with another file of the run's names.
        for name in ["step-000100/state.json", "step-000100/adapter/adapter_config.json"] {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            atomic::write_bytes(path(name), b"mine").unwrap();
        }
        // A link is nobody's.
        let elsewhere = tempfile::tempdir().unwrap();
        fs::rename(path("step-000200"), elsewhere.path().join("c")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("c"), path("step-000200")).unwrap();
        // A copy under another name, one in the place of another that the run made, and one of another run.
        copy("step-000300", "step-000150");
        copy("step-000400", "step-000300");
        fs::create_dir_all(path("step-000500")).unwrap();
        atomic::write_bytes(path("step-000500").join(STATE), &state(500, &[])).unwrap();
        assert_eq!(steps(&checkpoints), [100, 300, 400]);
        let refused = |index: usize| {
            checkpoints.list().unwrap()[index].state::<serde_json::Value>().unwrap_err()
        };
        assert!(refused(0).contains("it was cut short or changed"), "{}", refused(0));
        assert_eq!(refused(1), "it is not the one that this run wrote");
        assert!(checkpoints.prune(NonZeroUsize::MIN).unwrap().is_empty());
        let all = ["100", "150", "200", "300", "400", "500"]
            .map(|step| path(&format!("step-000{step}/state.json")));
        assert!(all.iter().all(|state| state.is_file()));
        assert!(path("step-000100/adapter/adapter_config.json").is_file());
        assert!(path("step-000200").is_symlink());
        // A run that recorded none holds a checkpoint to its seal and its step.
        let older = Checkpoints::new(root.path().to_owned(), None);
        assert_eq!(steps(&older), [100, 150, 300, 400, 500]);
        assert_eq!(older.prune(NonZeroUsize::MIN).unwrap(), [gone(400, false)]);
        assert!(all[..4].iter().chain(&all[5..]).all(|state| state.is_file()));
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
        // What somebody else calls so.
        fs::create_dir(root.path().join(".removed-step-000200")).unwrap();
        atomic::write_bytes(root.path().join(".removed-step-000200/mine"), b"mine").unwrap();
        atomic::write_bytes(root.path().join(".removed-step-000100/mine"), b"mine").unwrap();
        assert_eq!(steps(&checkpoints), [200]);
        assert_eq!(checkpoints.prune(NonZeroUsize::MIN).unwrap(), [gone(100, true)]);
        assert!(!root.path().join(".removed-step-000100").exists());
        assert!(root.path().join(".removed-step-000200/mine").is_file());
        assert_eq!(steps(&checkpoints), [200]);
    }
}
