//! The command on a GPU that wgpu finds, beside the CPU: the same losses, scores and words. Without a GPU
//! Mesa's llvmpipe plays one.

#![expect(clippy::disallowed_methods, reason = "tests write their own input files")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

#[path = "cli/room.rs"]
#[expect(dead_code, reason = "not every helper of the room is needed here")]
mod room;

use room::{ROW, Room};
use serde_json::Value;

/// A quickstart without its exams, of 256 tokens a step.
const RUN: &str = "train quickstart evaluation.held_out=[] evaluation.general=[] finish.prompts=[] \
                   finish.merge=false training.micro_batch_size=1 logging.tensorboard=false";

fn lines(room: &Room, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(room.path(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn losses(room: &Room, run: &str) -> Vec<f64> {
    let lines = lines(room, &format!("{run}/metrics.jsonl"));
    lines.iter().filter_map(|line| line["loss"].as_f64()).collect()
}

#[test]
fn fifty_steps_follow_the_losses_of_the_cpu() {
    let room = Room::new();
    for device in ["cpu", "wgpu"] {
        let of = format!("--device {device} output_dir={device}");
        room.done(&format!("{RUN} {of} training.max_steps=50 training.compute_dtype=f32"));
    }
    let [cpu, wgpu] = ["cpu", "wgpu"].map(|run| losses(&room, run));
    assert_eq!((cpu.len(), wgpu.len()), (50, 50));
    for (step, (cpu, wgpu)) in cpu.iter().zip(&wgpu).enumerate() {
        // Other orders of f32 sums, and what fifty steps make of them.
        assert!((cpu - wgpu).abs() <= 1e-3 * cpu, "step {}: {wgpu}, on the CPU {cpu}", step + 1);
    }
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&wgpu[40..]) < 0.9 * mean(&wgpu[..10]), "{wgpu:?}");
    let peak = &lines(&room, "wgpu/metrics.jsonl")[0]["peak_device_memory_bytes"];
    assert!(peak.as_u64().is_some_and(|bytes| bytes > 1 << 20), "{peak}");
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(room.path("wgpu/manifest.json")).unwrap()).unwrap();
    assert!(manifest.to_string().contains("wgpu ("), "{manifest}");
}

#[test]
fn a_device_gives_the_same_bytes_whatever_is_kept_and_wherever_it_waits() {
    let room = Room::new();
    let selective = "training.checkpointing=selective";
    let plan: Value = serde_json::from_str(
        &room.done(&format!("plan {} --device wgpu --json {selective}", &RUN[6..])),
    )
    .unwrap();
    // Less than what it takes with all weights on the device, more than with two blocks of four.
    let tight = plan["device_bytes"].as_u64().unwrap() - (1 << 19);
    let ways = [
        ("selective", selective.to_owned()),
        ("again", selective.to_owned()),
        ("none", "training.checkpointing=none".to_owned()),
        ("block", "training.checkpointing=block".to_owned()),
        ("host", "training.checkpointing=block training.activation_offload=host".to_owned()),
        ("streamed", format!("{selective} --device-memory {tight}")),
    ];
    let runs = ways.map(|(name, how)| {
        let how = format!("{how} training.max_steps=2 output_dir={name}");
        room.done(&format!("{RUN} --device wgpu {how}"));
        let adapter = room.path(&format!("{name}/adapter/adapter_model.safetensors"));
        let peak = &lines(&room, &format!("{name}/metrics.jsonl"))[1]["peak_device_memory_bytes"];
        (name, std::fs::read(adapter).unwrap(), peak.as_u64().unwrap())
    });
    for (name, adapter, _) in &runs[1..] {
        assert!(*adapter == runs[0].1, "{name}: other bytes");
    }
    let peak = |name: &str| runs.iter().find(|run| run.0 == name).unwrap().2;
    assert!(peak("block") < peak("selective") && peak("selective") < peak("none"));
}

