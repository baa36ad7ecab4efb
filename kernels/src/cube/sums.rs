//! Sums of gradients on a device, and their norm: the order of every sum is the kernels' own, so that a
//! device gives the same bits on every run.

use std::ops::Range;

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{OnDevice, UNITS, contiguous, rows_cols, sum_of_cube};
use crate::adamw::{GradientSums, Trained};

/// Values in one buffer, where no tensor has more: devices limit what a kernel sees of a buffer, the
/// least of them to 128 MiB.
const MOST: usize = 1 << 24;

/// Values that one cube squares and sums.
const PIECE: usize = 1 << 14;

/// Values that a unit sums before it adds them to the others: short sums round little.
const RUN: usize = 16;

#[cube(launch)]
fn add_kernel(sums: &mut Array<f32>, gradient: &Array<f32>, start: u32) {
    if ABSOLUTE_POS < gradient.len() {
        sums[start as usize + ABSOLUTE_POS] += gradient[ABSOLUTE_POS];
    }
}

#[cube(launch)]
fn add_scaled_kernel(sums: &mut Array<f32>, others: &Array<f32>, factor: f32) {
    if ABSOLUTE_POS < sums.len() {
        sums[ABSOLUTE_POS] += others[ABSOLUTE_POS] * factor;
    }
}

/// A unit a column of a row: it goes over the rows of one id in their order.
#[cube(launch)]
fn add_rows_kernel(
    sums: &mut Array<f32>,
    gradient: &Array<f32>,
    ids: &Array<u32>,
    ends: &Array<u32>,
    rows: &Array<u32>,
    start: u32,
    width: u32,
) {
    let width = width as usize;
    if ABSOLUTE_POS < ids.len() * width {
        let (place, column) = (ABSOLUTE_POS / width, ABSOLUTE_POS % width);
        let mut sum = 0.0f32;
        for i in ends[place]..ends[place + 1] {
            sum += gradient[rows[i as usize] as usize * width + column];
        }
        let index = start as usize + ids[place] as usize * width + column;
        sums[index] += sum;
    }
}

#[cube(launch)]
fn squares_kernel(sums: &Array<f32>, out: &mut Array<f32>, first: u32, pieces: u32) {
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    let piece = CUBE_POS;
    if piece >= pieces as usize {
        terminate!();
    }
    let mut sum = 0.0f32;
    for run in 0..comptime!(PIECE / RUN / UNITS as usize) {
        let mut of_run = 0.0f32;
        for i in 0..RUN {
            let index = piece * PIECE + (run * RUN + i) * UNITS as usize + UNIT_POS as usize;
            if index < sums.len() {
                of_run += sums[index] * sums[index];
            }
        }
        sum += of_run;
    }
    let sum = sum_of_cube(sum, &mut shared);
    if UNIT_POS == 0 {
        out[first as usize + piece] = sum;
    }
}

/// Some tensors, one after the other.
#[derive(Debug)]
struct Part<R: CubeRuntime> {
    range: Range<usize>,
    /// Zeros where nothing was added yet: a part takes memory when the backward pass comes to it, which
    /// has given that of the blocks above back by then.
    values: Option<CubeTensor<R>>,
}

/// Sums of the gradients of all trained tensors.
#[derive(Debug)]
pub struct DeviceSums<R: CubeRuntime> {
    place: OnDevice<R>,
    tensors: Vec<Trained>,
    parts: Vec<Part<R>>,
}

impl<R: CubeRuntime> DeviceSums<R> {
    /// The sums with tensor `index` among them, and where it begins there.
    pub(super) fn of(&self, index: usize) -> (CubeTensor<R>, usize) {
        let (part, start) = self.part_of(index);
        let part = &self.parts[part];
        let zeros = || self.place.zeros(part.range.len(), DType::F32);
        (part.values.clone().unwrap_or_else(zeros), start)
    }

    /// The sums with tensor `index` among them, to be added to, and where it begins there.
    fn of_mut(&mut self, index: usize) -> (CubeTensor<R>, usize) {
        let (part, start) = self.part_of(index);
        let Part { range, values } = &mut self.parts[part];
        let zeros = || self.place.zeros(range.len(), DType::F32);
        (values.get_or_insert_with(zeros).clone(), start)
    }

    fn part_of(&self, index: usize) -> (usize, usize) {
        let start = self.tensors[index].range.start;
        let part = self.parts.partition_point(|part| part.range.end <= start);
        (part, start - self.parts[part].range.start)
    }
}

/// Runs of whole tensors of at most so many values, where no tensor has more.
fn runs(tensors: &[Trained], most: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for Trained { range, .. } in tensors.iter().filter(|tensor| !tensor.range.is_empty()) {
        match runs.last_mut().filter(|run| range.end - run.start <= most) {
            Some(run) => run.end = range.end,
            None => runs.push(range.clone()),
        }
    }
    runs
}

