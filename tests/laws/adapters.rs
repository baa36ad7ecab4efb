//! An adapter of zeros is no adapter, and a merged one is the same model.

use std::collections::BTreeMap;
use std::path::Path;

use graft_adapters::merge::{self, Merge, NOTHING_TOLD, Onto};
use graft_adapters::{LoraLinear, PeftAdapter, Trainable, peft};
use graft_data::Batch;
use graft_files::atomic;
use graft_kernels::{Home, Precision};
use graft_model::checkpoint::{Checkpoint, Dtype, TensorView, expected, write_safetensors};
use graft_model::config::FloatType;
use graft_model::folder::ModelFolder;
use graft_model::load::{Frozen, Weights};
use graft_model::param::host_values;
use graft_model::{Context, Layout, Llama, LlamaConfig, Projection};
use graft_tests::Cpu;
use proptest::prelude::*;

use super::drawn::{Drawn, config, drawn};
use super::{collate, scores};

/// `x·(W + B·A)` and `x·W + (x·A)·B` round differently: the bound of logits against a reference.
const MERGED: f32 = 2e-5;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Logits of every position in f32.
fn logits<P: Projection<Cpu>>(model: &Llama<Cpu, P>, batch: &Batch) -> Vec<f32> {
    let layout =
        Layout::of_documents(&model.config, &model.rope, &batch.positions, &batch.documents);
    let hidden = model.hidden(&batch.tokens, &layout, Context::evaluation(Precision::F32));
    host_values::<Cpu>(model.logits(&hidden, Precision::F32))
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Writes the drawn model as a folder in f32.
fn write_base(folder: &Path, drawn: &Drawn) -> Outcome<LlamaConfig> {
    let config = drawn.config();
    let weights = drawn.weights();
    let mut tensors = Vec::new();
    for tensor in expected(&config) {
        let values = match tensor.shape[..] {
            [out, inner] => weights.matrix(&tensor.name, [out, inner])?.to_f32(),
            _ => weights.vector(&tensor.name, tensor.shape[0])?,
        };
        let (name, shape, bytes) = (tensor.name, tensor.shape, bytes(&values).into());
        tensors.push(TensorView { name, dtype: Dtype::F32, shape, bytes });
    }
    let text = config.to_json(FloatType::F32, None);
    atomic::write_bytes(folder.join("config.json"), text.as_bytes())?;
    write_safetensors(&folder.join("model.safetensors"), &tensors, &BTreeMap::new())?;
    Ok(config)
}

/// Logits of the model that `graft merge` makes of base and adapter.
fn merged(drawn: &Drawn, batch: &Batch) -> Outcome<Vec<f32>> {
    let root = tempfile::tempdir()?;
    let [base, adapter, out] = ["base", "adapter", "out"].map(|name| root.path().join(name));
    std::fs::create_dir(&base)?;
    let config = write_base(&base, drawn)?;
    let mut tensors = Vec::new();
    drawn.adapted(0.5).visit(&mut |param| {
        if <LoraLinear<Cpu> as Trainable<Cpu>>::trains(param.seat()) {
            tensors.push((param.name().to_owned(), param.shape(), param.values()));
        }
    });
    peft::save(&adapter, &drawn.lora(), config.layers, "base", &tensors, BTreeMap::new())?;
    let (base, adapter) = (ModelFolder::at(&base)?, PeftAdapter::open(&adapter)?);
    let onto = drawn.nf4.map_or(Onto::Original, |scales| Onto::Dequantised { scales });
    let max_shard_bytes = 20_000;
    let merge =
        Merge { base: &base, config: &config, adapter: &adapter, onto, told: &NOTHING_TOLD };
    merge::write(&out, &merge, max_shard_bytes, &mut |_, _| ())?;
    let folder = ModelFolder::at(&out)?;
    let text = folder.required("config.json")?;
    let config = LlamaConfig::from_json(&text, "config.json")?;
    let checkpoint = Checkpoint::open(&folder)?;
    checkpoint.verify(&config)?;
    let device = Default::default();
    let mut frozen = Frozen { nf4: None, home: Home::Device, device: &device };
    let model = Llama::load(&config, &checkpoint, &mut frozen, &device, &mut |_| ())?;
    Ok(logits(&model, batch))
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn an_adapter_of_zeros_is_the_base_to_the_bit(drawn in drawn(1..4)) {
        let rows = drawn.rows();
        let adapted = scores(&drawn.adapted(0.0), drawn.precision, &rows);
        prop_assert_eq!(adapted, scores(&drawn.frozen(), drawn.precision, &rows));
        let batch = collate(&rows);
        prop_assert_eq!(
            super::bits(&logits(&drawn.adapted(0.0), &batch)),
            super::bits(&logits(&drawn.frozen(), &batch))
        );
    }

    #[test]
    fn a_merged_model_is_base_and_adapter(drawn in drawn(1..4)) {
        let batch = collate(&drawn.rows());
        let expected = logits(&drawn.adapted(0.5), &batch);
        let found = merged(&drawn, &batch).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let largest = expected.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
        prop_assert_eq!(found.len(), expected.len());
        for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let moved = (found - expected).abs() / largest;
            prop_assert!(moved <= MERGED, "logit {} moved by {}", place, moved);
        }
    }
}
