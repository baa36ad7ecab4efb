//! Buffers and grids: how much of a device a kernel takes.

use burn::tensor::{AllocationProperty, Bytes, DType, Shape};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use bytemuck::Pod;
use cubecl::calculate_cube_count_elemwise;
use cubecl::client::ComputeClient;
use cubecl::ir::features::TypeUsage;
use cubecl::prelude::*;
use cubecl::server::Handle;

use crate::precision::Precision;

/// Units that share a row; every device of today has as many in a cube.
pub(super) const UNITS: u32 = 128;

/// The device of a tensor, where others are made.
#[derive(Clone)]
pub(super) struct OnDevice<R: CubeRuntime> {
    pub(super) client: ComputeClient<R>,
    device: R::Device,
}

impl<R: CubeRuntime> std::fmt::Debug for OnDevice<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.device.fmt(f)
    }
}

impl<R: CubeRuntime> OnDevice<R> {
    /// On a device.
    pub(super) fn on(device: &R::Device) -> Self {
        Self { client: R::client(device), device: device.clone() }
    }

    /// Where `tensor` is.
    pub(super) fn of(tensor: &CubeTensor<R>) -> Self {
        Self { client: tensor.client.clone(), device: tensor.device.clone() }
    }

    /// A tensor that is not yet written.
    pub(super) fn empty<const D: usize>(&self, shape: [usize; D], dtype: DType) -> CubeTensor<R> {
        let (client, device) = (self.client.clone(), self.device.clone());
        empty_device_contiguous_dtype(client, device, Shape::new(shape), dtype)
    }

    /// A flat tensor of these bytes; `dtype` says what they are.
    pub(super) fn upload(&self, bytes: &[u8], dtype: DType) -> CubeTensor<R> {
        self.flat(self.client.create_from_slice(bytes), bytes.len(), dtype)
    }

    /// A flat tensor of bytes that lie in a map, told apart so that the runtime may stage them in the driver's own
    /// memory. cubecl 0.10 stages them and then copies them once more into memory of its own (`do_create`).
    pub(super) fn upload_mapped(&self, bytes: &bytes::Bytes, dtype: DType) -> CubeTensor<R> {
        let shared = Bytes::from_shared(bytes.clone(), AllocationProperty::File);
        self.flat(self.client.create(shared), bytes.len(), dtype)
    }

    fn flat(&self, handle: Handle, bytes: usize, dtype: DType) -> CubeTensor<R> {
        let shape = Shape::new([bytes / dtype.size()]);
        let (client, device) = (self.client.clone(), self.device.clone());
        CubeTensor::new_contiguous(client, device, shape, handle, dtype)
    }

    /// A flat tensor of f32.
    pub(super) fn upload_f32(&self, values: &[f32]) -> CubeTensor<R> {
        self.upload(bytemuck::cast_slice(values), DType::F32)
    }

    /// A flat tensor of u32.
    pub(super) fn upload_u32(&self, values: &[u32]) -> CubeTensor<R> {
        self.upload(bytemuck::cast_slice(values), DType::U32)
    }

    /// A flat tensor of zeros.
    pub(super) fn zeros(&self, len: usize, dtype: DType) -> CubeTensor<R> {
        self.cleared(self.empty([len], dtype))
    }

    /// The tensor, of 32-bit values, with zeros in it.
    pub(super) fn cleared(&self, tensor: CubeTensor<R>) -> CubeTensor<R> {
        let (count, dim) = self.each(tensor.meta.num_elements());
        clear_kernel::launch(&self.client, count, dim, tensor.clone().into_array_arg());
        tensor
    }

    /// The values of a tensor in row-major order, or the bytes of what it holds.
    pub(super) fn download<T: Pod>(&self, tensor: &CubeTensor<R>) -> Vec<T> {
        let bytes = tensor.meta.num_elements() * tensor.dtype.size();
        let read = self.client.read_one(contiguous(tensor).handle);
        let read = read.unwrap_or_else(|error| panic!("values of the device: {error:?}"));
        bytemuck::pod_collect_to_vec(&read[..bytes])
    }

    /// One unit for each of `count` things.
    pub(super) fn each(&self, count: usize) -> (CubeCount, CubeDim) {
        let dim = CubeDim::new(&self.client, count);
        (calculate_cube_count_elemwise(&self.client, count, dim), dim)
    }

    /// One cube of [`UNITS`] for each of `count` rows.
    pub(super) fn rows(&self, count: usize) -> (CubeCount, CubeDim) {
        self.cubes(count, UNITS)
    }

    /// One cube of so many units for each of `count` things.
    pub(super) fn cubes(&self, count: usize, units: u32) -> (CubeCount, CubeDim) {
        let dim = CubeDim::new_1d(units);
        (calculate_cube_count_elemwise(&self.client, count * units as usize, dim), dim)
    }

    /// What operands of products of such precision are kept in: f32 where the device has no bf16.
    pub(super) fn operand(&self, precision: Precision) -> DType {
        match precision {
            Precision::Bf16 if has_dtype(&self.client, DType::BF16) => DType::BF16,
            Precision::F32 | Precision::Bf16 => DType::F32,
        }
    }
}

#[cube(launch)]
fn clear_kernel(out: &mut Array<u32>) {
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = 0u32;
    }
}

/// Whether kernels can read, write and convert values of this type.
pub(super) fn has_dtype<R: CubeRuntime>(client: &ComputeClient<R>, dtype: DType) -> bool {
    let usage = client.properties().type_usage(dtype.into());
    usage.is_superset(TypeUsage::Buffer | TypeUsage::Conversion | TypeUsage::Arithmetic)
}

/// The tensor with its values in row-major order.
pub(super) fn contiguous<R: CubeRuntime>(tensor: &CubeTensor<R>) -> CubeTensor<R> {
    into_contiguous(tensor.clone())
}

/// A tensor that nobody else holds, its values in row-major order.
pub(super) fn owned<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    let tensor = into_contiguous(tensor);
    if tensor.can_mut() { tensor } else { tensor.copy() }
}

/// `[rows, cols]` of a matrix.
pub(super) fn rows_cols<R: CubeRuntime>(tensor: &CubeTensor<R>) -> [usize; 2] {
    tensor.meta.shape().dims()
}

/// The sum of a value of every unit, the same in each of them and on every run.
#[cube]
pub(super) fn sum_of_cube(value: f32, shared: &mut SharedMemory<f32>) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    let mut half = CUBE_DIM as usize / 2;
    while half > 0 {
        if unit < half {
            let other = shared[unit + half];
            shared[unit] += other;
        }
        sync_cube();
        half /= 2;
    }
    let sum = shared[0];
    sync_cube();
    sum
}

/// The largest of a value of every unit.
#[cube]
pub(super) fn max_of_cube(value: f32, shared: &mut SharedMemory<f32>) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    let mut half = CUBE_DIM as usize / 2;
    while half > 0 {
        if unit < half {
            let other = shared[unit + half];
            shared[unit] = max(shared[unit], other);
        }
        sync_cube();
        half /= 2;
    }
    let most = shared[0];
    sync_cube();
    most
}
