//! Files of rows, under each name and in each format; the length chooses, so that the seeds are plain files.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use graft_data::{Format, RowReader, SourceFile};
use libfuzzer_sys::fuzz_target;

/// In memory, since each input is a file: one a process.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = PathBuf::from(format!("/dev/shm/graft-fuzz-rows-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder in memory");
    folder
});

fuzz_target!(|bytes: &[u8]| {
    let endings: Vec<&str> = Format::endings().collect();
    let ending = endings[bytes.len() % endings.len()];
    let format = Format::ALL[bytes.len() / endings.len() % Format::ALL.len()];
    let path = FOLDER.join(format!("a.{ending}"));
    std::fs::write(&path, bytes).expect("a writable folder");
    let sources = [SourceFile::new(&path, format)];
    for row in RowReader::new(&sources) {
        match row {
            Ok((row, _)) => _ = row.digest(),
            Err(error) => assert!(error.to_string().len() < 2_500, "{error}"),
        }
    }
});
