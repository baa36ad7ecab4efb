//! Threads, an interruption and a cache change nothing.

use std::convert::Infallible;
use std::sync::Barrier;

use graft_adapters::{LoraLinear, Trainable};
use graft_data::Batch;
use graft_engine::Checkpointing;
use graft_engine::generate::{Generator, Sampling};
use graft_engine::optimizer::{AdamW, AdamWConfig, Moments, StateFormat};
use graft_engine::step::Trainer;
use graft_kernels::Precision;
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::param::host_values;
use graft_model::{Context, Layout, Llama};
use graft_tests::{
    ADAMW, Cpu, Sizes, full_model, lora_model, samples, tiny_config, tiny_lora, trainer,
};
use proptest::prelude::*;

use super::drawn::{Drawn, config, drawn};
use super::{bits, collate};

fn start(drawn: &Drawn, states: StateFormat) -> Trainer<Cpu, LoraLinear<Cpu>> {
    let mut trainer = trainer(drawn.adapted(0.5), Checkpointing::Block, drawn.precision);
    let config = AdamWConfig { states, ..ADAMW };
    trainer.optimizer = AdamW::new(config, &trainer.parameters, &trainer.model.device);
    trainer
}

fn states() -> impl Strategy<Value = StateFormat> {
    prop_oneof![Just(StateFormat::F32), Just(StateFormat::Blockwise8)]
}

/// Two micro-batches of the step's own rows.
fn batches(drawn: &Drawn, step: u64) -> Vec<Batch> {
    let mut rows = drawn.rows();
    let by = step as usize % rows.len();
    rows.rotate_left(by);
    rows.chunks(rows.len().div_ceil(2)).map(collate).collect()
}

/// Loss and norm of steps that were taken.
fn run(
    trainer: &mut Trainer<Cpu, LoraLinear<Cpu>>,
    drawn: &Drawn,
    steps: std::ops::RangeInclusive<u64>,
) -> Vec<[u64; 2]> {
    let step = |step| {
        let outcome = trainer.step(step, &batches(drawn, step)).expect("finite");
        [outcome.loss, outcome.grad_norm].map(f64::to_bits)
    };
    steps.map(step).collect()
}

/// Everything that training changes.
fn state(trainer: &mut Trainer<Cpu, LoraLinear<Cpu>>) -> (Vec<u32>, Vec<Moments>) {
    (bits(&trainer.values()), moments(trainer))
}

fn moments(trainer: &Trainer<Cpu, LoraLinear<Cpu>>) -> Vec<Moments> {
    let tensors = 0..trainer.parameters.slots().len();
    tensors.map(|tensor| trainer.optimizer.moments(tensor).into_owned()).collect()
}

/// Wide and long enough that products, attention and norms are split among threads.
fn wide() -> impl Strategy<Value = Drawn> {
    let lengths = prop::collection::vec(30_usize..90, 2..4);
    (drawn(1..2), lengths, 60_usize..130).prop_map(|(drawn, lengths, d_model)| {
        let sizes = Sizes { d_model, d_ff: d_model + 37, layers: 2, ..drawn.sizes };
        Drawn { sizes, lengths, first: drawn.first % 14, ..drawn }
    })
}

proptest! {
    #![proptest_config(config(8))]

    #[test]
    fn the_number_of_threads_does_not_change_a_bit(drawn in wide(), states in states()) {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("a pool").install(|| {
                let mut trainer = start(&drawn, states);
                (run(&mut trainer, &drawn, 1..=2), state(&mut trainer))
            })
        };
        let one = run(1);
        for threads in [2, 3, 4] {
            prop_assert_eq!(&one, &run(threads), "{} threads", threads);
        }
    }
}

