//! `manifest.json`: what was trained on what, and how it ended.
//!
//! It names files and hashes, never contents, environment variables, users or hosts. It carries times
//! and so differs between two equal runs; the adapter does not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use graft_model::atomic;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Error, Result};

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum Status {
    /// Training, or killed before it could say how it ended.
    Running,
    /// All steps were taken and the last loss was a number.
    Finished,
    /// Ended early on request; it can go on.
    Stopped {
        /// Who or what asked.
        reason: String,
    },
    /// Ended by an error.
    Failed {
        /// What went wrong.
        reason: String,
    },
}

impl Status {
    /// How a run whose steps are all taken ended: only a finite last loss is a success.
    pub fn after_last_step(step: u64, loss: f64) -> Self {
        if loss.is_finite() {
            Self::Finished
        } else {
            Self::Failed { reason: format!("the loss of step {step} is {loss}") }
        }
    }
}

/// Size and hash of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the content, lower-case hexadecimal.
    pub sha256: String,
    /// Whether only samples of the content were hashed; see [`hash_weights`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sampled: bool,
}

impl FileHash {
    /// The hash of a whole content.
    pub fn of(content: &[u8]) -> Self {
        Self { bytes: content.len() as u64, sha256: sha256_hex(content), sampled: false }
    }
}

/// What decides a run's result, fixed when it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// The recipe's name.
    pub run: String,
    /// The base model, as the recipe names it.
    pub model: String,
    /// What trains: `lora`, `full`, …
    pub method: String,
    /// How the frozen weights are kept: `nf4`, `none`, …
    pub quantization: String,
    /// The rule of the steps: `adamw`, `adamw_8bit`. Manifests from before there were two say nothing.
    #[serde(default = "adamw")]
    pub optimizer: String,
    /// The resolved compute type: `f32` or `bf16`.
    pub compute_dtype: String,
    /// The device that the run computes on.
    pub device: String,
    /// The seed of every random choice.
    pub seed: u64,
    /// Worker threads on the host; the result does not depend on them.
    pub threads: usize,
    /// Parameters of the model with its adapters.
    pub parameters: u64,
    /// Parameters that train.
    pub trainable_parameters: u64,
    /// SHA-256 over the names and shapes of the tensors that train.
    pub trainable_sha256: String,
    /// SHA-256 of `recipe.yaml`.
    pub recipe_sha256: String,
    /// Program or library to version.
    pub versions: BTreeMap<String, String>,
    /// File of the base's folder, relative to it, to its hash.
    pub base: BTreeMap<String, FileHash>,
    /// Data file, as the recipe names it, to its hash.
    pub data: BTreeMap<String, FileHash>,
}

fn adamw() -> String {
    "adamw".to_owned()
}

/// Content of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// How far the run has come.
    pub status: Status,
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// When it ended, RFC 3339, UTC; `null` while it runs.
    pub ended: Option<String>,
    /// The steps after which it was gone on with, in order.
    pub resumed_after: Vec<u64>,
    /// What it has put into its folder beside its log and checkpoints, by name: nothing else is replaced.
    #[serde(default = "all_results")]
    pub made: BTreeMap<String, Made>,
    /// What decides its result.
    #[serde(flatten)]
    pub inputs: Inputs,
}

/// Something that a run has made, or began to make.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The step whose values it holds; `null` while it is made.
    pub after_step: Option<u64>,
    /// SHA-256 of the content, of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Manifests from before this was recorded: all that a run makes is taken for its own.
fn all_results() -> BTreeMap<String, Made> {
    super::RESULTS.iter().map(|name| ((*name).to_owned(), Made::default())).collect()
}

/// An input that is not what the run began with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The input.
    pub what: String,
    /// Its value when the run began.
    pub begun_with: String,
    /// Its value now.
    pub now: String,
}

impl Manifest {
    /// A run that begins now.
    pub fn begin(inputs: Inputs) -> Self {
        let (started, resumed_after) = (utc(unix_seconds()), Vec::new());
        let made = BTreeMap::new();
        Self { status: Status::Running, started, ended: None, resumed_after, made, inputs }
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        serde_json::from_slice(&text)
            .map_err(|source| Error::Manifest { path: path.to_owned(), source })
    }

    /// As the file holds it.
    pub(super) fn to_text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("the maps' keys are strings");
        text.push(b'\n');
        text
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        atomic::write_bytes(path, &self.to_text()).map_err(Error::Replace)
    }

    pub(super) fn end(&mut self, status: Status) {
        self.ended = (status != Status::Running).then(|| utc(unix_seconds()));
        self.status = status;
    }
}

