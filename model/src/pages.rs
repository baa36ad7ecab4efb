//! Pages of a read-only map of a file: read before they are needed, handed back once they are not.
//!
//! madvise(2) of Linux. [`Mapped`] is the only way to these calls and comes from a map of a file alone, so
//! that advice which would drop the content of other memory cannot reach it.

use std::ops::Range;

use bytes::Bytes;
use rustix::io::Errno;
use rustix::mm::{Advice, madvise};

/// What the system reads on its own around one page that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// What lies around it, too.
    Usual,
    /// That page alone.
    Scattered,
}

/// A part of a read-only map of a file. Whatever is done to its pages, its bytes stay the same.
#[derive(Clone, Debug)]
pub struct Mapped(Bytes);

/// Bytes that one call of [`Mapped::populate`] is given, at most: how late a reader may notice that
/// nobody waits for it any more.
const PIECE: usize = 4 << 20;
/// Bytes that are on their way from the disk beyond the piece in hand.
const AHEAD: usize = 16 << 20;
/// Linux cuts a longer request to the largest single read of the device, which is seldom less.
const REQUEST: usize = 512 << 10;

impl Mapped {
    /// `bytes` must lie in a private, read-only map of a file that lives as long as they do; `None` if
    /// there are none.
    pub(crate) fn new(bytes: Bytes) -> Option<Self> {
        (!bytes.is_empty()).then_some(Self(bytes))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Hands the pages back from this process; the system keeps their content for as long as it has
    /// room, and reads it again where not.
    pub fn release(&self) {
        self.release_part(0..self.0.len());
    }

    /// Hands the pages of some of the bytes back, as [`Mapped::release`] does with all.
    pub fn release_part(&self, part: Range<usize>) {
        #[cfg(target_os = "linux")]
        let _ = self.advise(part.start, part.end, Advice::LinuxDontNeed);
        #[cfg(not(target_os = "linux"))]
        let _ = self.advise(part.start, part.end, Advice::DontNeed);
    }

    /// Reads all of it into this process, in the order of its bytes. Between the pieces `goes_on` is
    /// asked. `from_disk`: the system will hardly have it, so that it pays to ask for more at a time.
    pub(crate) fn populate(&self, from_disk: bool, goes_on: impl Fn() -> bool) {
        let len = self.0.len();
        let mut requested = if from_disk { 0 } else { len };
        for start in (0..len).step_by(PIECE) {
            if !goes_on() {
                return;
            }
            let wanted = (start + PIECE + AHEAD).min(len);
            while requested < wanted {
                let end = (requested + REQUEST).min(len);
                let _ = self.advise(requested, end, Advice::WillNeed);
                requested = end;
            }
            self.map_in(start, (start + PIECE).min(len));
        }
    }

    /// How the system should read when a page is touched that is not there.
    pub(crate) fn set_access(&self, access: Access) {
        let advice = match access {
            Access::Usual => Advice::Normal,
            Access::Scattered => Advice::Random,
        };
        let _ = self.advise(0, self.0.len(), advice);
    }

    /// Waits until the pages of this range are in the process.
    fn map_in(&self, start: usize, end: usize) {
        #[cfg(target_os = "linux")]
        {
            let advised = self.advise(start, end, Advice::LinuxPopulateRead);
            // Linux before 5.14 does not know the advice. Any other error is the disk's, and comes back
            // to whoever uses the bytes.
            if advised != Err(Errno::INVAL) {
                return;
            }
        }
        for byte in self.0[start..end].iter().step_by(4_096) {
            std::hint::black_box(*byte);
        }
    }

    /// Gives advice about the pages that hold bytes `start..end`.
    #[expect(unsafe_code, reason = "madvise(2) has no safe wrapper for a part of a shared map")]
    fn advise(&self, start: usize, end: usize, advice: Advice) -> Result<(), Errno> {
        let part = &self.0[start..end];
        let before = part.as_ptr().addr() % rustix::param::page_size();
        let first = part.as_ptr().wrapping_sub(before);
        // SAFETY: whole pages, each holding a byte of the map and so belonging to it: maps begin and end
        // with pages. The map is private, read-only and never written, so that even dropping its pages
        // loses nothing: the system reads the file again. `self` keeps the map alive.
        unsafe { madvise(first.cast_mut().cast(), before + part.len(), advice) }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::{Read, Seek, SeekFrom};

    use super::*;
    use crate::folder::ModelFolder;

    /// Pages of `bytes` that are in this process, and all of them (proc_pid_pagemap(5), bit 63).
    fn present(bytes: &[u8]) -> [usize; 2] {
        let first = bytes.as_ptr().addr() / 4_096;
        let count = (bytes.as_ptr().addr() + bytes.len()).div_ceil(4_096) - first;
        let mut file = std::fs::File::open("/proc/self/pagemap").unwrap();
        file.seek(SeekFrom::Start(8 * first as u64)).unwrap();
        let mut entries = vec![0; 8 * count];
        file.read_exact(&mut entries).unwrap();
        [entries.as_chunks::<8>().0.iter().filter(|entry| entry[7] >> 7 == 1).count(), count]
    }

    fn map(len: usize) -> (tempfile::TempDir, Bytes) {
        let root = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
        graft_files::atomic::write_bytes(root.path().join("a"), &content).unwrap();
        let map = ModelFolder::at(root.path()).unwrap().map("a").unwrap();
        (root, map)
    }

    #[test]
    fn populated_pages_are_there_and_released_ones_are_gone_but_read_the_same() {
        let (_root, map) = map(9 << 20);
        // Neither end on a page's border; several pieces.
        let part = Mapped::new(map.slice(5_001..(8 << 20) + 77)).unwrap();
        let before = part.bytes().to_vec();
        part.release();
        assert_eq!(present(part.bytes())[0], 0);
        part.populate(true, || true);
        let [there, all] = present(part.bytes());
        assert_eq!(there, all);
        part.release();
        assert_eq!(present(part.bytes())[0], 0);
        assert!(part.bytes() == before);
    }

    #[test]
    fn a_reader_that_nobody_waits_for_stops() {
        let (_root, map) = map(9 << 20);
        let part = Mapped::new(map.clone()).unwrap();
        part.release();
        let asked = std::cell::Cell::new(0);
        part.populate(false, || asked.replace(asked.get() + 1) == 0);
        let [there, _] = present(part.bytes());
        assert_eq!((asked.get(), there), (2, PIECE / 4_096));
    }

    #[test]
    fn scattered_access_maps_what_is_touched_and_nothing_around() {
        let (_root, map) = map(1 << 20);
        let part = Mapped::new(map).unwrap();
        assert!(Mapped::new(Bytes::new()).is_none());
        let touched = |access: Access| {
            part.release();
            part.set_access(access);
            std::hint::black_box(part.bytes()[300_000]);
            present(part.bytes())[0]
        };
        // Where the system holds a file in larger pieces than a page, a whole one comes with each.
        let (usual, scattered) = (touched(Access::Usual), touched(Access::Scattered));
        part.set_access(Access::Usual);
        assert!((1..=usual.max(16)).contains(&scattered), "{scattered} pages, usually {usual}");
    }
}
