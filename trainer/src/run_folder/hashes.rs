//! Sizes and SHA-256 of files: whole, or in samples where a file of weights is too large to be read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use graft_files::sha256::{hexadecimal, of_reader, sha256_hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Error, Result, plain};

/// Size and hash of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the content, lower-case hexadecimal.
    pub sha256: String,
    /// Whether only samples of the content were hashed; see [`hash_weights`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sampled: bool,
}

impl FileHash {
    /// The hash of a whole content.
    pub fn of(content: &[u8]) -> Self {
        Self { bytes: content.len() as u64, sha256: sha256_hex(content), sampled: false }
    }
}

/// Hashes a file piece by piece; `progress` hears the bytes of each piece.
pub fn hash_file(path: &Path, progress: impl FnMut(u64)) -> Result<FileHash> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let mut file = plain::open(path).map_err(unreadable)?;
    let (bytes, sha256) = of_reader(&mut file, progress).map_err(unreadable)?;
    Ok(FileHash { bytes, sha256, sampled: false })
}

/// Larger files of weights are hashed in samples, so that a model is not read whole before its first
/// step. Other weights, another length or another header change the hash; a single value may not.
const WHOLE: u64 = 1 << 30;
/// The file's beginning, which holds the header.
const HEAD: u64 = 1 << 20;
/// One sample …
const SAMPLE: u64 = 64 << 10;
/// … stands for so many bytes; the file's last bytes are always in one.
const STRIDE: u64 = 16 << 20;

/// Hashes a file of weights, in samples where it is larger than 1 GiB: its size, its first MiB, the
/// first 64 KiB of every 16 MiB, and the last 64 KiB.
pub fn hash_weights(path: &Path) -> Result<FileHash> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let mut file = plain::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    if bytes <= WHOLE {
        return hash_file(path, |_| ());
    }
    let mut hasher = Sha256::new();
    hasher.update(bytes.to_le_bytes());
    read_no_further(&file);
    let starts = (0..bytes - SAMPLE).step_by(STRIDE as usize).chain([bytes - SAMPLE]);
    let mut buffer = vec![0; HEAD as usize];
    for start in starts {
        let len = if start == 0 { HEAD } else { SAMPLE } as usize;
        file.seek(SeekFrom::Start(start)).map_err(unreadable)?;
        file.read_exact(&mut buffer[..len]).map_err(unreadable)?;
        hasher.update(&buffer[..len]);
    }
    Ok(FileHash { bytes, sha256: hexadecimal(&hasher.finalize()), sampled: true })
}

/// Asks the system not to read what lies around a sample.
fn read_no_further(file: &File) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Random);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Hashes every file of `folder`, and of the folders in it, by their paths inside it; links are followed.
pub fn hash_folder(folder: &Path) -> Result<BTreeMap<String, FileHash>> {
    let mut hashes = BTreeMap::new();
    add_folder(folder, "", &mut hashes)?;
    Ok(hashes)
}

fn add_folder(folder: &Path, inside: &str, hashes: &mut BTreeMap<String, FileHash>) -> Result<()> {
    let unreadable = |source| Error::Read { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = format!("{inside}{}", name.to_string_lossy());
        if path.is_dir() {
            add_folder(&path, &format!("{name}/"), hashes)?;
        } else {
            hashes.insert(name, hash_file(&path, |_| ())?);
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests write files to hash")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_hashes_as_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.bin");
        let content = vec![b'a'; (1 << 20) + 17];
        fs::write(&path, &content).unwrap();
        let mut heard = 0;
        let hash = hash_file(&path, |bytes| heard += bytes).unwrap();
        assert_eq!((hash.bytes, heard), (content.len() as u64, content.len() as u64));
        assert_eq!(hash.sha256, sha256_hex(&content));
    }

    #[test]
    fn a_large_file_of_weights_is_hashed_in_samples_that_see_its_length_and_both_ends() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        // A hole: nothing of it is on the disk.
        let file = File::create(&path).unwrap();
        let hash_of = |len: u64, change: Option<u64>| {
            file.set_len(len).unwrap();
            let put = |byte| {
                let Some(place) = change else { return };
                (&file).seek(SeekFrom::Start(place)).unwrap();
                (&file).write_all(&[byte]).unwrap();
            };
            put(1);
            let hash = hash_weights(&path).unwrap();
            put(0);
            assert_eq!(hash.bytes, len);
            hash
        };
        let len = WHOLE + 12_345;
        let hash = hash_of(len, None);
        assert!(hash.sampled && hash_of(len, None) == hash);
        for place in [0, HEAD - 1, 50 * STRIDE + SAMPLE - 1, len - SAMPLE, len - 1] {
            assert_ne!(hash_of(len, Some(place)).sha256, hash.sha256, "byte {place}");
        }
        assert_ne!(hash_of(len + 1, None).sha256, hash.sha256);
        let small = hash_of(1_000, None);
        assert!(!small.sampled && small == hash_file(&path, |_| ()).unwrap());
    }

    #[test]
    fn a_folder_hashes_as_its_files_by_their_paths() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("a"), "1").unwrap();
        fs::write(folder.path().join("inner/b"), "2").unwrap();
        let hashes = hash_folder(folder.path()).unwrap();
        let expected = [("a", "1"), ("inner/b", "2")]
            .map(|(name, text)| (name.to_owned(), FileHash::of(text.as_bytes())));
        assert_eq!(hashes, BTreeMap::from(expected));
        assert!(hash_folder(&folder.path().join("none")).is_err());
    }
}
