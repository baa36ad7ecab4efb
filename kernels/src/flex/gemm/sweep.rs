//! One block of left rows against a right operand: tasks, their parts of the depth, their tiles.
#![expect(unsafe_code, reason = "threads write disjoint tiles of one output")]

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use half::bf16;
use rayon::prelude::*;

use super::super::dropout::{Kept, clear_tile};
use super::ahead::Ahead;
use super::micro::{MAX_TILE, Micro, MicroTile};
use super::pack::{Block, Buffers, Form, Operand, View, pack};
use super::{Product, grow, shuffle};

/// Depth of a packed block: an f32 panel of 32 columns fills 32 KiB.
const DEPTH: usize = 256;

/// Right panels packed together, where there are enough of them: what lies beside one panel's part of a
/// row shares its cache lines, and the left rows stay in the second cache while these are swept. Of panels
/// of f32 twice as many: a row of a 4-bit weight's part is then two cache lines.
const GROUP: usize = 4;

/// Left panels packed together: transposed operands are read in runs across as many rows.
const LEFT_GROUP: usize = 8;

thread_local! {
    /// Memory alone: what a task reads of it, it has written before.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static PACKING: RefCell<Buffers> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    panels: Vec<f32>,
    /// Unfinished sums, tile by tile: rows of `C` lie a power of two apart, where they would push each
    /// other out of the cache.
    sums: Vec<f32>,
    buffers: Buffers,
}

/// Where finished sums go: to f32, or rounded to bf16.
pub(super) struct Destination {
    pub(super) start: *mut f32,
    halves: *mut bf16,
    pub(super) len: usize,
}
// SAFETY: it holds addresses; tasks make references only to rows of their own tiles, which no other task has,
// see `Sweep::write`.
unsafe impl Sync for Destination {}

impl Destination {
    /// # Safety
    /// As long as it is used, the elements of a product that is written to `start` are good for writing, and
    /// hold values where the product is added to them, and nothing else refers to them or touches them. They
    /// lie in the first `len`.
    pub(super) unsafe fn of(start: *mut f32, len: usize) -> Self {
        Self { start, halves: std::ptr::null_mut(), len }
    }

    /// # Safety
    /// `halves` begins memory that is good for writing and that nothing else touches meanwhile; the elements
    /// of the product lie in the first `len`. Nothing is added to what is there.
    pub(super) unsafe fn rounded(halves: *mut bf16, len: usize) -> Self {
        Self { start: std::ptr::null_mut(), halves, len }
    }

    fn is_rounded(&self) -> bool {
        !self.halves.is_null()
    }
}

/// One block of left rows against the whole right operand.
pub(super) struct Sweep {
    pub(super) product: Product,
    pub(super) micro: Micro,
    pub(super) row0: usize,
    pub(super) block: usize,
    /// Where its packed rows begin.
    pub(super) start: usize,
}

/// A part of the depth: what a sweep multiplies.
pub(super) struct Side<'a, B> {
    pub(super) sweep: &'a Sweep,
    pub(super) packed: &'a [f32],
    pub(super) right: &'a B,
}

/// Right panels and left panels that one task multiplies.
struct Task {
    panels: Range<usize>,
    row_panels: Range<usize>,
    /// Right panels that this thread will likely take after these.
    next: Range<usize>,
}

/// Cuts `panels` into groups of at most `most` that threads take one after another: the fewer are left the
/// smaller, so that none waits long for the last.
fn shares(panels: usize, threads: usize, most: usize) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut start = 0;
    while start < panels {
        let end = start + ((panels - start) / (2 * threads)).clamp(1, most);
        groups.push(start..end);
        start = end;
    }
    groups
}

/// Where a part of the depth stands in its sum.
#[derive(Clone, Copy)]
struct Order {
    first: bool,
    last: bool,
}

impl Sweep {
    fn row_panels(&self) -> usize {
        self.block.div_ceil(self.micro.mr)
    }

    /// The form of panels of `width` lines, for a product or a part of it `depth` deep.
    fn form(&self, width: usize, depth: usize) -> Form {
        let pairs = self.micro.pairs;
        let steps = if pairs { depth.div_ceil(2) } else { depth };
        Form { width, stride: steps * width, pairs, precision: self.product.precision }
    }