/// Two steps of full training, and of the adapters of a model in NF4.
fn two_runs() -> [Box<dyn Fn(u64) -> Vec<u32> + Sync>; 2] {
    /// What a run of so many steps ends with.
    fn ends<P: Trainable<Cpu>>(
        model: Llama<Cpu, P>,
        checkpointing: Checkpointing,
        precision: Precision,
        steps: u64,
    ) -> Vec<u32> {
        let mut trainer = trainer(model, checkpointing, precision);
        for step in 1..=steps {
            let rows = samples(&[40 + step as usize, 17, 33], 101);
            let batches: Vec<Batch> = rows.chunks(2).map(collate).collect();
            trainer.step(step, &batches).expect("finite");
        }
        bits(&trainer.values())
    }
    let config = tiny_config(true);
    let lora = tiny_lora(&config, 0.1);
    let full = tiny_config(false);
    [
        Box::new(move |steps| {
            let model = lora_model(&config, &lora, Some(AbsmaxFormat::Double));
            ends(model, Checkpointing::Block, Precision::Bf16, steps)
        }),
        Box::new(move |steps| ends(full_model(&full), Checkpointing::None, Precision::F32, steps)),
    ]
}

#[test]
fn two_runs_at_once_in_one_process_end_with_the_bytes_that_each_has_alone() {
    const STEPS: u64 = 6;
    let runs = two_runs();
    let alone = runs.each_ref().map(|run| run(STEPS));
    assert!(alone[0] != runs[0](STEPS - 1), "steps change what is trained");
    let both = |together: &Barrier| {
        std::thread::scope(|scope| {
            let threads = runs.each_ref().map(|run| {
                scope.spawn(move || {
                    together.wait();
                    run(STEPS)
                })
            });
            threads.map(|thread| thread.join().expect("no panic"))
        })
    };
    assert!(both(&Barrier::new(2)) == alone, "on two threads");
    // On one thread in turn, where what it keeps of one model is there for the other.
    let turns: [_; 2] = std::array::from_fn(|_| runs.each_ref().map(|run| run(STEPS)));
    assert!(turns.iter().all(|turn| *turn == alone), "in turn");
}

proptest! {
    #![proptest_config(config(16))]

    #[test]
    fn a_resumed_run_is_the_uninterrupted_one_to_the_bit(
        drawn in drawn(2..5),
        states in states(),
        stop in 0_u64..6,
    ) {
        let mut whole = start(&drawn, states);
        let expected = run(&mut whole, &drawn, 1..=5);
        let mut before = start(&drawn, states);
        let mut found = run(&mut before, &drawn, 1..=stop.min(5));
        // What a checkpoint holds: values, moments and the step.
        let values = before.values();
        let moments = moments(&before);
        let steps = before.optimizer.steps();
        drop(before);
        let mut after = start(&drawn, states);
        let Ok(()) = after.optimizer.restore(steps, moments.into_iter().map(Ok::<_, Infallible>));
        after.set_values(&values);
        found.extend(run(&mut after, &drawn, steps + 1..=5));
        prop_assert_eq!(found, expected);
        prop_assert_eq!(state(&mut after), state(&mut whole));
    }

    #[test]
    fn a_cache_gives_the_tokens_of_a_pass_without(drawn in drawn(1..4)) {
        const NEW: usize = 12;
        let model = drawn.adapted(0.5);
        let precision = drawn.precision;
        let prompts: Vec<Vec<u32>> = drawn.rows().into_iter().map(|row| row.tokens).collect();
        let generator = Generator { model: &model, precision, stop: &[] };
        let answers = generator.run(&prompts, NEW, &Sampling::greedy(), &mut |_, _| true);
        let answers = answers.expect("drawn weights are finite").into_iter();
        for (prompt, answer) in prompts.iter().zip(answers.map(|answer| answer.tokens)) {
            prop_assert_eq!(answer.len(), NEW);
            let tokens = [&prompt[..], &answer[..NEW - 1]].concat();
            let positions: Vec<u32> = (0..tokens.len() as u32).collect();
            let document = 0..tokens.len();
            let layout =
                Layout::of_documents(&model.config, &model.rope, &positions, &[document]);
            let hidden = model.hidden(&tokens, &layout, Context::evaluation(precision));
            let logits = host_values::<Cpu>(model.logits(&hidden, precision));
            let rows = logits.chunks(model.config.vocab_size).skip(prompt.len() - 1);
            let chosen: Vec<u32> = rows.map(|row| Sampling::greedy().choose(row, &[], 0, 0)).collect();
            prop_assert_eq!(chosen, answer);
        }
    }
}
