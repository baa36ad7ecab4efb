//! What a run's manifest says where the process ends on the spot: in a signal's handler, by a page that
//! cannot be read any more or a second Ctrl-C, or where the system gives no memory.
//!
//! There nothing can be formatted and no memory asked for (signal-safety(7)), so what would be written is
//! made ready with every manifest of a run that goes on.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};

use graft_files::atomic::temporary_beside;

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
    folder: CString,
    /// Device and inode of the folder when they were made ready: nothing is said in another one's place.
    place: Option<(u64, u64)>,
    /// The content of the file, in the order of [`End::ALL`].
    contents: [Vec<u8>; End::ALL.len()],
}

/// What is ready for one file.
struct Ready {
    target: PathBuf,
    /// Null where nothing is left to say.
    words: AtomicPtr<Words>,
    next: *mut Self,
}

/// One of every file that there were words for, newest first. A handler reads it while others write: no entry
/// ever goes.
#[derive(Default)]
struct All {
    first: AtomicPtr<Ready>,
    adds: Mutex<()>,
}

/// A handler sees nothing but what the process has: the words of all its runs.
static ALL: All = All { first: AtomicPtr::new(ptr::null_mut()), adds: Mutex::new(()) };

/// From now on the file `target` gets one of these contents, in the order of [`End::ALL`], if the process
/// ends on the spot.
pub fn prepare(target: &Path, contents: [Vec<u8>; End::ALL.len()]) {
    ALL.prepare(target, contents);
}

/// From now on nothing is left to say of this file.
pub fn forget(target: &Path) {
    ALL.forget(target);
}

/// Replaces every file that has words by those for this end; false where there is none. Safe in handlers, and
/// what fails is not told.
pub fn say(end: End) -> bool {
    ALL.say(end)
}

impl All {
    fn prepare(&self, target: &Path, contents: [Vec<u8>; End::ALL.len()]) {
        let temporary = CString::new(temporary_beside(target).as_os_str().as_bytes());
        let path = CString::new(target.as_os_str().as_bytes());
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let folder = CString::new(parent.as_os_str().as_bytes());
        // A path with a NUL was opened by nobody.
        if let (Ok(temporary), Ok(path), Ok(folder)) = (temporary, path, folder) {
            let place = parent.metadata().ok().map(|found| (found.dev(), found.ino()));
            // What was ready before stays in memory: a handler may be reading it. It is a page a run.
            let words = Words { temporary, target: path, folder, place, contents };
            let words = Box::into_raw(Box::new(words));
            let _alone = self.adds.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(ready) = self.of(target) {
                ready.words.store(words, Ordering::SeqCst);
                return;
            }
            let (words, next) = (AtomicPtr::new(words), self.first.load(Ordering::SeqCst));
            let ready = Box::new(Ready { target: target.to_owned(), words, next });
            self.first.store(Box::into_raw(ready), Ordering::SeqCst);
        }
    }

    fn forget(&self, target: &Path) {
        if let Some(ready) = self.of(target) {
            ready.words.store(ptr::null_mut(), Ordering::SeqCst);
        }
    }

    #[expect(unsafe_code, reason = "words are read without a lock")]
    fn say(&self, end: End) -> bool {
        // SAFETY: what is stored is null or came from `Box::into_raw` and is never freed.
        let words = |ready: &Ready| unsafe { ready.words.load(Ordering::SeqCst).as_ref() };
        self.entries().filter_map(words).fold(false, |_, words| words.say(end))
    }

    fn of(&self, target: &Path) -> Option<&Ready> {
        self.entries().find(|ready| ready.target == target)
    }

    #[expect(unsafe_code, reason = "the list is read without a lock")]
    fn entries(&self) -> impl Iterator<Item = &Ready> {
        // SAFETY: what `first` and `next` hold is null or came from `Box::into_raw`, is never freed, and apart
        // from its atomic is never written again.
        let entry = |ready: *mut Ready| unsafe { ready.as_ref() };
        let first = entry(self.first.load(Ordering::SeqCst));
        std::iter::successors(first, move |ready| entry(ready.next))
    }
}

impl Words {
    /// Replaces the file, if it can be.
    #[expect(unsafe_code, reason = "a handler may make plain calls of the system and nothing else")]
    fn say(&self, end: End) -> bool {
        let content = &self.contents[end as usize];
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
        // SAFETY: both paths end in NUL and the content is living memory; a zeroed `stat` is valid; open, stat,
        // fchmod, write, fsync, close and rename may be called in a handler.
        unsafe {
            let mut now: libc::stat = std::mem::zeroed();
            let found = libc::stat(self.folder.as_ptr(), &raw mut now);
            if found != 0 || self.place != Some((now.st_dev, now.st_ino)) {
                return true;
            }
            let file = libc::open(self.temporary.as_ptr(), flags, 0o666);
            if file < 0 {
                return true;
            }
            // No more open than what it replaces.
            let mut before: libc::stat = std::mem::zeroed();
            if libc::stat(self.target.as_ptr(), &raw mut before) == 0 {
                libc::fchmod(file, before.st_mode & 0o666);
            }
            let written = libc::write(file, content.as_ptr().cast(), content.len());
            let whole = usize::try_from(written) == Ok(content.len()) && libc::fsync(file) == 0;
            libc::close(file);
            if whole {
                libc::rename(self.temporary.as_ptr(), self.target.as_ptr());
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_replaces_the_file_of_every_run_by_what_was_made_ready() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a.json", "b.json"].map(|name| folder.path().join(name));
        let all = All::default();
        let text = |path: &Path, end: End| format!("{} {end:?}", path.display());
        for path in &paths {
            all.prepare(path, End::ALL.map(|_| Vec::new()));
            all.prepare(path, End::ALL.map(|end| text(path, end).into_bytes()));
        }
        for end in End::ALL {
            assert!(all.say(end));
            for path in &paths {
                assert_eq!(std::fs::read_to_string(path).unwrap(), text(path, end));
            }
        }
        for path in &paths {
            std::fs::remove_file(path).unwrap();
        }
        // What is in the place of the folder is nobody's to write in.
        let [away, moved] = ["away", "moved"].map(|name| folder.path().join(name));
        std::fs::create_dir(&away).unwrap();
        all.prepare(&away.join("c.json"), End::ALL.map(|_| b"c".to_vec()));
        std::fs::rename(&away, &moved).unwrap();
        for is_there in [false, true] {
            if is_there {
                std::fs::create_dir(&away).unwrap();
            }
            all.say(End::AtOnce);
            assert_eq!(away.exists(), is_there);
            assert!(!away.join("c.json").exists() && !moved.join("c.json").exists());
        }
        all.forget(&away.join("c.json"));
        for path in [&away, &moved] {
            std::fs::remove_dir(path).unwrap();
        }
        for path in &paths {
            std::fs::remove_file(path).unwrap();
        }
        // The end of one run leaves the other's words.
        all.forget(&paths[0]);
        assert!(all.say(End::AtOnce));
        assert_eq!(std::fs::read_to_string(&paths[1]).unwrap(), text(&paths[1], End::AtOnce));
        std::fs::remove_file(&paths[1]).unwrap();
        all.forget(&paths[1]);
        assert!(!all.say(End::AtOnce));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
