//! On a tape, with the trainable tensors as its leaves.

use burn::backend::Autodiff;
use burn::backend::autodiff::grads::Gradients;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::FloatTensor;
use graft_kernels::{AttentionShape, Kernels, Ops, Output, Values};

use super::products::Product;
use super::{Context, OwnOutput, Pass, Products, rounding};
use crate::param::Param;
use crate::seat::Seat;
use crate::site::ProjectionKind;

/// What a taped pass knows from an earlier one.
enum Known<B: Kernels> {
    Nothing,
    /// What the branch gave in the end is known elsewhere: it is run again for its gradient alone.
    Branch,
    /// The results of every product.
    Products(Products<B>),
}

/// On burn's tape; the parameters at seats for which `trains` holds become leaves.
pub struct Taped<'a, B: Kernels> {
    context: Context<'a>,
    trains: &'a dyn Fn(Seat) -> bool,
    known: Known<B>,
    leaves: Vec<(String, FloatTensor<Autodiff<B>>)>,
}

impl<'a, B: Kernels> Taped<'a, B> {
    /// A pass in this context.
    pub fn new(context: Context<'a>, trains: &'a dyn Fn(Seat) -> bool) -> Self {
        Self { context, trains, known: Known::Nothing, leaves: Vec::new() }
    }

    /// A pass for gradients alone: what the branches add to the residual stream is known already.
    pub fn replay(context: Context<'a>, trains: &'a dyn Fn(Seat) -> bool) -> Self {
        Self { known: Known::Branch, ..Self::new(context, trains) }
    }

    /// A pass for gradients alone that knows the results of the products: only what lies between them is
    /// run.
    pub fn recall(
        context: Context<'a>,
        trains: &'a dyn Fn(Seat) -> bool,
        products: Products<B>,
    ) -> Self {
        Self { known: Known::Products(products), ..Self::new(context, trains) }
    }

    /// The leaves that the run blocks asked for, in the order they asked.
    ///
    /// # Panics
    /// Products that an earlier pass kept were not asked for.
    pub fn into_leaves(self) -> Leaves<B> {
        if let Known::Products(products) = self.known {
            products.finish();
        }
        Leaves(self.leaves)
    }
}

impl<B: Kernels> Pass for Taped<'_, B> {
    type Inner = B;
    type On = Autodiff<B>;

    fn context(&self) -> Context<'_> {
        self.context
    }

    fn param(&mut self, param: &Param<B>) -> FloatTensor<Autodiff<B>> {
        let value = self.constant(param.tensor().clone());
        if !(self.trains)(param.seat()) {
            return value;
        }
        let leaf = value.require_grad();
        self.leaves.push((param.name().to_owned(), leaf.clone()));
        leaf
    }

    fn output(
        &mut self,
        kind: ProjectionKind,
        own: OwnOutput,
        run: impl FnOnce(Output<B>) -> FloatTensor<Autodiff<B>>,
    ) -> FloatTensor<Autodiff<B>> {
        let values = match (&mut self.known, own.is_wanted(kind)) {
            (Known::Nothing, _) | (Known::Branch, true) => Values::Computed,
            (Known::Branch, false) if own == OwnOutput::ReadBeside => Values::Computed,
            (Known::Products(products), true) => {
                Values::Known(products.take(Product::Output(kind)))
            }
            (Known::Branch | Known::Products(_), false) => Values::Unread,
        };
        run(Output { values, rounding: rounding(kind) })
    }

    fn beside(
        &mut self,
        kind: ProjectionKind,
        name: &'static str,
        run: impl FnOnce() -> FloatTensor<B>,
    ) -> FloatTensor<B> {
        match &mut self.known {
            Known::Products(products) => products.take(Product::Beside(kind, name)),
            Known::Nothing | Known::Branch => run(),
        }
    }

    fn attention(
        &mut self,
        _layer: usize,
        [q, k, v]: [FloatTensor<Autodiff<B>>; 3],
        shape: &AttentionShape,
    ) -> FloatTensor<Autodiff<B>> {
        let known = match &mut self.known {
            Known::Products(products) => {
                Some([Product::Attention, Product::LogSumExp].map(|known| products.take(known)))
            }
            Known::Nothing | Known::Branch => None,
        };
        let precision = self.context.precision;
        Autodiff::<B>::causal_attention(q, k, v, shape, precision, known).0
    }

    fn constant(&self, tensor: FloatTensor<B>) -> FloatTensor<Autodiff<B>> {
        <Autodiff<B> as AutodiffBackend>::from_inner(tensor)
    }
}

/// Trainable tensors of a taped block.
pub struct Leaves<B: Kernels>(Vec<(String, FloatTensor<Autodiff<B>>)>);

impl<B: Kernels> Leaves<B> {
    /// Hands each leaf's gradient on by name.
    pub fn gradients(self, gradients: &Gradients, mut take: impl FnMut(&str, FloatTensor<B>)) {
        for (name, leaf) in self.0 {
            if let Some(gradient) = <Autodiff<B> as AutodiffBackend>::grad(&leaf, gradients) {
                take(&name, gradient);
            }
        }
    }
}
