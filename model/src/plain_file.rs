//! Small files from outside, read so that none can hang a command or fill its memory: only plain
//! files, and none beyond a limit.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use crate::error::Error;

/// A file of settings: config.json, adapter_config.json and their like. Releases have some KB, and
/// tokenizer_config.json up to 1.2 MB.
pub const SETTINGS: u64 = 8 << 20;
/// A list of shards. The longest known, of a model of 405 billion weights, has 0.1 MB.
pub const INDEX: u64 = 16 << 20;
/// A tokenizer. Llama 3's has 9 to 17 MB, the largest known 33 MB.
pub const TOKENIZER: u64 = 64 << 20;
/// A chat template; the longest known have some 20 KB.
pub const TEMPLATE: u64 = 1 << 20;

/// The most that is read of a file of this name whole.
pub fn limit_of(name: &str) -> u64 {
    let is = |ending: &str| Path::new(name).extension().is_some_and(|found| found == ending);
    match name {
        "tokenizer.json" | "tokenizer.model" => TOKENIZER,
        _ if name.ends_with(".index.json") => INDEX,
        _ if is("jinja") => TEMPLATE,
        _ => SETTINGS,
    }
}

/// Opens a plain file, or a link to one; never waits for a pipe's other end.
///
/// # Errors
/// It is missing, cannot be opened, or is no plain file.
pub fn open(path: &Path) -> Result<File, Error> {
    let io = |source| Error::Io { action: "read", path: path.to_path_buf(), source };
    // Asked before it is opened: a pipe without a writer would keep `open` waiting.
    check(path, &fs::metadata(path).map_err(io)?)?;
    let file = File::open(path).map_err(io)?;
    // Something else may have taken its place.
    check(path, &file.metadata().map_err(io)?)?;
    Ok(file)
}

/// Reads a plain file of at most `limit` bytes; `None` where there is none.
///
/// # Errors
/// As [`open`]; or it is larger.
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let io = |source| Error::Io { action: "read", path: path.to_path_buf(), source };
    let too_large = |found| Error::TooLarge { path: path.to_path_buf(), found, limit };
    let file = match open(path) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        other => other?,
    };
    let size = file.metadata().map_err(io)?.len();
    if size > limit {
        return Err(too_large(size));
    }
    let mut bytes = Vec::new();
    // It may grow meanwhile, and some files of the system say 0.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(Some(bytes))
}

fn check(path: &Path, found: &Metadata) -> Result<(), Error> {
    if found.is_file() {
        return Ok(());
    }
    Err(Error::NotPlain { path: path.to_path_buf(), found: kind(found) })
}

fn kind(found: &Metadata) -> &'static str {
    if found.is_dir() {
        return "a folder";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = found.file_type();
        if kind.is_fifo() {
            return "a pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
    }
    "a device"
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::checkpoint::{Checkpoint, INDEX_FILE, SINGLE_FILE};
    use crate::folder::ModelFolder;

    /// Something that never ends, of each kind, under `name`.
    fn endless(root: &Path, name: &str) -> Vec<tempfile::TempDir> {
        let make: [&dyn Fn(&Path); 4] = [
            &|path| {
                let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
                assert!(made.success());
            },
            &|path| symlink("/dev/zero", path).unwrap(),
            &|path| fs::create_dir(path).unwrap(),
            &|path| File::create(path).unwrap().set_len(100 << 30).unwrap(),
        ];
        let folder = |make: &&dyn Fn(&Path)| {
            let folder = tempfile::tempdir_in(root).unwrap();
            make(&folder.path().join(name));
            folder
        };
        make.iter().map(folder).collect()
    }

    #[test]
    fn small_files_that_never_end_are_refused_at_once() {
        let root = tempfile::tempdir().unwrap();
        for name in ["config.json", "tokenizer.json", "chat_template.jinja", INDEX_FILE, "x.json"] {
            for folder in endless(root.path(), name) {
                let error = ModelFolder::at(folder.path()).unwrap().bytes(name).unwrap_err();
                let wrong = matches!(error, Error::NotPlain { .. } | Error::TooLarge { .. });
                assert!(wrong && error.to_string().contains(name), "{error}");
            }
        }
        let shown: Vec<String> = endless(root.path(), "config.json")
            .iter()
            .map(|folder| {
                let error = ModelFolder::at(folder.path()).unwrap().required("config.json");
                let shown = error.unwrap_err().to_string();
                shown.replace(&folder.path().display().to_string(), "ROOT")
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        `ROOT/config.json` is a pipe, and only plain files are read
        `ROOT/config.json` is a device, and only plain files are read
        `ROOT/config.json` is a folder, and only plain files are read
        `ROOT/config.json` has 107374182400 bytes; of such a file at most 8388608 are read
        ");
    }

    #[test]
    fn weights_are_mapped_from_plain_files_alone() {
        let root = tempfile::tempdir().unwrap();
        for folder in endless(root.path(), SINGLE_FILE) {
            let folder = ModelFolder::at(folder.path()).unwrap();
            // The last is a plain file of 100 GiB, whose header claims nothing.
            assert!(folder.map(SINGLE_FILE).is_err() || folder.contains(SINGLE_FILE));
            assert!(Checkpoint::open_file(&folder, SINGLE_FILE).is_err());
        }
    }

    #[test]
    fn a_file_of_the_system_without_a_size_is_read_up_to_the_limit() {
        let status = Path::new("/proc/self/status");
        if status.exists() {
            assert!(!read(status, 1 << 20).unwrap().unwrap().is_empty());
            assert!(matches!(read(status, 8), Err(Error::TooLarge { found: 9, limit: 8, .. })));
        }
        assert_eq!(read(Path::new("/nowhere"), 8).unwrap(), None);
    }
}
