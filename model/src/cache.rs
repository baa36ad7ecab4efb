//! Keys and values of the tokens already seen, for generating several sequences at once.

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};
use graft_kernels::{Kernels, Ops, Output, Values};

use crate::param::Param;
use crate::pass::{Context, Pass, Role};

/// Keys and values `[tokens, kv_heads · head_dim]` of every layer and sequence.
#[derive(Clone, Debug)]
pub struct Cache<B: Kernels> {
    lengths: Vec<usize>,
    layers: Vec<Vec<[Tensor<B, 2>; 2]>>,
}

impl<B: Kernels> Cache<B> {
    /// An empty cache for some sequences.
    pub fn new(layers: usize, sequences: usize) -> Self {
        Self { lengths: vec![0; sequences], layers: vec![Vec::new(); layers] }
    }

    /// Tokens seen of each sequence.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Forgets all tokens of the only sequence but the first `length`.
    ///
    /// # Panics
    /// There are other sequences.
    pub fn shorten(&mut self, length: usize) {
        let [seen] = self.lengths[..] else { panic!("{} sequences", self.lengths.len()) };
        if length == 0 {
            *self = Self::new(self.layers.len(), 1);
        } else if length < seen {
            self.lengths[0] = length;
            for tensor in self.layers.iter_mut().flatten().flatten() {
                *tensor = tensor.clone().narrow(0, 0, length);
            }
        }
    }

    /// Adds the sequences of another cache of the same model behind its own.
    pub fn append(&mut self, other: Self) {
        self.lengths.extend(other.lengths);
        for (layer, more) in self.layers.iter_mut().zip(other.layers) {
            layer.extend(more);
        }
    }

    /// Drops the sequences for which `keep` is false.
    pub fn retain(&mut self, keep: &[bool]) {
        let kept = |i: &usize| keep[*i];
        self.lengths = (0..keep.len()).filter(kept).map(|i| self.lengths[i]).collect();
        // Before the first pass no layer has anything of any sequence.
        for layer in self.layers.iter_mut().filter(|layer| !layer.is_empty()) {
            *layer = (0..keep.len()).filter(kept).map(|i| layer[i].clone()).collect();
        }
    }
}

/// A pass without a tape that reads and extends a cache.
pub struct Cached<'a, B: Kernels> {
    context: Context<'a>,
    cache: &'a mut Cache<B>,
    new: &'a [usize],
}

impl<'a, B: Kernels> Cached<'a, B> {
    /// A pass over `new[i]` more tokens of sequence `i`, lying one after another.
    pub fn new(context: Context<'a>, cache: &'a mut Cache<B>, new: &'a [usize]) -> Self {
        assert_eq!(cache.lengths.len(), new.len(), "sequences of the cache and of the pass");
        Self { context, cache, new }
    }

    /// Counts the new tokens as seen; to be called when every block has run.
    pub fn finish(self) {
        for (length, new) in self.cache.lengths.iter_mut().zip(self.new) {
            *length += new;
        }
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

    fn output(&mut self, role: Role, _has_update: bool) -> Output<B> {
        Output { values: Values::Decoded, ..Output::computed(role.rounding()) }
    }

    fn keys_values(
        &mut self,
        layer: usize,
        keys: FloatTensor<B>,
        values: FloatTensor<B>,
    ) -> [FloatTensor<B>; 2] {
        let new = [keys, values].map(|t| Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(t)));
        let seen = &mut self.cache.layers[layer];
        let mut start = 0;
        for (sequence, &len) in self.new.iter().enumerate() {
            let part = new.clone().map(|tensor| tensor.narrow(0, start, len));
            match seen.get_mut(sequence) {
                None => seen.push(part),
                Some(old) => {
                    for (old, part) in old.iter_mut().zip(part) {
                        *old = Tensor::cat(vec![old.clone(), part], 0);
                    }
                }
            }
            start += len;
        }
        [0, 1].map(|which| {
            let all = seen.iter().map(|pair| pair[which].clone()).collect();
            Tensor::cat(all, 0).into_primitive().tensor()
        })
    }
}