    /// Left panels, as long as the longest block of depths.
    fn left_form(&self) -> Form {
        self.form(self.micro.mr, DEPTH.min(self.product.depth))
    }

    /// Words of the whole block.
    pub(super) fn left_words(&self) -> usize {
        self.product.depth.div_ceil(DEPTH) * self.row_panels() * self.left_form().stride
    }

    /// Packs the block's rows: `[depth blocks][panels of mr rows][steps][mr]`.
    pub(super) fn pack_left(&self, a: &impl Operand, packed: &mut [f32], parallel: bool) {
        let Self { product: Product { depth, .. }, micro: Micro { mr, .. }, row0, block, start } =
            *self;
        let (panels, form) = (self.row_panels(), self.left_form());
        if form.stride == 0 {
            return;
        }
        let packed = &mut packed[start..start + self.left_words()];
        let parts = packed.chunks_mut(panels * form.stride).enumerate();
        let tasks = parts.flat_map(|(part, packed)| {
            let groups = packed.chunks_mut(LEFT_GROUP * form.stride).enumerate();
            groups.map(move |(group, out)| (part, group, out))
        });
        let pack = |(part, group, out): (usize, usize, &mut [f32])| {
            let (depth0, row) = (part * DEPTH, group * LEFT_GROUP * mr);
            let depth = DEPTH.min(depth - depth0);
            let rows = (LEFT_GROUP * mr).min(block - row);
            let from = Block { row0: row0 + row, rows, depth0, depth };
            PACKING.with_borrow_mut(|buffers| pack(a, from, out, form, buffers));
        };
        if parallel {
            tasks.collect::<Vec<_>>().into_par_iter().with_max_len(1).for_each(pack);
        } else {
            tasks.for_each(pack);
        }
    }

