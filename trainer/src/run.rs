//! A training run from plan to report.
//!
//! Read the plan's data, build the model, score it, take the steps, score it again, write what was
//! learnt. Everything that a step depends on is a function of the seed and the step's number, so a
//! killed run goes on from its last checkpoint to the same bytes.

mod error;
mod finish;
mod going_on;
mod inputs;
mod programs;
mod scores;
mod stage;
mod state;
mod training;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use graft_adapters::peft::WithTables;
use graft_adapters::{AnyMethod, Began, Fresh, FullFactory, LoraFactory, Parts, PeftAdapter};
use graft_data::{CounterRng, Purpose};
use graft_kernels::Home;
use graft_model::checkpoint::Checkpoint;
use graft_model::load::{Factory, Weights, left_to_quantise};
use graft_model::{Llama, Seat};
use graft_recipes::Init;

pub use error::RunError;
pub use finish::Outcome;
pub use stage::{Part, Stage};

use crate::device::{Backend, OnBackend};
use crate::ledger::{Asked, Available, Ledger};
use crate::memory::give_freed_memory_back;
use crate::plan::{LoadedData, Plan, Resolved};
use crate::progress::{Progress, Unit, Voice};
use crate::random_weights::RandomWeights;
use crate::run_folder::manifest::Inputs;
use going_on::GoingOn;

/// How to run a plan.
#[derive(Clone, Copy)]
pub struct RunOptions {
    /// Whether a run that the output folder holds is gone on with.
    pub resume: bool,
    /// Memory and disk that it may take.
    pub room: Available,
    /// Whether the device was asked for by name, and not found by looking for the best.
    pub named_device: bool,
    /// How it says how far it is.
    pub voice: Voice,
}

/// Trains as planned.
///
/// # Errors
/// See [`RunError`]; after any of them `--resume` goes on from the last checkpoint.
pub fn run(resolved: Resolved, options: RunOptions) -> Result<Outcome, RunError> {
    let Resolved { mut plan, tokenizer } = resolved;
    let data = plan.load_data(tokenizer)?;
    let inputs = inputs::inputs(&plan, &data)?;
    let going_on = GoingOn::find(&plan, &inputs, options)?;
    let schedule = data.schedule(&plan)?;
    plan.check_length(&schedule)?;
    if let Some(going_on) = &going_on {
        let (step, total) = (going_on.step(), plan.total_steps(&schedule));
        if step > total {
            return Err(RunError::Beyond { path: plan.output_dir, step, total });
        }
    }
    for (key, counts) in &data.counts {
        if !counts.are_plain() {
            options.voice.note(&format!("{key}: {counts}"));
        }
    }
    for warning in &data.warnings {
        options.voice.note(&format!("warning: {warning}"));
    }
    let mut asked = Asked::by(&plan, &data)?;
    Ledger::settle(&mut asked, &options.room);
    plan.checkpointing = asked.checkpointing;
    Ledger::for_run(&asked).check(&asked, &options.room)?;
    let home = if asked.streams { Home::Host } else { Home::Device };
    give_freed_memory_back();
    let (voice, began) = (options.voice, Began::new());
    let training = Training { plan: &plan, data: &data, inputs, going_on, home, began, voice };
    let work = || plan.device.run(training);
    if plan.device.is_cpu() { work() } else { unless_lost(&plan.device.name(), work) }
}

/// Does work on a device whose driver has no other way to say that it is gone than a panic.
fn unless_lost<T>(device: &str, work: impl FnOnce() -> Result<T, RunError>) -> Result<T, RunError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let reason = said(panic.as_ref()).unwrap_or("it does not say why").to_owned();
        Err(RunError::Device { device: device.to_owned(), reason })
    })
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> Option<&str> {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied())
}

/// A run whose data is read and whose room is there.
struct Training<'a> {
    plan: &'a Plan,
    data: &'a LoadedData,
    inputs: Inputs,
    /// The run that goes on; `None` where it begins.
    going_on: Option<GoingOn>,
    /// Where the frozen weights of its blocks live.
    home: Home,
    /// What its adapters began as, where that is a part of the weights.
    began: Began,
    voice: Voice,
}

