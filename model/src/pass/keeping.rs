//! Without a tape, keeping what the way back takes up again.

use burn::tensor::ops::FloatTensor;
use graft_kernels::{AttentionShape, Kernels, Ops, Output};

use super::products::Product;
use super::{Context, OwnOutput, Pass, Plain, Products, rounding};
use crate::param::Param;
use crate::site::ProjectionKind;

/// No tape, but the results of the products are kept.
pub struct Keeping<'a, B: Kernels> {
    plain: Plain<'a, B>,
    products: Products<B>,
}

impl<'a, B: Kernels> Keeping<'a, B> {
    /// A pass in this context.
    pub fn new(context: Context<'a>) -> Self {
        Self { plain: Plain::new(context), products: Products::none() }
    }

    /// What was kept.
    pub fn into_products(self) -> Products<B> {
        self.products
    }
}

impl<B: Kernels + Ops<Inner = B>> Pass for Keeping<'_, B> {
    type Inner = B;
    type On = B;

    fn context(&self) -> Context<'_> {
        self.plain.context()
    }

    fn param(&mut self, param: &Param<B>) -> FloatTensor<B> {
        self.plain.param(param)
    }

    fn constant(&self, tensor: FloatTensor<B>) -> FloatTensor<B> {
        tensor
    }

    fn output(
        &mut self,
        kind: ProjectionKind,
        own: OwnOutput,
        run: impl FnOnce(Output<B>) -> FloatTensor<B>,
    ) -> FloatTensor<B> {
        let y = run(Output::computed(rounding(kind)));
        if own.is_wanted(kind) {
            self.products.keep(Product::Output(kind), &y);
        }
        y
    }

    fn beside(
        &mut self,
        kind: ProjectionKind,
        name: &'static str,
        run: impl FnOnce() -> FloatTensor<B>,
    ) -> FloatTensor<B> {
        let found = run();
        self.products.keep(Product::Beside(kind, name), &found);
        found
    }

    fn attention(
        &mut self,
        _layer: usize,
        [q, k, v]: [FloatTensor<B>; 3],
        shape: &AttentionShape,
    ) -> FloatTensor<B> {
        let precision = self.context().precision;
        let (out, lse) = <B as Kernels>::causal_attention(&q, &k, &v, shape, precision);
        self.products.keep(Product::Attention, &out);
        self.products.keep(Product::LogSumExp, &lse);
        out
    }
}
