//! Operands of a product, and how a panel of them is packed (and decoded) for a micro-kernel.
//!
//! An operand is read in runs, along the depth or across it, whichever is contiguous in memory. Runs
//! are rounded and paired where they are contiguous, then laid down as the panel's rows.

use super::super::decode;
use super::super::matrix::Matrix;
use super::super::simd::vectorize;
use super::shuffle::Lines;
use super::{grow, shuffle};
use crate::frozen::FrozenMatrix;
use crate::precision::Precision;

/// Which way an operand's runs lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runs {
    /// A run is one row, along the depth.
    AlongDepth,
    /// A run is one depth, across the rows.
    AcrossRows,
}

/// One side of a product: element `(row, depth)`.
pub(crate) trait Operand: Sync {
    /// Which way its runs lie.
    fn runs(&self) -> Runs;

    /// The run of line `line` (a row, or a depth) from `start` on. It may be borrowed from memory or
    /// be decoded into `scratch`, which has its length.
    fn run<'s>(&'s self, line: usize, start: usize, scratch: &'s mut [f32]) -> &'s [f32];

    /// The run of line `line` from `start` on, rounded to bf16: as many values as `out` holds, which is the
    /// length of `scratch`.
    fn bf16_run(&self, line: usize, start: usize, scratch: &mut [f32], out: &mut [u16]) {
        shuffle::round_run(self.run(line, start, scratch), out);
    }

    /// The run of `len` values of line `line` from `start` on, if it lies in memory as bf16.
    fn halves(&self, _line: usize, _start: usize, _len: usize) -> Option<&[u16]> {
        None
    }

    /// Tells that a run of `len` values will be wanted soon.
    fn prefetch(&self, _line: usize, _start: usize, _len: usize) {}
}

/// A matrix in memory whose lines are `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: Matrix<'a>,
    stride: usize,
    runs: Runs,
}

impl<'a> View<'a> {
    /// Row-major matrix with `cols` columns.
    pub(crate) fn rows(data: impl Into<Matrix<'a>>, cols: usize) -> Self {
        let data = data.into();
        Self { data, stride: cols, runs: Runs::AlongDepth }
    }

    /// The transpose of a row-major matrix with `cols` columns.
    pub(crate) fn transposed(data: impl Into<Matrix<'a>>, cols: usize) -> Self {
        let data = data.into();
        Self { data, stride: cols, runs: Runs::AcrossRows }
    }
}

impl Operand for View<'_> {
    fn runs(&self) -> Runs {
        self.runs
    }

    #[inline(always)]
    fn run<'s>(&'s self, line: usize, start: usize, scratch: &'s mut [f32]) -> &'s [f32] {
        self.data.run(line * self.stride + start, scratch)
    }

    #[inline(always)]
    fn halves(&self, line: usize, start: usize, len: usize) -> Option<&[u16]> {
        self.data.halves(line * self.stride + start, len)
    }
}

/// A frozen weight `[out, in]` as an operand whose rows are output features: `y = x·Wᵀ`.
pub(crate) struct ByOutput<'a>(pub(crate) &'a FrozenMatrix);

impl Operand for ByOutput<'_> {
    fn runs(&self) -> Runs {
        Runs::AlongDepth
    }

    fn run<'s>(&'s self, line: usize, start: usize, scratch: &'s mut [f32]) -> &'s [f32] {
        decode::f32_run(self.0, line, start, scratch);
        scratch
    }

    fn bf16_run(&self, line: usize, start: usize, _scratch: &mut [f32], out: &mut [u16]) {
        decode::bf16_run(self.0, line, start, out);
    }

    fn halves(&self, line: usize, start: usize, len: usize) -> Option<&[u16]> {
        decode::halves(self.0, line, start, len)
    }

    fn prefetch(&self, line: usize, start: usize, len: usize) {
        decode::prefetch(self.0, line, start, len);
    }
}

/// A frozen weight `[out, in]` as an operand whose rows are input features: `dx = dy·W`.
pub(crate) struct ByInput<'a>(pub(crate) &'a FrozenMatrix);

