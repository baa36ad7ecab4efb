//! The walk over the blocks: forward keeping what enters each residual branch, backward replaying one
//! branch at a time.
//!
//! Chen et al. 2016, "Training deep nets with sublinear memory cost", with half a decoder layer as the
//! unit: `y = x + f(x)`, so that a replay never needs the values of `f(x)` and leaves out the product that
//! ends it. Both passes run the same kernels, so the gradients are those of a full tape to the bit;
//! memory is one branch's tape and `2 · blocks · tokens · d_model`.

use std::cell::Cell;

use burn::backend::Autodiff;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::FloatTensor;
use graft_adapters::Trainable;
use graft_data::Batch;
use graft_kernels::{Kernels, Ops, backward_from};
use graft_model::pass::Leaves;
use graft_model::stop::{self, Stopped};
use graft_model::{Block, Branch, Context, Keeping, Layout, Llama, Plain, Products, Seat, Taped};

use crate::loss::{LossHead, Measures, Turn};
use crate::offload::{Offload, OffloadError, Waiting};
use crate::parameters::Parameters;
use crate::sink::{OfExample, Sink};

/// What is kept between the passes. The gradients are the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpointing {
    /// What enters each branch; each is replayed for its gradient.
    Block,
    /// Besides, what its products and its attention gave, in the precision of their operands: only what
    /// lies between them is run again.
    Selective,
    /// Every branch's tape.
    None,
}

/// A micro-batch and how the blocks run over it.
#[derive(Clone, Copy)]
pub struct MicroBatch<'a> {
    /// Which one of the step.
    pub example: usize,
    /// Its rows.
    pub batch: &'a Batch,
    /// How the blocks run.
    pub context: Context<'a>,
}

/// Forward and backward passes of micro-batches.
pub struct Walk<'a, B: Kernels, P> {
    model: &'a Llama<B, P>,
    head: &'a dyn LossHead<B, P>,
    checkpointing: Checkpointing,
    /// Where inputs are kept; in memory where nowhere else.
    offload: Option<&'a Offload>,
    trains_embedding: bool,
    /// Layer and branch of the first trained tensor: what lies below needs no gradient.
    lowest: (usize, usize),
    /// Most memory of the device found in use.
    device_memory: Cell<Option<u64>>,
}

/// A branch that ran forward, with what its backward pass needs.
enum Kept<'a, B: Kernels> {
    Input(Waiting<'a, B>),
    Products(Waiting<'a, B>, Products<B>),
    Tape(Tape<B>),
}

struct Tape<B: Kernels> {
    input: FloatTensor<Autodiff<B>>,
    output: FloatTensor<Autodiff<B>>,
    leaves: Leaves<B>,
}

/// A micro-batch on its way.
struct Running<'a, B: Kernels> {
    of: MicroBatch<'a>,
    layout: Layout,
    /// The residual stream on the way there, its gradient on the way back: `[tokens, d_model]`.
    stream: FloatTensor<B>,
    kept: Vec<Kept<'a, B>>,
}

impl<'a, B: Kernels + Ops<Inner = B>> Running<'a, B> {
    /// What enters the first block.
    fn begin<P: Trainable<B>>(model: &Llama<B, P>, of: MicroBatch<'a>) -> Self {
        let Batch { positions, documents, .. } = of.batch;
        let layout = Layout::of_documents(&model.config, &model.rope, positions, documents);
        let stream = model.embedding.rows(&of.batch.tokens, &model.device);
        Self { of, layout, stream, kept: Vec::new() }
    }
}

