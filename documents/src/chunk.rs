//! Cutting a document into texts of bounded length along its structure: at its highest headings first, then at
//! those below, then between blocks, and within a block only where it alone is too long.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use crate::cut::{cut, tail};
use crate::document::{Block, Document, Form, Place, Span, between, joined};

/// A stretch of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its text, as Markdown.
    pub text: String,
    /// The headings that all of it stands under, from the highest down.
    pub headings: Vec<String>,
    /// The first and the last of its pages.
    pub pages: Option<(u32, u32)>,
    /// The file within the file, the sheet or the message.
    pub member: Option<Arc<str>>,
    /// From where to where.
    pub span: Option<Span>,
    /// Its length, as it was measured.
    pub length: usize,
}

impl Document {
    /// [`Document::chunks`] by a measure that may fail: the first failure is the answer.
    ///
    /// # Errors
    /// The measure's.
    pub fn try_chunks<E>(
        &self,
        measure: &dyn Fn(&str) -> Result<usize, E>,
        max: usize,
        overlap: usize,
    ) -> Result<Vec<Chunk>, E> {
        let failed = RefCell::new(None);
        let length = |text: &str| {
            measure(text).unwrap_or_else(|error| {
                failed.borrow_mut().get_or_insert(error);
                0
            })
        };
        let chunks = self.chunks(&length, max, overlap);
        failed.into_inner().map_or(Ok(chunks), Err)
    }

    /// The document as texts of at most `max`, as `measure` counts. Where a section had to be cut, a text begins
    /// with the last of what stands before it, up to `overlap`.
    ///
    /// The same document, measure and numbers give the same texts.
    pub fn chunks(
        &self,
        measure: &dyn Fn(&str) -> usize,
        max: usize,
        overlap: usize,
    ) -> Vec<Chunk> {
        let max = max.max(1);
        // What is repeated leaves room for something new.
        let overlap = overlap.min(max / 2);
        let atoms = atoms(&self.blocks, measure, max - overlap);
        let mut cutter = Cutter { atoms: &atoms, measure, max: max - overlap, ranges: Vec::new() };
        let member = |atom: &Atom| atom.block.place.member.clone();
        let mut start = 0;
        // A row is of one message, sheet or chapter, so that its place can be said.
        for part in atoms.chunk_by(|a, b| member(a) == member(b)) {
            cutter.split(start..start + part.len());
            start += part.len();
        }
        let ranges = cutter.ranges;
        let mut chunks: Vec<Chunk> = Vec::with_capacity(ranges.len());
        for range in ranges {
            let within = &atoms[range.clone()];
            let blocks: Vec<Block> = within.iter().map(|atom| atom.block.clone()).collect();
            let mut text = joined(&blocks);
            let goes_on = range.start > 0
                && !matches!(within[0].block.form, Form::Heading(_))
                && member(&within[0]) == member(&atoms[range.start - 1]);
            if overlap > 0 && goes_on {
                let before = &atoms[range.start - 1].block;
                let repeated = tail(&before.text, before.form, measure, overlap);
                if !repeated.is_empty() {
                    let with =
                        format!("{repeated}{}{text}", between(before.form, within[0].block.form));
                    // Two texts beside each other may measure more than each for itself.
                    if measure(&with) <= max {
                        text = with;
                    }
                }
            }
            let length = measure(&text);
            chunks.push(placed(within, text, length));
        }
        chunks
    }
}

/// A block, or a part of one, that is not cut any more.
struct Atom {
    block: Block,
    headings: Arc<[String]>,
    length: usize,
}

/// The blocks, those cut that are too long, each with the headings above it.
fn atoms(blocks: &[Block], measure: &dyn Fn(&str) -> usize, max: usize) -> Vec<Atom> {
    let mut atoms = Vec::with_capacity(blocks.len());
    let mut path: Vec<(u8, String)> = Vec::new();
    let mut headings: Arc<[String]> = Arc::new([]);
    for block in blocks {
        if let Form::Heading(level) = block.form {
            path.retain(|(above, _)| *above < level);
            path.push((level, heading_words(&block.text)));
            headings = path.iter().map(|(_, words)| words.clone()).collect();
        }
        let length = measure(&block.text);
        let mut add =
            |block: Block, length| atoms.push(Atom { block, headings: headings.clone(), length });
        if length <= max {
            add(block.clone(), length);
            continue;
        }
        for text in cut(&block.text, block.form, measure, max) {
            let length = measure(&text);
            // Not a copy of the whole for each of its parts.
            add(Block { form: block.form, text, place: block.place.clone() }, length);
        }
    }
    atoms
}

