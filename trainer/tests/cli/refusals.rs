//! What every command keeps to when it cannot do what it is asked: the place is named, the code is right, and
//! stdout has results alone.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use super::room::{ROW, Room};

/// Commands of each kind with `--json`, with a model that is not there.
const WITH_JSON: &[&str] = &[
    "recipes ls --json --nothing",
    "recipes keys nothing.such --json",
    "plan r.yaml model.path=none.gguf --json",
    "data r.yaml model.path=none --json",
    "data --file none.jsonl --format messages --model builtin:quickstart --json",
    "train r.yaml model.path=none --json",
    "eval --model none --data a.jsonl --format messages --json",
    "generate --model none --prompt Fee? --json",
    "chat --model none --json",
    "inspect none --json",
    "doctor --json --nothing",
    "documents none --json",
];

#[test]
fn an_error_is_text_on_stderr_also_where_results_are_json() {
    let room = Room::new();
    room.recipe("");
    room.write("none.gguf", "");
    for line in WITH_JSON {
        let said = room.graft(line);
        assert_eq!((said.code, &*said.stdout), (2, ""), "graft {line}\n{}", said.stderr);
        assert!(said.stderr.starts_with("error: "), "graft {line}\n{}", said.stderr);
    }
    let said = room.graft("validate r.yaml model.path=none --json");
    assert_eq!(said.code, 2, "{}", said.stderr);
    let problems: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(problems["valid"], false);
    assert!(said.stderr.starts_with("error: "), "{}", said.stderr);
}

