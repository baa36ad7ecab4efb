//! How far a stranger's file is followed.

/// Bounds that hold for one file, whatever it holds. A message names the one that was met.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of text that come out of it.
    pub text: usize,
    /// Blocks that come out of it: paragraphs, headings, items, tables.
    pub blocks: usize,
    /// Files in an archive (DOCX, ODT, EPUB, XLSX and ODS are such).
    pub entries: usize,
    /// Bytes of all that is unpacked of it.
    pub unpacked: u64,
    /// How deep elements, tables, messages or objects lie in each other.
    pub depth: usize,
    /// Pages.
    pub pages: usize,
    /// Seconds of work.
    pub seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 128 << 20,
            text: 64 << 20,
            blocks: 1_000_000,
            entries: 10_000,
            unpacked: 256 << 20,
            depth: 512,
            pages: 20_000,
            seconds: 15,
        }
    }
}
