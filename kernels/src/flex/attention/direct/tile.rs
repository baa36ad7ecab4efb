//! Tiles of queries, cut into what one product takes.

use super::words::Words;
use super::{KEYS, ROWS, STACKED};
use crate::flex::gemm::{grow, shuffle};
use crate::flex::matrix::Matrix;
use crate::layout::{AttentionShape, Span};

/// A tile of queries with all heads of a key head: `group` times `rows` of them, each head's in blocks of
/// [`ROWS`], the last one filled up with zeros.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub(super) shape: &'a AttentionShape,
    pub(super) span: &'a Span,
    pub(super) kv_head: usize,
    /// First query, relative to the span.
    first: usize,
    rows: usize,
}

/// Queries of one head that are multiplied together.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// Where they are among the stacked rows.
    pub(super) stacked: usize,
    pub(super) head: usize,
    /// The first, among those of the tensor.
    pub(super) query: usize,
    pub(super) count: usize,
    /// Keys of the span that the first one sees; each sees one more.
    seen: usize,
}

impl Rows {
    /// Keys from `first` on, of a tile, that row `line` sees; nobody is behind the last row.
    pub(super) fn visible(&self, line: usize, first: usize) -> usize {
        let seen = if line < self.count { self.seen + line } else { 0 };
        seen.saturating_sub(first).min(KEYS)
    }

    /// The most that any of them sees.
    pub(super) fn most(&self, first: usize) -> usize {
        self.visible(self.count - 1, first)
    }
}

impl<'a> Tile<'a> {
    pub(super) fn all(
        shape: &'a AttentionShape,
        span: &'a Span,
        kv_head: usize,
    ) -> impl Iterator<Item = Self> {
        let (queries, keys) = (span.queries.len(), span.keys.len());
        assert!(keys >= queries, "a span of {queries} queries has only {keys} keys");
        let group = shape.heads / shape.kv_heads;
        let most = (STACKED / group / ROWS * ROWS).max(ROWS);
        (0..queries).step_by(most).map(move |first| {
            let rows = most.min(queries - first);
            Self { shape, span, kv_head, first, rows }
        })
    }

    /// Of a row of a matrix of queries.
    pub(super) fn width(&self) -> usize {
        self.shape.heads * self.shape.head_dim
    }

    /// Keys of the span that its last query sees.
    pub(super) fn seen(&self) -> usize {
        self.span.keys.len() - self.span.queries.len() + self.first + self.rows
    }

    /// Rows of all its heads, those filled up among them.
    pub(super) fn stacked(&self) -> usize {
        self.shape.heads / self.shape.kv_heads * self.rows.next_multiple_of(ROWS)
    }

    pub(super) fn blocks(self) -> impl Iterator<Item = Rows> {
        let a_head = self.rows.div_ceil(ROWS);
        (0..self.stacked() / ROWS).map(move |block| {
            let (head, row) = (block / a_head, block % a_head * ROWS);
            Rows {
                stacked: block * ROWS,
                head: self.kv_head * (self.shape.heads / self.shape.kv_heads) + head,
                query: self.span.queries.start + self.first + row,
                count: ROWS.min(self.rows - row),
                seen: self.seen() - self.rows + row + 1,
            }
        })
    }

    /// Where a row of one head begins in a matrix of queries.
    pub(super) fn start(&self, rows: &Rows, line: usize) -> usize {
        (rows.query + line) * self.width() + rows.head * self.shape.head_dim
    }

    /// Copies the tile's rows of a matrix of queries to `lines`, as operands, zeros where there is none.
    pub(super) fn load<W: Words>(
        &self,
        from: Matrix<'_>,
        lines: &mut Vec<f32>,
        head: &mut Vec<f32>,
    ) {
        let dim = self.shape.head_dim;
        grow(lines, self.stacked() * W::LINE);
        head.resize(dim, 0.0);
        for rows in self.blocks() {
            for line in 0..ROWS {
                let to = &mut lines[(rows.stacked + line) * W::LINE..][..dim / W::VALUES];
                if line >= rows.count {
                    to.fill(0.0);
                    continue;
                }
                let start = self.start(&rows, line);
                if W::VALUES == 1 {
                    to.copy_from_slice(from.run(start, head));
                    if W::ROUNDS {
                        shuffle::round_in_place(to);
                    }
                    continue;
                }
                let to = shuffle::halves(to);
                match from.halves(start, dim) {
                    Some(halves) => to.copy_from_slice(halves),
                    None => shuffle::round_run(from.run(start, head), to),
                }
            }
        }
    }
}
