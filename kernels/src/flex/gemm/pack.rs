//! Operands of a product, and how a panel of them is packed (and decoded) for a micro-kernel.

use half::bf16;

use crate::frozen::FrozenMatrix;
use crate::precision::Precision;

/// An `f32` matrix in memory with any strides: element `(i, j)` at `i * row_stride + j * col_stride`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// Row-major matrix with `cols` columns.
    pub(crate) fn rows(data: &'a [f32], cols: usize) -> Self {
        Self { data, row_stride: cols, col_stride: 1 }
    }

    /// The transpose of a row-major matrix with `cols` columns.
    pub(crate) fn transposed(data: &'a [f32], cols: usize) -> Self {
        Self { data, row_stride: 1, col_stride: cols }
    }
}

/// The left operand: something that yields runs of a row or of a column.
pub(crate) trait Operand: Sync {
    /// Writes `(row0 + i, depth0 + d)` to `out[d * width + i]` for `i < rows`, `d < depth`.
    /// Entries with `i >= rows` are left alone; `scratch` may be used freely.
    #[expect(clippy::too_many_arguments, reason = "a block is two ranges and a destination")]
    fn fill(
        &self,
        row0: usize,
        rows: usize,
        depth0: usize,
        depth: usize,
        out: &mut [f32],
        width: usize,
        scratch: &mut Vec<f32>,
    );
}

impl Operand for View<'_> {
    fn fill(
        &self,
        row0: usize,
        rows: usize,
        depth0: usize,
        depth: usize,
        out: &mut [f32],
        width: usize,
        _scratch: &mut Vec<f32>,
    ) {
        if self.row_stride == 1 {
            for (d, out) in out.chunks_exact_mut(width).take(depth).enumerate() {
                let start = (depth0 + d) * self.col_stride + row0;
                out[..rows].copy_from_slice(&self.data[start..start + rows]);
            }
        } else {
            for i in 0..rows {
                let start = (row0 + i) * self.row_stride + depth0;
                scatter(&self.data[start..start + depth], out, i, width);
            }
        }
    }
}

/// A frozen weight `[out, in]` as an operand whose rows are output features: `y = x·Wᵀ`.
pub(crate) struct ByOutput<'a>(pub(crate) &'a FrozenMatrix);

/// A frozen weight `[out, in]` as an operand whose rows are input features: `dx = dy·W`.
pub(crate) struct ByInput<'a>(pub(crate) &'a FrozenMatrix);

impl Operand for ByOutput<'_> {
    fn fill(
        &self,
        row0: usize,
        rows: usize,
        depth0: usize,
        depth: usize,
        out: &mut [f32],
        width: usize,
        scratch: &mut Vec<f32>,
    ) {
        scratch.resize(depth, 0.0);
        for i in 0..rows {
            self.0.decode(row0 + i, depth0, scratch);
            scatter(scratch, out, i, width);
        }
    }
}

impl Operand for ByInput<'_> {
    fn fill(
        &self,
        row0: usize,
        rows: usize,
        depth0: usize,
        depth: usize,
        out: &mut [f32],
        width: usize,
        _scratch: &mut Vec<f32>,
    ) {
        for (d, out) in out.chunks_exact_mut(width).take(depth).enumerate() {
            self.0.decode(depth0 + d, row0, &mut out[..rows]);
        }
    }
}

/// Writes `values` down column `i` of a panel of the given width.
fn scatter(values: &[f32], out: &mut [f32], i: usize, width: usize) {
    for (out, &value) in out.chunks_exact_mut(width).zip(values) {
        out[i] = value;
    }
}

/// Turns an f32 panel `[depth][width]` into what the kernel reads.
///
/// Returns the number of panel steps: `depth`, or `ceil(depth / 2)` for bf16 pairs. With
/// [`Precision::Bf16`] on a processor without a pair kernel the values are rounded to bf16 in place,
/// so that the product has the same operands everywhere.
pub(super) fn finish_panel(
    panel: &mut [f32],
    depth: usize,
    width: usize,
    pairs: bool,
    precision: Precision,
) -> usize {
    match (precision, pairs) {
        (Precision::F32, _) => depth,
        (Precision::Bf16, false) => {
            for value in &mut panel[..depth * width] {
                *value = bf16::from_f32(*value).to_f32();
            }
            depth
        }
        (Precision::Bf16, true) => {
            let steps = depth.div_ceil(2);
            for step in 0..steps {
                for i in 0..width {
                    let low = round_bits(panel[2 * step * width + i]);
                    let high = if 2 * step + 1 < depth {
                        round_bits(panel[(2 * step + 1) * width + i])
                    } else {
                        0
                    };
                    // Pair `step` lands at or before the rows it was made of, so nothing unread is lost.
                    panel[step * width + i] = f32::from_bits((high << 16) | low);
                }
            }
            steps
        }
    }
}

/// Bits of `value` rounded to bf16, to nearest even.
///
/// Not-a-numbers stay so: the quiet bit is set instead of rounding them into infinity.
#[inline(always)]
fn round_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) | 0x40;
    }
    (bits + 0x7fff + ((bits >> 16) & 1)) >> 16
}