    pub(super) fn multiply<B: Operand>(
        &self,
        main: &Side<'_, B>,
        update: Option<(&Side<'_, View<'_>>, Option<&Kept>)>,
        c: &Destination,
        parallel: bool,
    ) {
        let panels = self.product.cols.div_ceil(self.micro.nr);
        let row_panels = self.row_panels();
        let threads = if parallel { rayon::current_num_threads() } else { 1 };
        let most = if self.micro.pairs { GROUP } else { 2 * GROUP };
        let groups = shares(panels, threads, most);
        // Narrow outputs (low-rank updates) are split by rows too; no split changes a bit.
        let wanted = if threads > 1 { (2 * threads).div_ceil(groups.len()) } else { 1 };
        let splits = wanted.min(row_panels);
        let per_split = row_panels.div_ceil(splits);
        let splits = row_panels.div_ceil(per_split);
        let work = |task: usize| {
            let row0 = task % splits * per_split;
            let task = Task {
                panels: groups[task / splits].clone(),
                row_panels: row0..(row0 + per_split).min(row_panels),
                // Every thread takes one until then.
                next: groups.get((task + threads) / splits).cloned().unwrap_or_default(),
            };
            SCRATCH.with_borrow_mut(|scratch| {
                let [first, last] = [true, false].map(|first| Order { first, last: !first });
                match update {
                    None => main.add(c, &task, Order { first: true, last: true }, scratch),
                    Some((update, None)) => {
                        main.add(c, &task, first, scratch);
                        update.add(c, &task, last, scratch);
                    }
                    // What it does not reach is cleared before anything else is in the sums.
                    Some((update, Some(kept))) => {
                        update.add(c, &task, first, scratch);
                        self.clear_dropped(kept, &task, &mut scratch.sums);
                        main.add(c, &task, last, scratch);
                    }
                }
            });
        };
        let tasks = groups.len() * splits;
        if !parallel {
            (0..tasks).for_each(work);
            return;
        }
        let taken = AtomicUsize::new(0);
        (0..threads.min(tasks)).into_par_iter().with_max_len(1).for_each(|_| {
            loop {
                let task = taken.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return;
                }
                work(task);
            }
        });
    }

    /// Clears the sums of a task's tiles where nothing is kept.
    fn clear_dropped(&self, kept: &Kept, task: &Task, sums: &mut [f32]) {
        let Micro { mr, nr, .. } = self.micro;
        let tiles = task.panels.clone().flat_map(|j| task.row_panels.clone().map(move |i| (i, j)));
        for ((i, j), sums) in tiles.zip(sums.chunks_exact_mut(mr * nr)) {
            let height = mr.min(self.block - i * mr);
            clear_tile(sums, nr, height, kept, [self.row0 + i * mr, j * nr]);
        }
    }

    /// A whole tile into `sums`, `[mr][nr]`.
    fn sum(&self, operands: &Operands<'_>, sums: &mut [f32], accumulate: bool) {
        let Micro { mr, nr, run, .. } = self.micro;
        assert!(sums.len() >= mr * nr, "sums of a tile");
        let [left, right] = self.panels(operands);
        let tile = MicroTile::at(sums.as_mut_ptr(), nr, accumulate);
        // SAFETY: the lengths are asserted, and `sums` is borrowed alone; the kernel's features were detected
        // when it was chosen.
        unsafe { run(operands.steps, left, right, tile) };
    }

    /// The last part of a tile, after the `sums` so far: straight into `C`, but at edges, and where it is
    /// rounded or added to something else, through a buffer.
    fn last(
        &self,
        (i, j): (usize, usize),
        operands: &Operands<'_>,
        sums: Option<&mut [f32]>,
        c: &Destination,
    ) {
        let Product { cols, ldc, accumulate, .. } = self.product;
        let Micro { mr, nr, run, .. } = self.micro;
        let is_edge = (i + 1) * mr > self.block || (j + 1) * nr > cols;
        let is_other = c.is_rounded() || accumulate && sums.is_some();
        match sums {
            Some(sums) if is_edge || is_other => {
                self.sum(operands, sums, true);
                self.write(i, j, sums, c);
            }
            None if is_edge || is_other => {
                let mut sums = [0.0_f32; MAX_TILE];
                self.sum(operands, &mut sums, false);
                self.write(i, j, &sums, c);
            }
            sums => {
                assert!(sums.as_ref().is_none_or(|sums| sums.len() >= mr * nr), "sums of a tile");
                let [left, right] = self.panels(operands);
                // SAFETY: the lengths are asserted; the kernel's features were detected when it was chosen.
                // The tile is a whole one of `C` that no other task has, and nothing refers to it.
                unsafe {
                    let out = c.start.add((self.row0 + i * mr) * ldc + j * nr);
                    let tile = MicroTile::at(out, ldc, accumulate);
                    let tile = sums.map_or(tile, |sums| tile.from(sums.as_ptr(), nr));
                    run(operands.steps, left, right, tile);
                }
            }
        }
    }

    /// Where the panels of a tile begin: all their steps are there.
    fn panels(&self, &Operands { steps, left, right }: &Operands<'_>) -> [*const f32; 2] {
        let Micro { mr, nr, .. } = self.micro;
        assert!(left.len() >= steps * mr && right.len() >= steps * nr, "short panel");
        [left, right].map(<[f32]>::as_ptr)
    }

    /// Writes the part of a finished tile that `C` has.
    fn write(&self, i: usize, j: usize, sums: &[f32], c: &Destination) {
        let Product { cols, ldc, accumulate, .. } = self.product;
        let Micro { mr, nr, .. } = self.micro;
        let (height, width) = (mr.min(self.block - i * mr), nr.min(cols - j * nr));
        for (r, sums) in sums.chunks_exact(nr).take(height).enumerate() {
            let start = (self.row0 + i * mr + r) * ldc + j * nr;
            let sums = &sums[..width];
            // SAFETY: columns from `j·nr` of row `row0 + i·mr + r` lie in `c` (asserted in `run`), where they
            // belong to `C`. No other task has the same `(i, j)`, so each reference made here is the only one
            // to them, and it ends before the next row's. What is not added to may hold no values yet.
            unsafe {
                if c.is_rounded() {
                    let halves = c.halves.add(start).cast::<MaybeUninit<u16>>();
                    shuffle::round_into(sums, std::slice::from_raw_parts_mut(halves, width));
                } else if accumulate {
                    let out = std::slice::from_raw_parts_mut(c.start.add(start), width);
                    for (out, &sum) in out.iter_mut().zip(sums) {
                        *out += sum;
                    }
                } else {
                    let out = c.start.add(start).cast::<MaybeUninit<f32>>();
                    shuffle::copy_into(sums, std::slice::from_raw_parts_mut(out, width));
                }
            }
        }
    }
}

