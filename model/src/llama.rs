//! The decoder: embedding, blocks, norm, head. Follows `LlamaForCausalLM` of Hugging Face transformers.

use std::rc::Rc;

use burn::tensor::ops::FloatTensor;
use graft_kernels::{Kernels, Ops, Precision};

use crate::block::Block;
use crate::config::LlamaConfig;
use crate::layout::Layout;
use crate::param::Param;
use crate::pass::{Context, Pass, Plain};
use crate::projection::Projection;
use crate::residency::{Next, Residency};
use crate::rope::Rope;
use crate::table::Table;

/// A Llama 3.x model whose linear maps are `P`.
#[derive(Clone, Debug)]
pub struct Llama<B: Kernels, P> {
    /// Its configuration.
    pub config: LlamaConfig,
    /// Where it lives.
    pub device: B::Device,
    /// Rotary frequencies.
    pub rope: Rope,
    /// Token embeddings, `[vocab, d_model]`.
    pub embedding: Table<B>,
    /// The layers.
    pub blocks: Vec<Block<B, P>>,
    /// Norm before the head, `[d_model]`.
    pub norm: Param<B>,
    /// The head, `[vocab, d_model]`; `None` if the embedding serves as head.
    pub head: Option<Table<B>>,
    /// Where the frozen weights lie in maps of their files.
    pub residency: Rc<Residency>,
}

impl<B: Kernels, P: Projection<B>> Llama<B, P> {
    /// The blocks from first to last for a visit of `tokens` tokens: where weights are streamed, each
    /// with its own in memory and the next one's, at last the head's, on their way; so to a device.
    pub fn up(&self, tokens: usize) -> impl Iterator<Item = &Block<B, P>> {
        let streams = self.residency.streams(tokens);
        self.residency.release_tables();
        self.blocks.iter().inspect(move |block| {
            let next = block.layer + 1;
            let next = if next == self.blocks.len() { Next::Head } else { Next::Block(next) };
            self.visit_block(block, next, streams);
        })
    }

    /// The blocks from the last down to `lowest` in the same way.
    pub fn down_to(&self, lowest: usize, tokens: usize) -> impl Iterator<Item = &Block<B, P>> {
        let streams = self.residency.streams(tokens);
        self.residency.release_tables();
        self.blocks[lowest..].iter().rev().inspect(move |block| {
            let is_last = block.layer == lowest;
            let next = if is_last { Next::Nothing } else { Next::Block(block.layer - 1) };
            self.visit_block(block, next, streams);
        })
    }

    fn visit_block(&self, block: &Block<B, P>, next: Next, streams: bool) {
        if streams {
            self.residency.visit(block.layer, next);
        }
        if !B::READS_HOST {
            let next = if let Next::Block(next) = next { Some(&self.blocks[next]) } else { None };
            B::visit(&block.frozen(), &next.map(Block::frozen).unwrap_or_default());
        }
    }
}

impl<B, P> Llama<B, P>
where
    B: Kernels + Ops<Inner = B>,
    P: Projection<B>,
{
    /// The table that turns hidden states into logits.
    pub fn head(&self) -> &Table<B> {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Last hidden states before the norm, `[tokens, d_model]`, without a tape.
    pub fn hidden(&self, tokens: &[u32], layout: &Layout, context: Context<'_>) -> FloatTensor<B> {
        self.run(tokens, layout, &mut Plain::new(context))
    }

    /// Last hidden states before the norm, `[tokens, d_model]`, through any pass without a tape, for instance
    /// one with a cache.
    pub fn run<R: Pass<Inner = B, On = B>>(
        &self,
        tokens: &[u32],
        layout: &Layout,
        pass: &mut R,
    ) -> FloatTensor<B> {
        let x = self.embedding.rows(tokens, &self.device);
        self.up(tokens.len()).fold(x, |x, block| block.forward(x, layout, pass))
    }

    /// Logits of hidden states, `[rows, d_model]` → `[rows, vocab]`.
    pub fn logits(&self, hidden: &FloatTensor<B>, precision: Precision) -> FloatTensor<B> {
        self.head().logits(&self.normed(hidden), precision)
    }

    /// Logits of the hidden states `[sequences, d_model]` that the next token of a few sequences follows:
    /// `[sequences, vocab]`. The sums may run in another order than those of [`Llama::logits`].
    pub fn next_logits(&self, hidden: &FloatTensor<B>, precision: Precision) -> FloatTensor<B> {
        self.head().next_logits(&self.normed(hidden), precision)
    }

    /// The norm before the head.
    pub fn normed(&self, hidden: &FloatTensor<B>) -> FloatTensor<B> {
        let eps = self.config.rms_norm_eps as f32;
        <B as Kernels>::rms_norm(hidden, self.norm.tensor(), eps, Precision::F32)
    }

    /// Visits every dense tensor: embedding, layers in order, norm, head.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&mut Param<B>)) {
        self.embedding.visit(visit);
        for block in &mut self.blocks {
            block.visit(visit);
        }
        visit(&mut self.norm);
        if let Some(head) = &mut self.head {
            head.visit(visit);
        }
    }
}
