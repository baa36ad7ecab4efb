//! Where rows come from: files, folders and patterns of them, documents, standard input; and how much of each an
//! epoch has.

use std::fs::File;
use std::process::{Command, Stdio};

use graft_data::Format;
use serde_json::Value;

use crate::room::{ROW, Room};

const MODEL: &str = "--model builtin:quickstart";

fn recipe(train: &str) -> String {
    format!(
        "name: r\nmodel: {{path: builtin:quickstart}}\nadapter: {{rank: 2}}\ndata:\n  train: {train}\n  packing: \
         false\n  chat: {{preamble: none}}\ntraining: {{max_steps: 2}}\ncheckpoint: {{every_steps: 1}}\n"
    )
}

/// A folder of rows in several containers, with what is none beside them.
fn rows() -> Room {
    let room = Room::new();
    room.write("rows/a.jsonl", format!("{ROW}\n{}\n", ROW.replace("12", "13")));
    room.write("rows/b.json", format!("[{}]", ROW.replace("12", "14")));
    room.write("rows/dataset_info.json", "{}");
    room.write("rows/notes.py", "print()");
    room.write("rows/test/c.jsonl", ROW);
    room.write("one.jsonl", format!("{}\n", ROW.replace("12", "15")));
    room
}

fn samples(room: &Room, line: &str) -> Vec<(String, Value)> {
    let shown: Value =
        serde_json::from_str(&room.done(&format!("{line} --show 100 --json"))).unwrap();
    let samples = shown["samples"].as_array().unwrap().iter();
    samples
        .map(|sample| (sample["path"].as_str().unwrap().to_owned(), sample["tokens"].clone()))
        .collect()
}

