//! Without a tape: for scores and answers.

use burn::tensor::ops::FloatTensor;
use graft_kernels::{Kernels, Ops};

use super::{Context, Pass};
use crate::param::Param;

/// No tape.
pub struct Plain<'a, B> {
    context: Context<'a>,
    backend: std::marker::PhantomData<B>,
}

impl<'a, B: Kernels> Plain<'a, B> {
    /// A pass in this context.
    pub fn new(context: Context<'a>) -> Self {
        Self { context, backend: std::marker::PhantomData }
    }
}

impl<B: Kernels + Ops<Inner = B>> Pass for Plain<'_, B> {
    type Inner = B;
    type On = B;

    fn context(&self) -> Context<'_> {
        self.context
    }

    fn param(&mut self, param: &Param<B>) -> FloatTensor<B> {
        param.tensor().clone()
    }

    fn constant(&self, tensor: FloatTensor<B>) -> FloatTensor<B> {
        tensor
    }
}
