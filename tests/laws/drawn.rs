//! What the laws are tested on: models of random sizes with weights that keep activations near 1, random
//! adapters on some of their projections, and rows of random lengths.

use graft_adapters::{
    Fresh, LoraConfig, LoraFactory, LoraLinear, Rank, Scaling, Size, TableMethod, TableName,
};
use graft_data::{CounterRng, Purpose, Sample};
use graft_kernels::nf4::AbsmaxFormat;
use graft_kernels::{FrozenMatrix, Home, Precision};
use graft_model::load::{Frozen, Weights};
use graft_model::{Error, FrozenLinear, Llama, LlamaConfig, Seat, Site};
use graft_tests::{Cpu, Sizes, samples, uniform};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// The same cases in every run; a failure prints the case that it was cut down to.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let max_shrink_iters = 200;
    // The live comparison draws other cases each time.
    let seed = std::env::var("GRAFT_PARITY_SEED").ok().and_then(|seed| seed.parse().ok());
    let plain =
        ProptestConfig { cases, max_shrink_iters, failure_persistence: None, ..Default::default() };
    ProptestConfig { rng_seed: RngSeed::Fixed(seed.unwrap_or(31)), ..plain }
}

/// A random model with adapters, and rows for it.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    pub(crate) sizes: Sizes,
    /// Names the weights.
    pub(crate) seed: u64,
    /// Quantisation of the projections.
    pub(crate) nf4: Option<AbsmaxFormat>,
    pub(crate) dropout: f64,
    /// Whether it has magnitudes.
    pub(crate) dora: bool,
    pub(crate) precision: Precision,
    pub(crate) rank: usize,
    /// Every `stride`-th projection from `first` on is adapted.
    pub(crate) first: usize,
    pub(crate) stride: usize,
    /// What is trained of embedding and head.
    pub(crate) tables: [Of; 2],
    pub(crate) lengths: Vec<usize>,
}

/// What is trained of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Nothing,
    Update,
    Rows,
    Whole,
}

pub(crate) fn sizes() -> impl Strategy<Value = Sizes> {
    let heads = (1_usize..4, 1_usize..4, 1_usize..7);
    let widths = (1_usize..60, 1_usize..80, 3_usize..130);
    (1_usize..4, heads, widths, any::<bool>(), any::<bool>()).prop_map(
        |(layers, (group, kv_heads, half), (d_model, d_ff, vocab), tied, scaled)| {
            let head_dim = 2 * half;
            Sizes { layers, group, kv_heads, head_dim, d_model, d_ff, vocab, tied, scaled }
        },
    )
}

/// Between `rows` rows; short ones have no target.
pub(crate) fn drawn(rows: std::ops::Range<usize>) -> impl Strategy<Value = Drawn> {
    let nf4 =
        prop_oneof![Just(None), Just(Some(AbsmaxFormat::Plain)), Just(Some(AbsmaxFormat::Double))];
    let precision = prop_oneof![Just(Precision::F32), Just(Precision::Bf16)];
    let dropout = prop_oneof![Just(0.0), 0.05..0.6];
    let table = || {
        prop_oneof![
            4 => Just(Of::Nothing), 1 => Just(Of::Update), 1 => Just(Of::Rows), 1 => Just(Of::Whole)
        ]
    };
    let adapter = (1_usize..7, 0_usize..10, 1_usize..4, any::<bool>(), [table(), table()]);
    let lengths = prop::collection::vec(1_usize..40, rows);
    (sizes(), any::<u64>(), nf4, precision, dropout, adapter, lengths).prop_map(
        |(sizes, seed, nf4, precision, dropout, (rank, first, stride, dora, tables), lengths)| {
            // A model of one layer has seven projections.
            let first = first % (7 * sizes.layers);
            Drawn {
                sizes,
                seed,
                nf4,
                dropout,
                dora,
                precision,
                rank,
                first,
                stride,
                tables,
                lengths,
            }
        },
    )
}

impl Drawn {
    pub(crate) fn config(&self) -> LlamaConfig {
        self.lora().model_config(&self.sizes.config())
    }

    pub(crate) fn rows(&self) -> Vec<Sample> {
        samples(&self.lengths, self.sizes.vocab as u64)
    }

    pub(crate) fn weights(&self) -> Lively {
        Lively(self.seed)
    }

