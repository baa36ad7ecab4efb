//! What a command writes is no more open than the most private file that it reads.
//!
//! Reports, scores and checkpoints hold rows of the data or were made of them. The process's mask of modes
//! (umask(2)) takes from every file that it makes what an input does not give: data of mode 0600 leads to
//! files of 0600 in folders of 0700.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Closes what is written from now on to whoever may not read all of these files. Those that are not
/// there close nothing.
pub fn as_private_as<'a>(inputs: impl IntoIterator<Item = &'a Path>) {
    let closed = inputs.into_iter().filter_map(|input| {
        let found = std::fs::metadata(input).ok().filter(std::fs::Metadata::is_file)?;
        Some(withheld(found.mode(), found.gid() == own_group()))
    });
    let closed = closed.fold(0, |all, one| all | one);
    if closed != 0 {
        close(closed);
    }
}

/// The bits of a mode that a file of this mode withholds: from its group, and from all others. To a group
/// of another kind than that of new files its own rights mean nothing.
fn withheld(mode: u32, of_own_group: bool) -> u32 {
    let others = mode & 0o004 != 0;
    let group = mode & 0o040 != 0 && (of_own_group || others);
    (if group { 0 } else { 0o070 }) | (if others { 0 } else { 0o007 })
}

#[expect(unsafe_code, reason = "getegid(2) is a C call")]
fn own_group() -> u32 {
    // SAFETY: the call takes nothing and cannot fail.
    unsafe { libc::getegid() }
}

#[expect(unsafe_code, reason = "umask(2) is a C call")]
#[allow(clippy::useless_conversion, reason = "a mode's width differs between systems")]
fn close(bits: u32) {
    let bits = libc::mode_t::try_from(bits).expect("nine bits fit every mode");
    // SAFETY: the calls set a number of the process and cannot fail. Between the two nothing is made more
    // open than before: the first mask closes all that any has closed.
    unsafe {
        let before = libc::umask(0o077);
        libc::umask(before | bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
