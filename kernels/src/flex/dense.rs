//! Tensors as the kernels read and write them: row-major values in memory.

use burn::tensor::{Bytes, DType, Element, Shape};
use burn_flex::{FlexTensor, Layout};
use bytemuck::Pod;
use half::bf16;

use super::matrix::Matrix;

/// A row-major tensor.
pub(super) fn tensor<T: Element + Pod>(values: Vec<T>, shape: [usize; 2]) -> FlexTensor {
    debug_assert_eq!(values.len(), shape[0] * shape[1], "values of a {shape:?} tensor");
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(Shape::new(shape)), T::dtype())
}

/// A tensor whose values can be borrowed as one row-major slice.
pub(super) struct Dense(pub(super) FlexTensor);

impl Dense {
    /// Views `tensor`, copying it unless it is the whole of its memory. Rows of a longer one are faster to
    /// work on in a copy, which is read in order once, than where they lie, in pieces and by several threads.
    pub(super) fn new(tensor: &FlexTensor) -> Self {
        Self(tensor.to_contiguous())
    }

    /// The values of an f32 tensor.
    pub(super) fn values(&self) -> &[f32] {
        self.typed()
    }

    pub(super) fn typed<T: Element + Pod>(&self) -> &[T] {
        let start = self.0.layout().start_offset();
        let len = self.0.layout().num_elements();
        &self.0.storage::<T>()[start..start + len]
    }

    /// The values, f32 or bf16.
    pub(super) fn matrix(&self) -> Matrix<'_> {
        match self.0.dtype() {
            DType::BF16 => Matrix::Bf16(self.typed()),
            _ => Matrix::F32(self.typed()),
        }
    }

    /// Rows and the last dimension.
    pub(super) fn rows_cols(&self) -> [usize; 2] {
        let shape = self.0.layout().shape();
        let cols = shape.as_slice().last().copied().unwrap_or(1);
        [self.0.layout().num_elements() / cols.max(1), cols]
    }
}

/// Writes `rows` over those of `into` from row `first` on, in place if nothing else holds its memory.
pub(super) fn set_rows(mut into: FlexTensor, first: usize, rows: &FlexTensor) -> FlexTensor {
    if !into.is_contiguous() {
        into = into.to_contiguous();
    }
    let rows = Dense::new(rows);
    let ([count, cols], layout) = (rows.rows_cols(), into.layout());
    let shape = layout.shape().as_slice();
    let fits = shape.len() == 2 && shape[1] == cols && first + count <= shape[0];
    assert!(fits, "{count} rows of {cols} at row {first} of {shape:?}");
    let start = layout.start_offset() + first * cols;
    let range = start..start + count * cols;
    match rows.matrix() {
        Matrix::F32(values) => into.storage_mut::<f32>()[range].copy_from_slice(values),
        Matrix::Bf16(values) => into.storage_mut::<bf16>()[range].copy_from_slice(values),
    }
    into
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(rows: usize, cols: usize, from: usize) -> FlexTensor {
        tensor((0..rows * cols).map(|i| (from + i) as f32).collect(), [rows, cols])
    }

    #[test]
    fn rows_are_written_where_they_are_unless_another_tensor_holds_the_memory() {
        let into = counted(4, 2, 0);
        let place = into.bytes().as_ptr();
        let into = set_rows(into, 1, &counted(2, 2, 50));
        let expected = [0.0, 1.0, 50.0, 51.0, 52.0, 53.0, 6.0, 7.0];
        assert_eq!(Dense::new(&into).values(), expected);
        assert_eq!(into.bytes().as_ptr(), place, "in place");
        let other = into.clone();
        let into = set_rows(into, 3, &counted(1, 2, 90));
        assert_eq!(Dense::new(&into).values()[6..], [90.0, 91.0]);
        assert_eq!(Dense::new(&other).values(), expected, "what another tensor holds");
    }

    #[test]
    fn rows_of_a_tensor_are_read_and_written_as_a_tensor_of_their_own() {
        let all = counted(5, 3, 0);
        let some = all.clone().with_layout(all.layout().narrow(0, 2, 2));
        let dense = Dense::new(&some);
        assert_eq!(dense.values(), [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        assert_eq!(dense.rows_cols(), [2, 3]);
        let into = set_rows(some, 1, &counted(1, 3, 70));
        assert_eq!(Dense::new(&into).values(), [6.0, 7.0, 8.0, 70.0, 71.0, 72.0]);
        assert_eq!(
            Dense::new(&all).values()[9..12],
            [9.0, 10.0, 11.0],
            "what another tensor holds"
        );
    }

    #[test]
    #[should_panic(expected = "2 rows of 2 at row 3 of [4, 2]")]
    fn rows_are_not_written_beyond_the_last() {
        set_rows(counted(4, 2, 0), 3, &counted(2, 2, 0));
    }
}
