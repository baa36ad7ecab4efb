//! `C (+)= A·Bᵀ` on the CPU: panels are packed, and frozen weights decoded, block by block; no
//! operand ever exists whole in another form.
//!
//! The loop order follows Goto and van de Geijn 2008: the right operand is decoded once per block of
//! [`ROWS`] left rows and swept by all of them. Every element of `C` is summed in the same depth
//! order whatever the number of threads, so the bits do not depend on it.
#![expect(unsafe_code, reason = "threads write disjoint tiles of one output")]

mod micro;
mod pack;
pub(super) mod shuffle;

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use self::micro::{MAX_TILE, Micro};
use self::pack::{Block, Buffers, Form, pack};
pub(crate) use self::pack::{ByInput, ByOutput, Operand, Runs, View};
use crate::precision::Precision;

/// Depth of a packed block: an f32 panel of 32 columns fills 32 KiB.
const DEPTH: usize = 256;
/// Left rows packed at a time: bounds the packed copy of the activations.
const ROWS: usize = 504;
/// Below this many multiply-adds a product runs on the calling thread.
const PARALLEL: usize = 1 << 17;

/// Whether this processor multiplies pairs of bf16.
pub(crate) fn bf16_is_native() -> bool {
    micro::bf16_is_native()
}

/// Right panels packed together, where there are enough of them: what lies beside one panel's part of a
/// row shares its cache lines, and the left rows stay in the second cache while these are swept.
const GROUP: usize = 4;

/// Left panels packed together: transposed operands are read in runs across as many rows.
const LEFT_GROUP: usize = 8;

