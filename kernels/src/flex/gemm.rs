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
use super::fresh::{unwritten, written};
use crate::precision::Precision;

/// Left rows packed at a time, about: with the sums of a group of panels they fill the second cache.
/// The right operand is decoded once for each such block.
const ROWS: usize = 516;
/// Below this many multiply-adds a product runs on the calling thread.
const PARALLEL: usize = 1 << 17;

thread_local! {
    /// Memory of the largest left sides that were dropped: with dropout an input is packed twice. Without it, and without
    /// what packs and draws once, a step of 512 tokens of the 100M shape takes 2.5 % longer. Nothing is
    /// read of it before it is written, so that it serves whatever model the thread runs next.
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

    /// From its first element in `C` to behind its last one.
    pub(crate) fn extent(self) -> usize {
        if self.rows == 0 { 0 } else { (self.rows - 1) * self.ldc + self.cols }
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
    assert!(c.len() >= product.extent(), "output holds {} of {}", c.len(), product.extent());
    // SAFETY: `c` holds that many values, borrowed alone.
    unsafe { gemm_serial_at(product, a, b, c.as_mut_ptr()) };
}

/// `c[i, j] (+)= Σ_d a(i, d)·b(j, d)` on the calling thread, where `c` begins among what other tasks write.
///
/// # Safety
/// Every row of `product` at `c` is good for writing, and for reading where it accumulates, and nothing else
/// refers to an element of it or touches one meanwhile; what lies between two rows is left alone.
pub(crate) unsafe fn gemm_serial_at(
    product: Product,
    a: &impl Operand,
    b: &impl Operand,
    c: *mut f32,
) {
    // SAFETY: by the caller's promise.
    let destination = unsafe { Destination::of(c, product.extent()) };
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
        let mut c = unwritten(rows * cols);
        // SAFETY: memory of `c` alone, which is not touched before the product is there; nothing of it is
        // read, for the product does not accumulate.
        let destination = unsafe { Destination::of(c.as_mut_ptr().cast(), c.len()) };
        self.run(product, b, &destination, product.is_large());
        // SAFETY: `run` has written every element of `[rows, cols]`.
        unsafe { written(c) }
    }

    /// `a·bᵀ`, `[rows, cols]`, each finished sum rounded to bf16, in memory that nothing has to clear first.
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
        let mut c = unwritten(rows * cols);
        // SAFETY: as for sums of f32.
        let destination = unsafe { Destination::rounded(c.as_mut_ptr().cast(), c.len()) };
        self.run(product, b, &destination, product.is_large());
        // SAFETY: `run` has written every element of `[rows, cols]`.
        unsafe { written(c) }
    }

    /// Writes every element of `c` that the product has.
    fn run<B: Operand>(&self, product: Product, b: &Right<'_, B>, c: &Destination, parallel: bool) {
        let Product { rows, cols, depth, ldc, .. } = product;
        assert!(self.serves(product), "a product of another left side");
        if rows == 0 || cols == 0 {
            return;
        }
        // Else tiles of two tasks would overlap.
        assert!(cols <= ldc, "rows of {cols}, {ldc} apart");
        assert!(c.len >= product.extent(), "output holds {} of {rows} x {ldc}", c.len);
        if depth == 0 {
            assert!(b.update.is_none(), "an update of nothing");
            if !product.accumulate {
                // SAFETY: rows of `cols` elements lie in `c`, asserted above, and belong to it alone.
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

#[cfg(test)]
mod tests {
    use super::super::matrix::Value;
    use super::*;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        // Small whole numbers: no sum is rounded, in whatever order.
        (0..len).map(|i| ((i * 7 + seed) % 9) as f32 - 4.0).collect()
    }

    #[test]
    fn products_have_every_sum_at_every_edge_on_one_thread_and_on_several() {
        let shapes =
            [(1, 1, 1), (5, 17, 3), (13, 33, 259), (3, 2, 0), (65, 33, 64), (4, 16, 2_049)];
        for (rows, cols, depth) in shapes {
            let (a, b) = (numbers(rows * depth, 0), numbers(cols * depth, 5));
            let (left, right) = (View::rows(&a, depth), View::rows(&b, depth));
            let sum = |i: usize, j: usize| -> f32 {
                let (a, b) = (&a[i * depth..][..depth], &b[j * depth..][..depth]);
                a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>() + 0.0
            };
            let expected: Vec<f32> = (0..rows * cols).map(|at| sum(at / cols, at % cols)).collect();
            for precision in [Precision::F32, Precision::Bf16] {
                let product = Product::new(rows, cols, depth, precision);
                let what = format!("{rows} x {cols} x {depth}, {}", precision.name());
                assert_eq!(gemm_new(product, &left, &right), expected, "{what}");
                let packed = Left::packed(product, &left, false);
                let rounded = packed.multiply_rounded(product, &Right::of(&right));
                let nearest: Vec<bf16> = expected.iter().map(|&sum| Value::of(sum)).collect();
                assert_eq!(rounded, nearest, "{what}, rounded");
                // Added to rows that lie apart; what is between them stays.
                let apart = Product { ldc: cols + 3, accumulate: true, ..product };
                let mut c = vec![0.5; apart.extent()];
                gemm_serial(apart, &left, &right, &mut c);
                for (at, &found) in c.iter().enumerate() {
                    let (i, j) = (at / apart.ldc, at % apart.ldc);
                    let expected = if j < cols { 0.5 + sum(i, j) } else { 0.5 };
                    assert_eq!(found.to_bits(), expected.to_bits(), "{what}: {i}, {j}");
                }
            }
        }
    }
}