#[test]
fn scores_and_words_are_those_of_the_cpu() {
    let room = Room::new();
    room.write("data.jsonl", format!("{ROW}\n{ROW}\n"));
    let model = "--model builtin:quickstart --compute-dtype f32";
    let eval = format!("eval {model} --quantization nf4 --data data.jsonl --format messages");
    let asked = format!("generate {model} --max-new-tokens 12 --prompt Who?");
    let [cpu, wgpu] = ["cpu", "wgpu"].map(|device| {
        room.done(&format!("{eval} --per-example {device}.jsonl --json --device {device}"));
        let nll: Vec<f64> = lines(&room, &format!("{device}.jsonl"))
            .iter()
            .map(|line| line["nll"].as_f64().unwrap())
            .collect();
        (nll, room.done(&format!("{asked} --device {device}")))
    });
    assert_eq!(cpu.1, wgpu.1);
    for (cpu, wgpu) in cpu.0.iter().zip(&wgpu.0) {
        assert!((cpu - wgpu).abs() <= 1e-4 * cpu, "{wgpu}, on the CPU {cpu}");
    }
}

#[test]
fn bf16_falls_back_to_f32_and_says_so_once() {
    let room = Room::new();
    let model = "--model builtin:quickstart --compute-dtype bf16 --max-new-tokens 2 --prompt Who?";
    let said = room.graft(&format!("generate {model} --device wgpu"));
    assert_eq!(said.code, 0, "{}", said.stderr);
    let lines: Vec<&str> = said.stderr.lines().filter(|line| line.contains("bf16")).collect();
    assert_eq!(lines.len(), 1, "{}", said.stderr);
    assert!(lines[0].contains("computes in f32"), "{}", lines[0]);
}

#[test]
fn too_little_device_memory_is_refused_with_the_arithmetic() {
    let room = Room::new();
    let said =
        room.refused(&format!("{RUN} --quiet --device wgpu --device-memory 1MiB output_dir=run"));
    for word in ["device memory", "1.00 MiB", "block inputs"] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn a_plan_counts_what_is_trained_with_where_it_is() {
    let places = |device: &str| {
        let room = Room::new();
        let plan: Value =
            serde_json::from_str(&room.done(&format!("plan quickstart --device {device} --json")))
                .unwrap();
        ["trained values", "their gradient", "optimizer states"].map(|name| {
            let lines = plan["lines"].as_array().unwrap().iter();
            let of = lines.filter(|line| line["name"] == name);
            of.map(|line| line["place"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(", ")
        })
    };
    assert_eq!(places("cpu"), ["anonymous"; 3]);
    assert_eq!(places("wgpu"), ["device"; 3]);
}

#[test]
fn a_run_that_was_stopped_goes_on_with_the_moments_of_the_device() {
    let room = Room::new();
    for optimizer in ["adamw", "adamw_8bit"] {
        let run = format!(
            "{RUN} --device wgpu training.max_steps=4 training.optimizer={optimizer} checkpoint.every_steps=2 \
             checkpoint.keep=2"
        );
        let last = |run: &str| {
            let files = ["trainable.safetensors", "optimizer.safetensors"];
            files.map(|file| {
                std::fs::read(room.path(&format!("{run}/checkpoints/step-000004/{file}"))).unwrap()
            })
        };
        room.done(&format!("{run} output_dir={optimizer}"));
        let whole = last(optimizer);
        std::fs::remove_dir_all(room.path(&format!("{optimizer}/checkpoints/step-000004")))
            .unwrap();
        room.done(&format!("{run} output_dir={optimizer} --resume"));
        assert!(last(optimizer) == whole, "{optimizer}: other bytes");
    }
}

#[test]
fn the_doctor_names_the_device() {
    let found: Value = serde_json::from_str(&Room::new().done("doctor --json")).unwrap();
    let devices = found["devices"].as_array().unwrap();
    let wgpu = devices.iter().find(|device| device["device"].as_str().unwrap().starts_with("wgpu"));
    assert!(wgpu.is_some_and(|device| device.to_string().contains("f32")), "{found}");
}
