//! The bytes that runs end with, for every method, with and without dropout and packing, at every level of
//! instructions: the same ones as ever, whatever is checkpointed and however many threads compute.
//!
//! A change that is meant to move them writes golden.txt anew and says why.

use std::fmt::Write as _;
use std::fs;

use graft_files::sha256::sha256_hex;
use graft_kernels::flex::isa::Isa;

use super::room::{Room, text};

/// Method, dropout, packing, kernels, compute type, and the first digits of the SHA-256 of all values.
const GOLDEN: &str = include_str!("golden.txt");

const SHORT: [&str; 14] = [
    "data.train=[{path: train.jsonl, format: messages}]",
    "data.validation=none",
    "data.max_seq_len=128",
    "data.overlong=error",
    "training.max_steps=2",
    "training.gradient_accumulation_steps=2",
    "training.learning_rate=0.01",
    "checkpoint.every_steps=none",
    "evaluation.every_steps=none",
    "evaluation.held_out=[]",
    "evaluation.general=[]",
    "finish.prompts=[]",
    "finish.merge=false",
    "logging.tensorboard=false",
];

/// None of these may matter: each line of the table gets the next one.
const WAYS: [(&str, &str); 4] = [("selective", "2"), ("none", "1"), ("block", "7"), ("block", "2")];

/// The values of a safetensors file, without what its header says about them.
fn values(file: &[u8]) -> &[u8] {
    let header = u64::from_le_bytes(file[..8].try_into().unwrap());
    &file[8 + usize::try_from(header).unwrap()..]
}

#[test]
fn runs_end_with_the_bytes_that_they_always_ended_with() {
    let room = Room::new();
    let (mut moved, mut compared) = (String::new(), 0);
    for (line, (checkpointing, threads)) in GOLDEN.lines().zip(WAYS.into_iter().cycle()) {
        let (run, expected) = line.rsplit_once(' ').unwrap();
        let [method, dropout, packing, kernels, dtype] =
            run.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let level = Isa::ALL.into_iter().find(|level| level.name() == kernels).unwrap();
        if level > Isa::of_processor() {
            continue;
        }
        let mut command = room.graft(&["--quiet", "train", "quickstart"]);
        command.args(SHORT).env(Isa::VARIABLE, kernels);
        let rows = if packing == "true" { "1" } else { "2" };
        for (key, value) in [
            ("data.packing", packing),
            ("training.micro_batch_size", rows),
            ("training.compute_dtype", dtype),
            ("training.checkpointing", checkpointing),
            ("training.threads", threads),
        ] {
            command.arg(format!("{key}={value}"));
        }
        let file = if method == "full" {
            command.args(["quantization=none", "adapter={method: full}"]);
            "model/model.safetensors"
        } else {
            command.args(["adapter.rank=4", &format!("adapter.dropout={dropout}")]);
            command.args((method == "lora").then_some("quantization=none"));
            "adapter/adapter_model.safetensors"
        };
        let out = format!("run-{compared}");
        let output = command.arg(format!("output_dir={out}")).output().unwrap();
        assert!(output.status.success(), "{run}: {}", text(&output));
        let file = fs::read(room.path(&out).join(file)).unwrap();
        let found = &sha256_hex(values(&file))[..16];
        if found != expected {
            let _ = writeln!(moved, "{run} {found} (was {expected}; {checkpointing}, {threads})");
        }
        compared += 1;
    }
    assert!(moved.is_empty(), "{moved}");
    assert!(compared >= GOLDEN.lines().count() / 4, "{compared} were compared");
}