#[test]
fn a_folder_and_a_pattern_are_their_files_one_after_the_other() {
    let room = rows();
    room.write(
        "files.yaml",
        recipe("[{path: rows/a.jsonl, format: messages}, {path: rows/b.json, format: messages}]"),
    );
    room.write("folder.yaml", recipe("[{path: rows, format: messages}]"));
    room.write("pattern.yaml", recipe("[{path: 'rows/?.js*', format: messages}]"));
    let files = samples(&room, "data files.yaml");
    assert_eq!(
        files.iter().map(|(path, _)| path).collect::<Vec<_>>(),
        ["rows/a.jsonl", "rows/a.jsonl", "rows/b.json"]
    );
    assert_eq!(samples(&room, "data folder.yaml"), files);
    assert_eq!(samples(&room, "data pattern.yaml"), files);
    for path in ["rows", "rows/?.js*"] {
        let found = samples(
            &room,
            &format!("data --file {path} --format messages {MODEL} --preamble none"),
        );
        assert_eq!(found, files, "{path}");
    }
    let warned = room.graft("validate folder.yaml");
    insta::assert_snapshot!(warned.stderr, @"warning: data.train.0.path: `rows`: `notes.py`, `test` is not read: what a folder means is the files of rows that lie right in it");
    room.done("train files.yaml -q");
    room.done("train folder.yaml -q output_dir=runs/folder");
    let adapter = |run: &str| {
        std::fs::read(room.path(&format!("runs/{run}/adapter/adapter_model.safetensors"))).unwrap()
    };
    assert!(adapter("r") == adapter("folder"), "the same rows train otherwise from a folder");
    // What a folder holds is part of the run.
    room.done("train folder.yaml -q output_dir=runs/begun training.max_steps=1");
    room.write("rows/c.jsonl", ROW);
    let go_on = "train folder.yaml -q output_dir=runs/begun training.max_steps=2 --resume";
    insta::assert_snapshot!(room.refused(go_on), @"
    error: the run in `runs/begun` cannot go on, it would be another one:
      the files that are trained on: was 2 files, is now 3 files
        take back what changed in their folders: `rows/c.jsonl`
      restore what has changed, or start a new run in another folder with `output_dir=…`
    ");
    std::fs::remove_file(room.path("rows/c.jsonl")).unwrap();
    room.done(go_on);
}

#[test]
fn what_no_path_means_is_refused_with_the_way_out() {
    let room = rows();
    room.write("r.yaml", recipe("[{path: x, format: messages}]"));
    let refused = |path: &str| {
        let said = room.refused(&format!("validate r.yaml data.train.0.path={path}"));
        said.lines().nth(1).unwrap().split_once("data.train.0.path: ").unwrap().1.to_owned()
    };
    insta::assert_snapshot!(refused("none/*.jsonl"), @"cannot read `none/*.jsonl`: no file fits this pattern");
    room.write("split/train/a.jsonl", ROW);
    insta::assert_snapshot!(refused("split"), @"cannot read `split`: it is a folder without a file of `format: messages`; its folders are `train`: name one of them, or all by the pattern `split/**/*`");
    assert!(room.graft("validate r.yaml data.train.0.path=split/**/*").code == 0);
    let flag = room.refused(&format!("data --file split --format messages {MODEL}"));
    assert!(flag.contains("its folders are `train`"), "{flag}");
}

#[test]
fn flags_say_of_rows_what_a_recipes_source_says() {
    let room = Room::new();
    let chat = |question: &str, mood: &str| {
        format!(
            "{{\"dialogue\": [{{\"speaker\": \"customer\", \"utterance\": \"{question}\"{mood}}}, {{\"speaker\": \
             \"agent\", \"utterance\": \"12 euros.\"}}], \"mood\": 3}}\n"
        )
    };
    room.write("chats.jsonl", chat("What is the fee?", "") + &chat("And then?", ", \"tone\": 1"));
    room.write(
        "r.yaml",
        recipe(
            "[{path: chats.jsonl, format: messages, columns: {messages: dialogue}, ignore_columns: [mood, \
             messages.tone], turn_fields: {role: speaker, content: utterance}, roles: {user: [customer], assistant: \
             [agent]}, train_on: {roles: [user, assistant], turns: last}}]",
        ),
    );
    let flags = [
        "--columns={messages: dialogue}",
        "--ignore-columns=[mood, messages.tone]",
        "--turn-fields={role: speaker, content: utterance}",
        "--roles={user: [customer], assistant: [agent]}",
        "--train-on={roles: [user, assistant], turns: last}",
    ];
    let of_file = "data --file chats.jsonl --format messages --model builtin:quickstart --preamble none --as-it-is --json";
    let words: Vec<&str> = of_file.split(' ').chain(flags).collect();
    let shown = |text: &str| serde_json::from_str::<Value>(text).unwrap()["samples"].clone();
    let by_flags = room.graft_words(&words);
    assert_eq!(by_flags.code, 0, "{}", by_flags.stderr);
    assert_eq!(shown(&by_flags.stdout), shown(&room.done("data r.yaml --as-it-is --json")));
    let eval = "eval --model builtin:quickstart --data chats.jsonl --format messages --json";
    let words: Vec<&str> = eval.split(' ').chain(flags).collect();
    let scored = room.graft_words(&words);
    assert_eq!(scored.code, 0, "{}", scored.stderr);
    let refused = |line: &str, flag: &str| {
        let said = room.graft_words(&line.split(' ').chain([flag]).collect::<Vec<_>>());
        assert_eq!(said.code, 2, "{}", said.stdout);
        said.stderr
    };
    insta::assert_snapshot!(refused(of_file, "--columns={message: dialogue}"), @"error: --columns: message: `message` is no field of `format: messages`; allowed: messages, system, tools, builtin_tools, tools_in_user_message, weight");
    insta::assert_snapshot!(refused(of_file, "--train-on={turn: last}"), @"
    error: --train-on: turn: unknown key
      help: did you mean `train_on.turns`?
    ");
    insta::assert_snapshot!(refused(of_file, "--roles={user: [a], assistant: [a]}"), @"error: --roles: user: found `a`, which stands for `assistant`, too");
    insta::assert_snapshot!(refused(&of_file.replace("messages", "text"), "--train-on={turns: last}"), @"
    error: --train-on: found a mapping (turns), but a row of `format: text` has no turns
      help: drop `train_on`
    ");
    insta::assert_snapshot!(refused("data r.yaml", "--roles={user: [a]}"), @"error: --roles says what rows of --file are, and there is none: in a recipe the key `roles` stands beside the source's `path`");
    insta::assert_snapshot!(refused("eval --recipe r.yaml", "--columns={a: b}"), @"error: --columns says what rows of --data are, and there is none: in a recipe the key `columns` stands beside the source's `path`");
}

#[test]
fn standard_input_is_rows_of_any_container() {
    let room = rows();
    for file in ["rows/a.jsonl", "rows/b.json"] {
        let line = format!("data --file - --format messages {MODEL} --json --show 9");
        let output = Command::new(env!("CARGO_BIN_EXE_graft"))
            .args(line.split(' '))
            .current_dir(room.path(""))
            .stdin(Stdio::from(File::open(room.path(file)).unwrap()))
            .output()
            .unwrap();
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        let by_name = samples(&room, &format!("data --file {file} --format messages {MODEL}"));
        let found: Vec<&Value> =
            shown["samples"].as_array().unwrap().iter().map(|sample| &sample["tokens"]).collect();
        assert_eq!(found, by_name.iter().map(|(_, tokens)| tokens).collect::<Vec<_>>(), "{file}");
        assert_eq!(shown["samples"][0]["path"], "standard input");
    }
}

#[test]
fn an_epoch_has_the_parts_that_are_asked_for_and_says_so() {
    let room = rows();
    let text =
        |row: usize| format!("{{\"text\": \"{}\"}}\n", format!("Room {row} is open. ").repeat(4));
    room.write("domain.jsonl", (0..30).map(text).collect::<String>());
    room.write("general.jsonl", (100..300).map(text).collect::<String>());
    let epoch = |train: &str| {
        room.write("r.yaml", recipe(train));
        let shown = room.done("validate r.yaml");
        let line = shown.lines().find(|line| line.starts_with("not whole")).unwrap_or_default();
        line.split_once("an epoch has ").map_or(String::new(), |(_, parts)| parts.to_owned())
    };
    let domain = "{path: domain.jsonl, format: text";
    let general = "{path: general.jsonl, format: text";
    let row =
        |beside: &str, other: &str| epoch(&format!("[{domain}{beside}}}, {general}{other}}}]"));
    insta::assert_snapshot!(row("", ""), @"");
    insta::assert_snapshot!(row(", epochs: 3", ", rows: 10"), @"90 of data.train[0] (`domain.jsonl`), 10 of data.train[1] (`general.jsonl`)");
    insta::assert_snapshot!(row("", ", replay: 0.1"), @"30 of data.train[0] (`domain.jsonl`), 3 of data.train[1] (`general.jsonl`)");
    insta::assert_snapshot!(row(", weight: 9", ", weight: 1"), @"207 of data.train[0] (`domain.jsonl`), 23 of data.train[1] (`general.jsonl`)");
    let refused = |beside: &str, other: &str| {
        room.write("r.yaml", recipe(&format!("[{domain}{beside}}}, {general}{other}}}]")));
        room.refused("validate r.yaml")
    };
    assert!(
        refused(", weight: 1", "")
            .contains("data.train.1: it has no weight, but another source has one")
    );
    assert!(
        refused(", replay: 0.5", ", replay: 0.5")
            .contains("replayed sources are 1 of an epoch's tokens together")
    );
    assert!(refused(", rows: 5, epochs: 2", "").contains("allowed: one of the two"));
    // What an epoch has more often than once is told, where it was not asked for as such.
    let warned = |beside: &str, other: &str| {
        room.write("r.yaml", recipe(&format!("[{domain}{beside}}}, {general}{other}}}]")));
        let said = room.graft("validate r.yaml");
        let warnings = said.stderr.lines().filter(|line| line.contains("on average"));
        warnings.collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(warned(", rows: 50", ""), @"warning: data.train[0] (`domain.jsonl`): an epoch has each of its 30 samples 1.7 times on average, as it is asked to have more than there are");
    insta::assert_snapshot!(warned("", ", replay: 0.95"), @"warning: data.train[1] (`general.jsonl`): an epoch has each of its 200 samples 2.5 times on average, as it is asked to have more than there are");
    assert_eq!(warned(", epochs: 2", ", rows: 200"), "");
    // More of an epoch than can be planned, and a part of nothing.
    let words = |refused: &str| refused.lines().nth(1).unwrap_or_default().trim().to_owned();
    insta::assert_snapshot!(words(&refused(", epochs: 900000", "")), @"r.yaml:5:10: data.train: an epoch would have 27000200 samples; at most 16777216 are planned at once: ask for less of a source, and for more epochs");
    room.write("none.jsonl", format!("{{\"text\": \"{}\"}}\n", "Room 1 is open. ".repeat(200)));
    let dropped = "data.max_seq_len=256 data.overlong=drop";
    room.write(
        "r.yaml",
        recipe("[{path: none.jsonl, format: text, rows: 5}, {path: one.jsonl, format: messages}]"),
    );
    insta::assert_snapshot!(words(&room.refused(&format!("validate r.yaml {dropped}"))), @"r.yaml:5:11: data.train.0: no row of it is left to train on, so an epoch cannot have some of it");
    // A kill between its epochs changes nothing.
    room.write("r.yaml", recipe(&format!("[{domain}, rows: 7}}, {general}, replay: 0.3}}]")));
    let words = "-q training.max_steps=12 training.micro_batch_size=2 training.schedule=constant";
    room.done(&format!("train r.yaml {words} output_dir=runs/whole"));
    room.done(&format!("train r.yaml {words} training.max_steps=5 output_dir=runs/parts"));
    room.done(&format!("train r.yaml {words} output_dir=runs/parts --resume"));
    let adapter = |run: &str| {
        std::fs::read(room.path(&format!("runs/{run}/adapter/adapter_model.safetensors"))).unwrap()
    };
    assert!(adapter("whole") == adapter("parts"), "a resumed mixture is another");
}

#[test]
fn documents_are_a_source_like_any_other() {
    let room = Room::new();
    room.write(
        "docs/fees.md",
        "# Fees\n\nA permit costs five euros.\n\n## Late\n\nSeven euros, then.\n",
    );
    room.write(
        "docs/web/hours.html",
        "<!DOCTYPE html><nav>Menu</nav><main><h1>Hours</h1><p>Nine to twelve.</main>",
    );
    room.write("r.yaml", recipe("[{path: docs, format: documents, documents: {max_tokens: 16}}]"));
    room.done(&format!("documents docs --out corpus.jsonl --max-tokens 16 {MODEL}"));
    room.write("rows.yaml", recipe("[{path: corpus.jsonl, format: text}]"));
    let tokens = |recipe: &str| {
        let samples = samples(&room, &format!("data {recipe}"));
        samples.into_iter().map(|(_, tokens)| tokens).collect::<Vec<_>>()
    };
    assert_eq!(tokens("r.yaml"), tokens("rows.yaml"));
    room.done("train r.yaml -q");
    room.done("train rows.yaml -q output_dir=runs/rows");
    let adapter = |run: &str| {
        std::fs::read(room.path(&format!("runs/{run}/adapter/adapter_model.safetensors"))).unwrap()
    };
    assert!(adapter("r") == adapter("rows"));
    room.write("docs/scan.pdf", "%PDF-1.7\nbroken");
    std::os::unix::fs::symlink("none", room.path("docs/dangling")).unwrap();
    room.write("r.yaml", recipe("[{path: docs, format: documents}]") + "output_dir: runs/other\n");
    insta::assert_snapshot!(room.refused("validate r.yaml"), @"
    error: recipe `r` has a problem:
    r.yaml:5:18: data.train.0.path: cannot read `docs/dangling`: No such file or directory (os error 2)
      help: mend these or take them away, or leave them out, counted: `documents: {allow: [unreadable]}`
    ");
    insta::assert_snapshot!(room.refused("validate r.yaml data.train.0.path=docs/*.pdf"), @"
    error: recipe `r` has a problem:
    r.yaml:5:10: data.train: docs/scan.pdf: this PDF is broken: no pages are found in it; mend it or take it away, or leave it out, counted: `documents: {allow: [unreadable]}`; `graft documents` lists all such files
    ");
    let allowed = room.graft("validate r.yaml data.train.0.documents.allow=[unreadable]");
    insta::assert_snapshot!(allowed.stderr, @"
    warning: data.train.0.path: left out, as it cannot be read: `docs/dangling`: No such file or directory (os error 2)
    warning: data.train: `docs/scan.pdf`: left out: this PDF is broken: no pages are found in it
    ");
    assert!(
        room.refused("validate r.yaml data.train.0.documents.max_tokens=4000")
            .contains("at most 2046")
    );
    assert!(
        room.refused("validate r.yaml data.train.0.documents.overlap=1500")
            .contains("allowed is at most half of that")
    );
    assert!(
        room.refused("validate r.yaml data.train.0.format=text data.train.0.documents.overlap=1")
            .contains("`documents`")
    );
    // Every form is one of rows, or documents.
    assert!(Format::ALL.iter().all(|format| format.name() != "documents"));
}

#[test]
fn documents_fit_with_masks_in_them_and_one_alone_cannot_be_split() {
    let room = Room::new();
    let line = |i: usize| format!("Ask a.b{i}@x{i}.de or c.d{i}@y{i}.de for room {i}.\n\n");
    room.write("docs/a.txt", (0..60).map(line).collect::<String>());
    let words = "data.max_seq_len=64 data.hygiene.personal=mask output_dir=runs/m -q";
    room.write("r.yaml", recipe("[{path: docs, format: documents}]"));
    room.done(&format!("train r.yaml {words}"));
    let shown = room.done(&format!("data r.yaml {words} --show 2"));
    assert!(shown.contains("<MAIL_") && !shown.contains("@x"), "{shown}");
    let refused = room.refused("validate r.yaml data.max_seq_len=64 data.validation.fraction=0.5");
    assert!(refused.contains("all rows of one document, counted once"), "{refused}");
    let masked = "data.hygiene={personal: mask, patterns: [{name: hex, regex: '[0-9a-f]{6,}', action: mask}]}";
    room.write("s.yaml", recipe("[{path: rows.jsonl, format: text}]"));
    room.write("rows.jsonl", "{\"text\": \"Write to anna@x.de soon.\"}\n");
    let said = room.graft_words(&["data", "s.yaml", masked, "--show", "1"]);
    assert!(
        !said.stdout.contains("<<") && said.stdout.matches("<MAIL_").count() >= 1,
        "{}",
        said.stdout
    );
    assert!(!said.stdout.contains("_<HEX"), "{}", said.stdout);
}

#[test]
fn a_cache_stands_apart_from_what_a_run_reads_and_leaves() {
    let room = rows();
    room.write("r.yaml", recipe("[{path: rows, format: messages}]"));
    for folder in ["rows", "rows/kept", "runs/r/adapter", "runs/r"] {
        let refused = room.refused(&format!("validate r.yaml data.cache={folder}"));
        assert!(refused.contains("is no place for a cache"), "{refused}");
    }
    room.done("train r.yaml -q data.cache=kept");
    assert!(room.path("kept").read_dir().unwrap().count() == 1);
}

#[test]
fn what_was_found_in_rows_and_held_out_is_kept_for_the_next_start() {
    let room = rows();
    let mail = |row: usize| ROW.replace("12", &format!("{row}, ask ana{row}@example.org"));
    let text: String = (20..60).map(|row| mail(row) + "\n").collect();
    room.write("rows/c.jsonl", text.clone() + &mail(20) + "\n");
    room.write("r.yaml", recipe("[{path: rows, format: messages}]\n  hygiene: {duplicates: drop, personal: {mail: mask}}\n  validation: {fraction: 0.2}"));
    let run = |out: &str, cache: &str| {
        room.done(&format!("train r.yaml -q data.cache={cache} output_dir=runs/{out}"));
        let read = |name: &str| std::fs::read(room.path(&format!("runs/{out}/{name}"))).unwrap();
        let manifest: Value = serde_json::from_slice(&read("manifest.json")).unwrap();
        (
            read("adapter/adapter_model.safetensors"),
            manifest["data"].clone(),
            manifest["hygiene"].clone(),
        )
    };
    let expected = run("without", "off");
    let kept = |prefix: &str| -> Vec<std::path::PathBuf> {
        let all = room.names().into_iter();
        let is_kept = |path: &std::path::PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        };
        all.filter(is_kept).collect()
    };
    for out in ["first", "second", "third"] {
        assert!(run(out, "kept") == expected, "{out}");
        assert_eq!((kept("found-").len(), kept("split-").len()), (1, 1), "{out}");
        if out == "second" {
            // What is damaged is made again.
            for file in [kept("found-"), kept("split-")].concat() {
                let path = room.path(file.to_str().unwrap());
                let mut bytes = std::fs::read(&path).unwrap();
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
            let said = room.graft("validate r.yaml data.cache=kept");
            assert!(said.stderr.contains("they are looked through again"), "{}", said.stderr);
        }
    }
}
