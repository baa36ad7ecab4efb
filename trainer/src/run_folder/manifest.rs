//! `manifest.json`: what was trained on what, and how it ended.
//!
//! It names files and hashes, never contents, environment variables, users or hosts. It carries times
//! and so differs between two equal runs; the adapter does not. It is the truth about the folder: the
//! recipe in it is what the run goes by, its hashes are what other files are held to, and it ends in the
//! hash of its own text.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use graft_data::RowCounts;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::contract::Change;
pub use super::hashes::{FileHash, hash_file, hash_folder, hash_weights};
use super::{Error, Result, plain, seal};

/// The form of manifests and checkpoints that this program writes, and the only one that it goes on with.
pub const FORMAT: u64 = 2;

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

/// What a run is of. What a result depends on stays as it began, unless a change of it is asked for and
/// recorded; the rest is as of the last start.
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
    /// The rule of the steps: `adamw`, `adamw_8bit`.
    pub optimizer: String,
    /// The resolved compute type: `f32` or `bf16`.
    pub compute_dtype: String,
    /// The device that the run computes on, without its number or its driver.
    pub device: String,
    /// The processor's kernels, whose sums are rounded in an order of their own; `None` on a GPU.
    pub kernels: Option<String>,
    /// The seed of every random choice.
    pub seed: u64,
    /// Worker threads on the host; the result does not depend on them.
    pub threads: usize,
    /// Parameters of the base: what shares of trained parameters are of.
    pub parameters: u64,
    /// Parameters that train.
    pub trainable_parameters: u64,
    /// SHA-256 of `recipe.yaml`.
    pub recipe_sha256: String,
    /// Program or library to version.
    pub versions: BTreeMap<String, String>,
    /// File of the base's folder that is read, to its hash.
    pub base: BTreeMap<String, FileHash>,
    /// File of the tokenizer and the chat template, to its hash.
    pub tokenizer: BTreeMap<String, FileHash>,
    /// File of the adapter that the run goes on from, to its hash; empty without one.
    pub init_from: BTreeMap<String, FileHash>,
    /// Key of the recipe that names a file of rows, to the file.
    pub data: BTreeMap<String, DataFile>,
    /// Section of the recipe to how many rows its files have, and what became of them.
    #[serde(default)]
    pub rows: BTreeMap<String, RowCounts>,
    /// What was found in the rows, by the key of the recipe that asked for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hygiene: BTreeMap<String, String>,
    /// A hash of which rows of `data.train` are left out for it; `None` where none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleaned_sha256: Option<String>,
    /// The recipe as resolved: every key with its value.
    pub recipe: Value,
}

/// A file of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// As the recipe names it.
    pub path: String,
    /// Its size and hash.
    #[serde(flatten)]
    pub hash: FileHash,
}

/// Content of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u64,
    /// How far the run has come.
    pub status: Status,
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// When it ended, RFC 3339, UTC; `null` while it runs.
    pub ended: Option<String>,
    /// The steps after which it was gone on with, in order.
    pub resumed_after: Vec<u64>,
    /// What its result depends on and was changed on the way, because it was asked for.
    pub changes: Vec<Recorded<Change>>,
    /// Damage that was found in its folder, and how it went on.
    pub mended: Vec<Recorded<Mended>>,
    /// What it has put into its folder beside its log and checkpoints, by name: nothing else is replaced.
    pub made: BTreeMap<String, Made>,
    /// The step of its last checkpoint.
    #[serde(default)]
    pub last_checkpoint: Option<u64>,
    /// Name of every checkpoint that it made, also of those that went, to the SHA-256 of its `state.json`: what
    /// else lies among them is not its own. `null` in runs that did not record them.
    #[serde(default)]
    pub checkpoints: Option<BTreeMap<String, String>>,
    /// SHA-256 of the values that the last step left: of `trainable.safetensors` in its checkpoint.
    pub trained_sha256: Option<String>,
    /// What it is of.
    #[serde(flatten)]
    pub inputs: Inputs,
}

/// Something that happened between two steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded<T> {
    /// The last step before it.
    pub after_step: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: T,
}

/// Damage in a run's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mended {
    /// The file or folder, inside the run's.
    pub file: String,
    /// What was wrong with it, and what was done.
    pub found: String,
}

/// Something that a run has made, or began to make.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The step whose values it holds; `null` while it is made.
    pub after_step: Option<u64>,
    /// What it is made of: the hash of the trained values, of what was asked, the weights that were merged
    /// onto.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub of: String,
    /// File inside the run's folder to its hash.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, FileHash>,
    /// What a file that is being made will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coming: Option<FileHash>,
}

impl Manifest {
    /// Whether something was made of other values than the last step left: what it is of begins with their hash.
    pub fn is_left_behind(&self, made: &Made) -> bool {
        let trained = self.trained_sha256.as_deref().unwrap_or_default();
        !made.of.is_empty() && !made.of.starts_with(trained)
    }

