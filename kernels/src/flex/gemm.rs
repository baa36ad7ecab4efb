//! `C (+)= A·Bᵀ` on the CPU: panels are packed, and frozen weights decoded, block by block; no
//! operand ever exists whole in another form.
//!
//! The loop order follows Goto and van de Geijn 2008: the right operand is decoded once per block of
//! about [`ROWS`] left rows and swept by all of them. Every element of `C` is summed in the same depth
//! order whatever the number of threads, so the bits do not depend on it.
#![expect(unsafe_code, reason = "threads write disjoint tiles of one output")]

pub(super) mod low_rank;
pub(super) mod micro;
mod pack;
pub(super) mod shuffle;

use std::cell::RefCell;
use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use self::micro::{MAX_TILE, Micro, Tile};
pub(crate) use self::pack::{Block, Buffers, Form, pack};
pub(crate) use self::pack::{ByInput, ByOutput, Operand, Runs, View};
use crate::precision::Precision;

/// Depth of a packed block: an f32 panel of 32 columns fills 32 KiB.
const DEPTH: usize = 256;
/// Left rows packed at a time, about: with the sums of a group of panels they fill the second cache.
/// The right operand is decoded once for each such block.
const ROWS: usize = 516;
/// Below this many multiply-adds a product runs on the calling thread.
const PARALLEL: usize = 1 << 17;

/// Right panels packed together, where there are enough of them: what lies beside one panel's part of a
/// row shares its cache lines, and the left rows stay in the second cache while these are swept. Of panels
/// of f32 twice as many: a row of a 4-bit weight's part is then two cache lines, which made `dy·W` a tenth
/// faster on an Emerald Rapids, and nothing slower.
const GROUP: usize = 4;

/// Left panels packed together: transposed operands are read in runs across as many rows.
const LEFT_GROUP: usize = 8;

thread_local! {
    /// Memory of the largest left side that was dropped.
    static PACKED: RefCell<Vec<f32>> = RefCell::default();
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

/// Sizes and modes of one product.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    /// Rows of `C`.
    pub(crate) rows: usize,
    /// Columns of `C`.
    pub(crate) cols: usize,
    /// Length of the sums.
    pub(crate) depth: usize,
    /// Distance between rows of `C`.
    pub(crate) ldc: usize,
    /// Whether the product is added to what `C` holds.
    pub(crate) accumulate: bool,
    /// Precision of the operands; sums are f32.
    pub(crate) precision: Precision,
}

impl Product {
    /// A product that fills a row-major `[rows, cols]`.
    pub(crate) fn new(rows: usize, cols: usize, depth: usize, precision: Precision) -> Self {
        Self { rows, cols, depth, ldc: cols, accumulate: false, precision }
    }

    /// Whether it is worth several threads.
    pub(crate) fn is_large(self) -> bool {
        self.rows * self.cols * self.depth >= PARALLEL
    }
}

/// The right side of a product, and what a low-rank update adds to it: `a·bᵀ + low·highᵀ` is one sum
/// whose depth is longer by the rank.
pub(crate) struct Right<'a, B> {
    /// `b`.
    pub(crate) matrix: &'a B,
    /// `low`, packed, and `high` with its rank.
    pub(crate) update: Option<(&'a Left, View<'a>, usize)>,
}

impl<'a, B> Right<'a, B> {
    /// Without an update.
    pub(crate) fn of(matrix: &'a B) -> Self {
        Self { matrix, update: None }
    }
}

/// Where finished sums go: to f32, or rounded to bf16.
struct Destination {
    start: *mut f32,
    halves: *mut bf16,
    len: usize,
}
// SAFETY: tasks write disjoint tiles, see `Sweep::tile`.
unsafe impl Sync for Destination {}

impl Destination {
    fn of(start: *mut f32, len: usize) -> Self {
        Self { start, halves: std::ptr::null_mut(), len }
    }

    fn is_rounded(&self) -> bool {
        !self.halves.is_null()
    }
}

