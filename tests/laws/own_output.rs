//! A projection whose gradient reads what its own product gave has the right values of it, also at the end
//! of a branch, where nobody else reads them.

use burn::tensor::ops::{FloatTensor, FloatTensorOps};
use graft_adapters::Trainable;
use graft_data::Batch;
use graft_engine::Checkpointing;
use graft_engine::step::{Diverged, StepError};
use graft_kernels::{FrozenMatrix, Home, Kernels, Precision, in_f32};
use graft_model::load::Factory;
use graft_model::{
    Error, FrozenLinear, Llama, OwnOutput, Param, Pass, Projection, ProjectionKind, Seat, Site,
    Table,
};
use graft_tests::{Cpu, samples, tiny_config, trainer, uniform};

use super::checkpointing::full_tape;
use super::drawn::Lively;
use super::{bits, collate};

/// `y = (x·Wᵀ) ⊙ m` with `m` trained: its gradient is `Σ dy ⊙ (x·Wᵀ)` over the tokens.
#[derive(Clone)]
struct Scaled {
    base: FrozenLinear<Cpu>,
    m: Param<Cpu>,
    says: OwnOutput,
}

impl Projection<Cpu> for Scaled {
    fn forward<R: Pass<Inner = Cpu>>(
        &self,
        x: FloatTensor<R::On>,
        kind: ProjectionKind,
        pass: &mut R,
    ) -> FloatTensor<R::On> {
        use graft_kernels::Ops;
        let m = pass.param(&self.m);
        let m = R::On::float_reshape(m, [1, self.m.len()].into());
        let precision = pass.context().precision;
        let product = pass.output(kind, self.says, |output| {
            R::On::frozen_linear(x, self.base.weight(), precision, output)
        });
        in_f32::<R::On>(product, |product| R::On::float_mul(product, m))
    }

    fn frozen(&self) -> Option<&<Cpu as Kernels>::Frozen> {
        self.base.frozen()
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&mut Param<Cpu>)) {
        visit(&mut self.m);
    }
}

impl Trainable<Cpu> for Scaled {
    fn trains(seat: Seat) -> bool {
        matches!(seat, Seat::Projection(_))
    }
}

struct ScaledFactory(OwnOutput);

impl Factory<Cpu> for ScaledFactory {
    type Projection = Scaled;

    fn projection(&mut self, site: Site, weight: FrozenMatrix) -> Result<Scaled, Error> {
        let device = Default::default();
        let out = weight.shape()[0];
        let name = format!("{}.m.weight", site.module_name());
        let values = uniform(3, (site.layer * 7) as u64 + site.kind as u64, out);
        let values = values.iter().map(|value| 0.5 + value).collect();
        let m = Param::new(name, Seat::Projection(site), values, &[out], &device);
        Ok(Scaled { base: FrozenLinear::new(site, weight, Home::Device, &device), m, says: self.0 })
    }

    fn keeps(&self, _weight: &FrozenMatrix) -> bool {
        true
    }

    fn table(&mut self, _seat: Seat, weight: FrozenMatrix) -> Result<Table<Cpu>, Error> {
        Ok(Table::frozen(weight, &Default::default()))
    }
}

const EVERY: [Checkpointing; 3] =
    [Checkpointing::Block, Checkpointing::Selective, Checkpointing::None];

fn model(says: OwnOutput) -> Llama<Cpu, Scaled> {
    let device = Default::default();
    let mut factory = ScaledFactory(says);
    Llama::load(&tiny_config(false), &Lively(17), &mut factory, &device, &mut |_| ())
        .expect("every tensor is drawn")
}

fn two_rows() -> Batch {
    collate(&samples(&[11, 14], 101))
}

#[test]
fn a_projection_that_reads_its_own_output_has_it_under_every_checkpointing() {
    let batch = two_rows();
    for precision in [Precision::F32, Precision::Bf16] {
        let expected = full_tape(model(OwnOutput::Read), precision, &batch);
        for checkpointing in EVERY {
            let trainer = trainer(model(OwnOutput::Read), checkpointing, precision);
            let batches = std::slice::from_ref(&batch);
            let (_, found) = trainer.gradient(1, batches, batch.targets()).expect("finite");
            for slot in trainer.parameters.slots() {
                let [found, expected] = [&found, &expected].map(|all| &all[slot.range.clone()]);
                let what = format!("{}, {checkpointing:?}, {precision:?}", slot.name);
                assert!(found.iter().any(|&value| value != 0.0), "{what}");
                assert_eq!(bits(found), bits(expected), "{what}");
            }
        }
    }
}

#[test]
fn a_projection_that_says_it_does_not_and_does_is_stopped() {
    for checkpointing in [Checkpointing::Block, Checkpointing::Selective] {
        let mut trainer = trainer(model(OwnOutput::Unread), checkpointing, Precision::F32);
        let stopped = trainer.step(1, &[two_rows()]).expect_err("nobody has the values");
        let StepError::Diverged(Diverged::Gradient { norm, .. }) = stopped else {
            panic!("{checkpointing:?}: {stopped}")
        };
        assert!(norm.is_nan(), "{checkpointing:?}: {norm}");
    }
}
