//! Which samples of a cache are held out, kept beside them: to find that, all rows are read, and the same rows, fraction and seed give
//! the same.
//!
//! A file `split-HASH`, whose hash is that of what it was made of: CRC-32 of what follows, 4 bytes, little-endian; the whole
//! hash, 64; and a bit for each sample that is held out.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use graft_files::plain_file;
use graft_files::sha256::sha256_hex;

use super::sealed;
use crate::error::Error;
use crate::formats::{FileDigest, Origin};
use crate::split::Split;

const FORM: &str = concat!("1 ", env!("CARGO_PKG_VERSION"));
pub(super) const PREFIX: &str = "split-";
/// Hexadecimal digits.
const HASH: usize = 64;

/// What a split is made of.
pub(crate) struct Basis<'a> {
    pub(crate) files: &'a [FileDigest],
    pub(crate) fraction: f64,
    pub(crate) seed: u64,
    pub(crate) together: &'a [(Origin, Origin)],
    pub(crate) samples: usize,
}

impl Basis<'_> {
    /// How rows became samples, the folder says.
    fn sha256(&self) -> String {
        let Self { files, fraction, seed, together, samples } = self;
        let mut text = format!("{FORM}\n{:x} {seed} {samples}\n", fraction.to_bits());
        for FileDigest { bytes, sha256 } in *files {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{bytes} {sha256}");
        }
        for pair in *together {
            let _ = writeln!(text, "{pair:?}");
        }
        sha256_hex(text.as_bytes())
    }
}

/// The split that is kept in the folder of a cache, or the one that is made, which is kept from then on.
///
/// # Errors
/// Those of `make`.
pub(crate) fn kept_or(
    folder: &Path,
    basis: &Basis<'_>,
    make: impl FnOnce() -> Result<Split, Error>,
) -> Result<Split, Error> {
    let hash = basis.sha256();
    let place = folder.join(format!("{PREFIX}{}", &hash[..32]));
    if let Some(split) = read(&place, &hash, basis.samples) {
        return Ok(split);
    }
    let split = make()?;
    // What cannot be kept is made again at the next start, and no more.
    let _ = write(&place, &hash, &split, basis.samples);
    Ok(split)
}

/// `None` where there is none, or a damaged one.
fn read(place: &Path, hash: &str, samples: usize) -> Option<Split> {
    let length = 4 + HASH + samples.div_ceil(8);
    let bytes = plain_file::read(place, length as u64).ok().filter(|it| it.len() == length)?;
    let (known, bits) = sealed::opened(&bytes)?.split_at(HASH);
    if known != hash.as_bytes() {
        return None;
    }
    let is_held_out = |at: usize| bits[at / 8] >> (at % 8) & 1 == 1;
    let held_out: usize = bits.iter().map(|byte| byte.count_ones() as usize).sum();
    let mut split = Split {
        train: Vec::with_capacity(samples.checked_sub(held_out)?),
        validation: Vec::with_capacity(held_out),
    };
    for at in 0..samples {
        let side = if is_held_out(at) { &mut split.validation } else { &mut split.train };
        side.push(at as u32);
    }
    Some(split)
}

fn write(place: &Path, hash: &str, split: &Split, samples: usize) -> io::Result<()> {
    let mut bits = vec![0_u8; samples.div_ceil(8)];
    for &at in &split.validation {
        bits[at as usize / 8] |= 1 << (at % 8);
    }
    let content = [hash.as_bytes(), &bits].concat();
    sealed::write(place, PREFIX, b"", &content)
}
