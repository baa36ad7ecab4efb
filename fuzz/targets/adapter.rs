//! Folders of adapters: adapter_config.json, or adapter_model.safetensors with the byte 0 in front.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use graft_adapters::PeftAdapter;
use graft_adapters::peft::{CONFIG_FILE, WEIGHTS_FILE};
use libfuzzer_sys::fuzz_target;

const CONFIG: &[u8] = include_bytes!("../seeds/adapter/config.json");
const WEIGHTS: &[u8] = include_bytes!("../seeds/adapter/weights");

/// In memory, since each input is a file: one a process.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = PathBuf::from(format!("/dev/shm/graft-fuzz-adapter-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder in memory");
    folder
});

fuzz_target!(|input: &[u8]| {
    let (config, weights) = match input {
        [0, bytes @ ..] => (CONFIG, bytes),
        _ => (input, &WEIGHTS[1..]),
    };
    for (name, bytes) in [(CONFIG_FILE, config), (WEIGHTS_FILE, weights)] {
        std::fs::write(FOLDER.join(name), bytes).expect("a writable folder");
    }
    let _ = PeftAdapter::open(&FOLDER);
});
