//! One of the seven linear maps of a decoder layer, and the seam that adapters fill.

use burn::tensor::ops::FloatTensor;
use graft_kernels::{FrozenMatrix, Home, Kernels, Ops};

use crate::param::Param;
use crate::pass::{OwnOutput, Pass};
use crate::site::{ProjectionKind, Site};

/// A linear map without bias; what it is made of, a decoder does not know.
pub trait Projection<B: Kernels> {
    /// `[tokens, in]` → `[tokens, out]`. Its products are run through the pass, which knows whether their
    /// values are wanted, known or kept: see [`Pass::output`] and [`Pass::beside`].
    fn forward<R: Pass<Inner = B>>(
        &self,
        x: FloatTensor<R::On>,
        kind: ProjectionKind,
        pass: &mut R,
    ) -> FloatTensor<R::On>;

    /// The frozen weight underneath, if there is one.
    fn frozen(&self) -> Option<&B::Frozen> {
        None
    }

    /// Visits every dense tensor, in a fixed order.
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Param<B>)) {
        let _ = visit;
    }
}

/// A projection as it came from the checkpoint. It is only ever read: a model of these scores and
/// generates, but cannot be trained.
#[derive(Clone, Debug)]
pub struct FrozenLinear<B: Kernels> {
    site: Site,
    weight: B::Frozen,
}

impl<B: Kernels> FrozenLinear<B> {
    /// The weight at a site.
    pub fn new(site: Site, weight: FrozenMatrix, home: Home, device: &B::Device) -> Self {
        Self { site, weight: B::freeze_at(home, weight, device) }
    }

    /// Where it stands.
    pub fn site(&self) -> Site {
        self.site
    }

    /// The frozen weight `[out, in]`.
    pub fn weight(&self) -> &B::Frozen {
        &self.weight
    }
}

impl<B: Kernels> Projection<B> for FrozenLinear<B> {
    fn forward<R: Pass<Inner = B>>(
        &self,
        x: FloatTensor<R::On>,
        kind: ProjectionKind,
        pass: &mut R,
    ) -> FloatTensor<R::On> {
        let precision = pass.context().precision;
        pass.output(kind, OwnOutput::Unread, |output| {
            R::On::frozen_linear(x, &self.weight, precision, output)
        })
    }

    fn frozen(&self) -> Option<&B::Frozen> {
        Some(&self.weight)
    }
}