#[test]
#[cfg(target_os = "linux")]
fn a_result_that_stdout_does_not_take_is_a_failure_that_names_it() {
    let room = Room::new();
    room.recipe("");
    for line in [
        "recipes ls",
        "recipes ls --json",
        "validate r.yaml",
        "plan r.yaml",
        "data r.yaml",
        "inspect builtin:quickstart",
        "doctor",
        "documents r.yaml",
        "generate --model builtin:quickstart --prompt Fee? --max-new-tokens 1",
        "--version",
        "train --help",
    ] {
        let graft = |stdout: Stdio| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_graft"));
            command.args(line.split(' ')).current_dir(room.path("")).stdout(stdout);
            let output =
                command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (code, said) = graft(full.into());
        assert_eq!(code, Some(1), "graft {line}: {said}");
        let expected =
            "error: cannot write to standard output: No space left on device (os error 28)\n";
        assert!(said.ends_with(expected), "graft {line}: {said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, said) = graft(writer.into());
        assert_eq!(code, Some(0), "graft {line}, whose reader left: {said}");
        assert!(!said.contains("error: "), "graft {line}, whose reader left: {said}");
    }
}

#[test]
fn places_that_are_none_are_refused_by_name() {
    let room = Room::new();
    room.recipe("");
    room.model("m", |config| config);
    symlink("loop", room.path("loop")).unwrap();
    symlink("nowhere", room.path("dangling")).unwrap();
    for line in [
        "inspect loop",
        "generate --prompt x --model loop",
        "generate --prompt x --model builtin:quickstart --adapter loop",
        "generate --prompt x --model builtin:quickstart --tokenizer loop",
        "quantize --model loop --out new",
        "quantize --model builtin:quickstart --out loop",
        "merge --model builtin:quickstart --adapter loop --out new",
        "adapters --method rerank --rank 1 --adapter loop --out new",
        "export --model loop --out new",
        "export --model builtin:quickstart --adapter loop --out new",
        "export --model builtin:quickstart --out loop",
        "data --file loop --format messages --model builtin:quickstart",
        "eval --data loop --format messages --model builtin:quickstart",
        "validate loop",
        "validate r.yaml model.path=loop",
        "validate r.yaml data.train.0.path=loop",
        "validate r.yaml output_dir=loop",
        "train r.yaml output_dir=loop/a",
        "synth-model --preset 100m --layers 1 --out loop",
        "documents loop",
        "documents r.yaml --out loop",
        "documents r.yaml --model loop",
        "documents dangling",
        "documents r.yaml --out dangling",
        "inspect dangling",
        "generate --prompt x --model dangling",
        "quantize --model builtin:quickstart --out dangling",
        "data --file dangling --format messages --model builtin:quickstart",
        "validate dangling",
        "validate r.yaml output_dir=dangling",
        "train r.yaml output_dir=dangling",
        "train r.yaml output_dir=dangling --resume",
    ] {
        let said = room.refused(line);
        assert!(
            said.contains("`loop")
                || said.contains("`dangling")
                || said.contains(" loop:")
                || said.contains(" dangling:"),
            "graft {line}\n{said}"
        );
    }
    let shown = room.refused("train r.yaml output_dir=dangling");
    insta::assert_snapshot!(shown, @r"
    error: recipe `r` has a problem:
    command line: output_dir=dangling: output_dir: found `dangling`, but `dangling` is a link to `nowhere`, where no folder is
    ");
    for (words, flag) in [
        (&["quantize", "--model", "m", "--out", ""][..], "--out"),
        (&["quantize", "--model", "", "--out", "new"], "--model"),
        (&["merge", "--model", "m", "--adapter", "", "--out", "new"], "--adapter"),
        (&["generate", "--model", "m", "--prompt", "x", "--tokenizer", ""], "--tokenizer"),
        (&["export", "--model", "m", "--out", ""], "--out"),
        (&["inspect", ""], "<PATH>"),
        (&["documents", ""], "<SOURCE>..."),
        (&["documents", "a", "--out", ""], "--out"),
    ] {
        let said = room.graft_words(words);
        let expected = format!("error: invalid value '' for '{flag}");
        let named = said.stderr.starts_with(&expected)
            && said.stderr.contains("an empty text names no file or folder");
        assert!(said.code == 2 && named, "{words:?}: {}", said.stderr);
    }
}

#[test]
fn a_model_without_numbers_or_with_an_end_that_is_no_token_is_named() {
    let room = Room::new();
    let said = room.graft("generate --model builtin:quickstart --prompt x --max-new-tokens 1 -q");
    assert_eq!(said.code, 0, "{}", said.stderr);
    room.model("m", |config| config);
    room.write("m/generation_config.json", r#"{"eos_token_id": [1793, 4000000000]}"#);
    room.write("a.jsonl", ROW);
    let refused = room.refused("generate --model m --prompt x");
    insta::assert_snapshot!(refused, @"error: m/generation_config.json: `eos_token_id` has 4000000000, but the model's vocab_size is 2048: no token is called so, and no answer would end by it. Take the file from where the model comes from, or correct it");
    for line in [
        "eval --model m --data a.jsonl --format messages",
        "data --file a.jsonl --format messages --model m",
        "inspect m",
    ] {
        assert_eq!(room.refused(line), refused, "graft {line}");
    }
}

#[test]
fn a_run_that_is_not_there_to_go_on_with_begins_and_says_so_always() {
    let room = Room::new();
    room.recipe("training: {max_steps: 1}\nadapter: {rank: 1}\n");
    let said = room.graft("train r.yaml --resume --quiet");
    assert_eq!((said.code, &*said.stderr), (0, "no run in run yet: it begins\n"));
    let said = room.graft("train r.yaml --resume --quiet");
    assert_eq!((said.code, &*said.stderr), (0, ""));
}

#[test]
fn flags_that_change_no_answer_are_refused_by_name() {
    let room = Room::new();
    for command in ["generate --prompt x", "chat"] {
        for flag in ["--top-p 0.5", "--top-k 3", "--min-p 0.1", "--seed 3"] {
            let said = room.refused(&format!("{command} --model builtin:quickstart {flag}"));
            let name = flag.split(' ').next().unwrap();
            assert!(said.contains(&format!("error: {name} says how tokens are drawn")), "{said}");
            assert!(!said.contains("load"), "{said}");
        }
    }
    let rows = "--data builtin:quickstart/held-out --format messages";
    let said = room.refused(&format!("eval --model builtin:quickstart {rows} --max-new-tokens 3"));
    assert!(said.contains("--max-new-tokens") && said.contains("--exact-match"), "{said}");
    for flag in ["--system x", "--preamble none", "--allow-losses"] {
        let said =
            room.refused(&format!("generate --model builtin:quickstart --raw --prompt x {flag}"));
        let name = flag.split(' ').next().unwrap();
        assert!(said.contains("--raw") && said.contains(name), "{said}");
    }
}
