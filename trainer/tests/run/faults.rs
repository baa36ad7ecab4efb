//! Processes that suffer a signal or an error of the system at a moment that a test chooses, by a small
//! library that is loaded before the C library: `faults.c`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// The library, built with the C compiler that Graft itself is built with.
static LIBRARY: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("faults.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run/faults.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl");
    let said = compiler.output().expect("a C compiler");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    (folder, library)
});

fn preloaded(command: &mut Command) -> &mut Command {
    command.env("LD_PRELOAD", &LIBRARY.1)
}

/// How many calls of a whole run change the disk.
pub(crate) fn count(command: &mut Command) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("count");
    let said = preloaded(command).env("FAULT_COUNT", &path).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let count = fs::read_to_string(&path).expect("the library is loaded before the C library");
    let count = count.parse().unwrap();
    assert!(count > 50, "only {count} calls were seen");
    count
}

/// The command with a signal before its call number `call` that changes the disk.
pub(crate) fn signal_at(command: &mut Command, call: u64, signal: i32) -> &mut Command {
    preloaded(command).env("FAULT_AT", call.to_string()).env("FAULT_SIGNAL", signal.to_string())
}

/// The command with a failure of its call number `call`, or of all from there on.
pub(crate) fn error_at(command: &mut Command, call: u64, error: i32, stays: bool) -> &mut Command {
    preloaded(command)
        .env("FAULT_AT", call.to_string())
        .env("FAULT_ERROR", error.to_string())
        .env("FAULT_STAYS", if stays { "1" } else { "0" })
}

/// The command with a signal, so many times, when it says `text` on stderr for the first time.
pub(crate) fn signal_when<'a>(
    command: &'a mut Command,
    text: &str,
    signal: i32,
    times: u32,
) -> &'a mut Command {
    preloaded(command)
        .env("FAULT_SAID", text)
        .env("FAULT_SIGNAL", signal.to_string())
        .env("FAULT_TIMES", times.to_string())
}

/// The command with a failure of its next call that changes the disk when it has said `text`.
pub(crate) fn error_when<'a>(command: &'a mut Command, text: &str, error: i32) -> &'a mut Command {
    preloaded(command).env("FAULT_SAID", text).env("FAULT_ERROR", error.to_string())
}

/// The command with no memory in pieces of `size` bytes and more from when it has said `text`.
pub(crate) fn no_memory_when<'a>(
    command: &'a mut Command,
    text: &str,
    size: u64,
) -> &'a mut Command {
    preloaded(command).env("FAULT_SAID", text).env("FAULT_MEMORY", size.to_string())
}

/// Numbers from 1 to `last`, one of each of `parts` equal parts, others in every run of the tests.
pub(crate) fn drawn(last: u64, parts: u64) -> Vec<u64> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let mut state = u64::from(clock) | 1;
    let mut next = |bound: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let part = last / parts;
    (0..parts).map(|index| 1 + index * part + next(part)).collect()
}
