//! Reading of a text that a person wrote: a plain file, and never more of it than a limit.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// The system refuses.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// A pipe may never end, a device has no end, a folder no text.
    #[error("it is {0}, and only plain files are read")]
    NotPlain(&'static str),
    /// Longer than anything that is meant.
    #[error("it has {found} bytes; allowed: at most {limit}")]
    Long {
        /// Its size; `more than N` where that is all that is known.
        found: String,
        /// The most that is read.
        limit: u64,
    },
}

/// The bytes of a plain file of at most `limit` bytes. Nothing else is even opened: opening a pipe
/// waits for whoever writes to it.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Unreadable> {
    plain(&std::fs::metadata(path)?, limit)?;
    let file = File::open(path)?;
    // It may have been replaced in between.
    plain(&file.metadata()?, limit)?;
    let mut bytes = Vec::new();
    // Files of the system have no size until they are read.
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(Unreadable::Long { found: format!("more than {limit}"), limit });
    }
    Ok(bytes)
}

fn plain(found: &std::fs::Metadata, limit: u64) -> Result<(), Unreadable> {
    if found.is_dir() {
        return Err(Unreadable::NotPlain("a folder"));
    }
    if !found.is_file() {
        return Err(Unreadable::NotPlain("a pipe, a socket or a device"));
    }
    if found.len() > limit {
        return Err(Unreadable::Long { found: found.len().to_string(), limit });
    }
    Ok(())
}
