//! What reading one file has used of its limits.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::error::Why;
use crate::kind::Kind;
use crate::limits::Limits;

/// The limits of one file, and what is used of them. Documents within it (attachments) share it.
pub(crate) struct Budget {
    pub(crate) limits: Limits,
    kind: Kind,
    began: Instant,
    text: Cell<usize>,
    blocks: Cell<usize>,
    unpacked: Cell<u64>,
}

impl Budget {
    pub(crate) fn new(kind: Kind, limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            kind,
            began: Instant::now(),
            text: Cell::new(0),
            blocks: Cell::new(0),
            unpacked: Cell::new(0),
        }
    }

    /// Counts a block of text.
    pub(crate) fn block(&self, bytes: usize) -> Result<(), Why> {
        self.time()?;
        self.blocks.set(self.blocks.get() + 1);
        self.check("blocks", self.blocks.get() as u64, self.limits.blocks as u64)?;
        self.text.set(self.text.get().saturating_add(bytes));
        self.check("bytes of text", self.text.get() as u64, self.limits.text as u64)
    }

    /// Bytes that may still be unpacked.
    pub(crate) fn unpacked_left(&self) -> u64 {
        self.limits.unpacked.saturating_sub(self.unpacked.get())
    }

    /// Counts what was unpacked.
    pub(crate) fn unpack(&self, bytes: u64) -> Result<(), Why> {
        self.time()?;
        self.unpacked.set(self.unpacked.get().saturating_add(bytes));
        self.check("bytes unpacked", self.unpacked.get(), self.limits.unpacked)
    }

    /// Checks the number of elements of a page: each takes some memory, however little it holds.
    pub(crate) fn nodes(&self, found: usize) -> Result<(), Why> {
        self.check("elements and texts", found as u64, 4 * self.limits.blocks as u64)
    }

    /// Checks what a single stream unpacks to, where it is not kept.
    pub(crate) fn one_stream(&self, bytes: u64) -> Result<(), Why> {
        self.check("bytes unpacked of one stream", bytes, self.limits.unpacked)
    }

    /// Checks the number of glyphs of a page: more are drawn to keep readers busy.
    pub(crate) fn glyphs(&self, found: usize) -> Result<(), Why> {
        self.check("glyphs on a page", found as u64, 500_000)
    }

    /// Checks how deep something lies.
    pub(crate) fn depth(&self, found: usize) -> Result<(), Why> {
        self.check("levels of nesting", found as u64, self.limits.depth as u64)
    }

    /// The error of what lies deeper in each other than is followed.
    pub(crate) fn too_deep(&self, what: &'static str, limit: usize) -> Why {
        Why::Limit {
            kind: self.kind,
            what,
            found: format!("more than {limit}"),
            limit: limit as u64,
        }
    }

    /// Checks how much a parser that keeps a tree of all gets at once.
    pub(crate) fn at_once(
        &self,
        what: &'static str,
        found: usize,
        limit: usize,
    ) -> Result<(), Why> {
        self.check(what, found as u64, limit as u64)
    }

    /// Checks the number of pages.
    pub(crate) fn pages(&self, found: usize) -> Result<(), Why> {
        self.check("pages", found as u64, self.limits.pages as u64)
    }

    /// Checks the number of files in an archive.
    pub(crate) fn entries(&self, found: usize) -> Result<(), Why> {
        self.check("entries", found as u64, self.limits.entries as u64)
    }

    /// Whether there is time left.
    pub(crate) fn time(&self) -> Result<(), Why> {
        let seconds = self.limits.seconds;
        if self.began.elapsed() <= Duration::from_secs(seconds) {
            return Ok(());
        }
        Err(Why::OutOfTime { kind: self.kind, seconds })
    }

    fn check(&self, what: &'static str, found: u64, limit: u64) -> Result<(), Why> {
        if found <= limit {
            return Ok(());
        }
        let found = format!("more than {limit}");
        Err(Why::Limit { kind: self.kind, what, found, limit })
    }
}