    /// A run that begins now.
    pub fn begin(inputs: Inputs) -> Self {
        Self {
            format: FORMAT,
            status: Status::Running,
            started: utc(unix_seconds()),
            ended: None,
            resumed_after: Vec::new(),
            changes: Vec::new(),
            mended: Vec::new(),
            last_checkpoint: None,
            checkpoints: Some(BTreeMap::new()),
            made: BTreeMap::new(),
            trained_sha256: None,
            inputs,
        }
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        let text =
            plain::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        if let Ok(Value::Object(fields)) = serde_json::from_slice(&text)
            && let format = fields.get("format").and_then(Value::as_u64)
            && format != Some(FORMAT)
            && fields.contains_key("status")
        {
            let version = fields.get("versions").and_then(|versions| versions["graft"].as_str());
            let program = version.map_or_else(String::new, |version| format!(" {version}"));
            return Err(Error::Foreign { path: path.to_owned(), format, program });
        }
        seal::opened(&text).map_err(|damage| Error::Manifest { path: path.to_owned(), damage })
    }

    /// As the file holds it.
    pub(super) fn to_text(&self) -> Vec<u8> {
        seal::sealed(self)
    }

    #[cfg(test)]
    fn write(&self, path: &Path) -> Result<()> {
        graft_files::atomic::write_bytes(path, &self.to_text()).map_err(Error::Replace)
    }

    pub(super) fn end(&mut self, status: Status) {
        self.ended = (status != Status::Running).then(|| utc(unix_seconds()));
        self.status = status;
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// RFC 3339 in UTC. Days to civil date: Hinnant, chrono-compatible low-level date algorithms.
fn utc(unix_seconds: u64) -> String {
    let seconds = i64::try_from(unix_seconds).ok();
    let time = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    // A clock that is beyond the year 9999 is wrong.
    time.unwrap_or(Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests write files to hash")]
pub(crate) mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    pub(crate) fn inputs() -> Inputs {
        let file = |content: &str| FileHash::of(content.as_bytes());
        let rows = DataFile { path: "data/train.jsonl".to_owned(), hash: file("rows") };
        let recipe = graft_recipes::load("quickstart", &[]).unwrap();
        Inputs {
            run: "quickstart".to_owned(),
            model: "builtin:quickstart".to_owned(),
            method: "lora".to_owned(),
            quantization: "nf4".to_owned(),
            optimizer: "adamw".to_owned(),
            compute_dtype: "f32".to_owned(),
            device: "cpu".to_owned(),
            kernels: Some("x86_64 avx2".to_owned()),
            seed: 7,
            threads: 2,
            parameters: 4_180_000,
            trainable_parameters: 120_000,
            recipe_sha256: graft_files::sha256::sha256_hex(b"recipe"),
            versions: BTreeMap::from([("graft".to_owned(), "0.1.0".to_owned())]),
            base: BTreeMap::from([("model.safetensors".to_owned(), file("weights"))]),
            tokenizer: BTreeMap::from([("tokenizer.json".to_owned(), file("tokens"))]),
            init_from: BTreeMap::new(),
            data: BTreeMap::from([("data.train[0]".to_owned(), rows)]),
            rows: BTreeMap::new(),
            hygiene: BTreeMap::new(),
            cleaned_sha256: None,
            recipe: recipe.to_value(),
        }
    }

    #[test]
    fn a_manifest_reads_back_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        let mut manifest = Manifest::begin(inputs());
        manifest.resumed_after = vec![100, 200];
        let [what, from, to] = ["training.epochs", "3", "5"].map(str::to_owned);
        manifest.changes.push(Recorded { after_step: 100, what: Change { what, from, to } });
        let [file, found] = ["before.json", "it is missing"].map(str::to_owned);
        manifest.mended.push(Recorded { after_step: 200, what: Mended { file, found } });
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
    fn manifests_of_another_form_are_refused_with_the_program_that_wrote_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        let mut newer = Manifest::begin(inputs());
        newer.format = 3;
        newer.write(&path).unwrap();
        let refused = |path: &Path| {
            let error = Manifest::read(path).unwrap_err();
            assert!(error.is_wrong_input(), "{error}");
            error.to_string().replace(&folder.path().display().to_string(), "runs/a")
        };
        insta::assert_snapshot!(refused(&path), @"`runs/a/manifest.json` has format 3, this Graft goes on with runs of format 2: go on with the Graft 0.1.0 that wrote it, or start a new run in another folder with `output_dir=…`");
        let older = json!({"status": {"state": "running"}, "versions": {}});
        fs::write(&path, older.to_string()).unwrap();
        insta::assert_snapshot!(refused(&path), @"`runs/a/manifest.json` has no format, this Graft goes on with runs of format 2: go on with the Graft that wrote it, or start a new run in another folder with `output_dir=…`");
    }

    #[test]
    fn a_manifest_with_any_byte_changed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        Manifest::begin(inputs()).write(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        for place in (0..whole.len()).step_by(7) {
            let mut other = whole.clone();
            other[place] ^= 2;
            fs::write(&path, &other).unwrap();
            assert!(Manifest::read(&path).is_err(), "byte {place}");
            fs::write(&path, &whole[..place]).unwrap();
            assert!(Manifest::read(&path).is_err(), "cut to {place} bytes");
        }
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(utc(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(utc(u64::MAX), "9999-12-30T22:00:00Z");
    }
}
