//! A folder with rows and a recipe of a very small run that does all that a run can do: it measures, drops
//! out, keeps checkpoints, scores and merges.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub(crate) struct Room {
    folder: tempfile::TempDir,
}

impl Room {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let row = |i: usize| {
            let words = "office permit fee ".repeat(12 + i % 3);
            format!(
                "{{\"messages\":[{{\"role\":\"user\",\"content\":\"{words} {i}?\"}},\
                 {{\"role\":\"assistant\",\"content\":\"It is {}.\"}}]}}\n",
                i * i
            )
        };
        let write = |name: &str, rows: std::ops::Range<usize>| {
            let text: String = rows.map(row).collect();
            graft_files::atomic::write_bytes(folder.path().join(name), text.as_bytes()).unwrap();
        };
        write("train.jsonl", 0..6);
        // More than one pass scores at a time.
        write("validation.jsonl", 6..70);
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command of the binary in this folder.
    pub(crate) fn graft(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_graft"));
        command.current_dir(self.folder.path()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `graft train` into the folder `out`.
    pub(crate) fn train(&self, out: &str, arguments: &[&str]) -> Command {
        let mut command = self.graft(&["train", "quickstart"]);
        command.args([
            "data.train=[{path: train.jsonl, format: messages}]",
            "data.validation=[{path: validation.jsonl, format: messages}]",
            "data.packing=false",
            "data.max_seq_len=128",
            "data.overlong=error",
            "training.max_steps=3",
            "training.micro_batch_size=1",
            "training.gradient_accumulation_steps=2",
            "training.learning_rate=0.01",
            "checkpoint.every_steps=1",
            "adapter.rank=1",
            "adapter.dropout=0.1",
            "evaluation.every_steps=none",
            "evaluation.held_out=[]",
            "evaluation.general=[]",
            "finish.prompts=[]",
            "finish.merge=true",
        ]);
        command.arg(format!("output_dir={out}")).args(arguments);
        command
    }

    /// What a run has learnt, and what it says of itself before and after.
    pub(crate) fn results(&self, out: &str) -> [Vec<u8>; 4] {
        let read = |name: &str| {
            let path = self.path(out).join(name);
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        [
            read("adapter/adapter_model.safetensors"),
            read("merged/model.safetensors"),
            read("before.json"),
            read("after.json"),
        ]
    }

    pub(crate) fn manifest(&self, out: &str) -> Value {
        manifest(&self.path(out))
    }

    /// The training steps in the metrics.
    pub(crate) fn steps(&self, out: &str) -> Vec<u64> {
        let text = fs::read_to_string(self.path(out).join("metrics.jsonl")).unwrap_or_default();
        let step = |line: &str| {
            let line = serde_json::from_str::<Value>(line).ok()?;
            line.get("loss").and(line["step"].as_u64())
        };
        text.lines().filter_map(step).collect()
    }
}

fn manifest(out: &Path) -> Value {
    let text = fs::read(out.join("manifest.json")).expect("a run has a manifest");
    serde_json::from_slice(&text).expect("the manifest is JSON")
}

/// What a process said on stderr.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that must end well, and gives what it said.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    said
}
