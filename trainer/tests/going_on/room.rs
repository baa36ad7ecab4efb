//! A folder to train in, and what a run leaves there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use graft_kernels::flex::isa::Isa;
use serde_json::Value;

/// A folder with a model, rows, and a recipe of four steps, each with a checkpoint.
pub(super) struct Room(tempfile::TempDir);

impl Room {
    pub(super) fn new() -> Self {
        let room = Self(tempfile::tempdir().unwrap());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/builtin/quickstart");
        copy(&source, &room.path("base"));
        let row = |i: usize| {
            format!(
                "{{\"messages\":[{{\"role\":\"user\",\"content\":\"What is {i}?\"}},\
                 {{\"role\":\"assistant\",\"content\":\"It is {}.\"}}]}}\n",
                i * i
            )
        };
        room.write("rows.jsonl", (1..9).map(row).collect::<String>().as_bytes());
        room.write("more.jsonl", (9..12).map(row).collect::<String>().as_bytes());
        room.write(
            "mine.yaml",
            b"model: {path: base}
adapter: {rank: 2, target_modules: [q_proj, down_proj], dropout: 0.1}
data: {train: [{path: rows.jsonl, format: messages}], max_seq_len: 128, validation: {fraction: 0.25}}
training: {max_steps: 4, gradient_accumulation_steps: 2, learning_rate: 1.0e-3, compute_dtype: f32}
checkpoint: {every_steps: 1, keep: 2}
logging: {tensorboard: false}
output_dir: run
",
        );
        room
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        graft_files::atomic::write_bytes(self.path(name), bytes).unwrap();
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_graft"));
        command.current_dir(self.0.path()).args(["train", "mine.yaml"]).args(arguments);
        command.env_remove(Isa::VARIABLE);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What a run says that ends well.
    pub(super) fn trained(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let said = text(&output);
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    }

    /// What a run says that is refused before its model is loaded, and changes nothing in the folder.
    pub(super) fn refused(&self, arguments: &[&str]) -> String {
        let before = contents(&self.path("run"));
        let output = self.command(arguments).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(!said.contains("load: ") && !said.contains("score"), "it came too late: {said}");
        assert!(contents(&self.path("run")) == before, "{arguments:?}: the folder was changed");
        said
    }

    pub(super) fn adapter(&self, run: &str) -> Vec<u8> {
        fs::read(self.path(run).join("adapter/adapter_model.safetensors")).unwrap()
    }

    pub(super) fn manifest(&self, run: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(run).join("manifest.json")).unwrap()).unwrap()
    }

    /// A copy of the finished run's folder as it was after `step`.
    pub(super) fn stopped_after(&self, finished: &str, step: u64, name: &str) {
        copy(&self.path(finished), &self.path(name));
        for later in step + 1..=4 {
            let _ =
                fs::remove_dir_all(self.path(name).join(format!("checkpoints/step-{later:06}")));
        }
        fs::remove_dir_all(self.path(name).join("adapter")).unwrap();
    }
}

pub(super) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(super) fn copy(from: &Path, to: &Path) {
    for (path, bytes) in contents(from) {
        let target = to.join(path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        graft_files::atomic::write_bytes(&target, &bytes).unwrap();
    }
}

/// Every file below a folder, by its path inside it.
pub(super) fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(inner).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    files
}
