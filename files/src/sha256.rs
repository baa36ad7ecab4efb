//! SHA-256 (FIPS 180-4) as people compare it: lower-case hexadecimal, as `sha256sum` prints it.

use std::fmt::Write as _;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// The hash of `bytes`, in hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Size and hash of all that is left to read, piece by piece; `progress` hears the bytes of each piece.
///
/// # Errors
/// The reader's.
pub fn of_reader(
    reader: &mut impl Read,
    mut progress: impl FnMut(u64),
) -> io::Result<(u64, String)> {
    let (mut hasher, mut buffer, mut bytes) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, hexadecimal(&hasher.finalize())));
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
        progress(read as u64);
    }
}

/// Bytes as lower-case hexadecimal: of a digest that came from pieces.
pub fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(digest.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_standards_example() {
        // FIPS 180-4, appendix example.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(b"abc"), abc);
        assert_eq!(hexadecimal(&[0, 9, 10, 0xff]), "00090aff");
        let mut pieces = Vec::new();
        let read = of_reader(&mut &b"abc"[..], |piece| pieces.push(piece)).unwrap();
        assert_eq!((read, pieces), ((3, abc.to_owned()), vec![3]));
    }
}
