//! Dropout on the CPU: a bit for each value of an input, drawn by rows and applied where the input is read.

mod draw;
mod lanes;
#[cfg(target_arch = "x86_64")]
mod low;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use self::draw::{draw_rows, keys};
use self::lanes::{Lane, clear_run, copy_run, masks};
pub(super) use self::lanes::{clear_panels, clear_tile};
use super::gemm::{Left, Operand, Product, Right, Runs, View, shuffle};
use super::matrix::Matrix;
use crate::dropout::{Dropout, GROUP};

/// Words of bits that a task draws: some microseconds.
const CHUNK: usize = 512;

/// One bit for each value of a `[rows, cols]`: whether it is kept.
pub(super) struct Kept {
    words: Vec<u64>,
    per_row: usize,
}

/// The bits of one input, with its shape.
type Drawn = (Dropout, [usize; 2], Rc<Kept>);

/// Inputs whose bits are remembered: a branch has four at most, and its gradients come right after it.
const RECENT: usize = 4;

thread_local! {
    /// The bits drawn last. What is dropped says what was drawn, of whatever model.
    static DRAWN: RefCell<VecDeque<Drawn>> = RefCell::default();
}

impl Kept {
    /// The bits, maybe drawn before.
    pub(super) fn of(dropout: &Dropout, rows: usize, cols: usize) -> Rc<Self> {
        DRAWN.with_borrow_mut(|drawn| {
            let mut before = drawn.iter();
            let before = before.find(|(of, shape, _)| (of, shape) == (dropout, &[rows, cols]));
            if let Some((.., kept)) = before {
                return kept.clone();
            }
            drawn.truncate(RECENT - 1);
            let kept = Rc::new(Self::draw(dropout, rows, cols));
            drawn.push_front((*dropout, [rows, cols], kept.clone()));
            kept
        })
    }

    /// Draws the bits.
    fn draw(dropout: &Dropout, rows: usize, cols: usize) -> Self {
        let per_row = cols.div_ceil(GROUP).max(1);
        let mut words = vec![0; rows * per_row];
        let keys = keys(dropout);
        let rows_of_task = CHUNK.div_ceil(per_row);
        let draw = |(task, words): (usize, &mut [u64])| {
            draw_rows(dropout, &keys, task * rows_of_task, per_row, words);
        };
        if words.len() <= CHUNK {
            draw((0, &mut words));
        } else {
            words.par_chunks_mut(rows_of_task * per_row).enumerate().for_each(draw);
        }
        Self { words, per_row }
    }

    /// The bits of a row from the group on that `column` is the first of.
    #[inline(always)]
    pub(super) fn from(&self, row: usize, column: usize) -> &[u64] {
        debug_assert!(column.is_multiple_of(GROUP), "column {column}");
        &self.words[row * self.per_row..(row + 1) * self.per_row][column / GROUP..]
    }

    /// The bits of up to [`GROUP`] columns of a row, all in one group.
    #[inline(always)]
    pub(super) fn bits(&self, row: usize, column: usize) -> u64 {
        self.words[row * self.per_row + column / GROUP] >> (column % GROUP)
    }
}

/// `drop(x)·Aᵀ`, `a` `[rank, in]`; all of `product` but its left side is that of `x` itself.
pub(super) fn low(x: &Dropped<'_>, product: Product, a: &[f32]) -> Vec<f32> {
    #[cfg(target_arch = "x86_64")]
    if masks() {
        return low::low(x, product, a);
    }
    packed_low(x, product, a)
}

/// `[rows, cols]` of the product of `x` and `a`, with the input packed.
fn packed_low(x: &Dropped<'_>, product: Product, a: &[f32]) -> Vec<f32> {
    let left = Left::packed(product, x, product.is_large());
    left.multiply_new(product, &Right::of(&View::rows(a, product.depth)))
}

/// The values that are kept, zeros in place of the others.
pub(super) fn dropped<T: Lane>(x: &[T], cols: usize, kept: &Kept) -> Vec<T> {
    let mut y = vec![T::default(); x.len()];
    y.par_chunks_exact_mut(cols.max(1))
        .zip(x.par_chunks_exact(cols.max(1)))
        .with_min_len(16)
        .enumerate()
        .for_each(|(row, (y, x))| copy_run(x, y, kept.from(row, 0)));
    y
}

/// The rows of an input, of which some values are dropped, as a left side.
pub(super) struct Dropped<'a> {
    pub(super) data: Matrix<'a>,
    pub(super) cols: usize,
    pub(super) kept: &'a Kept,
}

impl Operand for Dropped<'_> {
    fn runs(&self) -> Runs {
        Runs::AlongDepth
    }

    fn run<'s>(&'s self, line: usize, start: usize, scratch: &'s mut [f32]) -> &'s [f32] {
        let (place, words) = (line * self.cols + start, self.kept.from(line, start));
        match self.data {
            Matrix::F32(values) => {
                copy_run(&values[place..place + scratch.len()], scratch, words);
            }
            Matrix::Bf16(_) => {
                self.data.run(place, scratch);
                clear_run(scratch, words);
            }
        }
        scratch
    }

    fn bf16_run(&self, line: usize, start: usize, _scratch: &mut [f32], out: &mut [u16]) {
        let place = line * self.cols + start;
        let (range, words) = (place..place + out.len(), self.kept.from(line, start));
        match self.data {
            Matrix::F32(values) => {
                shuffle::round_run(&values[range], out);
                clear_run(out, words);
            }
            Matrix::Bf16(values) => copy_run(values[range].reinterpret_cast(), out, words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn dropout(rate: f64) -> Dropout {
        Dropout::new([0x1234_5678, 0xffff_ffff, 0x9abc_def0, 7], rate).unwrap()
    }

    #[test]
    fn both_ways_of_the_narrow_product_are_those_of_plain_loops_at_every_edge() {
        use crate::precision::Precision;
        // Small whole numbers: exact in bf16, and in every order of the sums.
        let whole = |i: usize| (i * 7 % 13) as f32 - 6.0;
        for (rows, cols, rank) in
            [(1, 1, 1), (13, 65, 8), (25, 191, 33), (40, 193, 32), (97, 400, 5), (12, 384, 70)]
        {
            let dropout = dropout(0.3);
            let kept = &Kept::draw(&dropout, rows, cols);
            let x: Vec<f32> = (0..rows * cols).map(whole).collect();
            let halves: Vec<half::bf16> = x.iter().map(|&x| half::bf16::from_f32(x)).collect();
            let a: Vec<f32> = (0..rank * cols).map(|i| whole(3 * i + 1)).collect();
            let product = |i: usize| -> f32 {
                let (row, r) = (i / rank, i % rank);
                let of = |d: usize| x[row * cols + d] * a[r * cols + d];
                (0..cols).filter(|&d| dropout.keeps(row, d)).map(of).sum()
            };
            let expected: Vec<f32> = (0..rows * rank).map(|i| product(i) + 0.0).collect();
            for precision in [Precision::F32, Precision::Bf16] {
                for data in [Matrix::F32(&x), Matrix::Bf16(&halves)] {
                    let x = Dropped { data, cols, kept };
                    let product = Product::new(rows, rank, cols, precision);
                    for found in [low(&x, product, &a), packed_low(&x, product, &a)] {
                        let what = format!("{rows} x {cols} x {rank}, {}", precision.name());
                        assert_eq!(found, expected, "{what}");
                    }
                }
            }
        }
    }
}
