//! What a run was trained on, as one hash for its manifest.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::formats::SourceFile;
use crate::tokenizer::hex;

/// SHA-256 over the bytes of a file, in hexadecimal.
///
/// # Errors
/// The file cannot be read.
pub fn hash_file(path: &Path) -> Result<String, Error> {
    digest(path).map(|digest| hex(&digest))
}

/// SHA-256 over the hashes of the files, in order, in hexadecimal. Paths do not count: the same
/// data in another place is the same data.
///
/// # Errors
/// A file cannot be read.
pub fn hash_files<P: AsRef<Path>>(paths: &[P]) -> Result<String, Error> {
    let mut hasher = Sha256::new();
    for path in paths {
        hasher.update(digest(path.as_ref())?);
    }
    Ok(hex(&hasher.finalize()))
}

/// Bytes of a source and the SHA-256 over them, in hexadecimal.
///
/// # Errors
/// The file cannot be read.
pub fn hash_source(source: &SourceFile) -> Result<(u64, String), Error> {
    if let Some(text) = source.embedded_text() {
        return Ok((text.len() as u64, hex(&Sha256::digest(text))));
    }
    let path = &source.path;
    let metadata = std::fs::metadata(path);
    let bytes = metadata.map_err(|source| Error::Read { path: path.clone(), source })?.len();
    Ok((bytes, hash_file(path)?))
}

fn digest(path: &Path) -> Result<[u8; 32], Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(hasher.finalize().into()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write their own input files")]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_sha256_and_moves_with_the_bytes_and_the_order() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        std::fs::write(&a, "abc").unwrap();
        std::fs::write(&b, "abd").unwrap();
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash_file(&a).unwrap(), abc);
        assert_ne!(hash_files(&[&a, &b]).unwrap(), hash_files(&[&b, &a]).unwrap());
        assert!(hash_file(&folder.path().join("none")).is_err());
        let source = SourceFile::new(&a, crate::formats::Format::Text);
        assert_eq!(hash_source(&source).unwrap(), (3, abc.to_owned()));
    }
}