impl Operand for ByInput<'_> {
    fn runs(&self) -> Runs {
        Runs::AcrossRows
    }

    fn run<'s>(&'s self, line: usize, start: usize, scratch: &'s mut [f32]) -> &'s [f32] {
        decode::f32_run(self.0, line, start, scratch);
        scratch
    }

    fn bf16_run(&self, line: usize, start: usize, _scratch: &mut [f32], out: &mut [u16]) {
        decode::bf16_run(self.0, line, start, out);
    }

    fn halves(&self, line: usize, start: usize, len: usize) -> Option<&[u16]> {
        decode::halves(self.0, line, start, len)
    }

    fn prefetch(&self, line: usize, start: usize, len: usize) {
        decode::prefetch(self.0, line, start, len);
    }
}

/// Buffers that a thread packs through.
#[derive(Default)]
pub(crate) struct Buffers {
    run: Vec<f32>,
    lines: Vec<f32>,
    /// A run rounded to bf16, for kernels that multiply it as f32.
    rounded: Vec<u16>,
}

/// The part of an operand that is packed.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub(crate) row0: usize,
    pub(crate) rows: usize,
    pub(crate) depth0: usize,
    pub(crate) depth: usize,
}

/// The form that a micro-kernel reads.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    /// Rows of the operand in a panel.
    pub(crate) width: usize,
    /// Words from one panel to the next.
    pub(crate) stride: usize,
    /// Whether a word holds the bf16 values of two depths.
    pub(crate) pairs: bool,
    /// Precision of the product.
    pub(crate) precision: Precision,
}

impl Form {
    /// Panel rows for so many depths.
    pub(super) fn steps(self, depth: usize) -> usize {
        if self.pairs { depth.div_ceil(2) } else { depth }
    }
}

/// How many runs ahead memory is asked for: they lie a line of the matrix apart, too far for the
/// processor to foresee.
const AHEAD: usize = 8;

/// Packs a block into panels of `form.width` of its rows, `form.stride` apart, each `[steps][width]`.
/// Columns beyond the block's rows hold anything.
///
/// With [`Precision::Bf16`] and a kernel of f32 the values are rounded to bf16, so that the product has
/// the same operands on every processor.
pub(crate) fn pack(
    operand: &impl Operand,
    block: Block,
    panels: &mut [f32],
    form: Form,
    buffers: &mut Buffers,
) {
    match operand.runs() {
        Runs::AlongDepth => {
            let panels = panels.chunks_mut(form.stride).take(block.rows.div_ceil(form.width));
            for (index, panel) in panels.enumerate() {
                let done = index * form.width;
                let block = Block { row0: block.row0 + done, rows: block.rows - done, ..block };
                along_depth(operand, block, panel, form, buffers);
            }
        }
        Runs::AcrossRows => across_rows(operand, block, panels, form, buffers),
    }
}

/// Most rows of a panel.
const WIDEST: usize = 32;

/// The first rows are gathered as lines, of words or of halves, or found in memory as such, then transposed
/// into the panel.
fn along_depth(
    operand: &impl Operand,
    block: Block,
    panel: &mut [f32],
    form: Form,
    buffers: &mut Buffers,
) {
    let Buffers { run, lines, .. } = buffers;
    let Block { row0, depth0, depth, .. } = block;
    let rows = block.rows.min(form.width);
    let words = match form.precision {
        Precision::F32 => depth,
        Precision::Bf16 => depth.div_ceil(2),
    };
    grow(run, depth);
    grow(lines, rows * words);
    let run = &mut run[..depth];
    let mut starts = [std::ptr::null(); WIDEST];
    for (i, line) in lines.chunks_exact_mut(words).take(rows).enumerate() {
        if i + AHEAD < block.rows {
            operand.prefetch(row0 + i + AHEAD, depth0, depth);
        }
        // A pointer to the line is taken when it has been written: writing ends what was borrowed before.
        starts[i] = if form.precision == Precision::F32 {
            line.copy_from_slice(operand.run(row0 + i, depth0, run));
            line.as_ptr()
        } else {
            match operand.halves(row0 + i, depth0, depth) {
                // Two halves are a word; a last one alone lacks its other half.
                Some(halves) if depth.is_multiple_of(2) => halves.as_ptr().cast(),
                _ => {
                    let halves = shuffle::halves(line);
                    operand.bf16_run(row0 + i, depth0, run, &mut halves[..depth]);
                    halves[depth..].fill(0);
                    line.as_ptr()
                }
            }
        };
    }
    let starts = &starts[..rows];
    // Pairs stay together.
    let (of, steps) = match form.precision {
        Precision::Bf16 if !form.pairs => (Lines::Halves, depth),
        _ => (Lines::Words, words),
    };
    // SAFETY: each line has `words` words, in the buffer or, as twice as many halves, in the operand; both stay
    // borrowed, and nothing writes to them.
    unsafe { shuffle::transpose(starts, of, steps, panel, form.width) };
}

