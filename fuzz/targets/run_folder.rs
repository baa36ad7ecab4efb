//! What a run left: its manifest, sealed anew so that its content is reached, and metrics.jsonl.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use graft::run_folder::{RunFolder, metrics, seal};
use libfuzzer_sys::fuzz_target;

/// In memory, since each input is a file: one a process.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = PathBuf::from(format!("/dev/shm/graft-fuzz-run-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder in memory");
    folder
});

fuzz_target!(|input: &[u8]| {
    let sealed = match serde_json::from_slice::<serde_json::Value>(input) {
        Ok(value) if value.as_object().is_some_and(|object| !object.is_empty()) => {
            seal::sealed(&value)
        }
        _ => input.to_vec(),
    };
    for (name, bytes) in [("manifest.json", sealed.as_slice()), ("metrics.jsonl", input)] {
        std::fs::write(FOLDER.join(name), bytes).expect("a writable folder");
    }
    let _ = RunFolder::read_manifest(&FOLDER);
    let lines = metrics::read(&FOLDER.join("metrics.jsonl")).expect("a plain file");
    assert!(lines.len() <= input.len());
});
