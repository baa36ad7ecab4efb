//! The laws of training, each on models, adapters and rows of random sizes: what must not change a
//! result does not, most of it to the bit.

#[path = "laws/adapters.rs"]
mod adapters;
#[path = "laws/batches.rs"]
mod batches;
#[path = "laws/checkpointing.rs"]
mod checkpointing;
#[path = "laws/drawn.rs"]
mod drawn;
#[path = "laws/heads.rs"]
mod heads;
#[path = "laws/own_output.rs"]
mod own_output;
#[path = "laws/runs.rs"]
mod runs;
#[path = "laws/sinks.rs"]
mod sinks;
#[path = "laws/starts.rs"]
mod starts;

use drawn::Drawn;
use graft_data::{Batch, Sample};
use graft_engine::Checkpointing;
use graft_engine::parameters::Slot;
use graft_engine::score::{RowScore, Scorer};
use graft_kernels::Precision;
use graft_model::{Llama, Projection};
use graft_tests::{Cpu, trainer};

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A mean loss and its gradient.
struct Slope {
    loss: f64,
    gradient: Vec<f32>,
    slots: Vec<Slot>,
}

impl Slope {
    fn bits(&self) -> (u64, Vec<u32>) {
        (self.loss.to_bits(), bits(&self.gradient))
    }

    /// The largest distance between tensors of two gradients, in lengths of the tensor; one that is
    /// mere cancellation is held against the whole gradient.
    fn distance(&self, other: &Self) -> f64 {
        let length = |values: &[f32]| {
            values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
        };
        let whole = length(&self.gradient);
        let of_slot = |slot: &Slot| {
            let [a, b] = [self, other].map(|slope| &slope.gradient[slot.range.clone()]);
            let apart: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
            length(&apart) / (length(a) + 1e-2 * whole).max(f64::MIN_POSITIVE)
        };
        self.slots.iter().map(of_slot).fold(0.0, f64::max)
    }
}

/// The gradient of a step over micro-batches.
fn slope(drawn: &Drawn, checkpointing: Checkpointing, batches: &[Batch]) -> Slope {
    let trainer = trainer(drawn.adapted(0.5), checkpointing, drawn.precision);
    let targets = batches.iter().map(Batch::targets).sum();
    let (loss, gradient) = trainer.gradient(1, batches, targets).expect("finite");
    Slope { loss, gradient, slots: trainer.parameters.slots().to_vec() }
}

fn collate(rows: &[Sample]) -> Batch {
    graft_tests::batch(rows)
}

fn scores<P: Projection<Cpu>>(
    model: &Llama<Cpu, P>,
    precision: Precision,
    rows: &[Sample],
) -> Vec<(u64, usize)> {
    let scores = Scorer { model, precision }.score(rows, &mut |_| ()).expect("losses are numbers");
    scores.iter().map(|&RowScore { nll, targets }| (nll.to_bits(), targets)).collect()
}
