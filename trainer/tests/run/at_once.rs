//! Two whole runs in one process at the same time, each in a folder of its own.

use std::fs;
use std::sync::Barrier;

use graft::device::Device;
use graft::ledger::Available;
use graft::plan::{Plan, Start};
use graft::progress::Voice;
use graft::run::RunOptions;

use super::room::Room;

/// Trains in this process into the folder `out`; the values of what was trained, and the losses.
fn trained(room: &Room, out: &str, keys: &[&str], file: &str) -> [Vec<u8>; 2] {
    let rows = |name| format!("[{{path: {}, format: messages}}]", room.path(name).display());
    let mut overrides = vec![
        format!("data.train={}", rows("train.jsonl")),
        format!("data.validation={}", rows("validation.jsonl")),
        format!("output_dir={}", room.path(out).display()),
    ];
    let short = [
        "data.packing=false",
        "data.max_seq_len=128",
        "data.overlong=error",
        "training.max_steps=3",
        "training.micro_batch_size=2",
        "training.gradient_accumulation_steps=2",
        "training.learning_rate=0.01",
        "checkpoint.every_steps=2",
        "evaluation.every_steps=none",
        "evaluation.held_out=[]",
        "evaluation.general=[]",
        "finish.prompts=[]",
        "finish.merge=false",
        "logging.tensorboard=false",
    ];
    overrides.extend(short.iter().chain(keys).map(|&key| key.to_owned()));
    let recipe = graft_recipes::load("quickstart", &overrides).unwrap();
    let resolved = Plan::resolve_for(recipe, Start::Anew, Device::cpu()).unwrap();
    let available = Available::here(&resolved.plan.output_dir, &resolved.plan.device);
    let (resume, named_device, voice) = (false, true, Voice::Silent);
    let options = RunOptions { resume, room: available, named_device, voice };
    graft::run::run(resolved, options).unwrap();
    let metrics = fs::read_to_string(room.path(out).join("metrics.jsonl")).unwrap();
    let losses = metrics.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        format!("{} {} {}\n", line["step"], line["loss"], line["eval_loss"])
    });
    let losses: String = losses.collect();
    [fs::read(room.path(out).join(file)).unwrap(), losses.into_bytes()]
}

#[test]
fn two_runs_in_one_process_end_with_the_bytes_that_each_has_alone() {
    let room = Room::new();
    let adapter = "adapter/adapter_model.safetensors";
    let qlora = ["adapter.rank=4", "adapter.dropout=0.1", "training.compute_dtype=bf16"];
    let full = [
        "quantization=none",
        "adapter={method: full}",
        "training.checkpointing=none",
        "training.compute_dtype=f32",
    ];
    let runs = [(&qlora[..], adapter), (&full[..], "model/model.safetensors")];
    let alone = [0, 1].map(|at| trained(&room, &format!("alone-{at}"), runs[at].0, runs[at].1));
    let together = Barrier::new(2);
    let at_once = std::thread::scope(|scope| {
        let threads = [0, 1].map(|at| {
            let (room, together) = (&room, &together);
            scope.spawn(move || {
                together.wait();
                trained(room, &format!("at-once-{at}"), runs[at].0, runs[at].1)
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    for (alone, at_once) in alone.iter().zip(&at_once) {
        assert_eq!(
            String::from_utf8_lossy(&alone[1]),
            String::from_utf8_lossy(&at_once[1]),
            "losses"
        );
        assert!(alone[0] == at_once[0], "the same losses, but other values");
    }
}
