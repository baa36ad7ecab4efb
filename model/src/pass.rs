//! How a block is run: without a tape, with a cache of keys and values, or on a tape.
//!
//! The model is stored once, without a tape. A pass lifts the tensors that a block asks for onto the
//! backend it runs on; the taped pass makes the trainable ones leaves and remembers them by name, which
//! is how gradients leave a block.

mod products;

use burn::backend::Autodiff;
use burn::backend::autodiff::grads::Gradients;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::FloatTensor;
use graft_kernels::{AttentionShape, Dropout, Kernels, Ops, Output, Precision, Rounding, Values};

use self::products::Product;
pub use self::products::Products;
use crate::param::Param;
use crate::seat::Seat;
use crate::site::{ProjectionKind, Site};

/// Noise that must be the same each time a block is run in one step.
pub trait Noise: Sync {
    /// What a site's update does not see of its input, at a rate from 0 to below 1; `None` at 0.
    fn dropout(&self, site: Site, rate: f64) -> Option<Dropout>;
}

/// What is the same for every block of a pass.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Precision of frozen products and attention.
    pub precision: Precision,
    /// Dropout's noise; `None` turns dropout off.
    pub noise: Option<&'a dyn Noise>,
}

impl Context<'_> {
    /// A pass for scoring: nothing random.
    pub fn evaluation(precision: Precision) -> Self {
        Self { precision, noise: None }
    }
}

/// What a projection's values are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Operands of further products inside a residual branch.
    Inner,
    /// The branch itself: what is added to the residual stream.
    Branch,
}

impl Role {
    fn of(kind: ProjectionKind) -> Self {
        match kind {
            ProjectionKind::Q
            | ProjectionKind::K
            | ProjectionKind::V
            | ProjectionKind::Gate
            | ProjectionKind::Up => Self::Inner,
            ProjectionKind::O | ProjectionKind::Down => Self::Branch,
        }
    }
}

/// What becomes of a projection's sums: the residual stream stays f32.
pub(crate) fn rounding(kind: ProjectionKind) -> Rounding {
    match Role::of(kind) {
        Role::Inner => Rounding::Operand,
        Role::Branch => Rounding::Exact,
    }
}

/// Whether a projection itself wants the values of its product again: for the gradient of the product, or
/// of what it makes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnOutput {
    /// It does.
    Read,
    /// It does not. Where nobody else does either, a pass for gradients leaves the product out.
    Unread,
}

impl OwnOutput {
    /// Whether anyone reads them on the way back.
    fn is_wanted(self, kind: ProjectionKind) -> bool {
        self == Self::Read || Role::of(kind) == Role::Inner
    }
}

/// One way of running blocks.
pub trait Pass {
    /// The kernels' backend, where the model is stored.
    type Inner: Kernels;
    /// The backend that the block runs on.
    type On: Ops<Inner = Self::Inner>;

    /// What is the same for every block.
    fn context(&self) -> Context<'_>;

    /// The value of a parameter on the pass's backend.
    fn param(&mut self, param: &Param<Self::Inner>) -> FloatTensor<Self::On>;

    /// A constant on the pass's backend.
    fn constant(&self, tensor: FloatTensor<Self::Inner>) -> FloatTensor<Self::On>;

    /// The product of the projection at `kind`: what `run` gives when told where its values come from.
    fn output(
        &mut self,
        kind: ProjectionKind,
        own: OwnOutput,
        run: impl FnOnce(Output<Self::Inner>) -> FloatTensor<Self::On>,
    ) -> FloatTensor<Self::On> {
        let _ = own;
        run(Output::computed(rounding(kind)))
    }

    /// What the projection at `kind` computes beside its product and wants again for its gradient: what
    /// `run` gives, or gave before, under a name that is the projection's own.
    fn beside(
        &mut self,
        kind: ProjectionKind,
        name: &'static str,
        run: impl FnOnce() -> FloatTensor<Self::Inner>,
    ) -> FloatTensor<Self::Inner> {
        let _ = (kind, name);
        run()
    }

    /// A layer's causal attention inside each span; of `qkv` are the tokens of the pass.
    fn attention(
        &mut self,
        layer: usize,
        qkv: [FloatTensor<Self::On>; 3],
        shape: &AttentionShape,
    ) -> FloatTensor<Self::On> {
        let (_, [q, k, v]) = (layer, qkv);
        let precision = self.context().precision;
        Self::On::causal_attention(q, k, v, shape, precision, None).0
    }
}

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
        self.plain.context
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
        let precision = self.plain.context.precision;
        let (out, lse) = <B as Kernels>::causal_attention(&q, &k, &v, shape, precision);
        self.products.keep(Product::Attention, &out);
        self.products.keep(Product::LogSumExp, &lse);
        out
    }
}

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