/// `a·bᵀ` with all threads, `[rows, cols]` in memory that nothing has to clear first.
pub(crate) fn gemm_new(product: Product, a: &impl Operand, b: &impl Operand) -> Vec<f32> {
    Left::packed(product, a, product.is_large()).multiply_new(product, &Right::of(b))
}

/// `c[i, j] (+)= Σ_d a(i, d)·b(j, d)` on the calling thread, for tasks that are parallel already.
pub(crate) fn gemm_serial(product: Product, a: &impl Operand, b: &impl Operand, c: &mut [f32]) {
    let destination = Destination::of(c.as_mut_ptr(), c.len());
    Left::packed(product, a, false).run(product, &Right::of(b), &destination, false);
}

/// The left side of a product, packed: several products of one depth may share it.
pub(crate) struct Left {
    rows: usize,
    depth: usize,
    micro: Micro,
    precision: Precision,
    /// Blocks of about [`ROWS`] rows.
    packed: Vec<f32>,
}

impl Drop for Left {
    fn drop(&mut self) {
        // The next one takes the memory over. At the end of a thread nobody does.
        let _ = PACKED.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.capacity() < self.packed.capacity() {
                *spare = std::mem::take(&mut self.packed);
            }
        });
    }
}

/// Makes room for `len` values; what lies beyond stays, so that nothing is cleared twice.
pub(crate) fn grow(values: &mut Vec<f32>, len: usize) {
    if values.len() < len {
        values.resize(len, 0.0);
    }
}

impl Left {
    /// Packs `a` for products with the rows, depth and precision of `product`.
    pub(crate) fn packed(product: Product, a: &impl Operand, parallel: bool) -> Self {
        let Product { rows, depth, precision, .. } = product;
        let micro = match precision {
            Precision::F32 => micro::f32_kernel(rows),
            Precision::Bf16 => micro::bf16_kernel(rows).unwrap_or_else(|| micro::f32_kernel(rows)),
        };
        let mut left = Self { rows, depth, micro, precision, packed: PACKED.take() };
        let sweeps: Vec<Sweep> = left.sweeps(product).collect();
        let words = sweeps.last().map_or(0, |sweep| sweep.start + sweep.left_words());
        grow(&mut left.packed, words);
        for sweep in sweeps {
            sweep.pack_left(a, &mut left.packed, parallel);
        }
        left
    }

    /// Whether it serves products with the rows, depth and precision of `product`.
    pub(crate) fn serves(&self, product: Product) -> bool {
        (self.rows, self.depth, self.precision) == (product.rows, product.depth, product.precision)
    }

    fn sweeps(&self, product: Product) -> impl Iterator<Item = Sweep> + use<> {
        let &Self { rows, micro, .. } = self;
        // Blocks of one size: a short last one would decode the right operand for little.
        let blocks = ((rows + ROWS / 2) / ROWS).max(1);
        let block = rows.div_ceil(blocks).next_multiple_of(micro.mr);
        let mut start = 0;
        (0..rows).step_by(block.max(1)).map(move |row0| {
            let sweep = Sweep { product, micro, row0, block: block.min(rows - row0), start };
            start += sweep.left_words();
            sweep
        })
    }

    /// `a·bᵀ`, `[rows, cols]`, in memory that nothing has to clear first.
    pub(crate) fn multiply_new<B: Operand>(&self, product: Product, b: &Right<'_, B>) -> Vec<f32> {
        let Product { rows, cols, ldc, accumulate, .. } = product;
        assert!(ldc == cols && !accumulate, "a product of its own");
        let mut c = Vec::with_capacity(rows * cols);
        let destination = Destination::of(c.as_mut_ptr(), rows * cols);
        self.run(product, b, &destination, product.is_large());
        // SAFETY: `run` has written every element of `[rows, cols]`.
        unsafe { c.set_len(rows * cols) };
        c
    }

