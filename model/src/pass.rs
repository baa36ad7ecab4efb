//! How a block is run: without a tape, with a cache of keys and values, or on a tape.
//!
//! The model is stored once, without a tape. A pass lifts the tensors that a block asks for onto the
//! backend it runs on; the taped pass makes the trainable ones leaves and remembers them by name, which
//! is how gradients leave a block.

use std::collections::VecDeque;

use burn::backend::Autodiff;
use burn::backend::autodiff::grads::Gradients;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::FloatTensor;
use graft_kernels::{AttentionShape, Dropout, Kernels, Ops, Output, Precision, Rounding, Values};

use crate::param::Param;
use crate::site::Site;

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
pub enum Role {
    /// Operands of further products inside a residual branch.
    Inner,
    /// The branch itself: what is added to the residual stream.
    Branch,
}

impl Role {
    /// The stream stays f32.
    pub(crate) fn rounding(self) -> Rounding {
        match self {
            Self::Inner => Rounding::Operand,
            Self::Branch => Rounding::Exact,
        }
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

    /// What the next projection is to give.
    ///
    /// `has_update` says whether it will tell of a narrow product, see [`Pass::gave`].
    fn output(&mut self, role: Role, has_update: bool) -> Output<Self::Inner> {
        let _ = has_update;
        Output::computed(role.rounding())
    }

    /// Told what a projection gave, and the narrow product of its update if it has one.
    fn gave(
        &mut self,
        role: Role,
        y: &FloatTensor<Self::On>,
        low: Option<&FloatTensor<Self::Inner>>,
    ) {
        let _ = (role, y, low);
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

/// Results of a branch's products, in the order they come: with them a branch can be put on a tape without
/// multiplying again.
#[derive(Clone, Debug, Default)]
pub struct Products<B: Kernels>(VecDeque<FloatTensor<B>>);

impl<B: Kernels> Products<B> {
    fn keep(&mut self, tensor: &FloatTensor<B>) {
        self.0.push_back(tensor.clone());
    }

    fn next(&mut self) -> FloatTensor<B> {
        self.0.pop_front().expect("a branch runs the same way again")
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
        Self { plain: Plain::new(context), products: Products(VecDeque::new()) }
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

    fn gave(&mut self, role: Role, y: &FloatTensor<B>, low: Option<&FloatTensor<B>>) {
        if let Some(low) = low {
            self.products.keep(low);
        }
        if role == Role::Inner {
            self.products.keep(y);
        }
    }

    fn attention(
        &mut self,
        _layer: usize,
        [q, k, v]: [FloatTensor<B>; 3],
        shape: &AttentionShape,
    ) -> FloatTensor<B> {
        let precision = self.plain.context.precision;
        let (out, lse) = <B as Kernels>::causal_attention(&q, &k, &v, shape, precision);
        self.products.keep(&out);
        self.products.keep(&lse);
        out
    }
}

/// What a taped pass knows from an earlier one.
enum Known<B: Kernels> {
    Nothing,
    /// What the branch gave in the end is known elsewhere, and nobody reads it again.
    Branch,
    /// The results of every product.
    Products(Products<B>),
}

/// On burn's tape; the parameters for which `trains` holds become leaves.
pub struct Taped<'a, B: Kernels> {
    context: Context<'a>,
    trains: &'a dyn Fn(&str) -> bool,
    known: Known<B>,
    leaves: Vec<(String, FloatTensor<Autodiff<B>>)>,
}

impl<'a, B: Kernels> Taped<'a, B> {
    /// A pass in this context.
    pub fn new(context: Context<'a>, trains: &'a dyn Fn(&str) -> bool) -> Self {
        Self { context, trains, known: Known::Nothing, leaves: Vec::new() }
    }

    /// A pass for gradients alone: what the branches add to the residual stream is known already.
    pub fn replay(context: Context<'a>, trains: &'a dyn Fn(&str) -> bool) -> Self {
        Self { known: Known::Branch, ..Self::new(context, trains) }
    }

    /// The same with the results of the products, so that only what lies between them is run.
    pub fn recall(
        context: Context<'a>,
        trains: &'a dyn Fn(&str) -> bool,
        products: Products<B>,
    ) -> Self {
        Self { known: Known::Products(products), ..Self::new(context, trains) }
    }

    /// The leaves that the run blocks asked for, in the order they asked.
    pub fn into_leaves(self) -> Leaves<B> {
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
        if !(self.trains)(param.name()) {
            return value;
        }
        let leaf = value.require_grad();
        self.leaves.push((param.name().to_owned(), leaf.clone()));
        leaf
    }

    fn output(&mut self, role: Role, has_update: bool) -> Output<B> {
        let mut output = Output::computed(role.rounding());
        match (&mut self.known, role) {
            (Known::Nothing, _) | (Known::Branch, Role::Inner) => {}
            (Known::Branch, Role::Branch) => output.values = Values::Unread,
            (Known::Products(products), role) => {
                output.low = has_update.then(|| products.next());
                output.values = match role {
                    Role::Inner => Values::Known(products.next()),
                    Role::Branch => Values::Unread,
                };
            }
        }
        output
    }

    fn attention(
        &mut self,
        _layer: usize,
        [q, k, v]: [FloatTensor<Autodiff<B>>; 3],
        shape: &AttentionShape,
    ) -> FloatTensor<Autodiff<B>> {
        let known = match &mut self.known {
            Known::Products(products) => Some([products.next(), products.next()]),
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
