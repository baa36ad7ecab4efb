//! Runs of the binary that go on: with everything changed that may change, with changes that were asked
//! for, over other inputs, and in folders that were damaged.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failure of the helpers is a failure of the test")]

#[path = "going_on/room.rs"]
mod room;

use std::fs;
use std::path::{Path, PathBuf};

use graft::run_folder::contract::{Rule, rule};
use graft::run_folder::manifest::hash_file;
use graft_files::sha256::sha256_hex;
use graft_kernels::flex::isa::Isa;
use room::{Room, contents, copy, text};
use serde_json::Value;

#[test]
fn nothing_that_may_change_freely_changes_a_byte() {
    let room = Room::new();
    room.trained(&[]);
    room.stopped_after("run", 3, "moved/elsewhere");
    fs::rename(room.path("base"), room.path("moved/model")).unwrap();
    copy(&room.path("moved/model"), &room.path("moved/tokenizer"));
    fs::rename(room.path("rows.jsonl"), room.path("moved/data.jsonl")).unwrap();
    let free = [
        "name=other",
        "output_dir=moved/elsewhere",
        "model.path=moved/model",
        "model.tokenizer=moved/tokenizer",
        "data.train.0.path=moved/data.jsonl",
        "data.cache=kept",
        "training.threads=1",
        "training.checkpointing=none",
        "training.activation_offload=disk",
        "training.micro_batches_per_visit=2",
        "evaluation={every_steps: 1, max_new_tokens: 2, samples: 1}",
        "evaluation.held_out=[{path: more.jsonl, format: messages}]",
        "evaluation.general=[{path: more.jsonl, format: messages}]",
        "checkpoint={every_steps: 2, keep: 5}",
        "logging={log_every: 3, tensorboard: true}",
        "finish={merge: true, onto: original, prompts: [Why?]}",
    ];
    let is_changed = |key: &str| {
        let key = key.replace("[]", ".0");
        free.iter().any(|change| {
            let changed = change.split('=').next().unwrap();
            key.starts_with(changed)
        })
    };
    for key in graft_recipes::keys() {
        // A preset that fits this model there is none; files of validation are another test's; what the
        // type comes to is not free.
        let is_elsewhere = key.path == "model.preset"
            || key.path.starts_with("data.validation")
            || key.path == "adapter.init_from"
            || key.path == "training.compute_dtype";
        let is_free = rule(key.path) == Rule::Free && !is_elsewhere;
        assert!(!is_free || is_changed(key.path), "{} is free, and not changed here", key.path);
    }
    let said = room.trained(&[&["--resume"], free.as_slice()].concat());
    assert!(said.contains("the base is scored again"), "{said}");
    let expected = room.adapter("run");
    assert!(room.adapter("moved/elsewhere") == expected, "other bytes than the run left alone");
    let manifest = room.manifest("moved/elsewhere");
    assert_eq!(manifest["changes"], serde_json::json!([]));
    assert_eq!(manifest["resumed_after"], serde_json::json!([3]));
    // The base was asked what the tuned model was asked.
    let before = fs::read(room.path("moved/elsewhere/before.json")).unwrap();
    let before: Value = serde_json::from_slice(&before).unwrap();
    assert_eq!(before["exact"]["asked"], 3, "{before}");
    assert!(before["general_perplexity"].is_number(), "{before}");
    let recipe = fs::read_to_string(room.path("moved/elsewhere/recipe.yaml")).unwrap();
    assert!(recipe.contains("log_every: 3"), "{recipe}");
}

