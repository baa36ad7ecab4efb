//! Gradients leave the blocks by example and name: another sink is an addition, and the walk takes it as it is.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::tensor::ops::FloatTensor;
use graft_adapters::Trainable;
use graft_data::Batch;
use graft_engine::parameters::{Parameters, clip_factor};
use graft_engine::sink::Sink;
use graft_engine::step::Trainer;
use graft_engine::{Checkpointing, Gradient};
use graft_kernels::Precision;
use graft_kernels::adamw::GradientSums;
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::Llama;
use graft_model::param::host_values;
use graft_tests::{Cpu, full_model, lora_model, samples, tiny_config, tiny_lora, trainer};

use super::collate;

/// What came of each example: sums of values by name, and how often it was said to be whole.
#[derive(Default)]
struct Counting {
    trained: Vec<String>,
    sums: BTreeMap<(usize, String), Vec<f64>>,
    finished: Vec<usize>,
}

impl Counting {
    fn of(&mut self, example: usize, name: &str, len: usize) -> &mut Vec<f64> {
        assert!(!self.finished.contains(&example), "{name} of {example}, which was whole");
        let sum = self.sums.entry((example, name.to_owned())).or_default();
        sum.resize(len.max(sum.len()), 0.0);
        sum
    }

    fn norm(&self, example: usize) -> f64 {
        let of = self.sums.iter().filter(|((of, _), _)| *of == example);
        of.flat_map(|(_, values)| values).map(|value| value * value).sum::<f64>().sqrt()
    }
}

impl Sink<Cpu> for Counting {
    fn wants(&self, name: &str) -> bool {
        self.trained.iter().any(|trained| trained == name)
    }

    fn add(&mut self, example: usize, name: &str, gradient: FloatTensor<Cpu>) {
        let values = host_values::<Cpu>(gradient);
        let sums = self.of(example, name, values.len());
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(value));
    }

    fn add_rows(&mut self, example: usize, name: &str, ids: &[u32], gradient: FloatTensor<Cpu>) {
        let values = host_values::<Cpu>(gradient);
        let width = values.len() / ids.len();
        let rows = ids.iter().max().map_or(0, |&last| last as usize + 1);
        let sums = self.of(example, name, rows * width);
        for (&id, row) in ids.iter().zip(values.chunks(width)) {
            let sums = &mut sums[id as usize * width..][..width];
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
        }
    }

    fn finished(&mut self, examples: Range<usize>) {
        self.finished.extend(examples);
    }
}

/// Sums of examples, none of which is longer than `longest`.
struct Clipping<'a> {
    parameters: &'a Parameters,
    longest: f64,
    running: BTreeMap<usize, Gradient<'a, Cpu>>,
    sum: Gradient<'a, Cpu>,
}

impl<'a> Clipping<'a> {
    fn new(parameters: &'a Parameters, longest: f64) -> Self {
        let sum = Gradient::new(parameters, &Default::default());
        Self { parameters, longest, running: BTreeMap::new(), sum }
    }

    fn of(&mut self, example: usize) -> &mut Gradient<'a, Cpu> {
        let fresh = || Gradient::new(self.parameters, &Default::default());
        self.running.entry(example).or_insert_with(fresh)
    }
}

impl Sink<Cpu> for Clipping<'_> {
    fn wants(&self, name: &str) -> bool {
        self.sum.wants(name)
    }

    fn add(&mut self, example: usize, name: &str, gradient: FloatTensor<Cpu>) {
        self.of(example).add(example, name, gradient);
    }

    fn add_rows(&mut self, example: usize, name: &str, ids: &[u32], gradient: FloatTensor<Cpu>) {
        self.of(example).add_rows(example, name, ids, gradient);
    }

    fn finished(&mut self, examples: Range<usize>) {
        for example in examples {
            let own = self.running.remove(&example).expect("every example trains something");
            let own = own.into_sums();
            self.sum.sums_mut().add_scaled(&own, clip_factor(own.norm(), Some(self.longest)));
        }
    }
}

