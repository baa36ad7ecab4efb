//! The walk over the blocks: forward keeping block inputs, backward replaying one block at a time.
//!
//! Chen et al. 2016, "Training deep nets with sublinear memory cost", with the decoder layer as the
//! unit. Both passes run the same kernels, so the gradients are those of a full tape to the bit; memory
//! is one block's tape and `blocks × tokens × d_model`.

use burn::backend::Autodiff;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::FloatTensor;
use graft_adapters::Trainable;
use graft_data::Batch;
use graft_kernels::{Kernels, Ops, backward_from};
use graft_model::param::host_values;
use graft_model::pass::Leaves;
use graft_model::site::EMBED_TOKENS;
use graft_model::{Block, Context, Layout, Llama, Plain, Taped};

use super::loss::{NextToken, Targets};
use super::parameters::{Gradient, Parameters};

/// What is kept between the passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpointing {
    /// Block inputs; each block is replayed for its gradient.
    Block,
    /// Every block's tape.
    None,
}

/// A forward and backward pass of one micro-batch.
pub struct Walk<'a, B: Kernels, P> {
    /// The model.
    pub model: &'a Llama<B, P>,
    /// Its trainable tensors.
    pub parameters: &'a Parameters,
    /// Precision and noise.
    pub context: Context<'a>,
    /// What is kept.
    pub checkpointing: Checkpointing,
}

/// A block that ran forward, with what its backward pass needs.
enum Visit<B: Kernels> {
    Input(FloatTensor<B>),
    Tape(Tape<B>),
}

struct Tape<B: Kernels> {
    input: FloatTensor<Autodiff<B>>,
    output: FloatTensor<Autodiff<B>>,
    leaves: Leaves<B>,
}

impl<B, P> Walk<'_, B, P>
where
    B: Kernels + Ops<Inner = B>,
    P: Trainable<B>,
{
    /// Adds the gradient of `Σ loss · scale` to `gradient` and returns `Σ loss` over the targets.
    pub fn run(&self, batch: &Batch, scale: f32, gradient: &mut Gradient<'_>) -> f64 {
        let model = self.model;
        let layout =
            Layout::of_documents(&model.config, &model.rope, &batch.positions, &batch.documents);
        let lowest = self.lowest_trained();
        let mut x = model.embedding.rows(&batch.tokens, &model.device); // [tokens, d_model]
        let mut visits = Vec::with_capacity(model.blocks.len());
        for (index, block) in model.blocks.iter().enumerate() {
            if index < lowest {
                x = block.forward(x, &layout, &mut Plain::new(self.context));
            } else if self.keeps_tape(index) {
                let tape = self.tape(block, x, &layout);
                x = tape.output.primitive.clone();
                visits.push(Visit::Tape(tape));
            } else {
                visits.push(Visit::Input(x.clone()));
                x = block.forward(x, &layout, &mut Plain::new(self.context));
            }
        }
        let targets = Targets::of(batch);
        let head = NextToken { model, precision: self.context.precision };
        let (loss, mut dx) = head.loss_and_gradient(x, &targets, scale, gradient);
        for block in model.blocks[lowest..].iter().rev() {
            let tape = match visits.pop().expect("one visit a block") {
                Visit::Tape(tape) => tape,
                Visit::Input(input) => self.tape(block, input, &layout),
            };
            dx = backward(tape, dx, gradient);
        }
        if gradient.wants(EMBED_TOKENS) {
            self.embedding_gradient(&batch.tokens, dx, gradient);
        }
        loss
    }

    /// The last block's tape is kept in any case: it would be replayed at once.
    fn keeps_tape(&self, index: usize) -> bool {
        self.checkpointing == Checkpointing::None || index + 1 == self.model.blocks.len()
    }

    /// Blocks below the first trained tensor need no gradient.
    fn lowest_trained(&self) -> usize {
        if self.parameters.slot(EMBED_TOKENS).is_some() {
            return 0;
        }
        let trained = |layer: usize| {
            let prefix = format!("model.layers.{layer}.");
            self.parameters.slots().iter().any(|slot| slot.name.starts_with(&prefix))
        };
        (0..self.model.blocks.len()).find(|&l| trained(l)).unwrap_or(self.model.blocks.len())
    }

    fn tape(&self, block: &Block<B, P>, input: FloatTensor<B>, layout: &Layout) -> Tape<B> {
        let mut pass = Taped::new(self.context, &P::trains);
        let input = <Autodiff<B> as AutodiffBackend>::from_inner(input).require_grad();
        let output = block.forward(input.clone(), layout, &mut pass);
        Tape { input, output, leaves: pass.into_leaves() }
    }

    /// Adds each token's gradient to its row, in token order.
    fn embedding_gradient(&self, tokens: &[u32], dx: FloatTensor<B>, gradient: &mut Gradient<'_>) {
        let d_model = self.model.config.d_model;
        let mut table = vec![0.0; self.model.config.vocab_size * d_model];
        let dx = host_values::<B>(dx);
        for (&token, dx) in tokens.iter().zip(dx.chunks_exact(d_model)) {
            let row = &mut table[token as usize * d_model..][..d_model];
            for (sum, value) in row.iter_mut().zip(dx) {
                *sum += value;
            }
        }
        gradient.add(EMBED_TOKENS, &table);
    }
}

/// One block's backward pass: its trainable tensors' gradients leave by name, its input's is returned.
fn backward<B: Kernels>(
    tape: Tape<B>,
    above: FloatTensor<B>,
    gradient: &mut Gradient<'_>,
) -> FloatTensor<B> {
    let Tape { input, output, leaves } = tape;
    let gradients = backward_from::<B>(output, above);
    leaves.gradients(&gradients, |name, values| gradient.add(name, &values));
    <Autodiff<B> as AutodiffBackend>::grad(&input, &gradients)
        .expect("a block's output depends on its input")
}