impl<B: Operand> Side<'_, B> {
    /// All its depths for some right panels and some left panels.
    fn add(&self, c: &Destination, task: &Task, order: Order, scratch: &mut Scratch) {
        let Self { sweep, packed, right } = self;
        let Product { cols, depth, .. } = sweep.product;
        let Micro { mr, nr, .. } = sweep.micro;
        let (tile, row_panels) = (mr * nr, sweep.row_panels());
        let left_part = sweep.left_form().stride;
        let row0 = task.panels.start * nr;
        let rows = (task.panels.end * nr).min(cols) - row0;
        let is_whole = order.first && order.last && depth <= DEPTH;
        let Scratch { panels, sums, buffers } = scratch;
        grow(panels, task.panels.len() * sweep.form(nr, DEPTH).stride);
        if !is_whole {
            grow(sums, task.panels.len() * task.row_panels.len() * tile);
        }
        for depth0 in (0..depth).step_by(DEPTH) {
            let part = DEPTH.min(depth - depth0);
            let form = sweep.form(nr, part);
            let steps = form.steps(part);
            pack(*right, Block { row0, rows, depth0, depth: part }, panels, form, buffers);
            let is_first = order.first && depth0 == 0;
            let is_last = order.last && depth0 + part == depth;
            let mut ahead = Ahead::of(*right, self.next(task, depth0 + part));
            let lines = ahead.lines.len().div_ceil(task.panels.len() * task.row_panels.len());
            let tiles =
                task.panels.clone().flat_map(|j| task.row_panels.clone().map(move |i| (i, j)));
            for (index, (i, j)) in tiles.enumerate() {
                ahead.prefetch(*right, lines);
                let left = &packed[(depth0 / DEPTH * row_panels + i) * left_part..];
                let right = &panels[(j - task.panels.start) * steps * nr..];
                let operands = Operands { steps, left, right };
                let sums = (!is_whole).then(|| &mut sums[index * tile..(index + 1) * tile]);
                match sums {
                    Some(sums) if !is_last => sweep.sum(&operands, sums, !is_first),
                    sums => sweep.last((i, j), &operands, sums, c),
                }
            }
        }
    }
}

impl<B> Side<'_, B> {
    /// The block that will be packed after the depths before `depth0`: of this task, or of the one after it.
    fn next(&self, task: &Task, depth0: usize) -> Block {
        let Product { cols, depth, .. } = self.sweep.product;
        let nr = self.sweep.micro.nr;
        let (panels, depth0) =
            if depth0 < depth { (&task.panels, depth0) } else { (&task.next, 0) };
        let row0 = panels.start * nr;
        let rows = (panels.end * nr).min(cols).saturating_sub(row0);
        Block { row0, rows, depth0, depth: DEPTH.min(depth - depth0) }
    }
}

/// What a micro-kernel multiplies.
struct Operands<'a> {
    steps: usize,
    left: &'a [f32],
    right: &'a [f32],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_every_panel_once_and_the_last_are_the_smallest() {
        for (panels, threads, most) in
            [(1, 2, 8), (24, 2, 8), (64, 2, 8), (1000, 16, 4), (7, 1, 8), (30, 1, 8)]
        {
            let groups = shares(panels, threads, most);
            let all: Vec<_> = groups.iter().cloned().flatten().collect();
            assert_eq!(all, (0..panels).collect::<Vec<_>>(), "{panels}, {threads}");
            assert!(groups.iter().all(|group| (1..=most).contains(&group.len())));
            assert!(groups.is_sorted_by_key(|group| std::cmp::Reverse(group.len())));
            assert_eq!(groups[groups.len() - 1].len(), 1, "a fair end");
        }
    }
}