impl<'a, B, P> Walk<'a, B, P>
where
    B: Kernels + Ops<Inner = B>,
    P: Trainable<B>,
{
    /// A walk over `model`, whose trainable tensors are `parameters`, that turns at `head`.
    pub fn new(
        model: &'a Llama<B, P>,
        parameters: &Parameters,
        head: &'a dyn LossHead<B, P>,
        checkpointing: Checkpointing,
    ) -> Self {
        let trains_embedding = parameters.slots().iter().any(|slot| slot.seat == Seat::Embedding);
        let lowest = if trains_embedding { (0, 0) } else { lowest_trained(model, parameters) };
        let device_memory = Cell::default();
        Self { model, head, checkpointing, offload: None, trains_embedding, lowest, device_memory }
    }

    /// This walk, with the inputs of blocks kept in `offload` on their way.
    #[must_use]
    pub fn with_inputs_in(mut self, offload: Option<&'a Offload>) -> Self {
        self.offload = offload;
        self
    }

    /// Most memory of the device found in use so far; `None` where it does not say. It is asked when most
    /// is kept: at the turn, and with each tape of the last block.
    pub fn device_memory(&self) -> Option<u64> {
        self.device_memory.get()
    }

    fn measure(&self) {
        let now = B::device_memory(&self.model.device);
        self.device_memory.set(self.device_memory.get().max(now));
    }

    /// Hands the gradient of `Σ loss · scale` to `sink`, and returns what the head measured of each micro-batch.
    /// All of them, one after another in the step, share each visit of a block; no gradient depends on how many do.
    ///
    /// # Errors
    /// The disk that should keep inputs does not; the process was asked to stop.
    pub fn run<E: From<OffloadError> + From<Stopped>>(
        &self,
        batches: &[MicroBatch<'_>],
        scale: f32,
        sink: &mut dyn Sink<B>,
    ) -> Result<Vec<Measures>, E> {
        let model = self.model;
        let tokens = batches.iter().map(|of| of.batch.len()).sum();
        let mut running: Vec<_> = batches.iter().map(|&of| Running::begin(model, of)).collect();
        for block in model.up(tokens) {
            stop::check()?;
            let layer = block.layer;
            let keeps = self.keeps(layer, running.len());
            for running in &mut running {
                for branch in Branch::BOTH {
                    let trains = (layer, branch as usize) >= self.lowest;
                    let keeps = trains.then_some(keeps);
                    self.forward(block, branch, keeps, running)?;
                }
            }
        }
        let measures = running.iter_mut().map(|running| self.turn(running, scale, sink)).collect();
        self.measure();
        for block in model.down_to(self.lowest.0, tokens) {
            stop::check()?;
            let layer = block.layer;
            for running in &mut running {
                for branch in Branch::BOTH.into_iter().rev() {
                    if (layer, branch as usize) >= self.lowest {
                        self.backward(block, branch, running, sink)?;
                    }
                }
            }
        }
        self.offload.inspect(|offload| offload.clear());
        if self.trains_embedding {
            for Running { of: MicroBatch { example, batch, .. }, stream, .. } in running {
                let gradients = model.embedding.rows_gradients(&batch.tokens, stream);
                OfExample { example, sink }.add_table(gradients);
            }
        }
        if let [first, .., last] | [first @ last] = batches {
            sink.finished(first.example..last.example + 1);
        }
        Ok(measures)
    }

    /// Where whole blocks are replayed, the last one's tapes are kept: they are wanted next.
    fn keeps(&self, layer: usize, running: usize) -> Checkpointing {
        let is_next = layer + 1 == self.model.blocks.len() && running == 1;
        match self.checkpointing {
            Checkpointing::Block if is_next => Checkpointing::None,
            other => other,
        }
    }

    /// Runs a branch and keeps what its gradient needs, or nothing where none is wanted.
    fn forward(
        &self,
        block: &Block<B, P>,
        branch: Branch,
        keeps: Option<Checkpointing>,
        running: &mut Running<'a, B>,
    ) -> Result<(), OffloadError> {
        let Running { of: MicroBatch { context, .. }, layout, stream, kept } = running;
        let input = stream.clone();
        let added = match keeps {
            Some(Checkpointing::None) => {
                let pass = Taped::new(*context, &P::trains);
                let tape = self.tape(block, branch, input, layout, pass);
                let added = tape.output.primitive.clone();
                kept.push(Kept::Tape(tape));
                added
            }
            Some(Checkpointing::Selective) => {
                let mut pass = Keeping::new(*context);
                let added = block.branch(branch, input.clone(), layout, &mut pass);
                let input = Waiting::new(input, self.offload)?;
                kept.push(Kept::Products(input, pass.into_products()));
                added
            }
            Some(Checkpointing::Block) => {
                kept.push(Kept::Input(Waiting::new(input.clone(), self.offload)?));
                block.branch(branch, input, layout, &mut Plain::new(*context))
            }
            None => block.branch(branch, input, layout, &mut Plain::new(*context)),
        };
        *stream = B::add(added, stream);
        Ok(())
    }

    fn turn(&self, running: &mut Running<'_, B>, scale: f32, sink: &mut dyn Sink<B>) -> Measures {
        let MicroBatch { example, batch, context } = running.of;
        let turn = Turn { batch, context, hidden: running.stream.clone() };
        let mut gradient = OfExample { example, sink };
        let (measures, d_hidden) = self.head.turn(self.model, turn, scale, &mut gradient);
        running.stream = d_hidden;
        measures
    }

    /// The trainable tensors' gradients leave by name, the input's joins what came from above.
    fn backward(
        &self,
        block: &Block<B, P>,
        branch: Branch,
        running: &mut Running<'a, B>,
        sink: &mut dyn Sink<B>,
    ) -> Result<(), OffloadError> {
        let Running { of: MicroBatch { example, context, .. }, layout, stream, kept } = running;
        let device = &self.model.device;
        let Tape { input, output, leaves } = match kept.pop().expect("one entry a branch") {
            Kept::Tape(tape) => tape,
            Kept::Input(input) => {
                let pass = Taped::replay(*context, &P::trains);
                self.tape(block, branch, input.take(device)?, layout, pass)
            }
            Kept::Products(input, products) => {
                let pass = Taped::recall(*context, &P::trains, products);
                self.tape(block, branch, input.take(device)?, layout, pass)
            }
        };
        if block.layer + 1 == self.model.blocks.len() {
            self.measure();
        }
        let gradients = backward_from::<B>(output, stream.clone());
        leaves.gradients(&gradients, |name, values| sink.add(*example, name, values));
        if let Some(dx) = <Autodiff<B> as AutodiffBackend>::grad(&input, &gradients) {
            *stream = B::add(dx, stream);
        }
        Ok(())
    }

    fn tape(
        &self,
        block: &Block<B, P>,
        branch: Branch,
        input: FloatTensor<B>,
        layout: &Layout,
        mut pass: Taped<'_, B>,
    ) -> Tape<B> {
        let input = <Autodiff<B> as AutodiffBackend>::from_inner(input);
        // Below the lowest trained tensor nobody asks.
        let is_last = (block.layer, branch as usize) == self.lowest;
        let input = if is_last && !self.trains_embedding { input } else { input.require_grad() };
        let output = block.branch(branch, input.clone(), layout, &mut pass);
        Tape { input, output, leaves: pass.into_leaves() }
    }
}

fn lowest_trained<B: Kernels, P>(model: &Llama<B, P>, parameters: &Parameters) -> (usize, usize) {
    let branches = parameters.slots().iter().filter_map(|slot| slot.seat.branch());
    let lowest = branches.min().map(|(layer, branch)| (layer, branch as usize));
    lowest.unwrap_or((model.blocks.len(), 0))
}
