//! Keys and values of the tokens already seen, for generating several sequences at once.
//!
//! A layer has one matrix of keys and one of values, in which every sequence has rows of its own, with room for
//! tokens to come: what is new is written in its place, and nothing is put together anew.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Shape, Slice, TensorMetadata};
use graft_kernels::{AttentionShape, Kernels, Ops, Output, Span, Values};

use crate::param::Param;
use crate::pass::{Context, OwnOutput, Pass, rounding};
use crate::site::ProjectionKind;

/// Keys and values of every layer and sequence.
#[derive(Clone, Debug)]
pub struct Cache<B: Kernels> {
    lengths: Vec<usize>,
    /// Rows of every matrix that each sequence has, in the order of the sequences.
    places: Vec<Range<usize>>,
    /// How long each sequence may become; 0 where nobody said it.
    limits: Vec<usize>,
    /// Rows of every matrix: those of sequences that were dropped are among them.
    rows: usize,
    /// `[rows, kv_heads · head_dim]` each; nothing before a layer's first pass.
    layers: Vec<Option<[FloatTensor<B>; 2]>>,
}

impl<B: Kernels> Cache<B> {
    /// An empty cache for some sequences.
    pub fn new(layers: usize, sequences: usize) -> Self {
        Self {
            lengths: vec![0; sequences],
            places: vec![0..0; sequences],
            limits: vec![0; sequences],
            rows: 0,
            layers: vec![None; layers],
        }
    }

    /// Tokens seen of each sequence.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// How long each sequence may become: as it grows, room is made ahead, so far and no further.
    pub fn set_limits(&mut self, limits: Vec<usize>) {
        assert_eq!(limits.len(), self.lengths.len(), "limits, and sequences of the cache");
        self.limits = limits;
    }

    /// Forgets all tokens of the only sequence but the first `length`.
    ///
    /// # Panics
    /// There are other sequences.
    pub fn shorten(&mut self, length: usize) {
        let [seen] = self.lengths[..] else { panic!("{} sequences", self.lengths.len()) };
        if length == 0 {
            *self = Self::new(self.layers.len(), 1);
        } else {
            self.lengths[0] = seen.min(length);
        }
    }

    /// Adds the sequences of another cache of the same model behind its own.
    pub fn append(&mut self, other: Self) {
        let own = self.rows;
        let moved = |place: Range<usize>| place.start + own..place.end + own;
        self.lengths.extend(other.lengths);
        self.limits.extend(other.limits);
        self.places.extend(other.places.into_iter().map(moved));
        self.rows += other.rows;
        for (layer, more) in self.layers.iter_mut().zip(other.layers) {
            *layer = match (layer.take(), more) {
                (Some([keys, values]), Some([more_keys, more_values])) => {
                    let both = [vec![keys, more_keys], vec![values, more_values]];
                    Some(both.map(|both| B::float_cat(both, 0)))
                }
                // What no pass has been over has no rows.
                (one, other) => one.or(other),
            };
        }
    }

    /// Drops the sequences for which `keep` is false.
    pub fn retain(&mut self, keep: &[bool]) {
        retain(&mut self.lengths, keep);
        retain(&mut self.places, keep);
        retain(&mut self.limits, keep);
        let room: Vec<usize> = self.places.iter().map(Range::len).collect();
        if 2 * room.iter().sum::<usize>() < self.rows {
            self.lay_out(&room);
        }
    }

    /// Makes room for `new[i]` more tokens of sequence `i`. If there is too little of one, every sequence gets
    /// twice what it needs, or as much as its limit says: what is copied stays in proportion to what is there.
    fn make_room(&mut self, new: &[usize]) {
        assert_eq!(self.lengths.len(), new.len(), "sequences of the cache and of the pass");
        let needed = self.lengths.iter().zip(new).map(|(seen, new)| seen + new);
        let has_room = |(needed, place): (usize, &Range<usize>)| needed <= place.len();
        if !needed.clone().zip(&self.places).all(has_room) {
            let room =
                needed.zip(&self.limits).map(|(needed, &limit)| needed.max(limit.min(2 * needed)));
            self.lay_out(&room.collect::<Vec<_>>());
        }
    }

    /// Gives every sequence so many rows, one behind the other, and moves what has been seen there.
    fn lay_out(&mut self, room: &[usize]) {
        let mut end = 0;
        let place = |room: &usize| {
            end += room;
            end - room..end
        };
        let places: Vec<Range<usize>> = room.iter().map(place).collect();
        // One after another: no more than one layer is there twice.
        for layer in &mut self.layers {
            *layer = layer.take().map(|tensors| {
                tensors.map(|old| {
                    let moves = self.lengths.iter().zip(&self.places).zip(&places);
                    moves.filter(|((seen, _), _)| **seen > 0).fold(
                        zeros::<B>(end, &old),
                        |new, ((seen, from), to)| {
                            let seen = rows_of::<B>(&old, from.start..from.start + seen);
                            B::set_rows(new, to.start, &seen)
                        },
                    )
                })
            });
        }
        self.places = places;
        self.rows = end;
    }
}

