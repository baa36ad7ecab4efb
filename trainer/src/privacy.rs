//! What a command writes is no more open than the most private file that it reads.
//!
//! A file is as private as its own mode and the folders that lead to it make it, but for those that lead to
//! what is written, too: whoever may not pass them does not get there either.
//!
//! Reports, scores and checkpoints hold rows of the data or were made of them. The process's mask of modes
//! (umask(2)) takes from every file that it makes what an input does not give: data of mode 0600 leads to
//! files of 0600 in folders of 0700.

use std::fs::{Metadata, Permissions, canonicalize, metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::{getegid, umask};

/// Closes what is written from now on, at `out`, to whoever may not read all of these files. Those that
/// are not there close nothing.
///
/// Returns the bits of a mode that are closed for it.
pub fn as_private_as<'a>(out: &Path, inputs: impl IntoIterator<Item = &'a Path>) -> u32 {
    let out = existing(out);
    let closed = inputs.into_iter().map(|input| withheld_by(input, &out));
    let closed = closed.fold(0, |all, one| all | one);
    if closed != 0 {
        close(closed);
    }
    closed
}

/// Closes a folder, and with it all that lies in it, by these bits of a mode.
///
/// # Errors
/// It is not the user's own, or not there.
pub fn close_folder(folder: &Path, bits: u32) -> std::io::Result<()> {
    let mode = metadata(folder)?.mode() & 0o7777;
    if mode & bits == 0 {
        return Ok(());
    }
    std::fs::set_permissions(folder, Permissions::from_mode(mode & !bits))
}

/// The bits of a mode that a file withholds, and the folders that lead to it, links resolved, and not to
/// `out`.
fn withheld_by(input: &Path, out: &Path) -> u32 {
    let Ok(path) = canonicalize(input) else { return 0 };
    let Some(found) = metadata(&path).ok().filter(Metadata::is_file) else { return 0 };
    let own = |found: &Metadata| found.gid() == own_group();
    let folders = path.ancestors().skip(1).filter(|folder| !out.starts_with(folder));
    // Whoever may pass a folder can open what lies behind it by name.
    let passed =
        |folder: &Path| metadata(folder).map_or(0, |it| withheld(it.mode() << 2, own(&it)));
    folders.fold(withheld(found.mode(), own(&found)), |all, folder| all | passed(folder))
}

/// The nearest folder at or above a place that is there, links resolved.
fn existing(place: &Path) -> PathBuf {
    let absolute = std::path::absolute(place).unwrap_or_else(|_| place.to_path_buf());
    absolute.ancestors().find_map(|path| canonicalize(path).ok()).unwrap_or_default()
}

/// The bits of a mode that a file of this mode withholds: from its group, and from all others. To a group
/// of another kind than that of new files its own rights mean nothing.
fn withheld(mode: u32, of_own_group: bool) -> u32 {
    let others = mode & 0o004 != 0;
    let group = mode & 0o040 != 0 && (of_own_group || others);
    (if group { 0 } else { 0o070 }) | (if others { 0 } else { 0o007 })
}

fn own_group() -> u32 {
    getegid().as_raw()
}

#[allow(clippy::useless_conversion, reason = "a mode's width differs between systems")]
fn close(bits: u32) {
    let bits = Mode::from_raw_mode(bits.try_into().expect("nine bits fit every mode"));
    // Between the two nothing is made more open than before: the first mask closes all that any has closed.
    let before = umask(Mode::RWXG | Mode::RWXO);
    umask(before | bits);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn folders_that_lead_to_an_input_and_not_to_what_is_written_count() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["private/open", "open", "home/data", "home/runs"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        let close =
            |name: &str, mode| fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
        for folder in ["private/open", "open", "home/data", "home/runs"] {
            close(folder, 0o755);
            graft_files::atomic::write_bytes(at(folder).join("rows"), b"").unwrap();
            close(&format!("{folder}/rows"), 0o644);
        }
        close("private", 0o700);
        close("home", 0o700);
        std::os::unix::fs::symlink(at("private/open/rows"), at("open/link")).unwrap();
        for (input, out, expected) in [
            ("open/rows", "runs/a", 0),
            ("private/open/rows", "runs/a", 0o077),
            ("open/link", "open/runs/a", 0o077),
            ("private/open/rows", "private/runs/a", 0),
            ("home/data/rows", "home/runs/a", 0),
            ("home/data/rows", "open/a", 0o077),
            ("nowhere", "runs/a", 0),
        ] {
            let found = withheld_by(&at(input), &existing(&at(out)));
            assert_eq!(found, expected, "{input} to {out}: {found:o}");
        }
        close("home", 0o711);
        assert_eq!(withheld_by(&at("home/data/rows"), &existing(&at("open/a"))), 0);
    }

    #[test]
    fn what_an_input_withholds_is_withheld() {
        for (mode, own, expected) in [
            (0o644, true, 0),
            (0o644, false, 0),
            (0o600, true, 0o077),
            (0o400, true, 0o077),
            (0o640, true, 0o007),
            (0o640, false, 0o077),
            (0o604, true, 0o070),
        ] {
            assert_eq!(withheld(mode, own), expected, "{mode:o}, own group: {own}");
        }
    }
}
