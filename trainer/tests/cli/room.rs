//! A temporary folder that commands run in.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use graft_model::folder::ModelFolder;
use tempfile::TempDir;

/// One row of format `messages`.
pub(crate) const ROW: &str = r#"{"messages": [{"role": "user", "content": "Fee?"}, {"role": "assistant", "content": "12 euros."}]}"#;

/// The working directory of a test.
pub(crate) struct Room(TempDir);

/// What a command said and how it ended.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, and the folders it stands in.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Runs `graft` with words split at spaces.
    pub(crate) fn graft(&self, line: &str) -> Said {
        self.graft_words(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs `graft` with these words.
    pub(crate) fn graft_words(&self, words: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_graft"));
        command.args(words).current_dir(self.0.path());
        command.env_remove("NO_COLOR").env("RUST_BACKTRACE", "1");
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said {
            code: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Runs a command that must refuse: code 2, one `error: …` on stderr, no trace of a panic, and
    /// no file more or fewer than before. Gives stderr.
    pub(crate) fn refused(&self, line: &str) -> String {
        let before = self.names();
        let Said { code, stdout, stderr } = self.graft(line);
        assert_eq!(code, 2, "graft {line}\n{stdout}{stderr}");
        assert!(stderr.starts_with("error: "), "graft {line}\n{stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("backtrace"), "{stderr}");
        assert_eq!(self.names(), before, "graft {line} left something behind");
        stderr
    }

    /// Runs a command that must succeed, and gives stdout.
    pub(crate) fn done(&self, line: &str) -> String {
        let Said { code, stdout, stderr } = self.graft(line);
        assert_eq!(code, 0, "graft {line}\n{stdout}{stderr}");
        stdout
    }

    /// Every file and folder of the room.
    pub(crate) fn names(&self) -> BTreeSet<PathBuf> {
        let mut names = BTreeSet::new();
        let mut folders = vec![self.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path.clone());
                }
                names.insert(path.strip_prefix(self.0.path()).unwrap().to_owned());
            }
        }
        names
    }

    /// A model folder with the built-in configuration and tokenizer, without weights.
    pub(crate) fn model(&self, name: &str, change: impl Fn(String) -> String) {
        let builtin = ModelFolder::open("builtin:quickstart").unwrap();
        let read = |file| String::from_utf8(builtin.required(file).unwrap().to_vec()).unwrap();
        self.write(&format!("{name}/config.json"), change(read("config.json")));
        self.write(&format!("{name}/tokenizer.json"), read("tokenizer.json"));
    }

    /// A recipe `r.yaml` over two rows in `a.jsonl`, with these lines added.
    pub(crate) fn recipe(&self, lines: &str) {
        self.write("a.jsonl", format!("{ROW}\n{ROW}\n"));
        self.write("r.yaml", format!("model: {{path: builtin:quickstart}}\noutput_dir: run\ndata:\n  train: [{{path: a.jsonl, format: messages}}]\n{lines}"));
    }
}

/// A safetensors file of f32 zeros.
pub(crate) fn safetensors(tensors: &[(String, [usize; 2])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let begin = end;
        end += shape[0] * shape[1] * 4;
        let info =
            serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]});
        header.insert(name.clone(), info);
    }
    file_of(&serde_json::to_string(&header).unwrap(), end)
}

/// A safetensors file with this header and so many bytes of data.
pub(crate) fn file_of(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

/// Whether the folder is empty or missing.
pub(crate) fn is_absent(path: &Path) -> bool {
    path.symlink_metadata().is_err()
}
