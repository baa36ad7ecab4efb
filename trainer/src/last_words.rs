//! What a run's manifest says where the process ends on the spot: in a signal's handler, by a page that
//! cannot be read any more or a second Ctrl-C, or where the system gives no memory.
//!
//! There nothing can be formatted and no memory asked for (signal-safety(7)), so what would be written is
//! made ready with every manifest of a run that goes on.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Why a process ends on the spot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A page of a weight cannot be read.
    LostPage,
    /// Asked to stop twice.
    AtOnce,
    /// The system gives no memory.
    NoMemory,
}

impl End {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::LostPage, Self::AtOnce, Self::NoMemory];
}

struct Words {
    temporary: CString,
    target: CString,
    /// The content of the file, in the order of [`End::ALL`].
    contents: [Vec<u8>; End::ALL.len()],
}

static WORDS: AtomicPtr<Words> = AtomicPtr::new(ptr::null_mut());

/// From now on the file `target` gets one of these contents, in the order of [`End::ALL`], if the process
/// ends on the spot.
pub fn prepare(target: &Path, contents: [Vec<u8>; End::ALL.len()]) {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    // A name by which `graft_files::atomic` knows a leftover, and which it gives to none.
    let temporary = format!(".{name}.tmp-{}-{}", std::process::id(), u64::MAX);
    let temporary = CString::new(target.with_file_name(temporary).as_os_str().as_bytes());
    let target = CString::new(target.as_os_str().as_bytes());
    // A path with a NUL was opened by nobody.
    if let (Ok(temporary), Ok(target)) = (temporary, target) {
        let words = Box::new(Words { temporary, target, contents });
        // What was ready before stays in memory: a handler may be reading it. It is a page a run.
        WORDS.store(Box::into_raw(words), Ordering::SeqCst);
    }
}

/// From now on nothing is left to say.
pub fn forget() {
    WORDS.store(ptr::null_mut(), Ordering::SeqCst);
}

/// Replaces the file by what was made ready for this end; false where there is none. Safe in handlers, and
/// what fails is not told.
#[expect(unsafe_code, reason = "a handler may make plain calls of the system and nothing else")]
pub fn say(end: End) -> bool {
    // SAFETY: what is stored is null or came from `Box::into_raw` and is never freed.
    let Some(words) = (unsafe { WORDS.load(Ordering::SeqCst).as_ref() }) else { return false };
    let content = &words.contents[end as usize];
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
    // SAFETY: both paths end in NUL and the content is living memory; a zeroed `stat` is valid; open, stat,
    // fchmod, write, fsync, close and rename may be called in a handler.
    unsafe {
        let file = libc::open(words.temporary.as_ptr(), flags, 0o666);
        if file < 0 {
            return true;
        }
        // No more open than what it replaces.
        let mut before: libc::stat = std::mem::zeroed();
        if libc::stat(words.target.as_ptr(), &raw mut before) == 0 {
            libc::fchmod(file, before.st_mode & 0o666);
        }
        let written = libc::write(file, content.as_ptr().cast(), content.len());
        let whole = usize::try_from(written) == Ok(content.len()) && libc::fsync(file) == 0;
        libc::close(file);
        if whole {
            libc::rename(words.temporary.as_ptr(), words.target.as_ptr());
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_replaces_the_file_by_what_was_made_ready() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        for end in End::ALL {
            let contents = End::ALL.map(|end| format!("{end:?}").into_bytes());
            prepare(&path, contents);
            assert!(say(end));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{end:?}"));
        }
        forget();
        std::fs::remove_file(&path).unwrap();
        assert!(!say(End::AtOnce));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
