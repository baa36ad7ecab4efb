//! One decoder layer of Llama: `h = x + o(attention(norm(x)))`, `y = h + down(swiglu(norm(h)))`.
//!
//! Follows `LlamaDecoderLayer` of Hugging Face transformers (`modeling_llama.py`). The residual stream is
//! f32; only the operands of frozen products are rounded when the precision says so.

use burn::tensor::ops::{FloatTensor, FloatTensorOps};
use graft_kernels::{Kernels, Ops};

use crate::layout::Layout;
use crate::param::Param;
use crate::pass::Pass;
use crate::projection::Projection;
use crate::site::ProjectionKind;

/// The two halves of a layer, each a branch whose output is added to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Branch {
    /// `o(attention(norm(x)))`
    Attention,
    /// `down(swiglu(norm(x)))`
    FeedForward,
}

impl Branch {
    /// Both, in the order they run.
    pub const BOTH: [Self; 2] = [Self::Attention, Self::FeedForward];
}

/// A decoder layer whose linear maps are `P`.
#[derive(Clone, Debug)]
pub struct Block<B: Kernels, P> {
    /// Which layer it is.
    pub layer: usize,
    /// Norm before attention, `[d_model]`.
    pub input_layernorm: Param<B>,
    /// Norm before the feed-forward part, `[d_model]`.
    pub post_attention_layernorm: Param<B>,
    /// Queries.
    pub q_proj: P,
    /// Keys.
    pub k_proj: P,
    /// Values.
    pub v_proj: P,
    /// Output of attention.
    pub o_proj: P,
    /// Gate of the feed-forward part.
    pub gate_proj: P,
    /// What the gate multiplies.
    pub up_proj: P,
    /// Back to `d_model`.
    pub down_proj: P,
}

impl<B: Kernels, P: Projection<B>> Block<B, P> {
    /// `[tokens, d_model]` → `[tokens, d_model]`.
    pub fn forward<R: Pass<Inner = B>>(
        &self,
        x: FloatTensor<R::On>,
        layout: &Layout,
        pass: &mut R,
    ) -> FloatTensor<R::On> {
        Branch::BOTH.into_iter().fold(x, |x, branch| {
            let added = self.branch(branch, x.clone(), layout, pass);
            R::On::float_add(x, added)
        })
    }

    /// What a branch adds to the residual stream `x`, both `[tokens, d_model]`.
    pub fn branch<R: Pass<Inner = B>>(
        &self,
        branch: Branch,
        x: FloatTensor<R::On>,
        layout: &Layout,
        pass: &mut R,
    ) -> FloatTensor<R::On> {
        match branch {
            Branch::Attention => self.attention(x, layout, pass),
            Branch::FeedForward => self.feed_forward(x, layout.eps, pass),
        }
    }

    fn attention<R: Pass<Inner = B>>(
        &self,
        x: FloatTensor<R::On>,
        layout: &Layout,
        pass: &mut R,
    ) -> FloatTensor<R::On> {
        let weight = pass.param(&self.input_layernorm);
        let operands = pass.context().precision;
        let x = R::On::rms_norm(x, weight, layout.eps, operands);
        let q = self.q_proj.forward(x.clone(), ProjectionKind::Q, pass); // [tokens, heads * head_dim]
        let k = self.k_proj.forward(x.clone(), ProjectionKind::K, pass); // [tokens, kv_heads * head_dim]
        let v = self.v_proj.forward(x, ProjectionKind::V, pass); // [tokens, kv_heads * head_dim]
        let q = R::On::rope(q, &layout.rotation, operands);
        let k = R::On::rope(k, &layout.rotation, operands);
        let out = pass.attention(self.layer, [q, k, v], &layout.attention);
        self.o_proj.forward(out, ProjectionKind::O, pass)
    }

    fn feed_forward<R: Pass<Inner = B>>(
        &self,
        h: FloatTensor<R::On>,
        eps: f32,
        pass: &mut R,
    ) -> FloatTensor<R::On> {
        let weight = pass.param(&self.post_attention_layernorm);
        let h = R::On::rms_norm(h, weight, eps, pass.context().precision);
        let gate = self.gate_proj.forward(h.clone(), ProjectionKind::Gate, pass); // [tokens, d_ff]
        let up = self.up_proj.forward(h, ProjectionKind::Up, pass); // [tokens, d_ff]
        self.down_proj.forward(R::On::swiglu(gate, up), ProjectionKind::Down, pass)
    }

    /// The seven projections with their kinds, in the order of [`crate::site::ProjectionKind::ALL`].
    pub fn projections(&self) -> [&P; 7] {
        [
            &self.q_proj,
            &self.k_proj,
            &self.v_proj,
            &self.o_proj,
            &self.gate_proj,
            &self.up_proj,
            &self.down_proj,
        ]
    }

    /// The frozen weights of its projections, where they have any.
    pub fn frozen(&self) -> Vec<&B::Frozen> {
        self.projections().into_iter().filter_map(P::frozen).collect()
    }

    /// Visits every dense tensor of the layer, in a fixed order.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&mut Param<B>)) {
        visit(&mut self.input_layernorm);
        for projection in [&mut self.q_proj, &mut self.k_proj, &mut self.v_proj, &mut self.o_proj] {
            projection.visit(visit);
        }
        visit(&mut self.post_attention_layernorm);
        for projection in [&mut self.gate_proj, &mut self.up_proj, &mut self.down_proj] {
            projection.visit(visit);
        }
    }
}
