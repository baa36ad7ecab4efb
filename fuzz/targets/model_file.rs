//! model.safetensors, and its index with the byte 0 in front: opened, held against a configuration, and read.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use graft_model::LlamaConfig;
use graft_model::checkpoint::{Checkpoint, INDEX_FILE, SINGLE_FILE};
use graft_model::folder::ModelFolder;
use graft_model::presets::llama3_2_1b;
use libfuzzer_sys::fuzz_target;

/// In memory, since each input is a file: one a process.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = PathBuf::from(format!("/dev/shm/graft-fuzz-model-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder in memory");
    folder
});

fuzz_target!(|input: &[u8]| {
    let (name, bytes) = match input {
        [0, bytes @ ..] => (INDEX_FILE, bytes),
        _ => (SINGLE_FILE, input),
    };
    let path = FOLDER.join(name);
    std::fs::write(&path, bytes).expect("a writable folder");
    let folder = ModelFolder::open(&FOLDER.to_string_lossy()).expect("it is there");
    let opened = Checkpoint::open(&folder);
    std::fs::remove_file(path).expect("it was written");
    let Ok(checkpoint) = opened else { return };
    for name in checkpoint.names() {
        let tensor = checkpoint.tensor(name).expect("it is named");
        let elements: usize = tensor.shape.iter().product();
        assert_eq!(tensor.bytes.len() * 8, elements * tensor.dtype.bitsize(), "{name}");
        let _ = tensor.to_f32();
        let _ = checkpoint.nf4(name);
    }
    let config =
        LlamaConfig { d_model: 8, d_ff: 8, layers: 2, heads: 1, kv_heads: 1, ..llama3_2_1b() };
    let _ = checkpoint.verify(&config);
});