    pub(crate) fn lora(&self) -> LoraConfig {
        let size = Size {
            rank: Rank(self.rank.try_into().expect("not zero")),
            alpha: 1.5 * self.rank as f64,
        };
        let sites = Site::all(&self.sizes.config()).skip(self.first).step_by(self.stride);
        let plain = LoraConfig::uniform(size, Scaling::Standard, self.dropout, sites);
        let last = self.sizes.vocab as u32 - 1;
        let method = |of: Of| match of {
            Of::Nothing => None,
            // No table has magnitudes.
            Of::Update if self.dora => None,
            Of::Update => Some(TableMethod::LowRank(size)),
            Of::Rows => Some(TableMethod::Rows(vec![last, 0, last / 2])),
            Of::Whole => Some(TableMethod::Whole),
        };
        let tables = TableName::ALL.into_iter().zip(self.tables);
        let tables = tables.filter_map(|(table, of)| Some((table, method(of)?)));
        // Rows of an embedding that is the head are rows of both.
        let is_one = |table: &TableName| self.sizes.tied && *table == TableName::Head;
        let tables = tables
            .filter(|(table, method)| !(is_one(table) && matches!(method, TableMethod::Rows(_))));
        LoraConfig { dora: self.dora, tables: tables.collect(), ..plain }
    }

    /// The model with its adapters; `B` is random times `size`.
    pub(crate) fn adapted(&self, size: f32) -> Llama<Cpu, LoraLinear<Cpu>> {
        let (config, lora) = (self.config(), self.lora());
        let device = Default::default();
        let seed = self.seed;
        let start = Fresh(move |seat: Seat, len: usize| {
            let stream = match seat {
                Seat::Projection(site) => (site.layer * 7) as u64 + site.kind as u64,
                Seat::Head => 1_000_000,
                _ => 1_000_001,
            };
            uniform(seed, stream, len)
        });
        let mut factory = LoraFactory {
            config: &lora,
            start,
            nf4: self.nf4,
            home: Home::Device,
            device: &device,
        };
        let mut model = Llama::load(&config, &self.weights(), &mut factory, &device, &mut |_| ())
            .expect("every tensor is drawn");
        let mut place = 1_000;
        model.visit(&mut |param| {
            let begins_as_nothing = ["lora_B.weight", "lora_embedding_A"];
            if begins_as_nothing.into_iter().any(|end| param.name().ends_with(end)) {
                place += 1;
                let values = uniform(seed, place, param.len());
                let bound = size / (self.rank as f32).sqrt();
                let values: Vec<f32> = values.iter().map(|v| (2.0 * v - 1.0) * bound).collect();
                param.set(&values, &Default::default());
            }
            if size > 0.0 && param.name().ends_with("lora_magnitude_vector") {
                place += 1;
                let factors = uniform(seed, place, param.len());
                let values = param.values();
                let values: Vec<f32> =
                    values.iter().zip(factors).map(|(v, f)| v * (0.8 + 0.4 * f)).collect();
                param.set(&values, &Default::default());
            }
        });
        model
    }

    /// The model without adapters.
    pub(crate) fn frozen(&self) -> Llama<Cpu, FrozenLinear<Cpu>> {
        let device = Default::default();
        let mut factory = Frozen { nf4: self.nf4, home: Home::Device, device: &device };
        Llama::load(&self.config(), &self.weights(), &mut factory, &device, &mut |_| ())
            .expect("every tensor is drawn")
    }
}

/// Uniform weights of variance `1 / in` and norms around 1, a function of the seed and the name.
#[derive(Clone, Copy)]
pub(crate) struct Lively(pub(crate) u64);

impl Lively {
    fn uniform(self, name: &str, len: usize) -> impl Iterator<Item = f32> {
        let stream =
            name.bytes().fold(7, |hash: u64, byte| hash.wrapping_mul(31) ^ u64::from(byte));
        let random = CounterRng::new(self.0, Purpose::ModelInit, stream, 0);
        (0..len as u64).map(move |i| random.uniform_f32_at(i))
    }
}

impl Weights for Lively {
    fn matrix(&self, name: &str, [out, inner]: [usize; 2]) -> Result<FrozenMatrix, Error> {
        let bound = (3.0 / inner as f32).sqrt();
        let values = self.uniform(name, out * inner).map(|value| (2.0 * value - 1.0) * bound);
        Ok(FrozenMatrix::from_f32(out, inner, &values.collect::<Vec<f32>>()))
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        Ok(self.uniform(name, len).map(|value| 0.5 + value).collect())
    }
}