thread_local! {
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

struct Destination {
    start: *mut f32,
    len: usize,
}
// SAFETY: tasks write disjoint tiles, see `Sweep::tile`.
unsafe impl Sync for Destination {}

/// `c[i, j] (+)= Σ_d a(i, d)·b(j, d)` with all threads.
pub(crate) fn gemm(product: Product, a: &impl Operand, b: &impl Operand, c: &mut [f32]) {
    Left::packed(product, a, product.is_large()).multiply(product, b, c);
}

/// The same into memory of its own, `[rows, cols]`, that nothing has to clear first.
pub(crate) fn gemm_new(product: Product, a: &impl Operand, b: &impl Operand) -> Vec<f32> {
    Left::packed(product, a, product.is_large()).multiply_new(product, b)
}

/// The same on the calling thread, for tasks that are parallel already.
pub(crate) fn gemm_serial(product: Product, a: &impl Operand, b: &impl Operand, c: &mut [f32]) {
    let destination = Destination { start: c.as_mut_ptr(), len: c.len() };
    Left::packed(product, a, false).run(product, b, &destination, false);
}

/// The left side of a product, packed: several products of one depth may share it.
pub(crate) struct Left {
    rows: usize,
    depth: usize,
    micro: Micro,
    precision: Precision,
    /// Blocks of [`ROWS`] rows.
    packed: Vec<f32>,
}

impl Drop for Left {
    fn drop(&mut self) {
        // The next one takes the memory over.
        PACKED.set(std::mem::take(&mut self.packed));
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
        left.packed.resize(words, 0.0);
        for sweep in sweeps {
            sweep.pack_left(a, &mut left.packed, parallel);
        }
        left
    }

    fn sweeps(&self, product: Product) -> impl Iterator<Item = Sweep> + use<> {
        let &Self { rows, micro, .. } = self;
        let mut start = 0;
        (0..rows).step_by(ROWS).map(move |row0| {
            let sweep = Sweep { product, micro, row0, block: ROWS.min(rows - row0), start };
            start += sweep.left_words();
            sweep
        })
    }

    /// `c (+)= a·bᵀ` with all threads.
    pub(crate) fn multiply(&self, product: Product, b: &impl Operand, c: &mut [f32]) {
        let destination = Destination { start: c.as_mut_ptr(), len: c.len() };
        self.run(product, b, &destination, product.is_large());
    }

    /// `a·bᵀ`, `[rows, cols]`, in memory that nothing has to clear first.
    pub(crate) fn multiply_new(&self, product: Product, b: &impl Operand) -> Vec<f32> {
        let Product { rows, cols, ldc, accumulate, .. } = product;
        assert!(ldc == cols && !accumulate, "a product of its own");
        let mut c = Vec::with_capacity(rows * cols);
        let destination = Destination { start: c.as_mut_ptr(), len: rows * cols };
        self.run(product, b, &destination, product.is_large());
        // SAFETY: `run` has written every element of `[rows, cols]`.
        unsafe { c.set_len(rows * cols) };
        c
    }

    /// Writes every element of `c` that the product has.
    fn run(&self, product: Product, b: &impl Operand, c: &Destination, parallel: bool) {
        let Product { rows, cols, depth, ldc, precision, .. } = product;
        assert_eq!(
            (rows, depth, precision),
            (self.rows, self.depth, self.precision),
            "a product of another left side"
        );
        if rows == 0 || cols == 0 {
            return;
        }
        assert!(c.len >= (rows - 1) * ldc + cols, "output holds {} of {rows} x {ldc}", c.len);
        if depth == 0 {
            if !product.accumulate {
                // SAFETY: rows of `cols` elements lie in `c`, asserted above.
                (0..rows).for_each(|i| unsafe { c.start.add(i * ldc).write_bytes(0, cols) });
            }
            return;
        }
        for sweep in self.sweeps(product) {
            sweep.multiply(&self.packed[sweep.start..], b, c, parallel);
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

/// Right panels and left panels that one task multiplies.
struct Task {
    panels: Range<usize>,
    row_panels: Range<usize>,
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

    fn multiply(&self, packed: &[f32], b: &impl Operand, c: &Destination, parallel: bool) {
        let panels = self.product.cols.div_ceil(self.micro.nr);
        let row_panels = self.row_panels();
        let threads = if parallel { rayon::current_num_threads() } else { 1 };
        // Several groups a thread, so that none waits long for the last.
        let group = (panels / (4 * threads)).clamp(1, GROUP);
        let groups = panels.div_ceil(group);
        // Narrow outputs (low-rank updates) are split by rows too; no split changes a bit.
        let splits = if groups >= 2 * threads { 1 } else { threads.min(row_panels) };
        let per_split = row_panels.div_ceil(splits);
        let work = |task: usize| {
            let (start, first) = (task % splits * per_split, task / splits * group);
            self.task(
                packed,
                b,
                c,
                &Task {
                    panels: first..(first + group).min(panels),
                    row_panels: start.min(row_panels)..(start + per_split).min(row_panels),
                },
            );
        };
        if parallel {
            (0..groups * splits).into_par_iter().for_each(work);
        } else {
            (0..groups * splits).for_each(work);
        }
    }

    /// All depth blocks of some right panels, against some left panels.
    fn task(&self, packed: &[f32], b: &impl Operand, c: &Destination, task: &Task) {
        let Product { cols, depth, .. } = self.product;
        let Micro { mr, nr, .. } = self.micro;
        let (tile, row_panels) = (mr * nr, self.row_panels());
        let left_part = self.left_form().stride;
        let row0 = task.panels.start * nr;
        let rows = (task.panels.end * nr).min(cols) - row0;
        SCRATCH.with_borrow_mut(|Scratch { panels, sums, buffers }| {
            panels.resize(task.panels.len() * self.form(nr, DEPTH).stride, 0.0);
            if depth > DEPTH {
                sums.resize(task.panels.len() * task.row_panels.len() * tile, 0.0);
            }
            for depth0 in (0..depth).step_by(DEPTH) {
                let part = DEPTH.min(depth - depth0);
                let form = self.form(nr, part);
                let steps = form.steps(part);
                pack(b, Block { row0, rows, depth0, depth: part }, panels, form, buffers);
                let last = depth0 + part == depth;
                let tiles =
                    task.panels.clone().flat_map(|j| task.row_panels.clone().map(move |i| (i, j)));
                for (index, (i, j)) in tiles.enumerate() {
                    let left = &packed[(depth0 / DEPTH * row_panels + i) * left_part..];
                    let right = &panels[(j - task.panels.start) * steps * nr..];
                    let operands = Operands { steps, left, right };
                    if depth <= DEPTH {
                        self.tile(i, j, &operands, c);
                        continue;
                    }
                    let sums = &mut sums[index * tile..(index + 1) * tile];
                    self.sum(&operands, sums, depth0 > 0);
                    if last {
                        self.write(i, j, sums, c);
                    }
                }
            }
        });
    }

    /// A whole tile into `sums`, `[mr][nr]`.
    fn sum(&self, operands: &Operands<'_>, sums: &mut [f32], accumulate: bool) {
        let Micro { mr, nr, run, .. } = self.micro;
        let &Operands { steps, left, right } = operands;
        assert!(left.len() >= steps * mr && right.len() >= steps * nr && sums.len() >= mr * nr);
        // SAFETY: the lengths are asserted; the kernel's features were detected when it was chosen.
        unsafe { run(steps, left.as_ptr(), right.as_ptr(), sums.as_mut_ptr(), nr, accumulate) };
    }

    /// A tile of which this is all: straight into `C`, but at edges through a buffer of full size.
    fn tile(&self, i: usize, j: usize, operands: &Operands<'_>, c: &Destination) {
        let Product { cols, ldc, accumulate, .. } = self.product;
        let Micro { mr, nr, run, .. } = self.micro;
        let &Operands { steps, left, right } = operands;
        if (i + 1) * mr > self.block || (j + 1) * nr > cols {
            let mut sums = [0.0_f32; MAX_TILE];
            self.sum(operands, &mut sums, false);
            self.write(i, j, &sums, c);
            return;
        }
        assert!(left.len() >= steps * mr && right.len() >= steps * nr, "short panel");
        // SAFETY: as in `sum` and `write`; the tile is a whole one.
        unsafe {
            let out = c.start.add((self.row0 + i * mr) * ldc + j * nr);
            run(steps, left.as_ptr(), right.as_ptr(), out, ldc, accumulate);
        }
    }

    /// Writes the part of a finished tile that `C` has.
    fn write(&self, i: usize, j: usize, sums: &[f32], c: &Destination) {
        let Product { cols, ldc, accumulate, .. } = self.product;
        let Micro { mr, nr, .. } = self.micro;
        let (height, width) = (mr.min(self.block - i * mr), nr.min(cols - j * nr));
        for (r, sums) in sums.chunks_exact(nr).take(height).enumerate() {
            // SAFETY: rows `row0 + i·mr + r`, columns from `j·nr` lie in `c` (asserted in `run`), and
            // no other task has the same `(i, j)`. Only what is added to is read first.
            unsafe {
                let start = c.start.add((self.row0 + i * mr + r) * ldc + j * nr);
                if !accumulate {
                    start.copy_from_nonoverlapping(sums.as_ptr(), width);
                    continue;
                }
                let out = std::slice::from_raw_parts_mut(start, width);
                for (out, &sum) in out.iter_mut().zip(sums) {
                    *out += sum;
                }
            }
        }
    }
}

/// What a micro-kernel multiplies.
struct Operands<'a> {
    steps: usize,
    left: &'a [f32],
    right: &'a [f32],
}
