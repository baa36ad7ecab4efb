//! Memory is slow to answer: what will be packed next is asked for early.

use std::ops::Range;

use super::pack::{Block, Operand, Runs};

/// Runs that are asked for while others are multiplied: memory is slow to answer.
pub(super) struct Ahead {
    pub(super) lines: Range<usize>,
    start: usize,
    len: usize,
}

impl Ahead {
    pub(super) fn of(operand: &impl Operand, block: Block) -> Self {
        let Block { row0, rows, depth0, depth } = block;
        let (rows, depths) = (row0..row0 + rows, depth0..depth0 + depth);
        let (lines, across) = match operand.runs() {
            Runs::AlongDepth => (rows, depths),
            Runs::AcrossRows => (depths, rows),
        };
        let lines = if across.is_empty() { 0..0 } else { lines };
        Self { lines, start: across.start, len: across.len() }
    }

    /// Asks for some more lines.
    pub(super) fn prefetch(&mut self, operand: &impl Operand, lines: usize) {
        for line in self.lines.by_ref().take(lines) {
            operand.prefetch(line, self.start, self.len);
        }
    }
}