impl Inputs {
    /// Parameters of the base alone: what shares of trained parameters are of, wherever they are shown.
    pub fn base_parameters(&self) -> u64 {
        if self.method == "full" {
            return self.parameters;
        }
        self.parameters.saturating_sub(self.trainable_parameters)
    }

    /// What differs between a run's beginning (`self`) and `now`, of the inputs that its result depends
    /// on. Threads and versions may differ; going on with another seed, recipe, base or data may not.
    pub fn changes(&self, now: &Self) -> Vec<Change> {
        let Self {
            run,
            model,
            method,
            quantization,
            optimizer,
            compute_dtype,
            device,
            seed,
            threads: _,
            parameters,
            trainable_parameters,
            trainable_sha256,
            recipe_sha256,
            versions: _,
            base,
            data,
        } = self;
        let mut changes = Vec::new();
        let mut compare = |what: &str, begun_with: String, now: String| {
            if begun_with != now {
                changes.push(Change { what: what.to_owned(), begun_with, now });
            }
        };
        compare("run", run.clone(), now.run.clone());
        compare("model", model.clone(), now.model.clone());
        compare("method", method.clone(), now.method.clone());
        compare("quantization", quantization.clone(), now.quantization.clone());
        compare("optimizer", optimizer.clone(), now.optimizer.clone());
        compare("compute dtype", compute_dtype.clone(), now.compute_dtype.clone());
        compare("device", device.clone(), now.device.clone());
        compare("seed", seed.to_string(), now.seed.to_string());
        compare("parameters", parameters.to_string(), now.parameters.to_string());
        let trainable = now.trainable_parameters.to_string();
        compare("trainable parameters", trainable_parameters.to_string(), trainable);
        compare("trainable tensors", trainable_sha256.clone(), now.trainable_sha256.clone());
        compare("recipe", recipe_sha256.clone(), now.recipe_sha256.clone());
        for (kind, begun_with, now) in [("base", base, &now.base), ("data", data, &now.data)] {
            let names: BTreeSet<_> = begun_with.keys().chain(now.keys()).collect();
            for name in names {
                let shown = |files: &BTreeMap<String, FileHash>| {
                    files.get(name).map_or("no such file".to_owned(), |file| file.sha256.clone())
                };
                compare(&format!("{kind} file `{name}`"), shown(begun_with), shown(now));
            }
        }
        changes
    }
}

/// Hashes a file piece by piece; `progress` hears the bytes of each piece.
pub fn hash_file(path: &Path, mut progress: impl FnMut(u64)) -> Result<FileHash> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer).map_err(unreadable)?;
        if read == 0 {
            return Ok(FileHash { bytes, sha256: hexadecimal(&hasher.finalize()), sampled: false });
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
        progress(read as u64);
    }
}

/// Larger files of weights are hashed in samples, so that a model is not read whole before its first
/// step. Other weights, another length or another header change the hash; a single value may not.
const WHOLE: u64 = 1 << 30;
/// The file's beginning, which holds the header.
const HEAD: u64 = 1 << 20;
/// One sample …
const SAMPLE: u64 = 64 << 10;
/// … stands for so many bytes; the file's last bytes are always in one.
const STRIDE: u64 = 16 << 20;

/// Hashes a file of weights, in samples where it is larger than 1 GiB: its size, its first MiB, the
/// first 64 KiB of every 16 MiB, and the last 64 KiB.
pub fn hash_weights(path: &Path) -> Result<FileHash> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    if bytes <= WHOLE {
        return hash_file(path, |_| ());
    }
    let mut hasher = Sha256::new();
    hasher.update(bytes.to_le_bytes());
    read_no_further(&file);
    let starts = (0..bytes - SAMPLE).step_by(STRIDE as usize).chain([bytes - SAMPLE]);
    let mut buffer = vec![0; HEAD as usize];
    for start in starts {
        let len = if start == 0 { HEAD } else { SAMPLE } as usize;
        file.seek(SeekFrom::Start(start)).map_err(unreadable)?;
        file.read_exact(&mut buffer[..len]).map_err(unreadable)?;
        hasher.update(&buffer[..len]);
    }
    Ok(FileHash { bytes, sha256: hexadecimal(&hasher.finalize()), sampled: true })
}

