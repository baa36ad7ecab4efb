//! Modes of what replaces: nobody but the owner gets more of it than of its predecessor.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Takes from a file or folder what its predecessor, where there is one, does not give to others.
pub(super) fn narrow(new: &Path, old: &Path) -> io::Result<()> {
    match fs::symlink_metadata(old) {
        Ok(old) if !old.is_symlink() => narrow_to(new, old.mode()),
        _ => Ok(()),
    }
}

/// The mode of the file or folder at `path`, if one is there.
pub fn mode_of(path: &Path) -> Option<u32> {
    fs::symlink_metadata(path).ok().filter(|found| !found.is_symlink()).map(|found| found.mode())
}

/// Takes from a file or folder, for all but its owner, what `mode` does not give.
pub fn narrow_to(path: &Path, mode: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?.mode() & 0o7777;
    let narrowed = found & (mode | !0o077);
    if narrowed == found {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(narrowed))
}

/// [`narrow`] for all that lies in a folder; links are left alone.
pub(super) fn narrow_tree(new: &Path, old: &Path) -> io::Result<()> {
    if !old.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(new)? {
        let entry = entry?;
        let (kind, old) = (entry.file_type()?, old.join(entry.file_name()));
        if kind.is_symlink() {
            continue;
        }
        narrow(&entry.path(), &old)?;
        if kind.is_dir() {
            narrow_tree(&entry.path(), &old)?;
        }
    }
    Ok(())
}
