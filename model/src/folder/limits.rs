//! How large the small files of a model may be, which are read whole.

use std::path::Path;

/// A file of settings: config.json, adapter_config.json and their like. Releases have some KB, and
/// tokenizer_config.json up to 1.2 MB.
const SETTINGS: u64 = 8 << 20;
/// A list of shards. The longest known, of a model of 405 billion weights, has 0.1 MB.
const INDEX: u64 = 16 << 20;
/// A tokenizer. Llama 3's has 9 to 17 MB, the largest known 33 MB.
const TOKENIZER: u64 = 64 << 20;
/// A chat template; the longest known have some 20 KB.
const TEMPLATE: u64 = 1 << 20;

/// The most that is read of a file of this name whole.
pub(super) fn limit_of(name: &str) -> u64 {
    let is = |ending: &str| Path::new(name).extension().is_some_and(|found| found == ending);
    match name {
        "tokenizer.json" | "tokenizer.model" => TOKENIZER,
        _ if name.ends_with(".index.json") => INDEX,
        _ if is("jinja") => TEMPLATE,
        _ => SETTINGS,
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use crate::checkpoint::{Checkpoint, INDEX_FILE, SINGLE_FILE};
    use crate::error::Error;
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
}
