//! Signals that ask the process to stop, and the one that a limit on the size of files sends.
//!
//! While a command has nothing that a stop could spoil, the first signal ends the process at once, with exit
//! code 1. From [`work_begins`] on the first one asks the work to stop where it is safe
//! ([`graft_model::stop`]), and the second one ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

use graft_model::stop;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::last_words::{self, End};
use crate::progress::Voice;

/// A signal's handler sees nothing but what the process has.
static WORKS: AtomicBool = AtomicBool::new(false);
/// Whether the work that began last has a voice.
static SPEAKS: AtomicBool = AtomicBool::new(true);

/// From now on signals that ask the process to stop are heard; that of a closed terminal not where `nohup`
/// began the process.
///
/// # Errors
/// The system refuses.
pub fn listen() -> std::io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if signal != SIGHUP || !is_ignored(signal) {
            register(signal)?;
        }
    }
    Ok(())
}

/// From now on a signal that asks the process to stop is for the work to obey, which says so with this voice.
pub fn work_begins(voice: Voice) {
    SPEAKS.store(voice == Voice::Stderr, Ordering::Relaxed);
    WORKS.store(true, Ordering::Relaxed);
}

/// A file that outgrows a limit (`ulimit -f`) is an error like any other, not the end of the process.
#[expect(unsafe_code, reason = "signal(2) is a C call")]
pub fn survive_size_limits() {
    // SAFETY: ignoring a signal installs no handler.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

#[expect(unsafe_code, reason = "sigaction(2) is a C call")]
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only fills `action`; zeros are a valid one.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

#[expect(unsafe_code, reason = "what runs in a signal's handler must be safe there")]
fn register(signal: i32) -> std::io::Result<()> {
    // SAFETY: the action touches atomics and calls write and _exit, which signal-safety(7) allows; the
    // registry keeps `errno`.
    unsafe { signal_hook::low_level::register(signal, move || heard(signal)) }.map(|_| ())
}

/// What happens in the handler.
fn heard(signal: i32) {
    let first = stop::ask(signal);
    if !WORKS.load(Ordering::Relaxed) {
        say(&["\nerror: stopped by ", stop::name(signal), ": nothing was changed\n"]);
    } else if !first {
        last_words::say(End::AtOnce);
        say(&["\nerror: ended at once by another signal\n"]);
    } else {
        if SPEAKS.load(Ordering::Relaxed) {
            let name = stop::name(signal);
            say(&["\nstopping by ", name, ": it goes on to a safe end; once more ends at once\n"]);
        }
        return;
    }
    signal_hook::low_level::exit(1);
}

/// Writes to stderr as a handler may.
#[expect(unsafe_code, reason = "the standard library's stderr has a lock that the thread may hold")]
fn say(parts: &[&str]) {
    for part in parts {
        // SAFETY: write(2) reads that many bytes of a living text and may be called in a handler.
        unsafe {
            libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len());
        }
    }
}
