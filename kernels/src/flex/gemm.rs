//! `C (+)= A·Bᵀ` on the CPU: panels are packed, and frozen weights decoded, block by block; no
//! operand ever exists whole in another form.
//!
//! The loop order follows Goto and van de Geijn 2008: the right operand is decoded once per block of
//! about [`ROWS`] left rows and swept by all of them. Every element of `C` is summed in the same depth
//! order whatever the number of threads, so the bits do not depend on it.
#![expect(unsafe_code, reason = "threads write disjoint tiles of one output")]

mod ahead;
pub(super) mod low_rank;
pub(super) mod micro;
mod pack;
pub(super) mod shuffle;
mod sweep;

use std::cell::RefCell;

use half::bf16;

use self::micro::Micro;
pub(crate) use self::pack::{Block, Buffers, Form, pack};
pub(crate) use self::pack::{ByInput, ByOutput, Operand, Runs, View};
use self::sweep::{Destination, Side, Sweep};
use super::dropout::Kept;
use crate::precision::Precision;

/// Left rows packed at a time, about: with the sums of a group of panels they fill the second cache.
/// The right operand is decoded once for each such block.
const ROWS: usize = 516;
/// Below this many multiply-adds a product runs on the calling thread.
const PARALLEL: usize = 1 << 17;

thread_local! {
    /// Memory of the largest left sides that were dropped: with dropout an input is packed twice.
    static PACKED: RefCell<[Vec<f32>; 2]> = RefCell::default();
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
    /// Where the update's part is added; everywhere, if nothing says it.
    pub(crate) kept: Option<&'a Kept>,
}

impl<'a, B> Right<'a, B> {
    /// Without an update.
    pub(crate) fn of(matrix: &'a B) -> Self {
        Self { matrix, update: None, kept: None }
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
            if let Some(least) = spare.iter_mut().min_by_key(|spare| spare.capacity())
                && least.capacity() < self.packed.capacity()
            {
                *least = std::mem::take(&mut self.packed);
            }
        });
    }
}

/// The largest memory that waits.
fn spare() -> Vec<f32> {
    PACKED.with_borrow_mut(|spare| {
        spare
            .iter_mut()
            .max_by_key(|spare| spare.capacity())
            .map(std::mem::take)
            .unwrap_or_default()
    })
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
        let mut left = Self { rows, depth, micro, precision, packed: spare() };
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
            sweep.multiply(&main, update.as_ref().map(|update| (update, b.kept)), c, parallel);
        }
    }
}
