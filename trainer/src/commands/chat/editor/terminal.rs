//! The terminal itself: raw mode, its bytes, its width.

use std::collections::VecDeque;
use std::io;

use super::keys::Source;

/// Bytes that came and were not read as keys yet.
#[derive(Default)]
pub(super) struct Bytes(VecDeque<u8>);

impl Bytes {
    /// Whether nothing has come that was not read.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Source for Bytes {
    fn byte(&mut self, wait: bool) -> io::Result<Option<u8>> {
        if self.0.is_empty() && (wait || system::comes_soon()?) {
            self.0.extend(system::read()?);
        }
        Ok(self.0.pop_front())
    }
}

pub(super) use system::{Raw, columns};

#[cfg(unix)]
#[expect(
    unsafe_code,
    reason = "termios(3), poll(2) and ioctl(2) have no safe wrapper in the dependencies"
)]
mod system {
    use std::io::{self, Write as _};
    use std::mem::MaybeUninit;

    const STDIN: i32 = libc::STDIN_FILENO;
    /// How long the rest of an escape sequence may take, in milliseconds.
    const SOON: i32 = 50;
    const PASTE_ON: &[u8] = b"\x1b[?2004h";
    const PASTE_OFF: &[u8] = b"\x1b[?2004l";

    /// The terminal gives every key as it is pressed, until this is dropped.
    pub(in super::super) struct Raw(libc::termios);

    impl Raw {
        /// Turns raw mode on.
        pub(in super::super) fn begin() -> io::Result<Self> {
            let mut found = MaybeUninit::<libc::termios>::uninit();
            // SAFETY: `found` is room for what tcgetattr writes.
            check(unsafe { libc::tcgetattr(STDIN, found.as_mut_ptr()) })?;
            // SAFETY: tcgetattr has filled it.
            let before = unsafe { found.assume_init() };
            let mut raw = before;
            // SAFETY: `raw` is a whole termios.
            unsafe { libc::cfmakeraw(&raw mut raw) };
            // What is written still ends lines as usual.
            raw.c_oflag = before.c_oflag;
            set(&raw)?;
            let raw = Self(before);
            io::stdout().lock().write_all(PASTE_ON)?;
            Ok(raw)
        }
    }

    impl Drop for Raw {
        fn drop(&mut self) {
            let mut out = io::stdout().lock();
            let _ = out.write_all(PASTE_OFF).and_then(|()| out.flush());
            let _ = set(&self.0);
        }
    }

    fn set(mode: &libc::termios) -> io::Result<()> {
        // SAFETY: `mode` is a whole termios.
        check(unsafe { libc::tcsetattr(STDIN, libc::TCSADRAIN, mode) })
    }

    fn check(result: i32) -> io::Result<()> {
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for bytes; none at the end of input.
    pub(super) fn read() -> io::Result<Vec<u8>> {
        let mut bytes = [0_u8; 4_096];
        loop {
            // SAFETY: the buffer has so many bytes.
            let read = unsafe { libc::read(STDIN, bytes.as_mut_ptr().cast(), bytes.len()) };
            if let Ok(read) = usize::try_from(read) {
                return Ok(bytes[..read].to_vec());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Whether bytes are there, or come in a moment.
    pub(super) fn comes_soon() -> io::Result<bool> {
        let mut asked = libc::pollfd { fd: STDIN, events: libc::POLLIN, revents: 0 };
        // SAFETY: one whole pollfd.
        let ready = unsafe { libc::poll(&raw mut asked, 1, SOON) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            let interrupted = error.kind() == io::ErrorKind::Interrupted;
            return if interrupted { Ok(false) } else { Err(error) };
        }
        Ok(ready > 0)
    }

    /// Columns of the terminal.
    pub(in super::super) fn columns() -> usize {
        let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCGWINSZ fills a winsize.
        let asked = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
        if asked < 0 || size.ws_col == 0 { 80 } else { usize::from(size.ws_col) }
    }
}

#[cfg(not(unix))]
mod system {
    use std::io;

    fn missing<T>() -> io::Result<T> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in super::super) struct Raw;

    impl Raw {
        pub(in super::super) fn begin() -> io::Result<Self> {
            missing()
        }
    }

    pub(super) fn read() -> io::Result<Vec<u8>> {
        missing()
    }

    pub(super) fn comes_soon() -> io::Result<bool> {
        missing()
    }

    pub(in super::super) fn columns() -> usize {
        80
    }
}
