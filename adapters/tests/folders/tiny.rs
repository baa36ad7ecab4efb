//! A tiny model folder with random weights, and adapters for it.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use graft_adapters::peft::names::{LoraMatrix, tensor_name};
use graft_adapters::{LoraConfig, PeftAdapter, Rank, Scaling, Size, peft};
use graft_model::checkpoint::{Checkpoint, Dtype, ShardedWriter, TensorSpec, expected};
use graft_model::config::FloatType;
use graft_model::folder::ModelFolder;
use graft_model::presets::llama3_2_1b;
use graft_model::{Error, LlamaConfig, Site};

/// Two blocks of the smallest sizes that NF4 allows.
fn sizes(tied: bool) -> LlamaConfig {
    let base = llama3_2_1b();
    let (heads, kv_heads, head_dim) = (2, 1, 32);
    let small = LlamaConfig { heads, kv_heads, head_dim, bos_token_id: Some(1), tied, ..base };
    LlamaConfig { d_model: 64, d_ff: 128, layers: 2, vocab_size: 96, ..small }
}

/// Values in `±1/8`, a function of the seed; the first is a zero below zero.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 26) as f32 - 0.125
    };
    let rest = (1..len).map(|_| next());
    std::iter::once(-0.0).chain(rest).collect()
}

/// A model folder and what it should be read as.
pub(crate) struct Tiny {
    pub(crate) root: tempfile::TempDir,
    pub(crate) config: LlamaConfig,
}

impl Tiny {
    pub(crate) fn new(tied: bool, dtype: Dtype) -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = sizes(tied);
        let base = root.path().join("base");
        fs::create_dir(&base).unwrap();
        let spec = |name, shape| TensorSpec { name, dtype, shape };
        let specs = expected(&config).into_iter().map(|t| spec(t.name, t.shape)).collect();
        let mut seed = 0;
        ShardedWriter::new(specs, u64::MAX)
            .unwrap()
            .write(&base, |spec, file| -> Result<(), Error> {
                seed += 1;
                for value in noise(seed, spec.shape.iter().product()) {
                    let bytes = match dtype {
                        Dtype::BF16 => half::bf16::from_f32(value).to_le_bytes().to_vec(),
                        Dtype::F16 => half::f16::from_f32(value).to_le_bytes().to_vec(),
                        _ => value.to_le_bytes().to_vec(),
                    };
                    file.write_all(&bytes)?;
                }
                Ok(())
            })
            .unwrap();
        for (name, text) in [
            ("tokenizer.json", "{}"),
            ("LICENSE.txt", "terms"),
            ("README.md", "the release"),
            ("generation_config.json", "{\"eos_token_id\": 2}"),
        ] {
            fs::write(base.join(name), text).unwrap();
        }
        // The releases' token numbers lie beyond this vocabulary; their JSON is written afresh.
        let kind = if dtype == Dtype::F16 { FloatType::F16 } else { FloatType::Bf16 };
        let mut raw: serde_json::Value = serde_json::from_str(&config.to_json(kind, None)).unwrap();
        for (key, value) in [
            ("hidden_size", 64),
            ("intermediate_size", 128),
            ("num_hidden_layers", 2),
            ("num_attention_heads", 2),
            ("num_key_value_heads", 1),
            ("head_dim", 32),
            ("vocab_size", 96),
            ("bos_token_id", 1),
            ("eos_token_id", 2),
        ] {
            raw[key] = value.into();
        }
        raw["tie_word_embeddings"] = tied.into();
        fs::write(base.join("config.json"), raw.to_string()).unwrap();
        let config = read_config(&base);
        Self { root, config }
    }

    pub(crate) fn base(&self) -> ModelFolder {
        ModelFolder::at(&self.root.path().join("base")).unwrap()
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint::open(&self.base()).unwrap()
    }

    /// An adapter of rank 4 on these sites, its `B` times `size`.
    pub(crate) fn adapter(&self, sites: impl IntoIterator<Item = Site>, size: f32) -> PeftAdapter {
        let four = Size { rank: Rank(NonZeroUsize::new(4).unwrap()), alpha: 6.0 };
        let config = LoraConfig::uniform(four, Scaling::RankStabilised, 0.0, sites);
        let mut tensors = Vec::new();
        for (seed, &site) in config.sites.keys().enumerate() {
            let [out, inner] = site.weight_shape(&self.config);
            let a = noise(1_000 + seed as u64, 4 * inner);
            let b = noise(2_000 + seed as u64, 4 * out).into_iter().map(|v| v * size).collect();
            tensors.push((tensor_name(site, LoraMatrix::A), vec![4, inner], a));
            tensors.push((tensor_name(site, LoraMatrix::B), vec![out, 4], b));
        }
        let folder = self.root.path().join("adapter");
        let layers = self.config.layers;
        peft::save(&folder, &config, layers, "base", &tensors, BTreeMap::new()).unwrap();
        PeftAdapter::open(&folder).unwrap()
    }

    /// Names in the temporary folder: nothing half-written may stay.
    pub(crate) fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

pub(crate) fn read_config(folder: &Path) -> LlamaConfig {
    let text = fs::read(folder.join("config.json")).unwrap();
    LlamaConfig::from_json(&text, "config.json").unwrap()
}

/// Every file's bytes, by name.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}
