//! Weights that lie in the maps of their files: read one block in front, handed back behind, and the same
//! to the bit as weights that lie in memory. Blocks' inputs on disk change no bit either.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failure of the helpers is a failure of the test")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use graft::random_weights::RandomWeights;
use graft_adapters::{Fresh, LoraConfig, LoraFactory, LoraLinear};
use graft_data::Batch;
use graft_engine::{Checkpointing, Offload};
use graft_kernels::frozen::Storage;
use graft_kernels::nf4::AbsmaxFormat;
use graft_kernels::{FrozenMatrix, Home, Precision};
use graft_model::checkpoint::{
    Checkpoint, Dtype, SINGLE_FILE, TensorView, expected, write_safetensors,
};
use graft_model::folder::ModelFolder;
use graft_model::load::Weights;
use graft_model::pages::Mapped;
use graft_model::{Error, Llama, LlamaConfig};
use graft_tests::{Cpu, Sizes, batch, samples, tiny_lora, trainer, uniform};

/// Enough for bf16 weights to be streamed although they fit.
const TOKENS: usize = 2_048;

/// Blocks of 5 MB, of many pages each.
fn wide(tied: bool) -> LlamaConfig {
    config(512, tied)
}

/// Blocks that are quickly computed.
fn narrow(tied: bool) -> LlamaConfig {
    config(64, tied)
}

fn config(d_model: usize, tied: bool) -> LlamaConfig {
    let (group, kv_heads, head_dim) = (2, 2, d_model / 8);
    let (layers, d_ff, vocab, scaled) = (5, 2 * d_model, 512, false);
    Sizes { layers, group, kv_heads, head_dim, d_model, d_ff, vocab, tied, scaled }.config()
}

/// Writes random weights as bf16, after a header of `padding` more bytes than needed.
fn write(folder: &Path, config: &LlamaConfig, padding: usize) {
    let weights = RandomWeights::new(config, 5);
    let tensors: Vec<TensorView> = expected(config)
        .into_iter()
        .map(|tensor| {
            let [out, inner] = match *tensor.shape.as_slice() {
                [out, inner] => [out, inner],
                _ => [1, tensor.shape[0]],
            };
            let matrix = match *tensor.shape.as_slice() {
                [_, _] => weights.matrix(&tensor.name, [out, inner]).unwrap(),
                _ => {
                    FrozenMatrix::from_f32(1, inner, &weights.vector(&tensor.name, inner).unwrap())
                }
            };
            let Storage::Bf16(bytes) = matrix.to_bf16().storage().clone() else { unreachable!() };
            TensorView { name: tensor.name, dtype: Dtype::BF16, shape: tensor.shape, bytes }
        })
        .collect();
    let metadata = BTreeMap::from([("padding".to_owned(), "x".repeat(padding))]);
    write_safetensors(&folder.join(SINGLE_FILE), &tensors, &metadata).unwrap();
}

fn open(folder: &Path) -> Checkpoint {
    Checkpoint::open(&ModelFolder::at(folder).unwrap()).unwrap()
}

/// The same weights in memory of the process.
struct Owned<'a>(&'a Checkpoint);

impl Weights for Owned<'_> {
    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<FrozenMatrix, Error> {
        let matrix = self.0.matrix(name, shape)?;
        let Storage::Bf16(bytes) = matrix.storage() else { unreachable!("written as bf16") };
        Ok(FrozenMatrix::new(shape[0], shape[1], Storage::Bf16(bytes.to_vec().into())).unwrap())
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        self.0.vector(name, len)
    }
}

fn load(
    weights: &impl Weights,
    config: &LlamaConfig,
    lora: &LoraConfig,
    nf4: Option<AbsmaxFormat>,
) -> Llama<Cpu, LoraLinear<Cpu>> {
    let device = Default::default();
    let start = Fresh(|seat: graft_model::Seat, len| {
        let layer = seat.branch().map_or(99, |(layer, _)| layer as u64);
        uniform(11, layer, len)
    });
    let mut factory = LoraFactory { config: lora, start, nf4, home: Home::Device, device: &device };
    let mut model = Llama::load(config, weights, &mut factory, &device, &mut |_| ()).unwrap();
    model.visit(&mut |param| {
        let values: Vec<f32> =
            uniform(12, 0, param.len()).iter().map(|v| (v - 0.5) * 0.1).collect();
        param.set(&values, &device);
    });
    model
}