/// Drops the items for which `keep` is false.
fn retain<T>(items: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    items.retain(|_| *keep.next().expect("one flag a sequence"));
}

/// So many rows like those of another matrix.
fn zeros<B: Kernels>(rows: usize, like: &FloatTensor<B>) -> FloatTensor<B> {
    let shape = Shape::new([rows, like.shape()[1]]);
    B::float_zeros(shape, &B::float_device(like), like.dtype().into())
}

fn rows_of<B: Kernels>(matrix: &FloatTensor<B>, rows: Range<usize>) -> FloatTensor<B> {
    let part = [rows, 0..matrix.shape()[1]].map(Slice::from);
    B::float_slice(matrix.clone(), &part)
}

/// A pass without a tape that reads and extends a cache.
pub struct Cached<'a, B: Kernels> {
    context: Context<'a>,
    cache: &'a mut Cache<B>,
    new: &'a [usize],
    /// The sequences' new tokens, and the rows of all they have then.
    spans: Arc<[Span]>,
}

impl<'a, B: Kernels> Cached<'a, B> {
    /// A pass over `new[i]` more tokens of sequence `i`, lying one after another.
    pub fn new(context: Context<'a>, cache: &'a mut Cache<B>, new: &'a [usize]) -> Self {
        cache.make_room(new);
        let mut query = 0;
        let span = |((seen, place), new): ((&usize, &Range<usize>), &usize)| {
            let queries = query..query + new;
            query += new;
            Span { queries, keys: place.start..place.start + seen + new }
        };
        let spans = cache.lengths.iter().zip(&cache.places).zip(new).map(span).collect();
        Self { context, cache, new, spans }
    }

    /// Counts the new tokens as seen; to be called when every block has run.
    pub fn finish(self) {
        for (length, new) in self.cache.lengths.iter_mut().zip(self.new) {
            *length += new;
        }
    }

    /// Writes the rows of the new tokens to where each sequence's go.
    fn write(&self, all: FloatTensor<B>, new: &FloatTensor<B>) -> FloatTensor<B> {
        self.spans.iter().filter(|span| !span.queries.is_empty()).fold(all, |all, span| {
            let first = span.keys.end - span.queries.len();
            B::set_rows(all, first, &rows_of::<B>(new, span.queries.clone()))
        })
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

    fn output(
        &mut self,
        kind: ProjectionKind,
        _own: OwnOutput,
        run: impl FnOnce(Output<B>) -> FloatTensor<B>,
    ) -> FloatTensor<B> {
        run(Output { values: Values::Decoded, rounding: rounding(kind) })
    }

    fn attention(
        &mut self,
        layer: usize,
        [q, keys, values]: [FloatTensor<B>; 3],
        shape: &AttentionShape,
    ) -> FloatTensor<B> {
        let seen = self.cache.layers[layer].take();
        let [k, v] =
            seen.unwrap_or_else(|| [&keys, &values].map(|new| zeros::<B>(self.cache.rows, new)));
        let all = [self.write(k, &keys), self.write(v, &values)];
        // Room for tokens to come is behind the last ones; nobody need look at it.
        let end = self.spans.iter().map(|span| span.keys.end).max().unwrap_or(0);
        let [k, v] = all.each_ref().map(|all| rows_of::<B>(all, 0..end));
        self.cache.layers[layer] = Some(all);
        let shape = AttentionShape { spans: self.spans.clone(), ..shape.clone() };
        <B as Kernels>::causal_attention(&q, &k, &v, &shape, self.context.precision).0
    }
}

#[cfg(test)]
mod tests {
    use burn_flex::Flex;
    use graft_kernels::Precision;

    use super::*;

    const WIDTH: usize = 4;

    /// The row of a token: which sequence, which place in it.
    fn rows(tokens: &[(usize, usize)], sign: f32) -> FloatTensor<Flex> {
        let values = tokens.iter().flat_map(|&(sequence, at)| {
            (0..WIDTH).map(move |i| sign * (100 * sequence + 10 * at + i) as f32 / 512.0)
        });
        let data =
            burn::tensor::TensorData::new(values.collect::<Vec<f32>>(), [tokens.len(), WIDTH]);
        <Flex as burn::tensor::ops::FloatTensorOps<Flex>>::float_from_data(
            data,
            &Default::default(),
        )
    }

