//! A page of a mapped file that cannot be read: the file was cut short, or its disk failed.
//!
//! The system then sends SIGBUS in the middle of whatever read the page (mmap(2)), and nothing can go on.
//! One sentence names the file, which the system knows by the address, and the process ends as after any
//! other failure: with exit code 1, and with every file that it wrote before whole.

/// From now on such a page ends the process with a sentence that names its file.
pub fn explain() {
    #[cfg(target_os = "linux")]
    linux::explain();
}

#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "signal handlers have no safe wrapper for SIGBUS, which cannot be deferred"
)]
mod linux {
    use crate::last_words::{self, End};

    /// There is no page where one should be (sigaction(2)); a hardware's error has another code.
    const BUS_ADRERR: i32 = 2;

    pub(super) fn explain() {
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
        // SAFETY: the system gives a valid `info`, whose address is that of the page for this signal; signal
        // and _exit may be called in a handler.
        unsafe {
            if (*info).si_code != BUS_ADRERR {
                // Not ours to explain: the instruction runs again and ends the process as by default.
                libc::signal(signal, libc::SIG_DFL);
                return;
            }
            last_words::say(End::LostPage);
            say_which((*info).si_addr() as usize);
            libc::_exit(1);
        }
    }

    /// Says on stderr which file lies at an address; of a handler: nothing is allocated or formatted.
    fn say_which(address: usize) {
        say(b"\nerror: `");
        if !with_lines_of(c"/proc/self/maps", &mut |line| match path_at(line, address) {
            Some(path) => {
                path.chunks(64).for_each(say_visibly);
                true
            }
            None => false,
        }) {
            say(b"a mapped file");
        }
        say(
            b"` cannot be read any more: it was cut short, or its disk failed. Nothing that was begun took its \
              place: put the file right, then run the command again, which removes what it left; a run goes on \
              from its last checkpoint with `graft train --resume`\n",
        );
    }

    /// Gives each line of a file until `found` returns true; whether it did. Of a line that is longer than
    /// paths are the beginning is given.
    fn with_lines_of(path: &std::ffi::CStr, found: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        // SAFETY: the path ends in NUL; open, read and close may be called in a handler.
        let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        let (mut line, mut length) = ([0_u8; 1024], 0);
        let mut buffer = [0_u8; 512];
        let mut is_found = false;
        while !is_found && file >= 0 {
            // SAFETY: the buffer is living memory of this length.
            let read = unsafe { libc::read(file, buffer.as_mut_ptr().cast(), buffer.len()) };
            let Some(read) = usize::try_from(read).ok().filter(|&read| read > 0) else { break };
            for &byte in buffer.get(..read).unwrap_or_default() {
                if byte == b'\n' {
                    is_found = is_found || found(line.get(..length).unwrap_or_default());
                    length = 0;
                } else if let Some(place) = line.get_mut(length) {
                    *place = byte;
                    length += 1;
                }
            }
        }
        if file >= 0 {
            // SAFETY: it was opened above.
            unsafe { libc::close(file) };
        }
        is_found
    }

    /// The path of a line of /proc/PID/maps (proc_pid_maps(5)) if `address` lies in what it describes.
    pub(super) fn path_at(line: &[u8], address: usize) -> Option<&[u8]> {
        let mut fields = line.splitn(6, |&byte| byte == b' ');
        let mut range = fields.next()?.splitn(2, |&byte| byte == b'-').map(hexadecimal);
        let (first, end) = (range.next()??, range.next()??);
        let path = fields.nth(4)?.trim_ascii_start();
        (first <= address && address < end && !path.is_empty()).then_some(path)
    }

    fn hexadecimal(digits: &[u8]) -> Option<usize> {
        digits.iter().try_fold(0_usize, |number, &digit| {
            let digit = char::from(digit).to_digit(16)?;
            number.checked_mul(16)?.checked_add(digit as usize)
        })
    }

    /// Of a path, without what steers a terminal.
    fn say_visibly(part: &[u8]) {
        let mut visible = [b'?'; 64];
        for (to, &from) in visible.iter_mut().zip(part) {
            if (0x20..0x7f).contains(&from) {
                *to = from;
            }
        }
        say(visible.get(..part.len()).unwrap_or_default());
    }

    fn say(text: &[u8]) {
        // SAFETY: the text is living memory; write may be called in a handler.
        unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::linux::path_at;

    #[test]
    fn the_file_at_an_address_is_found_by_the_systems_own_lines() {
        let line = b"7f10-7f20 r--s 00000000 fe:00 1234                       /m/a b.safetensors";
        assert_eq!(path_at(line, 0x7f10), Some(&b"/m/a b.safetensors"[..]));
        assert_eq!(path_at(line, 0x7f1f), Some(&b"/m/a b.safetensors"[..]));
        assert_eq!([path_at(line, 0x7f20), path_at(line, 0x7f0f)], [None, None]);
        assert_eq!(path_at(b"7f10-7f20 rw-p 00000000 00:00 0 ", 0x7f10), None);
        assert_eq!(path_at(b"what is this", 0), None);
    }
}
