//! Whether the process was asked to stop: by Ctrl-C, by a scheduler, by a terminal that was closed.
//!
//! Long work asks here between its parts and ends with [`Stopped`], as after any other error: what was
//! half written is removed. Who asks, and when, is the program's business.

use std::sync::atomic::{AtomicI32, Ordering};

/// A signal is for the whole process, and its handler sees nothing but what that has.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// The process was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped by {}", name(self.0))]
pub struct Stopped(i32);

/// Asks the work of this process to stop, because of this signal; whether it is the first to ask. It may
/// be called in a signal's handler.
pub fn ask(signal: i32) -> bool {
    SIGNAL.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

/// Fails once the process was asked to stop.
///
/// # Errors
/// [`Stopped`].
pub fn check() -> Result<(), Stopped> {
    match SIGNAL.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => Err(Stopped(signal)),
    }
}

/// What people call a signal.
pub fn name(signal: i32) -> &'static str {
    match signal {
        libc::SIGINT => "Ctrl-C",
        libc::SIGTERM => "SIGTERM",
        libc::SIGHUP => "SIGHUP, a terminal that was closed",
        _ => "a signal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test: the process has one answer, and other tests of this crate load models.
    #[test]
    fn signals_have_names_that_people_know() {
        let texts = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP].map(|s| Stopped(s).to_string());
        insta::assert_snapshot!(texts.join("\n"), @r"
        stopped by Ctrl-C
        stopped by SIGTERM
        stopped by SIGHUP, a terminal that was closed
        ");
    }
}
