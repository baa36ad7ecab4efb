//! The terminal itself: raw mode, its bytes, its width.

use std::collections::VecDeque;
use std::io;

use super::keys::KeyBytes;

/// Bytes that came and were not read as keys yet.
#[derive(Default)]
pub(super) struct Bytes(VecDeque<u8>);

impl Bytes {
    /// Whether nothing has come that was not read.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl KeyBytes for Bytes {
    fn byte(&mut self, wait: bool) -> io::Result<Option<u8>> {
        if self.0.is_empty() && (wait || system::comes_soon()?) {
            self.0.extend(system::read()?);
        }
        Ok(self.0.pop_front())
    }
}

pub(super) use system::{Raw, columns};

#[cfg(unix)]
mod system {
    use std::io::{self, Write as _};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::io::{Errno, retry_on_intr};
    use rustix::stdio::{stdin, stdout};
    use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

    /// How long the rest of an escape sequence may take: 50 milliseconds.
    const SOON: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    const PASTE_ON: &[u8] = b"\x1b[?2004h";
    const PASTE_OFF: &[u8] = b"\x1b[?2004l";

    /// The terminal gives every key as it is pressed, until this is dropped.
    pub(in super::super) struct Raw(Termios);

    impl Raw {
        /// Turns raw mode on.
        pub(in super::super) fn begin() -> io::Result<Self> {
            let before = tcgetattr(stdin())?;
            let mut raw = before.clone();
            raw.make_raw();
            // What is written still ends lines as usual.
            raw.output_modes = before.output_modes;
            tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
            let raw = Self(before);
            io::stdout().lock().write_all(PASTE_ON)?;
            Ok(raw)
        }
    }

    impl Drop for Raw {
        fn drop(&mut self) {
            let mut out = io::stdout().lock();
            let _ = out.write_all(PASTE_OFF).and_then(|()| out.flush());
            let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.0);
        }
    }

    /// Waits for bytes; none at the end of input.
    pub(super) fn read() -> io::Result<Vec<u8>> {
        let mut bytes = [0_u8; 4_096];
        let read = retry_on_intr(|| rustix::io::read(stdin(), &mut bytes))?;
        Ok(bytes[..read].to_vec())
    }

    /// Whether bytes are there, or come in a moment.
    pub(super) fn comes_soon() -> io::Result<bool> {
        match poll(&mut [PollFd::new(&stdin(), PollFlags::IN)], Some(&SOON)) {
            Err(Errno::INTR) => Ok(false),
            ready => Ok(ready? > 0),
        }
    }

    /// Columns of the terminal.
    pub(in super::super) fn columns() -> usize {
        let asked = tcgetwinsize(stdout()).map_or(0, |size| size.ws_col);
        if asked == 0 { 80 } else { usize::from(asked) }
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
