//! Memory or threads that the system does not give.
//!
//! Where an allocation fails nothing can go on, for most of what computes has no way to hear of it: one
//! sentence says how much was asked for and what to do, a run's manifest says that it failed, and the
//! process ends with exit code 1, every file that it wrote before whole. Nothing here asks for memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::last_words::{self, End};
use crate::memory::peak_resident_bytes;

/// What helps where the system gives no memory or no threads.
pub const WAY_OUT: &str = "Raise what limits it (`ulimit -v`, `ulimit -u`, a container's memory or processes), end other \
     programs, or ask for less: fewer `--threads`, smaller batches, shorter rows; `graft plan` says what a \
     run takes";

/// The system's allocator, which ends the process with a sentence where there is no memory.
pub struct Allocator;

// SAFETY: every call is handed on as it came, and what comes back is handed back; a failure does not
// return, which the trait allows as it allows an abort.
#[expect(unsafe_code, reason = "an allocator is unsafe by its trait")]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that the system's allocator asks for; so below.
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { System.realloc(block, layout, size) }, size)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[inline]
fn given(block: *mut u8, size: usize) -> *mut u8 {
    if block.is_null() {
        end(size);
    }
    block
}

/// Says it once, and ends the process.
#[cold]
#[expect(unsafe_code, reason = "write, pause and _exit are C calls that need no memory")]
fn end(size: usize) -> ! {
    // Whoever asks for memory may be any thread.
    static SAID: AtomicBool = AtomicBool::new(false);
    if SAID.swap(true, Ordering::SeqCst) {
        loop {
            // SAFETY: the call waits; the thread that came first ends the process.
            unsafe { libc::pause() };
        }
    }
    let is_run = last_words::say(End::NoMemory);
    let mut line = Line { bytes: [0; 1_024], length: 0 };
    let _ = sentence(&mut line, size, peak_resident_bytes(), address_limit(), is_run);
    // SAFETY: that many bytes of the line are filled; _exit ends the process without a destructor, which
    // might ask for memory.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.length);
        libc::_exit(1)
    }
}

/// What is said of memory that was not given.
fn sentence(
    out: &mut dyn fmt::Write,
    size: usize,
    peak: Option<u64>,
    limit: Option<u64>,
    is_run: bool,
) -> fmt::Result {
    const MIB: u64 = 1 << 20;
    write!(out, "\nerror: the system gives no more memory: {size} bytes more were asked for")?;
    if let Some(peak) = peak {
        write!(out, ", after {} MiB that were in use at most", peak.div_ceil(MIB))?;
    }
    if let Some(limit) = limit {
        write!(out, "; `ulimit -v` lets it have {} MiB of addresses", limit / MIB)?;
    }
    write!(out, ".\n  {WAY_OUT}")?;
    if is_run {
        out.write_str(".\n  What was written so far is whole: `--resume` goes on from it")?;
    }
    out.write_char('\n')
}

/// The most addresses that the process may have, where there is such a limit.
fn address_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::As).current
}

/// A text that lies on the stack. What does not fit is left out.
struct Line {
    bytes: [u8; 1_024],
    length: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.length..];
        let length = text.len().min(room.len());
        room[..length].copy_from_slice(&text.as_bytes()[..length]);
        self.length += length;
        Ok(())
    }
}

/// Whether what an error or a library's panic says is the system's answer that it has no memory (ENOMEM) or
/// no thread (EAGAIN) to give, whoever it was that asked.
pub fn is_cause_of(said: &str) -> bool {
    let any = |answers: [&str; 2]| answers.iter().any(|answer| said.contains(answer));
    let no_memory = any(["(os error 12)", "Os { code: 12,"]);
    // Of other things it means that they are busy.
    let no_thread = any(["(os error 11)", "Os { code: 11,"]) && any(["thread", "Thread"]);
    cfg!(target_os = "linux") && (no_memory || no_thread)
}

/// The error's text with the way out, where it is the system that has no memory or no threads.
pub fn explained(said: &str) -> Cow<'_, str> {
    if !is_cause_of(said) {
        return said.into();
    }
    format!("{said}\n  The system gives this process no more memory or threads. {WAY_OUT}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(peak: Option<u64>, limit: Option<u64>, is_run: bool) -> String {
        let mut line = Line { bytes: [0; 1_024], length: 0 };
        sentence(&mut line, 1_422_336, peak, limit, is_run).unwrap();
        assert!(line.length < line.bytes.len(), "it does not fit");
        String::from_utf8(line.bytes[..line.length].to_vec()).unwrap()
    }

    #[test]
    fn memory_that_is_not_given_is_told_with_its_size_and_the_way_out() {
        insta::assert_snapshot!(said(Some(u64::MAX), Some(u64::MAX - 1), true), @"

        error: the system gives no more memory: 1422336 bytes more were asked for, after 17592186044416 MiB that were in use at most; `ulimit -v` lets it have 17592186044415 MiB of addresses.
          Raise what limits it (`ulimit -v`, `ulimit -u`, a container's memory or processes), end other programs, or ask for less: fewer `--threads`, smaller batches, shorter rows; `graft plan` says what a run takes.
          What was written so far is whole: `--resume` goes on from it
        ");
        insta::assert_snapshot!(said(None, None, false), @"

        error: the system gives no more memory: 1422336 bytes more were asked for.
          Raise what limits it (`ulimit -v`, `ulimit -u`, a container's memory or processes), end other programs, or ask for less: fewer `--threads`, smaller batches, shorter rows; `graft plan` says what a run takes
        ");
    }

    #[test]
    fn the_systems_answer_is_explained_and_no_other() {
        let other = "cannot read `x`: No such file or directory (os error 2)";
        assert_eq!(explained(other), other);
        for answer in [
            std::io::Error::from_raw_os_error(libc::ENOMEM).to_string(),
            format!(
                "failed to spawn thread: {:?}",
                std::io::Error::from_raw_os_error(libc::EAGAIN)
            ),
        ] {
            assert!(explained(&answer).contains(WAY_OUT), "{answer}");
        }
    }
}
