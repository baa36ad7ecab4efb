//! Where gradients go as they leave the blocks.
//!
//! The walk hands each gradient on as soon as its block gives it, with the name of its tensor and the example
//! that it is of. [`crate::Gradient`] sums them up and forgets the example; another sink may clip by example,
//! reduce, or count, and the walk takes it as it is.

use std::ops::Range;

use burn::tensor::ops::FloatTensor;
use graft_kernels::Kernels;
use graft_model::TableGradient;

/// Takes the gradients of a step. An example is a micro-batch, counted from 0 in the step: a row, where
/// micro-batches have one.
pub trait Sink<B: Kernels> {
    /// Whether the tensor `name` is trained.
    fn wants(&self, name: &str) -> bool;

    /// Takes a gradient of the tensor `name`. A tensor that is read in several places, or in pieces, has
    /// several of one example: their sum is its own.
    fn add(&mut self, example: usize, name: &str, gradient: FloatTensor<B>);

    /// Takes a gradient of rows `ids` of the table `name`, `[ids, width]`; an id may come more than once.
    fn add_rows(&mut self, example: usize, name: &str, ids: &[u32], gradient: FloatTensor<B>);

    /// Told that these examples have given all their gradients. Those of one visit do so together.
    fn finished(&mut self, examples: Range<usize>) {
        let _ = examples;
    }
}

/// A sink for the gradients of one example.
pub struct OfExample<'s, B: Kernels> {
    /// Which one.
    pub example: usize,
    /// Where they go.
    pub sink: &'s mut dyn Sink<B>,
}

impl<B: Kernels> OfExample<'_, B> {
    /// Whether the tensor `name` is trained.
    pub fn wants(&self, name: &str) -> bool {
        self.sink.wants(name)
    }

    /// Hands a gradient on.
    pub fn add(&mut self, name: &str, gradient: FloatTensor<B>) {
        self.sink.add(self.example, name, gradient);
    }

    /// Hands the gradients of what is trained of a table on.
    pub fn add_table(&mut self, gradients: Vec<TableGradient<'_, B>>) {
        for TableGradient { name, rows, values } in gradients {
            match rows {
                Some(ids) => self.sink.add_rows(self.example, name, &ids, values),
                None => self.sink.add(self.example, name, values),
            }
        }
    }
}
