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
    let shipped = room.done("recipes cat quickstart");
    assert_eq!(copied, shipped.replace("name: quickstart\n", "name: mine\n"));
    assert_ne!(copied, shipped, "a copy that keeps the name shares the run folder");
    insta::assert_snapshot!(room.refused("recipes cp quickstart mine.yaml"), @"error: `mine.yaml` exists and is not replaced: choose another name, or remove this one");
    insta::assert_snapshot!(room.refused("recipes cp quickstart no/such/mine.yaml"), @"error: there is no folder `no/such` to write `no/such/mine.yaml` into: make it, or choose another");
    assert!(is_absent(&room.path("no")));
    assert!(
        room.refused("recipes cat quickstrat").contains("no shipped recipe is called `quickstrat`")
    );
}

#[test]
fn every_shipped_recipe_is_copied_under_its_copy_s_name() {
    for shipped in graft_recipes::library::all() {
        let copy = shipped.copy_for(std::path::Path::new("some/where/my tune.yaml"));
        let recipe = graft_recipes::Recipe::from_yaml(&copy, "my tune.yaml").unwrap();
        assert_eq!(recipe.name, "my-tune", "{}", shipped.name);
        assert_eq!(recipe.output_dir, std::path::Path::new("runs/my-tune"));
    }
}

#[test]
fn every_key_is_listed_with_type_default_and_meaning() {
    let room = Room::new();
    let shown = room.done("recipes keys");
    let json: serde_json::Value = serde_json::from_str(&room.done("recipes keys --json")).unwrap();
    let table = graft_recipes::keys();
    assert_eq!(
        (json.as_array().unwrap().len(), shown.lines().count()),
        (table.len(), 2 * table.len())
    );
    for (key, listed) in table.iter().zip(json.as_array().unwrap()) {
        assert_eq!((&listed["path"], &listed["doc"]), (&key.path.into(), &key.doc.into()));
        assert!(shown.contains(&format!("{}: {}; ", key.path, key.kind)), "{}", key.path);
    }
    insta::assert_snapshot!(room.done("recipes keys checkpoint"), @r"
    checkpoint.every_steps: count or none; default 100
        Steps between checkpoints. Example: checkpoint.every_steps=none
    checkpoint.keep: count; default 3
        Checkpoints kept; older ones are removed. Example: checkpoint.keep=1
    ");
    insta::assert_snapshot!(room.refused("recipes keys lora_r"), @r"
    error: no key of a recipe begins with `lora_r`
      help: did you mean `adapter.rank`?
    ");
    insta::assert_snapshot!(room.refused("recipes keys trainign.seed"), @r"
    error: no key of a recipe begins with `trainign.seed`
      help: did you mean `training.seed`?
    ");
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
