//! Sums of gradients on the CPU, over pieces of fixed length, so that no bit depends on the number of
//! threads.

use std::ops::Range;

use burn_flex::{FlexDevice, FlexTensor};
use memmap2::MmapMut;
use rayon::prelude::*;

use super::Dense;
use crate::adamw::{GradientSums, Trained};

/// Values that one task sums.
const PIECE: usize = 1 << 16;

/// Sums of the gradients of all trained tensors.
#[derive(Debug)]
pub struct HostSums {
    tensors: Vec<Trained>,
    /// Zero pages of the system: they take memory from when a block first adds to them, which is when the
    /// backward pass has given that of the blocks above back.
    pages: MmapMut,
}

impl HostSums {
    fn len(&self) -> usize {
        self.tensors.last().map_or(0, |tensor| tensor.range.end)
    }

    /// All sums.
    pub(super) fn as_slice(&self) -> &[f32] {
        bytemuck::cast_slice(&self.pages[..self.len() * size_of::<f32>()])
    }

    fn as_mut_slice(&mut self, range: Range<usize>) -> &mut [f32] {
        let bytes = range.start * size_of::<f32>()..range.end * size_of::<f32>();
        bytemuck::cast_slice_mut(&mut self.pages[bytes])
    }

    fn add_values(&mut self, index: usize, gradient: &[f32]) {
        let range = self.tensors[index].range.clone();
        assert_eq!(gradient.len(), range.len(), "gradient of trained tensor {index}");
        let sums = self.as_mut_slice(range).par_chunks_mut(PIECE);
        sums.zip(gradient.par_chunks(PIECE)).for_each(|(sums, gradient)| add(sums, gradient));
    }
}

fn add(sums: &mut [f32], values: &[f32]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}

impl GradientSums for HostSums {
    type Device = FlexDevice;

    type Tensor = FlexTensor;

    fn zeros(tensors: &[Trained], _device: &FlexDevice) -> Self {
        let len = tensors.last().map_or(0, |tensor| tensor.range.end);
        // A map of nothing is none.
        let bytes = (len * size_of::<f32>()).max(1);
        let pages = MmapMut::map_anon(bytes).expect("the system maps memory");
        Self { tensors: tensors.to_vec(), pages }
    }

    fn add(&mut self, index: usize, gradient: FlexTensor) {
        self.add_values(index, Dense::new(&gradient).values());
    }

    fn add_rows(&mut self, index: usize, ids: &[u32], gradient: FlexTensor) {
        let gradient = Dense::new(&gradient);
        let [rows, width] = gradient.rows_cols();
        assert_eq!(rows, ids.len(), "rows of a gradient");
        let mut table = vec![0.0; self.tensors[index].range.len()];
        for (&id, row) in ids.iter().zip(gradient.values().chunks_exact(width)) {
            add(&mut table[id as usize * width..][..width], row);
        }
        self.add_values(index, &table);
    }

    fn add_scaled(&mut self, other: &Self, factor: f32) {
        assert_eq!(self.tensors, other.tensors, "gradients of the same tensors");
        let others = other.as_slice().par_chunks(PIECE);
        let sums = self.as_mut_slice(0..self.len()).par_chunks_mut(PIECE);
        sums.zip(others).for_each(|(sums, others)| {
            for (sum, other) in sums.iter_mut().zip(others) {
                *sum += other * factor;
            }
        });
    }

    fn change(&mut self, change: &mut dyn FnMut(usize, &mut [f32])) {
        let all = 0..self.len();
        if !all.is_empty() {
            change(0, self.as_mut_slice(all));
        }
    }

    fn norm(&self) -> f64 {
        norm(self.as_slice())
    }

    fn values(&self) -> Vec<f32> {
        self.as_slice().to_vec()
    }
}

/// The Euclidean norm, summed in f64.
fn norm(gradient: &[f32]) -> f64 {
    const LANES: usize = 8;
    let sum = |piece: &[f32]| {
        let mut sums = [0.0; LANES];
        let (rows, rest) = piece.as_chunks::<LANES>();
        for row in rows {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += f64::from(value) * f64::from(value);
            }
        }
        let rest = rest.iter().map(|&value| f64::from(value) * f64::from(value));
        sums.into_iter().chain(rest).sum::<f64>()
    };
    let sums: Vec<f64> = gradient.par_chunks(PIECE).map(sum).collect();
    sums.into_iter().sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_has_the_same_bits_on_any_number_of_threads() {
        assert!((norm(&[3.0, -4.0]) - 5.0).abs() < 1e-12);
        let gradient: Vec<f32> = (0..1_000_003).map(|i| ((i * 37) % 1_009) as f32 * 1e-3).collect();
        let serial: f64 = gradient.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| norm(&gradient))
        };
        let one = on(1);
        assert!((one / serial.sqrt() - 1.0).abs() < 1e-12);
        for threads in [2, 3, 5] {
            assert_eq!(on(threads).to_bits(), one.to_bits(), "{threads} threads");
        }
    }
}
