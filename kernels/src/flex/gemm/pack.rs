//! Operands of a product, and how a panel of them is packed (and decoded) for a micro-kernel.
//!
//! An operand is read in runs, along the depth or across it, whichever is contiguous in memory. Runs
//! are rounded and paired where they are contiguous, then laid down as the panel's rows.

use half::bf16;

use super::super::decode;
use super::shuffle;
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

    /// The same run rounded to bf16, as many values as `out` holds. `scratch` has its length.
    fn bf16_run(&self, line: usize, start: usize, scratch: &mut [f32], out: &mut [u16]) {
        shuffle::round_run(self.run(line, start, scratch), out);
    }

    /// Tells that a run of `len` values will be wanted soon.
    fn prefetch(&self, _line: usize, _start: usize, _len: usize) {}
}

/// An `f32` matrix in memory whose lines are `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    stride: usize,
    runs: Runs,
}

impl<'a> View<'a> {
    /// Row-major matrix with `cols` columns.
    pub(crate) fn rows(data: &'a [f32], cols: usize) -> Self {
        Self { data, stride: cols, runs: Runs::AlongDepth }
    }

    /// The transpose of a row-major matrix with `cols` columns.
    pub(crate) fn transposed(data: &'a [f32], cols: usize) -> Self {
        Self { data, stride: cols, runs: Runs::AcrossRows }
    }
}

impl Operand for View<'_> {
    fn runs(&self) -> Runs {
        self.runs
    }

    #[inline(always)]
    fn run<'s>(&'s self, line: usize, start: usize, scratch: &'s mut [f32]) -> &'s [f32] {
        let start = line * self.stride + start;
        &self.data[start..start + scratch.len()]
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

    fn prefetch(&self, line: usize, start: usize, len: usize) {
        decode::prefetch(self.0, line, start, len);
    }
}

/// Buffers that a thread packs through.
#[derive(Default)]
pub(super) struct Buffers {
    run: Vec<f32>,
    lines: Vec<f32>,
}

/// The part of an operand that is packed.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) row0: usize,
    pub(super) rows: usize,
    pub(super) depth0: usize,
    pub(super) depth: usize,
}

/// The form that a micro-kernel reads.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// Rows of the operand in a panel.
    pub(super) width: usize,
    /// Words from one panel to the next.
    pub(super) stride: usize,
    /// Whether a word holds the bf16 values of two depths.
    pub(super) pairs: bool,
    /// Precision of the product.
    pub(super) precision: Precision,
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
pub(super) fn pack(
    operand: &impl Operand,
    block: Block,
    panels: &mut [f32],
    form: Form,
    buffers: &mut Buffers,
) {
    let steps = form.steps(block.depth);
    match operand.runs() {
        Runs::AlongDepth => {
            let panels = panels.chunks_mut(form.stride).take(block.rows.div_ceil(form.width));
            for (index, panel) in panels.enumerate() {
                let done = index * form.width;
                let rows = form.width.min(block.rows - done);
                let block = Block { row0: block.row0 + done, rows, ..block };
                along_depth(operand, block, panel, form, buffers);
            }
        }
        Runs::AcrossRows => across_rows(operand, block, panels, form, buffers),
    }
    if form.precision == Precision::Bf16 && !form.pairs {
        for panel in panels.chunks_mut(form.stride).take(block.rows.div_ceil(form.width)) {
            for value in &mut panel[..steps * form.width] {
                *value = bf16::from_f32(*value).to_f32();
            }
        }
    }
}

/// Rows are gathered as lines of `steps` words, then transposed into the panel.
fn along_depth(
    operand: &impl Operand,
    block: Block,
    panel: &mut [f32],
    form: Form,
    buffers: &mut Buffers,
) {
    let Buffers { run, lines } = buffers;
    let steps = form.steps(block.depth);
    run.resize(block.depth, 0.0);
    lines.resize(block.rows * steps, 0.0);
    for (i, line) in lines.chunks_exact_mut(steps).enumerate() {
        if i + AHEAD < block.rows {
            operand.prefetch(block.row0 + i + AHEAD, block.depth0, block.depth);
        }
        if form.pairs {
            let line = shuffle::halves(line);
            operand.bf16_run(block.row0 + i, block.depth0, run, &mut line[..block.depth]);
            line[block.depth..].fill(0);
        } else {
            line.copy_from_slice(operand.run(block.row0 + i, block.depth0, run));
        }
    }
    shuffle::transpose(lines, block.rows, steps, panel, form.width);
}

/// Depths are the panels' rows already; two of them make a row of pairs.
fn across_rows(
    operand: &impl Operand,
    block: Block,
    panels: &mut [f32],
    form: Form,
    buffers: &mut Buffers,
) {
    let Buffers { run, lines } = buffers;
    let Block { row0, rows, depth0, depth } = block;
    let (width, steps) = (form.width, form.steps(depth));
    run.resize(rows, 0.0);
    lines.resize(rows.max(1), 0.0);
    let (low, high) = shuffle::halves(lines).split_at_mut(rows);
    let part = |step: usize, panel: usize, rows: usize| {
        let start = panel * form.stride + step * width;
        start..start + width.min(rows - panel * width)
    };
    for step in 0..steps {
        if form.pairs {
            for ahead in [2 * step + AHEAD, 2 * step + AHEAD + 1] {
                if ahead < depth {
                    operand.prefetch(depth0 + ahead, row0, rows);
                }
            }
            operand.bf16_run(depth0 + 2 * step, row0, run, low);
            if 2 * step + 1 < depth {
                operand.bf16_run(depth0 + 2 * step + 1, row0, run, high);
            } else {
                high.fill(0);
            }
            for (panel, (low, high)) in low.chunks(width).zip(high.chunks(width)).enumerate() {
                shuffle::pair_lines(low, high, &mut panels[part(step, panel, rows)]);
            }
        } else {
            if step + AHEAD < depth {
                operand.prefetch(depth0 + step + AHEAD, row0, rows);
            }
            let values = operand.run(depth0 + step, row0, run);
            for (panel, values) in values.chunks(width).enumerate() {
                panels[part(step, panel, rows)].copy_from_slice(values);
            }
        }
    }
}
