//! A case of `fixtures/model`: a model folder, an adapter, and what the reference made of them; the
//! header of `generate.py` there describes every file.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use graft_adapters::{LoraConfig, LoraFactory, LoraLinear, PeftAdapter};
use graft_data::{Origin, Sample};
use graft_kernels::Home;
use graft_kernels::nf4::{AbsmaxFormat, BLOCK};
use graft_model::checkpoint::{Checkpoint, Dtype, TensorView};
use graft_model::folder::ModelFolder;
use graft_model::{Llama, LlamaConfig, Site};
use graft_tests::Cpu;
use graft_tests::parity::cases;

/// A tiny model with its adapter.
pub(crate) type Model = Llama<Cpu, LoraLinear<Cpu>>;

/// All of them.
pub(crate) const CASES: [&str; 12] = [
    "llama3_1",
    "llama3_2",
    "one_kv_head",
    "kv_heads_are_heads",
    "wide_heads",
    "odd_vocabulary",
    "around_original_length",
    "dora",
    "updated_tables",
    "saved_tables",
    "own_rows",
    "own_rows_of_both",
];

/// Those of a run of AdamW.
pub(crate) const RUNS: [&str; 6] =
    ["llama3_1", "dora", "updated_tables", "saved_tables", "own_rows", "own_rows_of_both"];

/// Tensors that are trained of embedding and head in a case.
pub(crate) fn tensors_of_tables(case: &str) -> usize {
    match case {
        "updated_tables" => 4,
        "saved_tables" | "own_rows" => 2,
        "own_rows_of_both" => 1,
        _ => 0,
    }
}

/// Form of the frozen projections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weights {
    Dense,
    Nf4,
    Nf4Double,
}

impl Weights {
    /// Its name in the table and in the names of files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Nf4 => "nf4",
            Self::Nf4Double => "nf4_double",
        }
    }

    fn nf4(self) -> Option<AbsmaxFormat> {
        match self {
            Self::Dense => None,
            Self::Nf4 => Some(AbsmaxFormat::Plain),
            Self::Nf4Double => Some(AbsmaxFormat::Double),
        }
    }
}

/// A case's folder.
pub(crate) struct Fixture {
    /// Its name.
    pub(crate) case: &'static str,
    path: PathBuf,
    folder: ModelFolder,
}

impl Fixture {
    /// Opens a case; fails where it is missing.
    pub(crate) fn open(case: &'static str) -> Self {
        let path = cases("model").join(case);
        let folder = ModelFolder::at(&path).unwrap_or_else(|error| panic!("{error}"));
        Self { case, path, folder }
    }

    /// The model with its adapter, as the program loads them: quantised on the way if asked.
    pub(crate) fn model(&self, weights: Weights) -> Model {
        self.load(&self.folder, weights.nf4())
    }

    /// The same out of the folder that transformers saved with bitsandbytes.
    pub(crate) fn bitsandbytes_model(&self, weights: Weights) -> Model {
        let path = self.path.join(format!("bnb_{}", weights.name()));
        let folder = ModelFolder::at(&path).unwrap_or_else(|error| panic!("{error}"));
        self.load(&folder, None)
    }

    /// Whether every projection is a whole number of NF4 blocks, as bitsandbytes' folders must have
    /// them.
    pub(crate) fn is_whole_blocks(&self) -> bool {
        let config = self.model(Weights::Dense).config;
        let mut shapes = Site::all(&config).map(|site| site.weight_shape(&config));
        shapes.all(|[out, inner]| (out * inner).is_multiple_of(BLOCK))
    }

    fn load(&self, folder: &ModelFolder, nf4: Option<AbsmaxFormat>) -> Model {
        let load = || -> Result<_, Box<dyn std::error::Error>> {
            let text = folder.required("config.json")?;
            let config = LlamaConfig::from_json(&text, &folder.display_file("config.json"))?;
            let checkpoint = Checkpoint::open(folder)?;
            checkpoint.verify(&config)?;
            let adapter = PeftAdapter::open(&self.path.join("adapter"))?;
            adapter.check_model(&config)?;
            let device = Default::default();
            // The run of this case has rates of its own.
            let b_rate = if self.case == "dora" { 4.0 } else { 1.0 };
            let lora = &LoraConfig { b_rate, ..adapter.config().clone() };
            let start = &adapter;
            let mut factory =
                LoraFactory { config: lora, start, nf4, home: Home::Device, device: &device };
            let (whole, base) = (adapter.model_config(&config), &config);
            let weights = adapter.weights(&checkpoint, base);
            Ok(Llama::load(&whole, &weights, &mut factory, &device, &mut |_| ())?)
        };
        load().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The rows that the answers are about.
    pub(crate) fn rows(&self) -> Vec<Sample> {
        self.tensors("rows").rows()
    }

    /// A file of answers.
    pub(crate) fn tensors(&self, file: &str) -> Tensors {
        let checkpoint = Checkpoint::open_file(&self.folder, &format!("{file}.safetensors"));
        Tensors(checkpoint.unwrap_or_else(|error| panic!("{error}")))
    }

    /// The names of the files and folders in it.
    pub(crate) fn entries(&self) -> BTreeSet<String> {
        entries(&self.path).into_iter().map(|(name, _)| name).collect()
    }
}

/// The names in a folder, and whether each is a folder itself.
pub(crate) fn entries(path: &std::path::Path) -> BTreeSet<(String, bool)> {
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let entries = entries.map(|entry| entry.expect("a folder that opened lists its entries"));
    entries
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path().is_dir()))
        .collect()
}

/// Named answers of the reference.
pub(crate) struct Tensors(Checkpoint);

impl Tensors {
    fn view(&self, name: &str) -> TensorView {
        self.0.tensor(name).unwrap_or_else(|| panic!("the reference has no tensor `{name}`"))
    }

    /// The values of an f32 tensor.
    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let view = self.view(name);
        assert_eq!(view.dtype, Dtype::F32, "{name}");
        view.to_f32().expect("the line above")
    }

    /// The value of an f32 tensor of one element.
    pub(crate) fn number(&self, name: &str) -> f64 {
        let values = self.floats(name);
        assert_eq!(values.len(), 1, "{name}");
        f64::from(values[0])
    }

    /// The values of an f32 tensor that must have this shape.
    pub(crate) fn shaped(&self, name: &str, shape: &[usize]) -> Vec<f32> {
        assert_eq!(self.view(name).shape, shape, "{name}");
        self.floats(name)
    }

    /// How many names begin with `prefix`.
    pub(crate) fn count(&self, prefix: &str) -> usize {
        self.0.names().filter(|name| name.starts_with(prefix)).count()
    }

    fn integers(&self, name: &str) -> Vec<i32> {
        let view = self.view(name);
        assert_eq!(view.dtype, Dtype::I32, "{name}");
        let four = view.bytes.chunks_exact(4);
        four.map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// The rows of `tokens` and `labels`, cut by `lengths`.
    pub(crate) fn rows(&self) -> Vec<Sample> {
        let [tokens, labels, lengths] =
            ["tokens", "labels", "lengths"].map(|name| self.integers(name));
        let mut start = 0;
        let rows = lengths.iter().enumerate().map(|(line, &length)| {
            let range = start..start + length as usize;
            start = range.end;
            let tokens = tokens[range.clone()].iter().map(|&token| token as u32).collect();
            let labels = labels[range].to_vec();
            Sample { tokens, labels, origin: Origin { file: 0, line, item: None } }
        });
        let rows: Vec<Sample> = rows.collect();
        assert_eq!((start, start), (tokens.len(), labels.len()), "tokens of all rows");
        rows
    }
}
