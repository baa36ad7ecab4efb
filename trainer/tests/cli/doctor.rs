//! `graft doctor`, and the level of kernels that every command checks.

use std::process::{Command, Output};

use serde_json::Value;

use crate::room::Room;

const VARIABLE: &str = "GRAFT_CPU_KERNELS";
const LEVELS: [&str; 4] = ["portable", "avx2", "avx512", "avx512bf16"];

fn with(level: &str, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graft"));
    command.args(line.split_whitespace()).env(VARIABLE, level).output().unwrap()
}

fn doctor(level: &str) -> Value {
    let output = with(level, "doctor --json --device cpu");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_machine_is_described_for_people_and_programs() {
    let room = Room::new();
    let text = room.done("doctor --threads 1");
    let names = [
        "graft ",
        "processor ",
        "instructions ",
        "bf16 products ",
        "f32 products ",
        "memory ",
        "disk ",
    ];
    for name in names {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is not in\n{text}");
    }
    assert!(text.contains(", 1 used\n") && text.contains("\ndevices\n  cpu  "), "{text}");
    let note = "\nThis build has no GPU support: everything runs on the CPU. `cargo build";
    let has_none = !cfg!(any(feature = "wgpu", feature = "cuda"));
    assert_eq!(text.contains(note), has_none, "{text}");

    let json: Value = serde_json::from_str(&room.done("doctor --json --threads 1")).unwrap();
    assert_eq!(json["threads"], 1);
    assert_eq!(json["devices"][0]["device"], "cpu");
    assert_eq!(json["devices"][0]["dtypes"], serde_json::json!(["f32", "bf16"]));
    assert!(json["devices"][0]["memory_bytes"].as_u64() > Some(0), "{json}");
    // Each kind is there, or it is said what is missing.
    for kind in ["cpu", "wgpu", "cuda"] {
        let of_kind = |list: &str| {
            let names = json[list].as_array().unwrap().iter();
            names.filter(|entry| entry["device"].as_str().unwrap().starts_with(kind)).count()
        };
        assert!(of_kind("devices") > 0 || of_kind("missing") == 1, "{kind}: {json}");
    }
    assert_eq!(json["versions"]["graft"], env!("CARGO_PKG_VERSION"));
    assert!(json["disk"]["free_bytes"].as_u64() > Some(0), "{json}");
    assert!(room.names().is_empty());
}

#[test]
fn a_lower_level_is_used_and_said() {
    let has = doctor("")["kernels"]["processor"].as_str().unwrap().to_owned();
    let most = LEVELS.iter().position(|level| *level == has).unwrap();
    for (place, level) in LEVELS.into_iter().enumerate() {
        if place > most {
            let refused = with(level, "doctor");
            assert_eq!(refused.status.code(), Some(2), "{level}");
            let said = String::from_utf8(refused.stderr).unwrap();
            assert!(said.starts_with(&format!("error: {VARIABLE} is `{level}`")), "{said}");
            continue;
        }
        let found = doctor(level);
        assert_eq!(found["kernels"]["used"], level);
        assert_eq!(found["compute_dtype"], if level == "avx512bf16" { "bf16" } else { "f32" });
        let notes = found["notes"].to_string();
        assert_eq!(notes.contains("lowers the kernels"), place < most, "{notes}");
    }
}

#[test]
fn every_command_refuses_an_unknown_level() {
    for line in ["doctor", "recipes ls", "train quickstart", "generate --model no --prompt a"] {
        let refused = with("sse9", line);
        assert_eq!(refused.status.code(), Some(2), "graft {line}");
        assert!(refused.stdout.is_empty(), "graft {line}");
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(
            said,
            "error: GRAFT_CPU_KERNELS is `sse9`, but it takes portable, avx2, avx512 or avx512bf16\n"
        );
    }
}