#[test]
fn what_was_asked_for_is_recorded_with_its_step_and_has_to_be_kept() {
    let room = Room::new();
    room.trained(&[]);
    let longer = "training.max_steps=5";
    let said = room.trained(&["--resume", longer, "training.learning_rate=1.0e-4"]);
    assert!(said.contains("training.max_steps: 4 up to step 4, 5 from here on"), "{said}");
    let expected = serde_json::json!([
        {"after_step": 4, "what": "training.max_steps", "from": "4", "to": "5"},
        {"after_step": 4, "what": "training.learning_rate", "from": "0.001", "to": "0.0001"},
    ]);
    assert_eq!(room.manifest("run")["changes"], expected);
    let report = fs::read_to_string(room.path("run/report.html")).unwrap();
    assert!(report.contains("Changed on the way"), "the report hides the change");
    insta::assert_snapshot!(room.refused(&["--resume", longer]).lines().skip(1).collect::<Vec<_>>().join("\n"), @"
    error: the run in `run` cannot go on, it would be another one:
      training.learning_rate: was 0.0001, is now 0.001
        to keep what it was, add `training.learning_rate=0.0001`; to go on with what is now, add `training.learning_rate=0.001`
      restore what has changed, or start a new run in another folder with `output_dir=…`
    ");
    let beyond =
        room.refused(&["--resume", "training.max_steps=2", "training.learning_rate=1.0e-4"]);
    assert!(beyond.contains("is at step 5, but the recipe ends at step 2"), "{beyond}");
    // Asked for again it is what the run has: nothing is recorded twice.
    room.trained(&["--resume", longer, "training.learning_rate=1.0e-4"]);
    assert_eq!(room.manifest("run")["changes"], expected);
}

type Change<'a> = &'a dyn Fn(&mut Vec<u8>);

#[test]
fn every_file_that_is_read_is_compared_and_no_other() {
    let room = Room::new();
    copy(&room.path("base"), &room.path("tokens"));
    let start = ["output_dir=first", "adapter.dropout=0"];
    room.trained(&start);
    copy(&room.path("first/adapter"), &room.path("start"));
    let with = ["model.tokenizer=tokens", "adapter.init_from=start"];
    room.write("tokens/special_tokens_map.json", b"{}");
    room.write("tokens/chat_template.jinja", b"{% for m in messages %}{{ m.content }}{% endfor %}");
    room.write("tokens/additional_chat_templates/tool_use.jinja", b"{{ messages[0].content }}");
    room.trained(&with);
    let resume = [&["--resume"], with.as_slice()].concat();
    let changed = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let before = fs::read(room.path(name)).unwrap();
        let mut bytes = before.clone();
        change(&mut bytes);
        room.write(name, &bytes);
        before
    };
    let longer = |bytes: &mut Vec<u8>| bytes.push(b'\n');
    // The last value of the weights, in the mantissa's least bit.
    let value = |bytes: &mut Vec<u8>| *bytes.iter_mut().rev().nth(1).unwrap() ^= 1;
    let read: [(&str, Change<'_>); 11] = [
        ("base/config.json", &longer),
        ("base/generation_config.json", &longer),
        ("base/model.safetensors", &value),
        ("tokens/tokenizer.json", &longer),
        ("tokens/tokenizer_config.json", &longer),
        ("tokens/special_tokens_map.json", &longer),
        ("tokens/chat_template.jinja", &longer),
        ("tokens/additional_chat_templates/tool_use.jinja", &longer),
        ("start/adapter_config.json", &longer),
        ("start/adapter_model.safetensors", &value),
        ("rows.jsonl", &longer),
    ];
    for (name, change) in read {
        let before = changed(name, change);
        let said = room.refused(&resume);
        let inside = name.split_once('/').map_or(name, |(_, inside)| inside);
        assert!(said.contains(&format!("`{inside}`")) && said.contains("is now"), "{name}: {said}");
        room.write(name, &before);
    }
    // Files that nobody reads, in folders that are read.
    for name in ["base/tokenizer.json", "base/tokenizer_config.json"] {
        changed(name, &longer);
    }
    for name in [
        "base/notes.json",
        "base/consolidated.safetensors",
        "tokens/config.json",
        "start/README.md",
    ] {
        room.write(name, b"nobody reads it");
    }
    room.trained(&resume);
}

#[test]
fn a_folder_damaged_anywhere_gives_the_same_bytes_or_is_refused_by_name() {
    const READ: [&str; 5] =
        ["before.json", "after.json", "report.html", "metrics.jsonl", "recipe.yaml"];
    let room = Room::new();
    room.trained(&[]);
    let expected = room.adapter("run");
    let base = fs::read(room.path("run/before.json")).unwrap();
    let files: Vec<PathBuf> = contents(&room.path("run")).into_keys().collect();
    assert!(files.len() > 15, "{files:?}");
    for (count, file) in files.iter().enumerate() {
        let _ = fs::remove_dir_all(room.path("hurt"));
        copy(&room.path("run"), &room.path("hurt"));
        let path = room.path("hurt").join(file);
        let mut bytes = fs::read(&path).unwrap();
        let place = bytes.len() / 2;
        match count % 3 {
            0 => bytes.truncate(place),
            _ => bytes[place] ^= 4,
        }
        graft_files::atomic::write_bytes(&path, &bytes).unwrap();
        let name = file.display();
        let output = room.command(&["--resume", "output_dir=hurt"]).output().unwrap();
        let said = text(&output);
        if output.status.code() == Some(2) {
            assert_eq!(file, Path::new("manifest.json"), "{said}");
            assert!(said.contains("manifest.json"), "{said}");
            continue;
        }
        assert!(output.status.success(), "{name}: {said}");
        assert!(room.adapter("hurt") == expected, "{name}: other bytes");
        let after = fs::read(room.path("hurt/before.json")).unwrap();
        assert!(after == base, "{name}: other scores of the base");
        let manifest = room.manifest("hurt");
        let mended = manifest["mended"].as_array().unwrap();
        // What the run goes on from is the newest checkpoint; older ones are not looked at.
        let newest = file.starts_with("checkpoints/step-000004")
            && !file.to_string_lossy().contains("adapter");
        let is_read = newest || READ.contains(&&*file.to_string_lossy());
        assert_eq!(mended.len(), usize::from(is_read), "{name}: {mended:?}");
        // Files of results are kept beside those that are made again.
        if is_read || file.starts_with("adapter") {
            assert!(said.contains("warning: "), "{name}: {said}");
        }
        if newest {
            assert!(room.path("hurt/checkpoints/damaged-step-000004").exists(), "{name}");
            assert_eq!(manifest["resumed_after"], serde_json::json!([3]), "{name}");
        }
    }
    // One is gone, and then all.
    for (gone, said_of_it) in [
        ("checkpoints/step-000004", "is missing: the run goes on from step 3"),
        ("checkpoints", "is missing, and no other is there: the run begins anew"),
    ] {
        let _ = fs::remove_dir_all(room.path("hurt"));
        copy(&room.path("run"), &room.path("hurt"));
        fs::remove_dir_all(room.path("hurt").join(gone)).unwrap();
        let output = room.command(&["--resume", "output_dir=hurt"]).output().unwrap();
        let said = text(&output);
        assert!(output.status.success(), "{gone}: {said}");
        let expected_words = format!("`checkpoints/step-000004` of the run: it {said_of_it}");
        assert!(said.contains(&expected_words), "{gone}: {said}");
        assert!(room.adapter("hurt") == expected, "{gone}: other bytes");
    }
    // None is left to go on from.
    for step in [3, 4] {
        let path = room.path("run").join(format!("checkpoints/step-{step:06}/state.json"));
        graft_files::atomic::write_bytes(&path, b"{}").unwrap();
    }
    let said = room.refused(&["--resume"]);
    assert!(said.contains("step-000004`: state.json") && said.contains("step-000003`"), "{said}");
    fs::remove_file(room.path("run/manifest.json")).unwrap();
    assert!(room.refused(&["--resume"]).contains("but not its `manifest.json`"));
}

#[test]
fn checkpoints_that_the_run_did_not_make_are_neither_gone_on_from_nor_removed() {
    let room = Room::new();
    room.trained(&[]);
    room.trained(&["training.seed=8", "output_dir=other"]);
    let longer = ["--resume", "training.max_steps=5", "checkpoint.keep=1", "output_dir=hurt"];
    let hurt = |damage: &dyn Fn(&Path)| {
        let _ = fs::remove_dir_all(room.path("hurt"));
        copy(&room.path("run"), &room.path("hurt"));
        damage(&room.path("hurt/checkpoints"));
        let said = room.trained(&longer);
        let left = contents(&room.path("hurt/checkpoints"));
        let mut left: Vec<String> = left
            .into_keys()
            .filter(|file| file.ends_with("state.json") || file.ends_with("mine"))
            .map(|file| file.display().to_string())
            .collect();
        left.sort();
        (said, left)
    };
    let own = "step-000005/state.json".to_owned();
    let (_, left) = hurt(&|_| ());
    assert_eq!(left, [own.as_str()]);
    let expected = room.adapter("hurt");
    // A copy, whose place is no step of the run's; and one of another run.
    for from in ["run", "other"] {
        let from = room.path(from).join("checkpoints/step-000003");
        let (_, left) = hurt(&|checkpoints| copy(&from, &checkpoints.join("step-000009")));
        assert_eq!(left, [own.as_str(), "step-000009/state.json"]);
        assert!(room.adapter("hurt") == expected, "gone on from {}", from.display());
    }
    // Another run's in the place of its own: as if that were gone.
    hurt(&|checkpoints| fs::remove_dir_all(checkpoints.join("step-000004")).unwrap());
    let expected = room.adapter("hurt");
    let (said, left) = hurt(&|checkpoints| {
        fs::remove_dir_all(checkpoints.join("step-000004")).unwrap();
        copy(&room.path("other/checkpoints/step-000004"), &checkpoints.join("step-000004"));
    });
    assert!(said.contains("state.json: it is not the one that this run wrote"), "{said}");
    assert_eq!(left, ["damaged-step-000004/state.json", own.as_str()]);
    assert!(room.adapter("hurt") == expected, "gone on from another run's");
    // What somebody puts into one of the run's own goes beside it, and is told.
    let (said, left) = hurt(&|checkpoints| {
        graft_files::atomic::write_bytes(checkpoints.join("step-000003/mine"), b"mine").unwrap();
    });
    assert!(said.contains("is kept as `checkpoints/kept-step-000003`"), "{said}");
    assert_eq!(left, ["kept-step-000003/mine", own.as_str()]);
}

#[test]
fn no_run_begins_in_another_ones_folder_or_in_the_systems_root() {
    let room = Room::new();
    room.trained(&["training.max_steps=1"]);
    for inside in
        ["output_dir=run/checkpoints", "output_dir=run/again", "output_dir=run/adapter/a/b"]
    {
        let said = room.refused(&[inside]);
        assert!(said.contains("which lies in the folder of another run"), "{inside}: {said}");
    }
    let said = room.refused(&["model.path=builtin:quickstart", "output_dir=/"]);
    assert!(said.contains("found `/`: choose a folder of its own"), "{said}");
}

#[test]
fn the_base_is_scored_as_the_base_whatever_trains() {
    let room = Room::new();
    for (name, method) in [("lora", "adapter.rank=2"), ("full", "adapter={method: full}")] {
        // `full` knows none of the recipe's settings of LoRA.
        let recipe = fs::read_to_string(room.path("mine.yaml")).unwrap();
        let adapter = recipe.lines().find(|line| line.starts_with("adapter")).unwrap().to_owned();
        if name == "full" {
            room.write("mine.yaml", recipe.replace(&adapter, "adapter: {method: full}").as_bytes());
        }
        let out = format!("output_dir={name}");
        let arguments = [out.as_str(), method, "training.max_steps=1"];
        let arguments = &arguments[..];
        room.trained(arguments);
        let path = room.path(name).join("before.json");
        let before = fs::read(&path).unwrap();
        let after = fs::read(room.path(name).join("after.json")).unwrap();
        assert!(before != after, "{name}: the step changed nothing");
        fs::remove_file(&path).unwrap();
        let said = room.trained(&[arguments, &["--resume"]].concat());
        assert!(
            said.contains("`before.json` of the run: it is missing: the base is scored again"),
            "{said}"
        );
        assert!(fs::read(&path).unwrap() == before, "{name}: not the base's scores");
        assert!(fs::read(room.path(name).join("after.json")).unwrap() == after, "{name}");
    }
}

#[test]
fn other_kernels_are_refused_unless_named() {
    if Isa::of_processor() == Isa::Portable {
        return;
    }
    let room = Room::new();
    let with = |kernels: &str, arguments: &[&str]| {
        room.command(arguments).env(Isa::VARIABLE, kernels).output().unwrap()
    };
    assert!(with("portable", &[]).status.success());
    let said = room.refused(&["--resume"]);
    assert!(
        said.contains("kernels: was ") && said.contains("GRAFT_CPU_KERNELS=portable"),
        "{said}"
    );
    assert!(with("portable", &["--resume"]).status.success());
    assert_eq!(room.manifest("run")["changes"], serde_json::json!([]));
    let output = with("avx2", &["--resume", "training.max_steps=5"]);
    assert!(output.status.success(), "{}", text(&output));
    let changes = room.manifest("run")["changes"].to_string();
    assert!(changes.contains("portable") && changes.contains("avx2"), "{changes}");
}

#[test]
fn the_hashes_are_those_of_what_was_made() {
    let room = Room::new();
    room.trained(&["finish.merge=true"]);
    room.trained(&["training.seed=8", "output_dir=other"]);
    let (manifest, other) = (room.manifest("run"), room.manifest("other"));
    for part in ["adapter", "merged"] {
        for file in contents(&room.path("run").join(part)).into_keys() {
            let name = format!("{part}/{}", file.display());
            let hash = hash_file(&room.path("run").join(&name), |_| ()).unwrap();
            assert_eq!(manifest["made"][part]["files"][&name]["sha256"], *hash.sha256, "{name}");
        }
    }
    let last = fs::read(room.path("run/checkpoints/step-000004/trainable.safetensors")).unwrap();
    assert_eq!(manifest["trained_sha256"], *sha256_hex(&last));
    assert_ne!(manifest["trained_sha256"], other["trained_sha256"], "not a hash of values");
    let report = fs::read_to_string(room.path("run/report.html")).unwrap();
    let weights =
        &manifest["made"]["adapter"]["files"]["adapter/adapter_model.safetensors"]["sha256"];
    for hash in
        [&manifest["trained_sha256"], weights, &manifest["tokenizer"]["tokenizer.json"]["sha256"]]
    {
        assert!(report.contains(hash.as_str().unwrap()), "the report lacks {hash}");
    }
}

#[test]
fn validation_is_told_before_the_first_step_and_behind_the_last() {
    let room = Room::new();
    let arguments =
        ["training.max_steps=3", "evaluation.every_steps=2", "logging.tensorboard=true"];
    room.trained(&arguments);
    let told = |run: &str| -> Vec<(u64, f64)> {
        let text = fs::read_to_string(room.path(run).join("metrics.jsonl")).unwrap();
        let line = |line: &str| -> Option<(u64, f64)> {
            let line: Value = serde_json::from_str(line).unwrap();
            Some((line["step"].as_u64()?, line["eval_loss"].as_f64()?))
        };
        text.lines().filter_map(line).collect()
    };
    let first = told("run");
    assert_eq!(first.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 2, 3]);
    for (file, (step, loss)) in [("before.json", first[0]), ("after.json", first[2])] {
        let scores: Value =
            serde_json::from_slice(&fs::read(room.path("run").join(file)).unwrap()).unwrap();
        assert_eq!(scores["validation_loss"], loss, "step {step}");
    }
    let events = contents(&room.path("run/tensorboard")).into_values().next().unwrap();
    assert_eq!(events.windows(9).filter(|window| *window == b"loss/eval").count(), 3);
    // Gone on with, every value stands there once; and of a longer run it is a value on the way.
    room.trained(&[arguments.as_slice(), &["--resume"]].concat());
    assert_eq!(told("run"), first);
    room.trained(&["--resume", "training.max_steps=5", arguments[1], arguments[2]]);
    let longer = told("run");
    assert_eq!(longer[..3], first);
    assert_eq!(longer[3..].iter().map(|(step, _)| *step).collect::<Vec<_>>(), [4, 5]);
}
