//! SHA-256 (FIPS 180-4) as people compare it: lower-case hexadecimal, as `sha256sum` prints it.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// The hash of `bytes`, in hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
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
    }
}