    /// The same, each finished sum rounded to bf16.
    pub(crate) fn multiply_rounded<B: Operand>(
        &self,
        product: Product,
        b: &Right<'_, B>,
    ) -> Vec<bf16> {
        let Product { rows, cols, depth, ldc, accumulate, .. } = product;
        assert!(ldc == cols && !accumulate, "a product of its own");
        if depth == 0 {
            return vec![bf16::ZERO; rows * cols];
        }
        let mut c = Vec::with_capacity(rows * cols);
        let len = rows * cols;
        let destination = Destination { start: std::ptr::null_mut(), halves: c.as_mut_ptr(), len };
        self.run(product, b, &destination, product.is_large());
        // SAFETY: `run` has written every element of `[rows, cols]`.
        unsafe { c.set_len(rows * cols) };
        c
    }

    /// Writes every element of `c` that the product has.
    fn run<B: Operand>(&self, product: Product, b: &Right<'_, B>, c: &Destination, parallel: bool) {
        let Product { rows, cols, depth, ldc, .. } = product;
        assert!(self.serves(product), "a product of another left side");
        if rows == 0 || cols == 0 {
            return;
        }
        assert!(c.len >= (rows - 1) * ldc + cols, "output holds {} of {rows} x {ldc}", c.len);
        if depth == 0 {
            assert!(b.update.is_none(), "an update of nothing");
            if !product.accumulate {
                // SAFETY: rows of `cols` elements lie in `c`, asserted above.
                (0..rows).for_each(|i| unsafe { c.start.add(i * ldc).write_bytes(0, cols) });
            }
            return;
        }
        let mut updates = b.update.as_ref().map(|&(low, _, rank)| {
            let product = Product { depth: rank, ..product };
            assert!(low.serves(product), "an update of another left side");
            low.sweeps(product)
        });
        for sweep in self.sweeps(product) {
            let update = updates.as_mut().and_then(Iterator::next);
            let main = Side { sweep: &sweep, packed: &self.packed[sweep.start..], right: b.matrix };
            let update = update.as_ref().zip(b.update.as_ref());
            let update = update.map(|(sweep, (low, high, _))| Side {
                sweep,
                packed: &low.packed[sweep.start..],
                right: high,
            });
            sweep.multiply(&main, update.as_ref(), c, parallel);
        }
    }
}

/// One block of left rows against the whole right operand.
struct Sweep {
    product: Product,
    micro: Micro,
    row0: usize,
    block: usize,
    /// Where its packed rows begin.
    start: usize,
}

/// A part of the depth: what a sweep multiplies.
struct Side<'a, B> {
    sweep: &'a Sweep,
    packed: &'a [f32],
    right: &'a B,
}

/// Right panels and left panels that one task multiplies.
struct Task {
    panels: Range<usize>,
    row_panels: Range<usize>,
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
    fn left_words(&self) -> usize {
        self.product.depth.div_ceil(DEPTH) * self.row_panels() * self.left_form().stride
    }

    /// Packs the block's rows: `[depth blocks][panels of mr rows][steps][mr]`.
    fn pack_left(&self, a: &impl Operand, packed: &mut [f32], parallel: bool) {
        let Self { product: Product { depth, .. }, micro: Micro { mr, .. }, row0, block, start } =
            *self;
        let (panels, form) = (self.row_panels(), self.left_form());
        if form.stride == 0 {
            return;
        }
        let packed = &mut packed[start..start + self.left_words()];
        for (index, packed) in packed.chunks_mut(panels * form.stride).enumerate() {
            let depth0 = index * DEPTH;
            let depth = DEPTH.min(depth - depth0);
            let pack = |(group, out): (usize, &mut [f32])| {
                let row = group * LEFT_GROUP * mr;
                let rows = (LEFT_GROUP * mr).min(block - row);
                let from = Block { row0: row0 + row, rows, depth0, depth };
                PACKING.with_borrow_mut(|buffers| pack(a, from, out, form, buffers));
            };
            if parallel {
                packed.par_chunks_mut(LEFT_GROUP * form.stride).enumerate().for_each(pack);
            } else {
                packed.chunks_mut(LEFT_GROUP * form.stride).enumerate().for_each(pack);
            }
        }
    }

