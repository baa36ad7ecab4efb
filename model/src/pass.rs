//! How a block is run: without a tape, with a cache of keys and values, or on a tape.
//!
//! The model is stored once, without a tape. A pass lifts the tensors that a block asks for onto the
//! backend it runs on; the taped pass makes the trainable ones leaves and remembers them by name, which
//! is how gradients leave a block.

mod keeping;
mod plain;
mod products;
mod taped;

use burn::tensor::ops::FloatTensor;
use graft_kernels::{AttentionShape, Dropout, Kernels, Ops, Output, Precision, Rounding};

pub use self::keeping::Keeping;
pub use self::plain::Plain;
pub use self::products::Products;
pub use self::taped::{Leaves, Taped};
use crate::param::Param;
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
    /// Only what it computes beside the product does, see [`Pass::beside`]: where that is kept, the product need not be.
    ReadBeside,
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
    ///
    /// Where operands are rounded to bf16, those of q, k, v, gate and up are of that type, as they are only ever
    /// operands of further products; those of o and down are f32, as is the residual stream. A projection that
    /// makes something else of them gives that in the type that it got, as [`graft_kernels::in_f32`] does.
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
