//! A page of a mapped model that cannot be read: its file was cut short, or its disk failed.
//!
//! The system then sends SIGBUS in the middle of whatever read the page (mmap(2)), and nothing can go on.
//! One sentence says why, and the process ends as after any other failure: with exit code 1, and with
//! every file that it wrote before whole.

/// From now on such a page ends the process with a sentence that names `folder`.
pub fn explain(folder: &str) {
    #[cfg(target_os = "linux")]
    linux::explain(format!(
        "\nerror: a weight of `{folder}` cannot be read any more: its file was cut short, or its disk \
         failed. What was written so far is whole: put the file right, and `graft train --resume` goes \
         on from the last checkpoint\n",
        folder = graft_data::visible(folder)
    ));
    #[cfg(not(target_os = "linux"))]
    let _ = folder;
}

#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "signal handlers have no safe wrapper for SIGBUS, which cannot be deferred"
)]
mod linux {
    use std::sync::OnceLock;

    use crate::last_words::{self, End};

    static SENTENCE: OnceLock<String> = OnceLock::new();

    /// There is no page where one should be (sigaction(2)); a hardware's error has another code.
    const BUS_ADRERR: i32 = 2;

    pub(super) fn explain(sentence: String) {
        // A process trains or answers with one model; merging opens a second, whose disk is the same.
        if SENTENCE.set(sentence).is_err() {
            return;
        }
        let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
        // SAFETY: the action is zeroed, which is valid for it, and then filled; the handler has the type
        // that SA_SIGINFO asks for and does nothing but what signal-safety(7) allows.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        }
    }

    extern "C" fn on_bus_error(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the system gives a valid `info`; write, signal and _exit may be called in a handler.
        unsafe {
            if (*info).si_code != BUS_ADRERR {
                // Not ours to explain: the instruction runs again and ends the process as by default.
                libc::signal(signal, libc::SIG_DFL);
                return;
            }
            last_words::say(End::LostPage);
            if let Some(sentence) = SENTENCE.get() {
                libc::write(2, sentence.as_ptr().cast(), sentence.len());
            }
            libc::_exit(1);
        }
    }
}
