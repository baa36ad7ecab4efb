//! A case of `fixtures/model`: a model folder, an adapter, and what the reference made of them; the
//! header of `generate.py` there describes every file.

use std::path::PathBuf;

use graft_adapters::{LoraFactory, LoraLinear, PeftAdapter};
use graft_data::{Batch, Origin, Sample};
use graft_model::checkpoint::{Checkpoint, Dtype, TensorView};
use graft_model::folder::ModelFolder;
use graft_model::{Llama, LlamaConfig};
use graft_tests::parity::cases;
use graft_tests::{Cpu, batch};

/// All of them.
pub(crate) const CASES: [&str; 6] =
    ["llama3_1", "llama3_2", "one_kv_head", "kv_heads_are_heads", "wide_heads", "odd_vocabulary"];

/// A case's folder.
pub(crate) struct Fixture {
    path: PathBuf,
    folder: ModelFolder,
}

impl Fixture {
    /// Opens a case; fails where it is missing.
    pub(crate) fn open(case: &str) -> Self {
        let path = cases("model").join(case);
        let folder = ModelFolder::at(&path).unwrap_or_else(|error| panic!("{error}"));
        Self { path, folder }
    }

    /// The model with its adapter, as the program loads them.
    pub(crate) fn model(&self) -> Llama<Cpu, LoraLinear<Cpu>> {
        let load = || -> Result<_, Box<dyn std::error::Error>> {
            let text = self.folder.required("config.json")?;
            let config = LlamaConfig::from_json(&text, &self.folder.display_file("config.json"))?;
            let checkpoint = Checkpoint::open(&self.folder)?;
            checkpoint.verify(&config)?;
            let adapter = PeftAdapter::open(&self.path.join("adapter"))?;
            adapter.check_model(&config)?;
            let device = Default::default();
            let (lora, start) = (adapter.config(), &adapter);
            let mut factory = LoraFactory { config: lora, start, nf4: None, device: &device };
            Ok(Llama::load(&config, &checkpoint, &mut factory, &device, &mut |_| ())?)
        };
        load().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The rows that the answers are about.
    pub(crate) fn rows(&self) -> Vec<Sample> {
        self.tensors("expected.safetensors").rows()
    }

    /// These rows as one batch.
    pub(crate) fn batch(&self) -> Batch {
        batch(&self.rows())
    }

    /// A file of answers.
    pub(crate) fn tensors(&self, file: &str) -> Tensors {
        let checkpoint = Checkpoint::open_file(&self.folder, file);
        Tensors(checkpoint.unwrap_or_else(|error| panic!("{error}")))
    }
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
            Sample { tokens, labels, origin: Origin { file: 0, line } }
        });
        let rows: Vec<Sample> = rows.collect();
        assert_eq!((start, start), (tokens.len(), labels.len()), "tokens of all rows");
        rows
    }
}
