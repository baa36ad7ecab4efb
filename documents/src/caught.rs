//! Readers run on a thread with a known stack: what a library does on a stranger's file, a panic or no end,
//! becomes an error that names the file.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use graft_files::caught::caught;

use crate::document::Document;
use crate::error::Why;
use crate::kind::{Kind, kind};
use crate::limits::Limits;
use crate::readers;

/// Enough for a walk over elements as deep as [`Limits::depth`] lets them be, many times over.
const STACK: usize = 32 << 20;

/// What a reader that does not look at the clock gets beyond its limit before nobody waits for it any more.
const GRACE: Duration = Duration::from_secs(3);

pub(crate) fn on_a_thread(path: &Path, bytes: Vec<u8>, limits: &Limits) -> Result<Document, Why> {
    let kind = kind(path, &bytes)?;
    let (path, limits_there): (PathBuf, Limits) = (path.to_path_buf(), limits.clone());
    let patience = Duration::from_secs(limits.seconds) + GRACE;
    within(kind, limits, patience, move || readers::read(&path, kind, bytes, &limits_there))
}

/// Runs work that may panic or never end.
fn within<T: Send + 'static>(
    kind: Kind,
    limits: &Limits,
    patience: Duration,
    work: impl FnOnce() -> Result<T, Why> + Send + 'static,
) -> Result<T, Why> {
    let (sender, receiver) = channel();
    let run = move || {
        let result = caught(work).unwrap_or(Err(Why::GaveUp { kind }));
        // Where nobody waits any more, nobody asks.
        let _ = sender.send(result);
    };
    let named = thread::Builder::new().name(format!("reads {kind}")).stack_size(STACK);
    let thread = named.spawn(run).map_err(Why::NoThread)?;
    match receiver.recv_timeout(patience) {
        Ok(result) => {
            // It has said its last word, and ends.
            let _ = thread.join();
            result
        }
        Err(RecvTimeoutError::Timeout) => Err(Why::OutOfTime { kind, seconds: limits.seconds }),
        Err(RecvTimeoutError::Disconnected) => Err(Why::GaveUp { kind }),
    }
}

#[cfg(test)]
mod tests {
    use graft_files::caught::panics_are_caught;

    use super::*;

    #[test]
    fn a_panic_and_an_endless_reader_are_errors() {
        let said = |result: Result<(), Why>| result.unwrap_err().to_string();
        let limits = Limits::default();
        let panics = within(Kind::Pdf, &limits, GRACE, || {
            assert!(!panics_are_caught(), "it is caught");
            Ok(())
        });
        insta::assert_snapshot!(said(panics), @"this PDF is broken: its reader gave up on it");
        let (stop, wait) = channel::<()>();
        let limits = Limits { seconds: 0, ..limits };
        let endless = within(Kind::Html, &limits, Duration::ZERO, move || {
            let _ = wait.recv();
            Ok(())
        });
        insta::assert_snapshot!(said(endless), @"reading this HTML page took longer than 0 seconds: it is damaged, or made to keep readers busy");
        drop(stop);
        assert!(!panics_are_caught());
    }
}
