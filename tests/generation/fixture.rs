//! What `fixtures/generation` holds; the header of `generate.py` there describes every file.

use graft_kernels::Home;
use graft_model::checkpoint::{Checkpoint, Dtype, TensorView};
use graft_model::folder::ModelFolder;
use graft_model::load::Frozen;
use graft_model::{FrozenLinear, Llama, LlamaConfig};
use graft_tests::Cpu;
use graft_tests::parity::cases;

/// All models.
pub(crate) const CASES: [&str; 6] =
    ["llama3_1", "llama3_2", "one_kv_head", "kv_heads_are_heads", "wide_heads", "odd_vocabulary"];
/// Tokens that each answer has.
pub(crate) const NEW: usize = 64;
/// Prompts a model.
pub(crate) const PROMPTS: usize = 3;

pub(crate) type Model = Llama<Cpu, FrozenLinear<Cpu>>;

/// A model with prompts and what the reference made of them.
pub(crate) struct Fixture {
    pub(crate) model: Model,
    pub(crate) prompts: Vec<Vec<u32>>,
    pub(crate) expected: Answers,
}

impl Fixture {
    /// Opens a case; fails where it is missing.
    pub(crate) fn open(case: &str) -> Self {
        let folder = ModelFolder::at(&cases("generation").join(case));
        let folder = folder.unwrap_or_else(|error| panic!("{error}"));
        let load = || -> Result<_, Box<dyn std::error::Error>> {
            let text = folder.required("config.json")?;
            let config = LlamaConfig::from_json(&text, &folder.display_file("config.json"))?;
            let checkpoint = Checkpoint::open(&folder)?;
            checkpoint.verify(&config)?;
            let device = Default::default();
            let mut frozen = Frozen { nf4: None, home: Home::Device, device: &device };
            Ok(Llama::load(&config, &checkpoint, &mut frozen, &device, &mut |_| ())?)
        };
        let model = load().unwrap_or_else(|error| panic!("{error}"));
        let expected = Answers::open(&folder, "expected.safetensors");
        let prompts = expected.rows("prompts", "lengths");
        assert_eq!(prompts.len(), PROMPTS, "{case}: prompts");
        Self { model, prompts, expected }
    }
}

/// Named tensors of the reference.
pub(crate) struct Answers(Checkpoint);

impl Answers {
    fn open(folder: &ModelFolder, file: &str) -> Self {
        Self(Checkpoint::open_file(folder, file).unwrap_or_else(|error| panic!("{error}")))
    }

    /// Those of the rows of logits.
    pub(crate) fn of_sampling() -> Self {
        let folder = ModelFolder::at(&cases("generation"));
        Self::open(&folder.unwrap_or_else(|error| panic!("{error}")), "sampling.safetensors")
    }

    fn view(&self, name: &str, dtype: Dtype) -> TensorView {
        let view = self.0.tensor(name);
        let view = view.unwrap_or_else(|| panic!("the reference has no tensor `{name}`"));
        assert_eq!(view.dtype, dtype, "{name}");
        view
    }

    /// The values of an f32 tensor.
    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        self.view(name, Dtype::F32).to_f32().expect("`view` lets f32 through only")
    }

    /// The values of an i32 tensor without negative ones.
    pub(crate) fn integers(&self, name: &str) -> Vec<u32> {
        let view = self.view(name, Dtype::I32);
        let (four, _) = view.bytes.as_chunks();
        let values = four.iter().map(|&bytes| i32::from_le_bytes(bytes));
        values.map(|value| u32::try_from(value).expect("no negative number")).collect()
    }

    /// The answers of a `[prompts, NEW]` tensor.
    pub(crate) fn answers(&self, name: &str) -> Vec<Vec<u32>> {
        let ids = self.integers(name);
        assert_eq!(ids.len(), PROMPTS * NEW, "{name}");
        ids.chunks(NEW).map(<[u32]>::to_vec).collect()
    }

    /// How far the likeliest token was above the second, `[prompts, NEW]`.
    pub(crate) fn margins(&self, name: &str) -> Vec<Vec<f32>> {
        let margins = self.floats(name);
        assert_eq!(margins.len(), PROMPTS * NEW, "{name}");
        margins.chunks(NEW).map(<[f32]>::to_vec).collect()
    }

    /// The rows of `name`, cut by `lengths`.
    pub(crate) fn rows(&self, name: &str, lengths: &str) -> Vec<Vec<u32>> {
        cut(&self.integers(name), &self.integers(lengths))
    }

    /// The f32 rows of `name`, cut by `lengths`.
    pub(crate) fn float_rows(&self, name: &str, lengths: &str) -> Vec<Vec<f32>> {
        cut(&self.floats(name), &self.integers(lengths))
    }
}

fn cut<T: Clone>(values: &[T], lengths: &[u32]) -> Vec<Vec<T>> {
    let mut rest = values;
    let mut row = |&length: &u32| {
        let (row, later) = rest.split_at(length as usize);
        rest = later;
        row.to_vec()
    };
    let rows = lengths.iter().map(&mut row).collect();
    assert!(rest.is_empty(), "{} values belong to no row", rest.len());
    rows
}