    fn multiply<B: Operand>(
        &self,
        main: &Side<'_, B>,
        update: Option<&Side<'_, View<'_>>>,
        c: &Destination,
        parallel: bool,
    ) {
        let panels = self.product.cols.div_ceil(self.micro.nr);
        let row_panels = self.row_panels();
        let threads = if parallel { rayon::current_num_threads() } else { 1 };
        // Several groups a thread, so that none waits long for the last.
        let most = if self.micro.pairs { GROUP } else { 2 * GROUP };
        let group = (panels / (4 * threads)).clamp(1, most);
        let groups = panels.div_ceil(group);
        // Narrow outputs (low-rank updates) are split by rows too; no split changes a bit.
        let splits = if groups >= 2 * threads { 1 } else { threads.min(row_panels) };
        let per_split = row_panels.div_ceil(splits);
        let work = |task: usize| {
            let (start, first) = (task % splits * per_split, task / splits * group);
            let task = Task {
                panels: first..(first + group).min(panels),
                row_panels: start.min(row_panels)..(start + per_split).min(row_panels),
            };
            SCRATCH.with_borrow_mut(|scratch| {
                main.add(c, &task, Order { first: true, last: update.is_none() }, scratch);
                if let Some(update) = update {
                    update.add(c, &task, Order { first: false, last: true }, scratch);
                }
            });
        };
        if parallel {
            // One by one: whoever is done first takes one more, not several.
            (0..groups * splits).into_par_iter().with_max_len(1).for_each(work);
        } else {
            (0..groups * splits).for_each(work);
        }
    }

    /// A whole tile into `sums`, `[mr][nr]`.
    fn sum(&self, operands: &Operands<'_>, sums: &mut [f32], accumulate: bool) {
        let Micro { mr, nr, run, .. } = self.micro;
        assert!(sums.len() >= mr * nr, "sums of a tile");
        let [left, right] = self.panels(operands);
        let tile = Tile::at(sums.as_mut_ptr(), nr, accumulate);
        // SAFETY: the lengths are asserted; the kernel's features were detected when it was chosen.
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
                // SAFETY: as in `sum` and `write`; the tile is a whole one.
                unsafe {
                    let out = c.start.add((self.row0 + i * mr) * ldc + j * nr);
                    let tile = Tile::at(out, ldc, accumulate);
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
            // SAFETY: rows `row0 + i·mr + r`, columns from `j·nr` lie in `c` (asserted in `run`), and
            // no other task has the same `(i, j)`. Only what is added to is read first.
            unsafe {
                if c.is_rounded() {
                    let halves = c.halves.add(start).cast::<u16>();
                    let halves = std::slice::from_raw_parts_mut(halves, width);
                    shuffle::round_run(&sums[..width], halves);
                    continue;
                }
                let out = std::slice::from_raw_parts_mut(c.start.add(start), width);
                if !accumulate {
                    shuffle::copy(&sums[..width], out);
                    continue;
                }
                for (out, &sum) in out.iter_mut().zip(sums) {
                    *out += sum;
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
        let (width, nr) = (task.panels.len(), self.sweep.micro.nr);
        let (panel, depth0) =
            if depth0 < depth { (task.panels.start, depth0) } else { (task.panels.end, 0) };
        let row0 = (panel * nr).min(cols);
        let rows = (width * nr).min(cols - row0);
        Block { row0, rows, depth0, depth: DEPTH.min(depth - depth0) }
    }
}

/// Runs that are asked for while others are multiplied: memory is slow to answer.
struct Ahead {
    lines: Range<usize>,
    start: usize,
    len: usize,
}

impl Ahead {
    fn of(operand: &impl Operand, block: Block) -> Self {
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
    fn prefetch(&mut self, operand: &impl Operand, lines: usize) {
        for line in self.lines.by_ref().take(lines) {
            operand.prefetch(line, self.start, self.len);
        }
    }
}

/// What a micro-kernel multiplies.
struct Operands<'a> {
    steps: usize,
    left: &'a [f32],
    right: &'a [f32],
}
