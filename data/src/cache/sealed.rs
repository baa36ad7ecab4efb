//! A small file of a cache behind the CRC-32 of what it holds, 4 bytes, little-endian.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use crate::samples::number;

/// What is behind the sum; `None` where the sum is that of something else.
pub(super) fn opened(bytes: &[u8]) -> Option<&[u8]> {
    let (sum, content) = bytes.split_at_checked(4)?;
    (number(sum) == u64::from(crc32fast::hash(content))).then_some(content)
}

/// Puts it, behind `beginning`, in the place of what is there, whole or not at all. Until it is whole its name begins
/// with `prefix`.
pub(super) fn write(
    place: &Path,
    prefix: &str,
    beginning: &[u8],
    content: &[u8],
) -> io::Result<()> {
    let folder = place.parent().unwrap_or(Path::new("."));
    // Nobody else may read it: that is how such a file is made.
    let mut file = tempfile::Builder::new().prefix(prefix).suffix(".new").tempfile_in(folder)?;
    file.write_all(beginning)?;
    file.write_all(&crc32fast::hash(content).to_le_bytes())?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(place)?;
    File::open(folder)?.sync_all()
}