    fn values(tensor: &FloatTensor<Flex>) -> Vec<f32> {
        burn::tensor::Tensor::<Flex, 2>::from_primitive(burn::tensor::TensorPrimitive::Float(
            tensor.clone(),
        ))
        .into_data()
        .to_vec()
        .expect("f32")
    }

    fn shape() -> AttentionShape {
        AttentionShape { heads: 2, kv_heads: 2, head_dim: 2, spans: [].into() }
    }

    /// Runs both layers over `new[i]` more tokens of sequence `names[i]`, and holds what attention gives against
    /// one over the whole sequence.
    fn step(cache: &mut Cache<Flex>, names: &[usize], new: &[usize]) {
        let before = cache.lengths().to_vec();
        let tokens: Vec<Vec<(usize, usize)>> = names
            .iter()
            .zip(&before)
            .zip(new)
            .map(|((&name, &seen), new)| (seen..seen + new).map(|at| (name, at)).collect())
            .collect();
        let all = tokens.concat();
        let mut pass = Cached::new(Context::evaluation(Precision::F32), cache, new);
        for (layer, sign) in [(0, 1.0), (1, -1.0)] {
            let qkv = [rows(&all, sign), rows(&all, 2.0 * sign), rows(&all, 3.0 * sign)];
            let out = values(&pass.attention(layer, qkv, &shape()));
            let mut found = out.chunks_exact(WIDTH);
            for ((&name, &seen), new) in names.iter().zip(&before).zip(new) {
                let whole: Vec<_> = (0..seen + new).map(|at| (name, at)).collect();
                let [q, k, v] = [1.0, 2.0, 3.0].map(|factor| rows(&whole, factor * sign));
                let span = Span { queries: 0..whole.len(), keys: 0..whole.len() };
                let shape = AttentionShape { spans: [span].into(), ..shape() };
                let (out, _) =
                    <Flex as Kernels>::causal_attention(&q, &k, &v, &shape, Precision::F32);
                for (at, expected) in values(&out).chunks_exact(WIDTH).enumerate().skip(seen) {
                    let found = found.next().expect("a row of every new token");
                    assert_eq!(found, expected, "layer {layer}, sequence {name}, token {at}");
                }
            }
        }
        pass.finish();
    }

    #[test]
    fn every_sequence_sees_its_own_tokens_whatever_becomes_of_others() {
        for limits in [None, Some([4, 9, 30]), Some([1_000; 3])] {
            let mut cache = Cache::new(2, 0);
            for (name, prompt) in [(1, 3), (2, 7), (3, 1)] {
                let mut own = Cache::new(2, 1);
                step(&mut own, &[name], &[prompt]);
                cache.append(own);
            }
            if let Some(limits) = limits {
                cache.set_limits(limits.to_vec());
            }
            step(&mut cache, &[1, 2, 3], &[1, 1, 1]);
            cache.retain(&[false, true, true]);
            (0..4).for_each(|_| step(&mut cache, &[2, 3], &[1, 2]));
            cache.retain(&[false, true]);
            (0..20).for_each(|_| step(&mut cache, &[3], &[1]));
            assert_eq!(cache.lengths(), [30]);
            cache.shorten(12);
            step(&mut cache, &[3], &[5]);
            cache.shorten(0);
            step(&mut cache, &[4], &[6]);
        }
    }

    /// Where the memory of the first layer's keys is, and for how many tokens.
    fn keys(cache: &Cache<Flex>) -> (*const u8, usize) {
        let [keys, _] = cache.layers[0].as_ref().expect("a pass has been over it");
        (keys.bytes().as_ptr(), keys.shape()[0])
    }

    #[test]
    fn tokens_are_written_in_place_and_room_is_made_as_far_as_the_limit() {
        let mut cache = Cache::new(2, 1);
        step(&mut cache, &[1], &[10]);
        assert_eq!(keys(&cache).1, 10, "nobody said that more will come");
        cache.set_limits(vec![50]);
        let mut sizes = Vec::new();
        for _ in 10..50 {
            let before = keys(&cache);
            step(&mut cache, &[1], &[1]);
            let (place, size) = keys(&cache);
            if size == before.1 {
                assert_eq!(place, before.0, "{} tokens", cache.lengths()[0]);
            } else {
                sizes.push(size);
            }
        }
        assert_eq!(sizes, [22, 46, 50]);
    }

    #[test]
    fn rows_of_dropped_sequences_are_given_up_when_they_are_most() {
        let mut cache = Cache::new(2, 3);
        step(&mut cache, &[1, 2, 3], &[10, 10, 11]);
        cache.retain(&[true, false, true]);
        assert_eq!(keys(&cache).1, 31);
        cache.retain(&[false, true]);
        assert_eq!(keys(&cache).1, 11);
        step(&mut cache, &[3], &[1]);
    }
}
