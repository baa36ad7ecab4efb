//! A start sees each weight before it is quantised, and may keep part of it for the update.

use graft_adapters::{Beginning, LoraConfig, LoraFactory, LoraLinear, Start};
use graft_kernels::nf4::AbsmaxFormat;
use graft_kernels::{FrozenMatrix, Home, Precision};
use graft_model::load::{Factory, Weights};
use graft_model::{Error, Llama, Projection, Site};
use graft_tests::{Cpu, samples, uniform};
use proptest::prelude::*;

use super::drawn::{Drawn, Lively, Of, config, drawn};
use super::scores;

/// Moves an update of random values out of the weight: what is computed first is the base.
#[derive(Clone, Copy)]
struct Moved {
    seed: u64,
    scale: f64,
}

impl Moved {
    fn of(drawn: &Drawn) -> Self {
        let lora = drawn.lora();
        let size = lora.usual_size().expect("some projection is adapted");
        Self { seed: drawn.seed, scale: lora.scaling.factor(size) }
    }

    fn matrices(&self, site: Site, rank: usize, [out, inner]: [usize; 2]) -> [Vec<f32>; 2] {
        let draw = |part: u64, len: usize| -> Vec<f32> {
            let stream = (site.layer * 14) as u64 + site.kind as u64 * 2 + part;
            let bound = 0.3 / (inner as f32).sqrt();
            uniform(self.seed, stream, len).iter().map(|v| (2.0 * v - 1.0) * bound).collect()
        };
        [draw(0, rank * inner), draw(1, out * rank)]
    }

    /// What of a weight stays when the update is taken out of it.
    fn rest(&self, weight: &FrozenMatrix, rank: usize, [a, b]: &[Vec<f32>; 2]) -> FrozenMatrix {
        let [out, inner] = weight.shape();
        let mut rest = weight.to_f32();
        for (row, values) in rest.chunks_exact_mut(inner).enumerate() {
            for (column, value) in values.iter_mut().enumerate() {
                let products = (0..rank)
                    .map(|i| f64::from(b[row * rank + i]) * f64::from(a[i * inner + column]));
                *value = (f64::from(*value) - self.scale * products.sum::<f64>()) as f32;
            }
        }
        FrozenMatrix::from_f32(out, inner, &rest)
    }
}

impl Start for Moved {
    fn begin(&mut self, site: Site, rank: usize, weight: FrozenMatrix) -> Beginning {
        let matrices = self.matrices(site, rank, weight.shape());
        let weight = self.rest(&weight, rank, &matrices);
        let [a, b] = matrices;
        Beginning { a, b, magnitude: None, weight }
    }

    fn keeps_weights(&self) -> bool {
        false
    }
}

/// The same updates beside weights that are taken as they come.
struct Beside(Moved);

impl Start for Beside {
    fn begin(&mut self, site: Site, rank: usize, weight: FrozenMatrix) -> Beginning {
        let [a, b] = self.0.matrices(site, rank, weight.shape());
        Beginning { a, b, magnitude: None, weight }
    }
}

/// Weights out of which the updates were taken before.
struct Rests<'a> {
    weights: Lively,
    moved: Moved,
    lora: &'a LoraConfig,
}

impl Weights for Rests<'_> {
    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<FrozenMatrix, Error> {
        let weight = self.weights.matrix(name, shape)?;
        let site = Site::from_checkpoint_name(name);
        let Some((site, size)) = site.and_then(|site| Some((site, self.lora.sites.get(&site)?)))
        else {
            return Ok(weight);
        };
        let rank = size.rank.get();
        Ok(self.moved.rest(&weight, rank, &self.moved.matrices(site, rank, shape)))
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        self.weights.vector(name, len)
    }
}

fn model(
    drawn: &Drawn,
    weights: &impl Weights,
    start: impl Start,
    nf4: Option<AbsmaxFormat>,
) -> Llama<Cpu, LoraLinear<Cpu>> {
    let (lora, device) = (drawn.lora(), Default::default());
    let mut factory =
        LoraFactory { config: &lora, start, nf4, home: Home::Device, device: &device };
    Llama::load(&drawn.config(), weights, &mut factory, &device, &mut |_| ())
        .expect("every tensor is drawn")
}

fn losses<P: Projection<Cpu>>(model: &Llama<Cpu, P>) -> Vec<(u64, usize)> {
    let rows = samples(&[12, 20], model.config.vocab_size as u64);
    scores(model, Precision::F32, &rows)
}