fn batches() -> Vec<Batch> {
    // Short rows: attention is not what is tested.
    let rows = samples(&[64; TOKENS / 64], 500);
    rows.chunks(TOKENS / 128).map(batch).collect()
}

/// Loss and gradient of two visits, too short to be streamed, and of one that both micro-batches share.
fn gradients(model: Llama<Cpu, LoraLinear<Cpu>>, offload: Option<Offload>) -> Vec<(u64, Vec<u32>)> {
    let mut trainer = trainer(model, Checkpointing::Block, Precision::Bf16);
    trainer.offload = offload;
    let batches = batches();
    let targets = batches.iter().map(Batch::targets).sum();
    let gradient = |shared| {
        trainer.options.micro_batches_per_visit = shared;
        let (loss, values) = trainer.gradient(1, &batches, targets).unwrap();
        (loss.to_bits(), values.iter().map(|value| value.to_bits()).collect())
    };
    [1, 2].map(gradient).into()
}

#[test]
fn streamed_weights_and_inputs_on_disk_give_the_bits_of_memory() {
    for (tied, padding, layers) in [(false, 0, 0..5), (true, 3, 2..4)] {
        let config = narrow(tied);
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &config, padding);
        let checkpoint = open(root.path());
        let mut lora = tiny_lora(&config, 0.0);
        lora.sites.retain(|site, _| layers.contains(&site.layer));
        let owned = load(&Owned(&checkpoint), &config, &lora, None);
        assert!(owned.residency.blocks().iter().all(|pages| pages.is_empty()));
        let expected = gradients(owned, None);
        assert!(expected[0].1.iter().any(|&bits| bits << 1 != 0));
        let streamed = load(&checkpoint, &config, &lora, None);
        assert!(streamed.residency.blocks().iter().all(|pages| pages.len() == 7));
        assert!(gradients(streamed.clone(), None) == expected, "streamed, tied {tied}");
        let offload = Offload::create(root.path()).unwrap();
        assert!(gradients(streamed, Some(offload)) == expected, "offloaded, tied {tied}");
    }
}

#[test]
fn inputs_go_to_the_disk_only_where_they_are_sent_there() {
    let config = narrow(true);
    let lora = tiny_lora(&config, 0.0);
    let model = load(&RandomWeights::new(&config, 5), &config, &lora, None);
    let mut trainer = trainer(model, Checkpointing::Block, Precision::Bf16);
    let root = tempfile::tempdir().unwrap();
    trainer.offload = Some(Offload::create(root.path()).unwrap());
    trainer.options.micro_batches_per_visit = 2;
    trainer.gradient(1, &batches(), TOKENS).unwrap();
    // Two branches in each of the blocks.
    let kept = 2 * config.layers * TOKENS * config.d_model * 4;
    assert_eq!(trainer.offload.as_ref().unwrap().bytes(), kept as u64);
}

/// Pages of `bytes` that are in this process, and all of them (proc_pid_pagemap(5), bit 63).
fn present(bytes: &[u8]) -> [usize; 2] {
    let first = bytes.as_ptr().addr() / 4_096;
    let count = (bytes.as_ptr().addr() + bytes.len()).div_ceil(4_096) - first;
    let mut file = File::open("/proc/self/pagemap").unwrap();
    file.seek(SeekFrom::Start(8 * first as u64)).unwrap();
    let mut entries = vec![0; 8 * count];
    file.read_exact(&mut entries).unwrap();
    [entries.as_chunks::<8>().0.iter().filter(|entry| entry[7] >> 7 == 1).count(), count]
}