/// Asks the system not to read what lies around a sample.
#[expect(unsafe_code, reason = "posix_fadvise(2) has no safe wrapper in the dependencies")]
fn read_no_further(file: &File) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        // SAFETY: the descriptor is open; the call only sets how much is read ahead.
        unsafe {
            libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// SHA-256 of `bytes`, lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

pub(crate) fn hexadecimal(digest: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    digest.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// RFC 3339 in UTC. Days to civil date: Hinnant, chrono-compatible low-level date algorithms.
fn utc(unix_seconds: u64) -> String {
    let (days, second) = (unix_seconds / 86_400 + 719_468, unix_seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153; // March is 0
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests write files to hash")]
pub(crate) mod tests {
    use std::fs;

    use super::*;

    pub(crate) fn inputs() -> Inputs {
        let file = |content: &str| FileHash::of(content.as_bytes());
        Inputs {
            run: "quickstart".to_owned(),
            model: "builtin:quickstart".to_owned(),
            method: "lora".to_owned(),
            quantization: "nf4".to_owned(),
            optimizer: "adamw".to_owned(),
            compute_dtype: "f32".to_owned(),
            device: "cpu".to_owned(),
            seed: 7,
            threads: 2,
            parameters: 4_300_000,
            trainable_parameters: 120_000,
            trainable_sha256: sha256_hex(b"names"),
            recipe_sha256: sha256_hex(b"recipe"),
            versions: BTreeMap::from([("graft".to_owned(), "0.1.0".to_owned())]),
            base: BTreeMap::from([("model.safetensors".to_owned(), file("weights"))]),
            data: BTreeMap::from([("data/train.jsonl".to_owned(), file("rows"))]),
        }
    }

    #[test]
    fn a_manifest_reads_back_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        let mut manifest = Manifest::begin(inputs());
        manifest.resumed_after = vec![100, 200];
        for status in [
            Status::Running,
            Status::Finished,
            Status::Stopped { reason: "Ctrl-C".to_owned() },
            Status::Failed { reason: "disk full".to_owned() },
        ] {
            manifest.end(status);
            manifest.write(&path).unwrap();
            assert_eq!(Manifest::read(&path).unwrap(), manifest);
        }
    }

    #[test]
    fn a_loss_that_is_no_number_never_finishes() {
        assert_eq!(Status::after_last_step(9, 0.0), Status::Finished);
        for loss in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let Status::Failed { reason } = Status::after_last_step(9, loss) else {
                panic!("a loss of {loss} counts as a success");
            };
            assert!(reason.contains("step 9"), "{reason}");
        }
    }

    #[test]
    fn every_changed_input_is_named_and_threads_and_versions_are_free() {
        let begun = inputs();
        let mut now = inputs();
        now.threads = 8;
        now.versions.clear();
        assert_eq!(begun.changes(&now), []);

        now.seed = 8;
        now.trainable_parameters = 1;
        now.base.clear();
        now.data.get_mut("data/train.jsonl").unwrap().sha256 = sha256_hex(b"other");
        let changes: Vec<String> = begun.changes(&now).into_iter().map(|it| it.what).collect();
        insta::assert_snapshot!(changes.join("\n"), @r"
        seed
        trainable parameters
        base file `model.safetensors`
        data file `data/train.jsonl`
        ");
    }

    #[test]
    fn a_file_hashes_as_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.bin");
        let content = vec![b'a'; (1 << 20) + 17];
        fs::write(&path, &content).unwrap();
        let mut heard = 0;
        let hash = hash_file(&path, |bytes| heard += bytes).unwrap();
        assert_eq!((hash.bytes, heard), (content.len() as u64, content.len() as u64));
        assert_eq!(hash.sha256, sha256_hex(&content));
        // FIPS 180-4, appendix example.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(b"abc"), abc);
    }

    #[test]
    fn a_large_file_of_weights_is_hashed_in_samples_that_see_its_length_and_both_ends() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        // A hole: nothing of it is on the disk.
        let file = File::create(&path).unwrap();
        let hash_of = |len: u64, change: Option<u64>| {
            file.set_len(len).unwrap();
            let put = |byte| {
                let Some(place) = change else { return };
                (&file).seek(SeekFrom::Start(place)).unwrap();
                (&file).write_all(&[byte]).unwrap();
            };
            put(1);
            let hash = hash_weights(&path).unwrap();
            put(0);
            assert_eq!(hash.bytes, len);
            hash
        };
        let len = WHOLE + 12_345;
        let hash = hash_of(len, None);
        assert!(hash.sampled && hash_of(len, None) == hash);
        for place in [0, HEAD - 1, 50 * STRIDE + SAMPLE - 1, len - SAMPLE, len - 1] {
            assert_ne!(hash_of(len, Some(place)).sha256, hash.sha256, "byte {place}");
        }
        assert_ne!(hash_of(len + 1, None).sha256, hash.sha256);
        let small = hash_of(1_000, None);
        assert!(!small.sampled && small == hash_file(&path, |_| ()).unwrap());
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(utc(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