impl<R: CubeRuntime> GradientSums for DeviceSums<R> {
    type Device = R::Device;

    type Tensor = CubeTensor<R>;

    fn zeros(tensors: &[Trained], device: &R::Device) -> Self {
        let parts = runs(tensors, MOST).into_iter().map(|range| Part { range, values: None });
        Self { place: OnDevice::on(device), tensors: tensors.to_vec(), parts: parts.collect() }
    }

    fn add(&mut self, index: usize, gradient: CubeTensor<R>) {
        let len = gradient.meta.num_elements();
        assert_eq!(len, self.tensors[index].range.len(), "gradient of trained tensor {index}");
        assert_eq!(gradient.dtype, DType::F32, "gradient of trained tensor {index}");
        let (sums, start) = self.of_mut(index);
        let (count, dim) = self.place.each(len);
        add_kernel::launch(
            &self.place.client,
            count,
            dim,
            sums.into_array_arg(),
            contiguous(&gradient).into_array_arg(),
            start as u32,
        );
    }

    fn add_rows(&mut self, index: usize, ids: &[u32], gradient: CubeTensor<R>) {
        let [rows, width] = rows_cols(&gradient);
        assert_eq!(rows, ids.len(), "rows of a gradient");
        let len = self.tensors[index].range.len();
        let Some(&last) = ids.iter().max() else { return };
        assert!((last as usize + 1) * width <= len, "row {last} of trained tensor {index}");
        let mut order: Vec<u32> = (0..rows as u32).collect();
        order.sort_by_key(|&row| ids[row as usize]);
        let (mut found, mut ends) = (Vec::new(), vec![0]);
        for rows in order.chunk_by(|&a, &b| ids[a as usize] == ids[b as usize]) {
            found.push(ids[rows[0] as usize]);
            ends.push(ends[ends.len() - 1] + rows.len() as u32);
        }
        let (sums, start) = self.of_mut(index);
        let place = &self.place;
        let (count, dim) = place.each(found.len() * width);
        add_rows_kernel::launch(
            &place.client,
            count,
            dim,
            sums.into_array_arg(),
            contiguous(&gradient).into_array_arg(),
            place.upload_u32(&found).into_array_arg(),
            place.upload_u32(&ends).into_array_arg(),
            place.upload_u32(&order).into_array_arg(),
            start as u32,
            width as u32,
        );
    }

    fn add_scaled(&mut self, other: &Self, factor: f32) {
        assert_eq!(self.tensors, other.tensors, "gradients of the same tensors");
        let Self { place, parts, .. } = self;
        for (Part { range, values }, other) in parts.iter_mut().zip(&other.parts) {
            // What was never added to is zero.
            let Some(others) = &other.values else { continue };
            let sums = values.get_or_insert_with(|| place.zeros(range.len(), DType::F32));
            let (count, dim) = place.each(range.len());
            add_scaled_kernel::launch(
                &place.client,
                count,
                dim,
                sums.clone().into_array_arg(),
                others.clone().into_array_arg(),
                factor,
            );
        }
    }

    /// A part at a time goes to the host and back.
    fn change(&mut self, change: &mut dyn FnMut(usize, &mut [f32])) {
        let Self { place, parts, .. } = self;
        for Part { range, values } in parts {
            let mut found = match &*values {
                Some(values) => place.download(values),
                None => vec![0.0; range.len()],
            };
            change(range.start, &mut found);
            *values = Some(place.upload_f32(&found));
        }
    }

    /// Squares are summed in f32, a few at a time, and what comes of [`PIECE`] of them in f64 on the host.
    fn norm(&self) -> f64 {
        let parts: Vec<_> = self.parts.iter().filter_map(|part| part.values.as_ref()).collect();
        let pieces = |values: &CubeTensor<R>| values.meta.num_elements().div_ceil(PIECE);
        let all: usize = parts.iter().map(|values| pieces(values)).sum();
        if all == 0 {
            return 0.0;
        }
        let place = &self.place;
        let squares = place.empty([all], DType::F32);
        let mut first = 0;
        for values in parts {
            let pieces = pieces(values);
            let (count, dim) = place.rows(pieces);
            squares_kernel::launch(
                &place.client,
                count,
                dim,
                values.clone().into_array_arg(),
                squares.clone().into_array_arg(),
                first as u32,
                pieces as u32,
            );
            first += pieces;
        }
        let squares: Vec<f32> = place.download(&squares);
        squares.into_iter().map(f64::from).sum::<f64>().sqrt()
    }

    fn values(&self) -> Vec<f32> {
        let of_part = |part: &Part<R>| match &part.values {
            Some(values) => self.place.download(values),
            None => vec![0.0; part.range.len()],
        };
        self.parts.iter().flat_map(of_part).collect()
    }
}