#[test]
fn a_weight_that_a_start_changes_is_not_read_where_it_is_stored() {
    let lora = graft_tests::tiny_lora(&graft_tests::tiny_config(false), 0.0);
    let device = Default::default();
    let weight = FrozenMatrix::from_f32(1, 1, &[1.0]);
    let start = Moved { seed: 1, scale: 1.0 };
    let changes =
        LoraFactory { config: &lora, start, nf4: None, home: Home::Device, device: &device };
    let keeps = LoraFactory {
        config: &lora,
        start: Beside(start),
        nf4: None,
        home: Home::Device,
        device: &device,
    };
    assert!(!Factory::<Cpu>::keeps(&changes, &weight) && Factory::<Cpu>::keeps(&keeps, &weight));
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn what_a_start_moves_into_the_update_leaves_the_first_model_the_base(drawn in drawn(1..2)) {
        let drawn = Drawn { tables: [Of::Nothing; 2], ..drawn };
        let start = Moved::of(&drawn);
        let base = Drawn { nf4: None, ..drawn.clone() };
        let expected = losses(&base.frozen());
        let found = losses(&model(&drawn, &drawn.weights(), start, None));
        for ((found, targets), (expected, _)) in found.into_iter().zip(expected) {
            let apart = f64::from_bits(found) - f64::from_bits(expected);
            prop_assert!(apart.abs() < 1e-4 * targets.max(1) as f64, "{}", apart);
        }
    }

    #[test]
    fn quantised_is_what_a_start_leaves_of_a_weight(drawn in drawn(1..2), double in any::<bool>()) {
        let drawn = Drawn { tables: [Of::Nothing; 2], ..drawn };
        let (start, lora) = (Moved::of(&drawn), drawn.lora());
        let rests = Rests { weights: drawn.weights(), moved: start, lora: &lora };
        let nf4 = Some(AbsmaxFormat::of(double));
        let found = losses(&model(&drawn, &drawn.weights(), start, nf4));
        prop_assert_eq!(found, losses(&model(&drawn, &rests, Beside(start), nf4)));
    }
}

/// Adapters that begin as parts of these weights, from PEFT (`fixtures/starts/generate.py`), of rank 5 at a scale of 1.5.
#[test]
fn a_part_of_a_weight_is_that_of_peft_and_the_weight_keeps_the_rest() -> Result<(), Error> {
    use graft_adapters::{Fresh, Part, Parts, Rank, Scaling, Size};
    use graft_model::ProjectionKind;
    use graft_model::checkpoint::Checkpoint;
    use graft_model::folder::ModelFolder;

    let folder = ModelFolder::at(&graft_tests::parity::cases("starts"))?;
    let answers = Checkpoint::open_file(&folder, "starts.safetensors")?;
    let floats = |name: &str| answers.tensor(name).expect(name).to_f32().expect("f32");
    let site = Site { layer: 0, kind: ProjectionKind::Q };
    let (rank, scale) = (5, 1.5);
    let size = Size { rank: Rank(rank.try_into().expect("not zero")), alpha: 7.5 };
    for [out, inner] in [[40, 24], [24, 40], [33, 33], [96, 8]] {
        let shape = format!("{out}x{inner}");
        for (part, name) in [(Part::Principal, "pissa"), (Part::Orthogonal, "olora")] {
            let config = LoraConfig::uniform(size, Scaling::Standard, 0.0, [site]);
            let config = LoraConfig { part: Some(part), ..config };
            let weight = FrozenMatrix::from_f32(out, inner, &floats(&format!("weight.{shape}")));
            let mut parts = Parts::new(part, &config, Fresh(|_, len| vec![0.0; len]));
            let Beginning { a, b, weight: rest, magnitude } =
                (&mut parts).begin(site, rank, weight);
            assert_eq!(magnitude, None);
            assert_eq!(parts.into_began()[&site], [a.clone(), b.clone()]);
            let product = |at: usize| -> f64 {
                let (row, column) = (at / inner, at % inner);
                let terms = (0..rank)
                    .map(|i| f64::from(b[row * rank + i]) * f64::from(a[i * inner + column]));
                scale * terms.sum::<f64>()
            };
            let pieces = [
                ((0..out * inner).map(product).collect::<Vec<f64>>(), format!("{name}.{shape}")),
                (
                    rest.to_f32().into_iter().map(f64::from).collect(),
                    format!("{name}.rest.{shape}"),
                ),
            ];
            for (found, answer) in pieces {
                for (at, (found, expected)) in found.iter().zip(floats(&answer)).enumerate() {
                    let off = (found - f64::from(expected)).abs();
                    assert!(off < 4e-6, "{answer} at {at}: {found} is not {expected}");
                }
            }
            if part == Part::Orthogonal {
                // Up to the sign of each column of the one with the row of the other.
                let (first, second) =
                    (floats(&format!("olora.a.{shape}")), floats(&format!("olora.b.{shape}")));
                for i in 0..rank {
                    let along: f32 =
                        (0..out).map(|row| b[row * rank + i] * second[row * rank + i]).sum();
                    assert!((along.abs() - 1.0).abs() < 1e-5, "{shape}, column {i} of B: {along}");
                    let off = (0..inner)
                        .map(|c| (a[i * inner + c] - along.signum() * first[i * inner + c]).abs());
                    assert!(off.fold(0.0, f32::max) < 1e-5, "{shape}, row {i} of A");
                }
            }
        }
    }
    Ok(())
}
