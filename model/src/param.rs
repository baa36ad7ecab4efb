//! A named dense tensor: what can be trained, saved and looked up.

use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, Tensor, TensorData, TensorMetadata, TensorPrimitive};
use graft_kernels::Kernels;

use crate::seat::Seat;

/// A dense f32 tensor under the name that checkpoints and adapters give it.
#[derive(Clone, Debug)]
pub struct Param<B: Kernels> {
    name: String,
    seat: Seat,
    value: FloatTensor<B>,
    rate: f64,
}

impl<B: Kernels> Param<B> {
    /// A tensor of `values`, row-major in `shape`.
    pub fn new(
        name: String,
        seat: Seat,
        values: Vec<f32>,
        shape: &[usize],
        device: &B::Device,
    ) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values of `{name}` {shape:?}");
        let value = B::float_from_data(TensorData::new(values, shape.to_vec()), device);
        Self { name, seat, value, rate: 1.0 }
    }

    /// The same, learning at so many times the learning rate of a step.
    #[must_use]
    pub fn at_rate(self, rate: f64) -> Self {
        Self { rate, ..self }
    }

    /// Its learning rate, in those of a step.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The name, as in a checkpoint or adapter file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where in the model it stands.
    pub fn seat(&self) -> Seat {
        self.seat
    }

    /// The sizes.
    pub fn shape(&self) -> Vec<usize> {
        self.value.shape().as_slice().to_vec()
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.value.shape().num_elements()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tensor.
    pub fn tensor(&self) -> &FloatTensor<B> {
        &self.value
    }

    /// The values on the host.
    pub fn values(&self) -> Vec<f32> {
        host_values::<B>(self.value.clone())
    }

    /// Takes the tensor out and leaves another in its place.
    pub fn replace(&mut self, value: FloatTensor<B>) -> FloatTensor<B> {
        std::mem::replace(&mut self.value, value)
    }

    /// Gives the tensor these values, row-major in `shape`; on a CPU they are moved, not copied.
    pub fn put(&mut self, values: Vec<f32>, shape: &[usize]) {
        let sizes = shape.iter().product::<usize>();
        assert_eq!(values.len(), sizes, "values of `{}` {shape:?}", self.name);
        let device = B::float_device(&self.value);
        self.value = B::float_from_data(TensorData::new(values, shape.to_vec()), &device);
    }

    /// Replaces the values.
    pub fn set(&mut self, values: &[f32], device: &B::Device) {
        let shape = self.shape();
        assert_eq!(values.len(), self.len(), "values of `{}` {shape:?}", self.name);
        self.value = B::float_from_data(TensorData::new(values.to_vec(), shape), device);
    }
}

/// The values of a tensor, row-major, on the host.
pub fn host_values<B: Kernels>(tensor: FloatTensor<B>) -> Vec<f32> {
    debug_assert_eq!(tensor.dtype(), DType::F32, "dense tensors are f32");
    let len = tensor.shape().num_elements();
    let flat = Tensor::<B, 1>::from_primitive(TensorPrimitive::Float(B::float_reshape(
        tensor,
        burn::tensor::Shape::new([len]),
    )));
    flat.into_data().into_vec().expect("dense tensors are f32")
}
