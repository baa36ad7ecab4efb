//! `graft adapters`: several adapters as one, beside their base and in every command that reads the result.

use serde_json::Value;

use crate::room::Room;

const MODEL: &str = "--model builtin:quickstart";

/// A room with adapters in `a/adapter` and `b/adapter`, trained for steps that move them.
fn room() -> Room {
    let room = Room::new();
    room.recipe(
        "adapter: {rank: 4, alpha: 8, target_modules: [q_proj, down_proj]}\ntraining: {max_steps: 2, schedule: constant, \
         learning_rate: 0.02}\nquantization: none\n",
    );
    room.done("train r.yaml output_dir=a --quiet");
    room.done("train r.yaml output_dir=b training.seed=11 --quiet");
    room
}

fn line(shown: &str, of: &str) -> String {
    let found = shown.lines().find_map(|line| line.strip_prefix(of));
    found.unwrap_or_else(|| panic!("no {of} in\n{shown}")).trim().to_owned()
}

/// The number before the words of a line.
fn mean(shown: &str) -> f64 {
    let compared = line(shown, "compared");
    let number = compared.strip_prefix("mean ").and_then(|rest| rest.split(',').next());
    number.unwrap_or_else(|| panic!("{compared}")).parse().unwrap()
}

#[test]
fn adapters_become_one_that_answers_as_their_sum_and_says_of_whom_it_is() {
    let room = room();
    let both = format!("--adapter a/adapter --adapter b/adapter --weights 0.75,-0.5 {MODEL} -q");
    let shown = room.done(&format!("adapters --method cat {both} --out cat"));
    let shown_cut =
        shown.replace(&room.path("").canonicalize().unwrap().display().to_string(), "ROOM");
    insta::assert_snapshot!(shown_cut.split("compared").next().unwrap(), @"
    written     ROOM/cat
    holds       8 updates of rank 8
    method      cat
    of the sum  0.0000 % is lost, by length
    ");
    assert!(mean(&shown) < 1e-9, "{shown}");
    // Of the rank of both nothing is lost, of less something.
    let wide = mean(&room.done(&format!("adapters --method svd --rank 8 {both} --out svd")));
    let narrow = mean(&room.done(&format!("adapters --method svd --rank 3 {both} --out narrow")));
    assert!(wide < 1e-9 && narrow > 1e-7, "{wide}, {narrow}");
    for rest in [
        "linear",
        "magnitude_prune --density 0.5",
        "ties --density 0.5",
        "ties --density 0.5 --majority-sign-method frequency",
        "dare_linear --density 0.5 --seed 3",
        "dare_ties --density 0.5",
    ] {
        for again in ["one", "two"] {
            room.done(&format!("adapters --method {rest} {both} --out {again}"));
        }
        let bytes = |of: &str| {
            std::fs::read(room.path(&format!("{of}/adapter_model.safetensors"))).unwrap()
        };
        assert!(bytes("one") == bytes("two"), "{rest}: other bytes a second time");
        for again in ["one", "two"] {
            std::fs::remove_dir_all(room.path(again)).unwrap();
        }
    }
    let told: Value = serde_json::from_str(&room.done("inspect cat --json")).unwrap();
    let parents: Value =
        serde_json::from_str(told["metadata"]["graft.parents"].as_str().unwrap()).unwrap();
    assert_eq!([&parents[0]["path"], &parents[1]["path"]], ["a/adapter", "b/adapter"]);
    assert_eq!(
        [&parents[0]["weight"], &parents[1]["weight"]],
        [&serde_json::json!(0.75), &serde_json::json!(-0.5)]
    );
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(room.path("a/manifest.json")).unwrap()).unwrap();
    let file = &manifest["made"]["adapter"]["files"]["adapter/adapter_model.safetensors"];
    assert_eq!(parents[0]["sha256"], file["sha256"], "{manifest}");
    assert_eq!(told["metadata"]["graft.combined"], "cat");
    // What both were trained with stays.
    assert_eq!(told["metadata"]["graft.quantization"], "none");
    // One of another rank, and every command reads it.
    room.done(&format!("adapters --method rerank --rank 2 --adapter cat --out two {MODEL} -q"));
    room.done(&format!("merge {MODEL} --adapter two --out merged -q"));
    room.done(&format!("export {MODEL} --adapter cat --adapter-only --out lora.gguf -q"));
}

