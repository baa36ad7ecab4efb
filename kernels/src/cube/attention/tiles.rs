//! Which keys a query sees, and which queries are worked on together.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;

use crate::cube::launch::OnDevice;
use crate::layout::AttentionShape;

/// Scores of a tile, over all heads: 64 MiB of f32.
const TILE: usize = 1 << 24;

/// The ranges of keys that queries see: `[first, end)`, empty outside every span.
pub(super) struct Sight<R: CubeRuntime> {
    first: Vec<u32>,
    end: Vec<u32>,
    pub(super) on_device: [CubeTensor<R>; 2],
}

/// Queries that are worked on together, and the keys that any of them sees.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) query: usize,
    pub(super) queries: usize,
    pub(super) key: usize,
    pub(super) keys: usize,
}

impl<R: CubeRuntime> Sight<R> {
    pub(super) fn new(shape: &AttentionShape, queries: usize, place: &OnDevice<R>) -> Self {
        let (mut first, mut end) = (vec![0; queries], vec![0; queries]);
        for span in shape.spans.iter() {
            // The last query stands at the last key.
            let before = span.keys.len() - span.queries.len();
            for (i, query) in span.queries.clone().enumerate() {
                first[query] = span.keys.start as u32;
                end[query] = (span.keys.start + before + i + 1) as u32;
            }
        }
        let on_device = [&first, &end].map(|ends| place.upload_u32(ends));
        Self { first, end, on_device }
    }

    /// All queries in tiles, those that see nothing left out.
    pub(super) fn tiles(&self, heads: usize) -> Vec<Tile> {
        let ranges = self.first.iter().zip(&self.end);
        let longest = ranges.map(|(first, end)| end - first).max().unwrap_or(0) as usize;
        // As many as a document has: a tile over many short ones would be empty for the most part.
        let most =
            (TILE / (heads * longest.max(1))).min(longest.next_multiple_of(32)).clamp(32, 512);
        let cut = (0..self.first.len()).step_by(most).filter_map(|query| {
            let queries = most.min(self.first.len() - query);
            let seeing = (query..query + queries).filter(|&i| self.end[i] > self.first[i]);
            let key = seeing.clone().map(|i| self.first[i]).min()? as usize;
            let end = seeing.map(|i| self.end[i]).max()? as usize;
            Some(Tile { query, queries, key, keys: end - key })
        });
        cut.collect()
    }
}