fn heading_words(text: &str) -> String {
    text.trim_start_matches(['#', '>', ' ']).trim().to_owned()
}

struct Cutter<'a> {
    atoms: &'a [Atom],
    measure: &'a dyn Fn(&str) -> usize,
    max: usize,
    ranges: Vec<Range<usize>>,
}

impl Cutter<'_> {
    /// Cuts a section: whole if it fits, else at the highest headings within it.
    fn split(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        if self.fits(&range) {
            self.ranges.push(range);
            return;
        }
        // Its own heading is none within it.
        let own = range.start
            + self.atoms[range.clone()]
                .iter()
                .take_while(|atom| level(atom).is_some())
                .count()
                .max(1);
        let highest = self.atoms[own.min(range.end)..range.end].iter().filter_map(level).min();
        let Some(highest) = highest else {
            self.fill(range);
            return;
        };
        let first = self.ranges.len();
        let mut start = range.start;
        for at in own..range.end {
            if level(&self.atoms[at]) == Some(highest) {
                self.split(start..at);
                start = at;
            }
        }
        self.split(start..range.end);
        self.join_small(first);
    }

    /// Joins neighbours of one section that fit together: headings with a line each make no text of their own.
    fn join_small(&mut self, first: usize) {
        let parts = self.ranges.split_off(first);
        for part in parts {
            if self.ranges.len() > first
                && let Some(last) = self.ranges.last()
                && last.end == part.start
                && self.fits(&(last.start..part.end))
            {
                let start = last.start;
                self.ranges.pop();
                self.ranges.push(start..part.end);
            } else {
                self.ranges.push(part);
            }
        }
    }

    /// Cuts blocks without headings among them, as many together as fit.
    fn fill(&mut self, range: Range<usize>) {
        let mut start = range.start;
        while start < range.end {
            let mut end = start + 1;
            let mut length = self.atoms[start].length;
            while end < range.end && length + self.atoms[end].length <= self.max {
                length += self.atoms[end].length;
                end += 1;
            }
            while end > start + 1 && !self.fits(&(start..end)) {
                end -= 1;
            }
            // A heading does not stay behind what it is about.
            while end < range.end && end > start + 1 && level(&self.atoms[end - 1]).is_some() {
                end -= 1;
            }
            self.ranges.push(start..end);
            start = end;
        }
    }

    fn fits(&self, range: &Range<usize>) -> bool {
        let atoms = &self.atoms[range.clone()];
        if atoms.len() == 1 {
            return true;
        }
        // Separators can join with what stands around them, so the sum is near and not exact.
        let sum: usize = atoms.iter().map(|atom| atom.length).sum();
        if sum > self.max.saturating_add(self.max / 8) {
            return false;
        }
        let blocks: Vec<Block> = atoms.iter().map(|atom| atom.block.clone()).collect();
        (self.measure)(&joined(&blocks)) <= self.max
    }
}

fn level(atom: &Atom) -> Option<u8> {
    match atom.block.form {
        Form::Heading(level) => Some(level),
        _ => None,
    }
}

/// A text with the places of what it is made of, which is all of one member.
fn placed(atoms: &[Atom], text: String, length: usize) -> Chunk {
    let mut headings: &[String] = &atoms[0].headings;
    for atom in atoms {
        let same = headings.iter().zip(atom.headings.iter()).take_while(|(a, b)| a == b).count();
        headings = &headings[..same];
    }
    let places = || atoms.iter().map(|atom| &atom.block.place);
    let pages = || places().filter_map(|place| place.page);
    let member = places().next().and_then(|place| place.member.clone());
    Chunk {
        text,
        headings: headings.to_vec(),
        pages: pages().min().zip(pages().max()),
        span: span(places()),
        member,
        length,
    }
}

/// From the first to the last place that is known; names of sheets and the like have none.
fn span<'a>(places: impl Iterator<Item = &'a Place>) -> Option<Span> {
    let wider = |all: Span, one: Span| Span {
        unit: all.unit,
        start: all.start.min(one.start),
        end: all.end.max(one.end),
    };
    places.filter_map(|place| place.span).reduce(wider)
}

#[cfg(test)]
mod tests;