#[test]
fn what_cannot_be_combined_or_says_nothing_is_refused_and_leaves_nothing() {
    let room = room();
    room.done("train r.yaml output_dir=d adapter.dora=true --quiet");
    room.done("train r.yaml output_dir=w adapter.rank=2 --quiet");
    let two = "--adapter a/adapter --adapter b/adapter --out new";
    let mut shown = Vec::new();
    for line in [
        format!("--method svd {two}"),
        format!("--method ties {two}"),
        format!("--method cat --rank 3 {two}"),
        format!("--method svd --rank 3 --density 0.5 {two}"),
        format!("--method ties --density 0.5 --seed 3 {two}"),
        format!("--method linear --majority-sign-method total {two}"),
        format!("--method cat --weights 1 {two}"),
        format!("--method cat --tolerance 1 {two}"),
        format!("--method rerank --rank 3 {two}"),
        "--method cat --adapter a/adapter --out new".to_owned(),
        "--method cat --adapter a/adapter --adapter d/adapter --out new".to_owned(),
        "--method linear --adapter a/adapter --adapter w/adapter --out new".to_owned(),
        "--method cat --adapter a/adapter --adapter b/adapter --out a".to_owned(),
        "--method cat --adapter a/adapter --adapter b/adapter --out b/adapter/new".to_owned(),
    ] {
        let said = room.refused(&format!("adapters {line} -q"));
        let said =
            said.lines().next().unwrap().to_owned() + said.lines().nth(1).unwrap_or_default();
        shown.push(said.replace(&room.path("").display().to_string(), "ROOM/"));
    }
    insta::assert_snapshot!(shown.join("\n"), @r"
    error: svd needs --rank N
    error: ties needs --density X
    error: --rank is of svd, rerank, and says nothing of cat: leave it out
    error: --density is of magnitude_prune, ties, dare_linear, dare_ties, and says nothing of svd: leave it out
    error: --seed is of dare_linear, dare_ties, and says nothing of ties: leave it out
    error: --majority-sign-method is of ties, dare_ties, and says nothing of linear: leave it out
    error: --weights has 1 numbers for 2 adapters: give one for each, in their order
    error: --tolerance is of what is asked beside the base: name it with --model PATH
    error: rerank is of one adapter: take svd, which is of the sum of several
    error: cat is of several adapters: give --adapter once for each, or take rerank for one of another rank
    error: these adapters cannot be combined by `cat`:  `d/adapter/adapter_model.safetensors` is DoRA, whose magnitudes are no update that could be added: fold it into one first, with `graft export --for peft-portable --rank N --model BASE`
    error: these adapters cannot be combined by `linear`:  `model.layers.0.self_attn.q_proj` has the ranks 4 and 2, and linear adds matrices of one rank: give them one with `--method rerank` first, or take `cat` or `svd`
    error: `a` exists and is not an empty folder: nothing is overwritten. Choose another folder or remove this one
    error: `b/adapter/new` lies in the adapter `b/adapter`, which is only read: choose another place
    ");
    let before = room.names();
    // What is no number any more agrees with nothing: not with its own sum, either.
    for weights in ["1e25,1e25", "1e30,1e35"] {
        let line = format!("adapters --method cat --weights {weights} {MODEL} {two} -q");
        let broken = room.graft(&line);
        assert_ne!(broken.code, 0, "{weights}: {}{}", broken.stdout, broken.stderr);
        assert_eq!(room.names(), before, "{weights}");
    }
    let wide = "--method rerank --rank 100000 --adapter a/adapter --out new";
    let wide = room.refused(&format!("adapters {wide}"));
    assert!(wide.contains("the rank 100000 is more than 256, the smaller side"), "{wide}");
    let far = room.graft(&format!("adapters --method svd --rank 1 --tolerance 0 {MODEL} {two} -q"));
    assert_eq!((far.code, room.names()), (1, before));
    assert!(
        far.stderr
            .contains("nats a token from the sum of the updates, more than 0.0e0: it was removed"),
        "{}",
        far.stderr
    );
    for (wrong, said) in [
        (
            "--method tys --adapter a --out new",
            "possible values: linear, cat, svd, magnitude_prune, ties, dare_linear, dare_ties, rerank",
        ),
        (
            "--method ties --density 1.5 --adapter a --out new",
            "expected a number above 0 and at most 1",
        ),
        ("--method svd --rank 0 --adapter a --out new", "expected a whole number from 1"),
    ] {
        let refused = room.refused(&format!("adapters {wrong}"));
        assert!(refused.contains(said), "{refused}");
    }
}