/// Depths are the panels' rows already; two of them make a row of pairs.
fn across_rows(
    operand: &impl Operand,
    block: Block,
    panels: &mut [f32],
    form: Form,
    buffers: &mut Buffers,
) {
    let Block { row0, rows, depth0, depth } = block;
    grow(&mut buffers.run, rows);
    grow(&mut buffers.lines, rows.max(1));
    buffers.rounded.resize(rows, 0);
    for step in 0..form.steps(depth) {
        let a_step = if form.pairs { 2 } else { 1 };
        for ahead in a_step * step + AHEAD..a_step * (step + 1) + AHEAD {
            if ahead < depth {
                operand.prefetch(depth0 + ahead, row0, rows);
            }
        }
        if form.pairs {
            row_of_pairs(operand, block, step, panels, form, buffers);
        } else {
            row_of_singles(operand, block, step, panels, form, buffers);
        }
    }
}

/// The part of row `step` that panel `panel` has, of panels that hold `rows` rows together.
fn part(form: Form, step: usize, panel: usize, rows: usize) -> std::ops::Range<usize> {
    let start = panel * form.stride + step * form.width;
    start..start + form.width.min(rows - panel * form.width)
}

fn row_of_singles(
    operand: &impl Operand,
    block: Block,
    step: usize,
    panels: &mut [f32],
    form: Form,
    buffers: &mut Buffers,
) {
    let Block { row0, rows, depth0, .. } = block;
    let Buffers { run, rounded, .. } = buffers;
    let run = &mut run[..rows];
    match form.precision {
        Precision::F32 => {
            let values = operand.run(depth0 + step, row0, run);
            for (panel, values) in values.chunks(form.width).enumerate() {
                shuffle::copy(values, &mut panels[part(form, step, panel, rows)]);
            }
        }
        Precision::Bf16 => {
            let halves = line_of_halves(operand, depth0 + step, row0, run, rounded);
            vectorize(
                #[inline(always)]
                || {
                    for (panel, halves) in halves.chunks(form.width).enumerate() {
                        shuffle::widen(halves, &mut panels[part(form, step, panel, rows)]);
                    }
                },
            );
        }
    }
}

fn row_of_pairs(
    operand: &impl Operand,
    block: Block,
    step: usize,
    panels: &mut [f32],
    form: Form,
    buffers: &mut Buffers,
) {
    let Block { row0, rows, depth0, depth } = block;
    let Buffers { run, lines, .. } = buffers;
    let run = &mut run[..rows];
    let (low, high) = shuffle::halves(&mut lines[..rows]).split_at_mut(rows);
    let first = depth0 + 2 * step;
    let low = line_of_halves(operand, first, row0, run, low);
    let high = if 2 * step + 1 < depth {
        line_of_halves(operand, first + 1, row0, run, &mut *high)
    } else {
        high.fill(0);
        &*high
    };
    for (panel, (low, high)) in low.chunks(form.width).zip(high.chunks(form.width)).enumerate() {
        shuffle::pair_lines(low, high, &mut panels[part(form, step, panel, rows)]);
    }
}

/// A run in bf16: where it lies, or in `out`.
fn line_of_halves<'a>(
    operand: &'a impl Operand,
    line: usize,
    start: usize,
    run: &mut [f32],
    out: &'a mut [u16],
) -> &'a [u16] {
    if let Some(halves) = operand.halves(line, start, out.len()) {
        return halves;
    }
    operand.bf16_run(line, start, run, out);
    out
}
