//! Every weight trainable, for small models: the same loop, with dense f32 projections.

use burn::tensor::ops::FloatTensor;
use graft_kernels::{FrozenMatrix, Kernels, Ops};
use graft_model::load::Factory;
use graft_model::{Error, Param, Pass, Projection, Site, Table};

use crate::method::Trainable;

/// A projection whose weight `[out, in]` is trained itself.
#[derive(Clone, Debug)]
pub struct DenseLinear<B: Kernels> {
    weight: Param<B>,
}

impl<B: Kernels> Projection<B> for DenseLinear<B> {
    fn forward<R: Pass<Inner = B>>(
        &self,
        x: FloatTensor<R::On>,
        pass: &mut R,
    ) -> FloatTensor<R::On> {
        let weight = pass.param(&self.weight);
        R::On::dense_linear(x, weight, pass.context().precision)
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&mut Param<B>)) {
        visit(&mut self.weight);
    }
}

impl<B: Kernels> Trainable<B> for DenseLinear<B> {
    fn trains(_name: &str) -> bool {
        true
    }
}

/// Makes a model whose every weight is a dense f32 tensor.
pub struct FullFactory<'a, B: Kernels> {
    /// Where the model goes.
    pub device: &'a B::Device,
}

impl<B: Kernels> Factory<B> for FullFactory<'_, B> {
    type Projection = DenseLinear<B>;

    fn projection(&mut self, site: Site, weight: FrozenMatrix) -> Result<DenseLinear<B>, Error> {
        let name = site.checkpoint_name();
        let weight = Param::new(name, weight.to_f32(), &weight.shape(), self.device);
        Ok(DenseLinear { weight })
    }

    fn table(&mut self, name: &str, weight: FrozenMatrix) -> Result<Table<B>, Error> {
        Ok(Table::dense(name, &weight, self.device))
    }
}
