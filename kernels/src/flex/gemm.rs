//! `C (+)= A·Bᵀ` on the CPU: panels are packed, and frozen weights decoded, block by block; no
//! operand ever exists whole in another form.
//!
//! The loop order follows Goto and van de Geijn 2008: the right operand is decoded once per block of
//! [`ROWS`] left rows and swept by all of them. Every element of `C` is summed in the same depth
//! order whatever the number of threads, so the bits do not depend on it.
#![expect(unsafe_code, reason = "threads write disjoint tiles of one output")]

mod micro;
mod pack;
mod shuffle;

use std::cell::RefCell;

use rayon::prelude::*;

use self::micro::{MAX_TILE, Micro};
use self::pack::{Block, Buffers, pack};
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
    micro::bf16_kernel().is_some()
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static PACKING: RefCell<Buffers> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    panel: Vec<f32>,
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
}

struct Destination(*mut f32);
// SAFETY: tasks write disjoint tiles, see `Sweep::tile`.
unsafe impl Sync for Destination {}

/// `c[i, j] (+)= Σ_d a(i, d)·b(j, d)` with all threads.
pub(crate) fn gemm(product: Product, a: &impl Operand, b: &impl Operand, c: &mut [f32]) {
    run(product, a, b, c, product.rows * product.cols * product.depth >= PARALLEL);
}

/// The same on the calling thread, for tasks that are parallel already.
pub(crate) fn gemm_serial(product: Product, a: &impl Operand, b: &impl Operand, c: &mut [f32]) {
    run(product, a, b, c, false);
}

fn run(product: Product, a: &impl Operand, b: &impl Operand, c: &mut [f32], parallel: bool) {
    let Product { rows, cols, depth, ldc, .. } = product;
    if rows == 0 || cols == 0 {
        return;
    }
    assert!(c.len() >= (rows - 1) * ldc + cols, "output holds {} of {rows} x {ldc}", c.len());
    let micro = match product.precision {
        Precision::F32 => micro::f32_kernel(),
        Precision::Bf16 => micro::bf16_kernel().unwrap_or_else(micro::f32_kernel),
    };
    if depth == 0 {
        if !product.accumulate {
            (0..rows).for_each(|i| c[i * ldc..i * ldc + cols].fill(0.0));
        }
        return;
    }
    for row0 in (0..rows).step_by(ROWS) {
        let block = ROWS.min(rows - row0);
        let sweep = Sweep { product, micro, row0, block };
        let packed = sweep.pack_left(a, parallel);
        sweep.multiply(&packed, b, &Destination(c.as_mut_ptr()), parallel);
    }
}

/// One block of left rows against the whole right operand.
struct Sweep {
    product: Product,
    micro: Micro,
    row0: usize,
    block: usize,
}

impl Sweep {
    /// Packs the block's rows: panels of `mr` rows, each `[depth blocks][steps][mr]`.
    fn pack_left(&self, a: &impl Operand, parallel: bool) -> Vec<f32> {
        let Self { product: Product { depth, precision, .. }, micro, row0, block } = *self;
        let panel = depth * micro.mr;
        let mut packed = vec![0.0; block.div_ceil(micro.mr) * panel];
        let pack = |(index, out): (usize, &mut [f32])| {
            let rows = micro.mr.min(block - index * micro.mr);
            let row = row0 + index * micro.mr;
            PACKING.with_borrow_mut(|buffers| {
                for depth0 in (0..depth).step_by(DEPTH) {
                    let part = DEPTH.min(depth - depth0);
                    let out = &mut out[depth0 * micro.mr..(depth0 + part) * micro.mr];
                    let from = Block { row0: row, rows, depth0, depth: part };
                    pack(a, from, out, micro.mr, micro.pairs, precision, buffers);
                }
            });
        };
        if parallel {
            packed.par_chunks_mut(panel).enumerate().for_each(pack);
        } else {
            packed.chunks_mut(panel).enumerate().for_each(pack);
        }
        packed
    }

    fn multiply(&self, packed: &[f32], b: &impl Operand, c: &Destination, parallel: bool) {
        let panels = self.product.cols.div_ceil(self.micro.nr);
        let row_panels = self.block.div_ceil(self.micro.mr);
        if !parallel {
            (0..panels).for_each(|j| self.column_panel(packed, b, c, j, 0..row_panels));
            return;
        }
        // Narrow outputs (low-rank updates) are split by rows too; the split does not change a bit.
        let splits = if panels >= 2 * rayon::current_num_threads() {
            1
        } else {
            rayon::current_num_threads().min(row_panels)
        };
        let per_split = row_panels.div_ceil(splits);
        (0..panels * splits).into_par_iter().for_each(|task| {
            let (j, split) = (task / splits, task % splits);
            let start = (split * per_split).min(row_panels);
            let end = (start + per_split).min(row_panels);
            self.column_panel(packed, b, c, j, start..end);
        });
    }

    /// All depth blocks of one right panel, against the given left panels.
    fn column_panel(
        &self,
        packed: &[f32],
        b: &impl Operand,
        c: &Destination,
        j: usize,
        row_panels: std::ops::Range<usize>,
    ) {
        let Product { cols, depth, precision, .. } = self.product;
        let Micro { mr, nr, pairs, .. } = self.micro;
        let width = nr.min(cols - j * nr);
        SCRATCH.with_borrow_mut(|Scratch { panel, buffers }| {
            panel.resize(DEPTH * nr, 0.0);
            if width < nr {
                panel.fill(0.0);
            }
            for depth0 in (0..depth).step_by(DEPTH) {
                let part = DEPTH.min(depth - depth0);
                let from = Block { row0: j * nr, rows: width, depth0, depth: part };
                let steps = pack(b, from, panel, nr, pairs, precision, buffers);
                for i in row_panels.clone() {
                    let left = &packed[(i * depth + depth0) * mr..];
                    self.tile(i, j, steps, left, panel, c, depth0 > 0);
                }
            }
        });
    }

    /// One tile; edges go through a buffer of full size.
    #[expect(clippy::too_many_arguments, reason = "a tile is two indices and three operands")]
    fn tile(
        &self,
        i: usize,
        j: usize,
        steps: usize,
        left: &[f32],
        right: &[f32],
        c: &Destination,
        later_depth: bool,
    ) {
        let Product { cols, ldc, accumulate, .. } = self.product;
        let Micro { mr, nr, run, .. } = self.micro;
        let accumulate = accumulate || later_depth;
        let (height, width) = (mr.min(self.block - i * mr), nr.min(cols - j * nr));
        debug_assert!(left.len() >= steps * mr && right.len() >= steps * nr, "short panel");
        // SAFETY: the tile at rows `row0 + i·mr`, columns `j·nr` lies in `c` (asserted in `run`) and
        // no other task has the same `(i, j)`; panels hold `steps` rows; the kernel's features were
        // detected when it was chosen.
        unsafe {
            let out = c.0.add((self.row0 + i * mr) * ldc + j * nr);
            if height == mr && width == nr {
                run(steps, left.as_ptr(), right.as_ptr(), out, ldc, accumulate);
                return;
            }
            let mut tile = [0.0_f32; MAX_TILE];
            run(steps, left.as_ptr(), right.as_ptr(), tile.as_mut_ptr(), nr, false);
            for (r, sums) in tile.chunks_exact(nr).take(height).enumerate() {
                let out = std::slice::from_raw_parts_mut(out.add(r * ldc), width);
                for (out, &sum) in out.iter_mut().zip(sums) {
                    *out = if accumulate { *out + sum } else { sum };
                }
            }
        }
    }
}