fn batches() -> Vec<Batch> {
    samples(&[12, 17, 9, 14, 5], 101).chunks(1).map(collate).collect()
}

/// The gradient of each example, as from a step of its own, divided by so many targets.
fn alone<P: Trainable<Cpu>>(trainer: &Trainer<Cpu, P>, targets: usize) -> Vec<Vec<f32>> {
    let of = |batch: &Batch| {
        trainer.gradient(1, std::slice::from_ref(batch), targets).expect("finite").1
    };
    batches().iter().map(of).collect()
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// Every tensor of every example arrives, however micro-batches share visits.
fn counted<P: Trainable<Cpu> + Clone>(model: &Llama<Cpu, P>, checkpointing: Checkpointing) {
    for visit in [1, 2, 5] {
        let mut trainer = trainer(model.clone(), checkpointing, Precision::F32);
        trainer.options.micro_batches_per_visit = visit;
        let slots = trainer.parameters.slots();
        let trained = slots.iter().map(|slot| slot.name.clone()).collect();
        let mut sink = Counting { trained, ..Counting::default() };
        trainer.passes(1, &batches(), 7, &mut sink).expect("finite");
        assert_eq!(sink.finished, [0, 1, 2, 3, 4], "visits of {visit}");
        assert_eq!(sink.sums.len(), 5 * slots.len(), "tensors of five examples");
        for (example, expected) in alone(&trainer, 7).iter().enumerate() {
            let (found, expected) = (sink.norm(example), norm(expected));
            // f32 sums of a table's rows beside f64 ones.
            assert!((found / expected - 1.0).abs() < 1e-5, "{example}: {found} is not {expected}");
        }
    }
}

#[test]
fn every_example_gives_each_tensor_its_own_gradient_and_says_when_it_is_done() {
    let config = tiny_config(false);
    let adapted = lora_model(&config, &tiny_lora(&config, 0.0), Some(AbsmaxFormat::Double));
    for checkpointing in [Checkpointing::Block, Checkpointing::Selective, Checkpointing::None] {
        counted(&adapted, checkpointing);
        for tied in [false, true] {
            counted(&full_model(&tiny_config(tied)), checkpointing);
        }
    }
}

#[test]
fn a_sink_clips_by_example_with_what_the_sums_offer() {
    let config = tiny_config(false);
    let mut trainer = trainer(
        lora_model(&config, &tiny_lora(&config, 0.0), None),
        Checkpointing::Selective,
        Precision::F32,
    );
    let alone = alone(&trainer, 1);
    // Some are longer and some are shorter.
    let mut norms: Vec<f64> = alone.iter().map(|values| norm(values)).collect();
    norms.sort_by(f64::total_cmp);
    let longest = norms[2];
    let mut expected = vec![0.0; alone[0].len()];
    for values in &alone {
        let factor = clip_factor(norm(values), Some(longest));
        expected.iter_mut().zip(values).for_each(|(sum, value)| *sum += value * factor);
    }
    for visit in [1, 3] {
        trainer.options.micro_batches_per_visit = visit;
        let mut sink = Clipping::new(&trainer.parameters, longest);
        trainer.passes(1, &batches(), 1, &mut sink).expect("finite");
        let mut sums = sink.sum.into_sums();
        let found = sums.values();
        let apart: Vec<f32> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
        // The norm that clips is summed in another order here.
        assert!(norm(&apart) < 1e-6 * norm(&expected), "visits of {visit}: {}", norm(&apart));
        // Noise goes onto every value at its place.
        sums.change(&mut |first, values| {
            values.iter_mut().zip(first..).for_each(|(value, place)| *value += place as f32);
        });
        let noised = found.iter().zip(0_u16..).map(|(value, place)| value + f32::from(place));
        assert_eq!(sums.values(), noised.collect::<Vec<f32>>());
    }
}