impl OnBackend for Training<'_> {
    type Output = Result<Outcome, RunError>;

    fn on<B: Backend>(self, device: &B::Device) -> Self::Output {
        let (plan, home, voice) = (self.plan, self.home, self.voice);
        let nf4 = left_to_quantise(&plan.config, plan.nf4);
        match &plan.method {
            AnyMethod::Full(_) => {
                let model = load::<B, _>(voice, plan, None, &mut FullFactory { device }, device)?;
                training::train(self, model)
            }
            AnyMethod::Lora(config) => {
                let fresh = Fresh(|seat, len| initial(plan.seed, seat, len));
                if let Some(part) = config.part {
                    let mut parts = Parts::new(part, config, fresh);
                    let start = &mut parts;
                    let mut factory = LoraFactory { config, start, nf4, home, device };
                    let model = load::<B, _>(voice, plan, None, &mut factory, device)?;
                    return training::train(Self { began: parts.into_began(), ..self }, model);
                }
                let Some(folder) = &plan.init_from else {
                    let mut factory = LoraFactory { config, start: fresh, nf4, home, device };
                    let model = load::<B, _>(voice, plan, None, &mut factory, device)?;
                    return training::train(self, model);
                };
                let start = PeftAdapter::open(folder)?;
                start.check_model(&plan.config)?;
                start.check_same(config)?;
                let mut factory = LoraFactory { config, start: &start, nf4, home, device };
                let model = load::<B, _>(voice, plan, Some(&start), &mut factory, device)?;
                training::train(self, model)
            }
        }
    }
}

/// Uniform numbers for an adapter's first values, a function of the seat alone.
fn initial(seed: u64, seat: Seat, len: usize) -> Vec<f32> {
    let (layer, kind) = match seat {
        Seat::Projection(site) => (site.layer as u64, site.kind as u64),
        // Beyond every layer.
        Seat::Embedding => (u64::MAX, 0),
        Seat::Head => (u64::MAX, 1),
        Seat::Norm(..) | Seat::LastNorm => (u64::MAX, 2),
    };
    let random = CounterRng::new(seed, Purpose::AdapterInit, layer, kind);
    (0..len as u64).map(|i| random.uniform_f32_at(i)).collect()
}

/// Builds the plan's model, with the tables of an adapter that it goes on from, and with progress by layers.
fn load<B: Backend, F: Factory<B>>(
    voice: Voice,
    plan: &Plan,
    start: Option<&PeftAdapter>,
    factory: &mut F,
    device: &B::Device,
) -> Result<Llama<B, F::Projection>, RunError> {
    match plan.init {
        Init::Random => {
            let weights = RandomWeights::new(&plan.config, plan.seed);
            build(voice, plan, &weights, start, factory, device)
        }
        Init::Checkpoint => {
            let checkpoint = Checkpoint::open(&plan.model_folder)?;
            checkpoint.verify(&plan.config)?;
            build(voice, plan, &checkpoint, start, factory, device)
        }
    }
}

fn build<B: Backend, F: Factory<B>>(
    voice: Voice,
    plan: &Plan,
    base: &impl Weights,
    start: Option<&PeftAdapter>,
    factory: &mut F,
    device: &B::Device,
) -> Result<Llama<B, F::Projection>, RunError> {
    let weights = match start {
        Some(start) => start.weights(base, &plan.config),
        None => WithTables::of_base(base, &plan.config),
    };
    let config = plan.method.model_config(&plan.config);
    let quantises = left_to_quantise(&plan.config, plan.nf4).is_some();
    let title = if quantises { "load and quantise" } else { "load" };
    let progress = Progress::new(voice, title, plan.config.layers as u64, Unit::Count("layers"));
    let fields = Default::default();
    let model = Llama::load(&config, &weights, factory, device, &mut |done| {
        progress.step(done as u64, &fields);
    })?;
    progress.finish(&plan.model_folder.display());
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_lost_ends_a_run_with_a_sentence() {
        let lost = |reason: &str| unless_lost::<()>("wgpu:0 (RTX)", || panic!("{reason}"));
        let error = lost("the buffer is gone").unwrap_err();
        assert!(!error.is_wrong_input());
        insta::assert_snapshot!(
            error,
            @"wgpu:0 (RTX) stopped computing: the buffer is gone. The last checkpoint is whole: go on from it with `--resume`, or on another device that `--device` names"
        );
        let other = unless_lost::<()>("wgpu:0", || Err(RunError::NothingTrained)).unwrap_err();
        assert!(matches!(other, RunError::NothingTrained), "{other}");
    }
}
