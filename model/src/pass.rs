//! How a block is run: without a tape, with a cache of keys and values, or on a tape.
//!
//! The model is stored once, without a tape. A pass lifts the tensors that a block asks for onto the
//! backend it runs on; the taped pass makes the trainable ones leaves and remembers them by name, which
//! is how gradients leave a block.

use burn::backend::Autodiff;
use burn::backend::autodiff::grads::Gradients;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::FloatTensor;
use graft_kernels::{Kernels, Ops, Output, Precision};

use crate::param::{Param, host_values};
use crate::site::Site;

/// Noise that must be the same each time a block is run in one step.
pub trait Noise: Sync {
    /// Factors for dropout at a site: 0 with `probability`, else `1 / (1 − probability)`.
    fn keep(&self, site: Site, len: usize, probability: f32) -> Vec<f32>;
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

    /// How the values inside a residual branch are read.
    fn output(&self) -> Output {
        Output::Read
    }

    /// Whether the values of a whole branch are read, or only their gradient is wanted.
    fn branch_output(&self) -> Output {
        self.output()
    }

    /// Keys and values that the block's queries see, given those of the new tokens.
    fn keys_values(
        &mut self,
        layer: usize,
        keys: FloatTensor<Self::On>,
        values: FloatTensor<Self::On>,
    ) -> [FloatTensor<Self::On>; 2] {
        let _ = layer;
        [keys, values]
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

/// On burn's tape; the parameters for which `trains` holds become leaves.
pub struct Taped<'a, B: Kernels> {
    context: Context<'a>,
    trains: &'a dyn Fn(&str) -> bool,
    output: Output,
    leaves: Vec<(String, FloatTensor<Autodiff<B>>)>,
}

impl<'a, B: Kernels> Taped<'a, B> {
    /// A pass in this context.
    pub fn new(context: Context<'a>, trains: &'a dyn Fn(&str) -> bool) -> Self {
        Self { context, trains, output: Output::Read, leaves: Vec::new() }
    }

    /// A pass for gradients alone: what the branches add to the residual stream is known already.
    pub fn replay(context: Context<'a>, trains: &'a dyn Fn(&str) -> bool) -> Self {
        Self { output: Output::Unread, ..Self::new(context, trains) }
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

    fn branch_output(&self) -> Output {
        self.output
    }

    fn constant(&self, tensor: FloatTensor<B>) -> FloatTensor<Autodiff<B>> {
        <Autodiff<B> as AutodiffBackend>::from_inner(tensor)
    }
}

/// Trainable tensors of a taped block.
pub struct Leaves<B: Kernels>(Vec<(String, FloatTensor<Autodiff<B>>)>);

impl<B: Kernels> Leaves<B> {
    /// Hands each leaf's gradient on by name, row-major.
    pub fn gradients(self, gradients: &Gradients, mut take: impl FnMut(&str, Vec<f32>)) {
        for (name, leaf) in self.0 {
            if let Some(gradient) = <Autodiff<B> as AutodiffBackend>::grad(&leaf, gradients) {
                take(&name, host_values::<B>(gradient));
            }
        }
    }
}
