//! Wrong use, and the shipped recipes.

use crate::room::{Room, is_absent};

#[test]
fn wrong_use_is_2() {
    let room = Room::new();
    for line in [
        "fly",
        "validate",
        "recipes",
        "data",
        "validate quickstart --colour",
        "--device gpu recipes ls",
        "recipes ls --device wgpu:x",
    ] {
        let said = room.graft(line);
        assert_eq!(said.code, 2, "graft {line}: {}", said.stderr);
        assert!(said.stdout.is_empty(), "{line}");
    }
    let device = room.refused("--device gpu recipes ls");
    assert!(device.contains("found `gpu`, expected auto, cpu, wgpu, wgpu:N, cuda"), "{device}");
    for (kind, built) in [("wgpu", cfg!(feature = "wgpu")), ("cuda", cfg!(feature = "cuda"))] {
        if !built {
            let device = room.refused(&format!("train quickstart --device {kind}:0"));
            let build = format!("`cargo build --release --features {kind}`");
            assert!(device.contains(&build), "{device}");
        }
    }
    assert_eq!(room.graft("").code, 2);
    assert_eq!(room.graft("--help").code, 0);
    assert_eq!(room.graft("--version").code, 0);
    assert!(room.names().is_empty());
}

#[test]
fn recipes_are_listed_shown_and_copied() {
    let room = Room::new();
    let list = room.done("recipes ls");
    let line = list.lines().find(|line| line.starts_with("llama3.1-8b-qlora ")).unwrap();
    assert!(
        line.ends_with("Llama 3.1 8B, frozen at 4 bits: adapters on your own chats."),
        "{line}"
    );
    let json: serde_json::Value = serde_json::from_str(&room.done("recipes ls --json")).unwrap();
    assert_eq!(json.as_array().unwrap().len(), list.lines().count());

    room.done("recipes cp quickstart mine.yaml");
    let copied = std::fs::read_to_string(room.path("mine.yaml")).unwrap();
    assert_eq!(copied, room.done("recipes cat quickstart"));
    insta::assert_snapshot!(room.refused("recipes cp quickstart mine.yaml"), @"error: `mine.yaml` exists and is not replaced: choose another name, or remove this one");
    insta::assert_snapshot!(room.refused("recipes cp quickstart no/such/mine.yaml"), @"error: there is no folder `no/such` to write `no/such/mine.yaml` into: make it, or choose another");
    assert!(is_absent(&room.path("no")));
    assert!(
        room.refused("recipes cat quickstrat").contains("no shipped recipe is called `quickstrat`")
    );
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let room = Room::new();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_graft"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.args(["recipes", "ls"]).stdout(writer).current_dir(room.path("")).output();
    let output = output.unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
