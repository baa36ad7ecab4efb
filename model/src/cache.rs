//! Keys and values of the tokens already seen, for generation.

use burn::tensor::ops::FloatTensor;
use graft_kernels::{Kernels, Ops};

use crate::param::Param;
use crate::pass::{Context, Pass};

/// Keys and values `[tokens, kv_heads · head_dim]` of every layer.
#[derive(Clone, Debug)]
pub struct Cache<B: Kernels> {
    layers: Vec<Option<[FloatTensor<B>; 2]>>,
}

impl<B: Kernels> Cache<B> {
    /// An empty cache.
    pub fn new(layers: usize) -> Self {
        Self { layers: vec![None; layers] }
    }
}

/// A pass without a tape that reads and extends a cache.
pub struct Cached<'a, B: Kernels> {
    context: Context<'a>,
    cache: &'a mut Cache<B>,
}

impl<'a, B: Kernels> Cached<'a, B> {
    /// A pass over `cache`.
    pub fn new(context: Context<'a>, cache: &'a mut Cache<B>) -> Self {
        Self { context, cache }
    }
}

impl<B: Kernels + Ops<Inner = B>> Pass for Cached<'_, B> {
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

    fn keys_values(
        &mut self,
        layer: usize,
        keys: FloatTensor<B>,
        values: FloatTensor<B>,
    ) -> [FloatTensor<B>; 2] {
        let all = match self.cache.layers[layer].take() {
            None => [keys, values],
            Some([old_keys, old_values]) => [
                B::float_cat(vec![old_keys, keys], 0),
                B::float_cat(vec![old_values, values], 0),
            ],
        };
        self.cache.layers[layer] = Some(all.clone());
        all
    }
}