/// The same of a block.
fn pages(part: &[Mapped]) -> [usize; 2] {
    part.iter().fold([0; 2], |[there, all], pages| {
        let found = present(pages.bytes());
        [there + found[0], all + found[1]]
    })
}

/// The system may take a page back at any time.
fn is_there(part: &[Mapped]) -> bool {
    let [there, all] = pages(part);
    4 * there > 3 * all
}

/// What lies on the same page, or is mapped with it, belongs to a neighbour.
fn is_gone(part: &[Mapped]) -> bool {
    let [there, all] = pages(part);
    4 * there < all
}

/// The reader works beside the walk: gives it time.
fn soon(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_next_block_is_read_before_its_turn_and_the_last_one_is_handed_back() {
    let config = wide(false);
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &config, 0);
    let model = load(&open(root.path()), &config, &tiny_lora(&config, 0.0), None);
    let blocks = model.residency.blocks();
    assert!(blocks.iter().all(|part| is_gone(part)), "loading leaves pages behind");
    let up: Vec<usize> = model.up(TOKENS).map(|block| block.layer).collect();
    assert_eq!(up, [0, 1, 2, 3, 4]);
    soon("all but the last are handed back", || blocks[..4].iter().all(|part| is_gone(part)));
    let mut turns = Vec::new();
    for block in model.down_to(1, TOKENS) {
        let layer = block.layer;
        turns.push(layer);
        soon("a block is there in its turn", || is_there(&blocks[layer]));
        if layer > 1 {
            soon("the next is there before its turn", || is_there(&blocks[layer - 1]));
        } else {
            assert!(is_gone(&blocks[0]), "a block that nobody visits is read");
        }
        soon("what was visited is handed back", || {
            blocks.iter().enumerate().all(|(i, part)| i == layer || i + 1 == layer || is_gone(part))
        });
    }
    assert_eq!(turns, [4, 3, 2, 1]);
}

#[test]
fn a_training_pass_leaves_one_block_behind() {
    let config = wide(false);
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &config, 0);
    let model = load(&open(root.path()), &config, &tiny_lora(&config, 0.0), None);
    let residency = std::rc::Rc::clone(&model.residency);
    let mut trainer = trainer(model, Checkpointing::Block, Precision::Bf16);
    trainer.options.micro_batches_per_visit = 2;
    trainer.gradient(1, &batches(), TOKENS).unwrap();
    soon("all but the lowest are handed back", || {
        residency.blocks()[1..].iter().all(|part| is_gone(part))
    });
}

#[test]
fn few_tokens_leave_a_model_that_fits_in_memory() {
    let config = wide(false);
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &config, 0);
    let model = load(&open(root.path()), &config, &tiny_lora(&config, 0.0), None);
    let residency = &model.residency;
    assert!(!residency.is_large());
    for part in residency.blocks() {
        for pages in part.iter() {
            std::hint::black_box(
                pages.bytes().iter().step_by(4_096).fold(0, |sum, byte| sum ^ byte),
            );
        }
    }
    assert_eq!(model.up(1).count(), config.layers);
    assert!(residency.blocks().iter().all(|part| is_there(part)));
}

#[test]
fn weights_that_the_process_owns_are_never_given_away() {
    let config = narrow(true);
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &config, 0);
    let checkpoint = open(root.path());
    let lora = tiny_lora(&config, 0.0);
    let quantised = load(&checkpoint, &config, &lora, Some(AbsmaxFormat::Double));
    // Only the embedding is still read from its file.
    assert!(quantised.residency.blocks().iter().all(|pages| pages.is_empty()));
    let [embedding, head] = quantised.residency.tables();
    assert_eq!((embedding.len(), head.len()), (1, 1));
    let owned = load(&Owned(&checkpoint), &config, &lora, Some(AbsmaxFormat::Double));
    assert_eq!(owned.residency.tables().map(<[Mapped]>::len), [0, 0]);
    assert!(gradients(quantised, None) == gradients(owned, None));
}
