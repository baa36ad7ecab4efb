//! `generate`, `chat` and `eval`: what is asked, how answers end, and models that have none.

use std::io::Write;
use std::process::{Command, Stdio};

use graft::synthetic::{Contents, Format, Synthetic};
use graft_model::LlamaConfig;
use graft_model::checkpoint::Checkpoint;
use graft_model::folder::ModelFolder;
use serde_json::Value;

use super::room::{ROW, Room};

/// One small block with the built-in model's tokens and 64 positions.
fn small_config() -> LlamaConfig {
    let builtin = ModelFolder::open("builtin:quickstart").unwrap();
    let config = LlamaConfig::from_json(&builtin.required("config.json").unwrap(), "config.json");
    LlamaConfig {
        d_model: 64,
        d_ff: 128,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: 32,
        max_position_embeddings: 64,
        ..config.unwrap()
    }
}

/// A model of these sizes with random weights.
fn small(room: &Room, name: &str, seed: u64) {
    let model =
        Synthetic::new(small_config(), None, Format::Bf16, Contents::Random { seed }).unwrap();
    model.write(&room.path(name), &mut |_| ()).unwrap();
}

/// Overwrites a tensor's values by this bf16.
fn fill(room: &Room, model: &str, tensor: &str, value: [u8; 2]) {
    let path = room.path(model).join("model.safetensors");
    let mut file = std::fs::read(&path).unwrap();
    let checkpoint = Checkpoint::open(&ModelFolder::at(&room.path(model)).unwrap()).unwrap();
    let bytes = checkpoint.tensor(tensor).unwrap().bytes;
    let place = file.windows(bytes.len()).position(|part| part == &bytes[..]).unwrap();
    for pair in file[place..place + bytes.len()].chunks_exact_mut(2) {
        pair.copy_from_slice(&value);
    }
    std::fs::write(&path, file).unwrap();
}

fn chat(room: &Room, line: &str, input: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graft"));
    command.args(line.split_whitespace()).current_dir(room.path(""));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn an_answer_says_why_it_ended() {
    let room = Room::new();
    let generate = "generate --model builtin:quickstart --json --prompt Fee?";
    let reason = |line: &str| {
        let said: Value = serde_json::from_str(&room.done(line)).unwrap();
        (
            said["finish_reason"].as_str().unwrap().to_owned(),
            said["tokens"].as_array().unwrap().len(),
        )
    };
    assert_eq!(reason(&format!("{generate} --max-new-tokens 3")), ("length".to_owned(), 3));
    assert_eq!(reason(&format!("{generate} --max-new-tokens 900")).0, "stop");
    let said =
        room.graft("generate --model builtin:quickstart --prompt Fee? --max-new-tokens 3 -q");
    assert_eq!(said.stderr, "[cut short after 3 tokens: --max-new-tokens allows no more]\n");
}

#[test]
fn a_conversation_is_held_and_its_commands_are_heard() {
    let room = Room::new();
    let line = "chat --model builtin:quickstart --max-new-tokens 8 --json --quiet";
    let (code, stdout, stderr) = chat(
        &room,
        line,
        "What is the fee?\n\n/clear\nWhat is the fee?\nAnd now?\n/system Be brief.\nWhat is the fee?\n/what\n/quit\nno\n",
    );
    assert_eq!(code, 0, "{stderr}");
    let answers: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 4, "{stdout}");
    assert_eq!(answers[0], answers[1], "a cleared conversation is a new one");
    let prompts: Vec<u64> = answers.iter().map(|a| a["prompt_tokens"].as_u64().unwrap()).collect();
    assert!(prompts[2] > prompts[1] + 8 && prompts[3] > prompts[1] && prompts[3] < prompts[2]);
    insta::assert_snapshot!(stderr, @r"
    The conversation starts over.
    The conversation starts over with this system prompt.
    `/what` is no command; /help lists them.
    ");
}

#[test]
fn beyond_the_positions_of_the_model_nothing_is_asked_or_scored() {
    let room = Room::new();
    small(&room, "m", 1);
    let long = "x".repeat(400);
    let refused = |line: &str, expected: &str| {
        let said = room.refused(line);
        assert!(
            said.contains(expected),
            "graft {line}
{said}"
        );
    };
    refused(
        &format!("generate --model m --raw --prompt {long}"),
        "the prompt has 401 tokens, but the model's longest sequence is 64 (max_position_embeddings \
         of config.json), answer included: shorten the prompt",
    );
    let said = room.graft("generate --model m --raw --prompt Fee? --json --max-new-tokens 400");
    let answer: Value = serde_json::from_str(&said.stdout).unwrap();
    let tokens = answer["tokens"].as_array().unwrap().len() as u64;
    assert_eq!(answer["prompt_tokens"].as_u64().unwrap() + tokens, 64, "{answer}");
    room.write("rows.jsonl", ROW);
    let rows = "--data rows.jsonl --format messages --preamble none";
    refused(
        &format!("eval --model m {rows} --max-seq-len 65"),
        "--max-seq-len is 65, but the model's longest sequence is 64",
    );
    refused(
        &format!("eval --model m {rows} --exact-match"),
        "its answer may have 64 (--max-new-tokens), but the model's longest sequence is 64",
    );
    let (code, stdout, stderr) = chat(
        &room,
        "chat --model m --preamble none --quiet --max-new-tokens 30",
        "Fee?\nFee?\nFee?\n",
    );
    assert_eq!((code, stdout.is_empty()), (2, false), "{stderr}");
    assert!(
        stderr.contains("the conversation no longer fits the model: with this question"),
        "{stderr}"
    );
    room.recipe("finish: {prompts: [Fee?, Fee and when?]}\nevaluation: {max_new_tokens: 60}\n");
    let refused =
        room.refused("validate r.yaml model.path=m data.max_seq_len=64 data.chat.preamble=none");
    assert!(
        refused.contains("finish.prompts.1") && refused.contains("longest sequence is 64"),
        "{refused}"
    );
}

#[test]
fn weights_that_are_no_numbers_are_failures_by_name() {
    let room = Room::new();
    small(&room, "m", 1);
    fill(&room, "m", "model.norm.weight", [0xc0, 0x7f]);
    room.write("rows.jsonl", format!("{ROW}\n{ROW}\n"));
    for (line, expected) in [
        ("generate --model m --raw --prompt Fee?", "the model gives NaN for token 0"),
        ("generate --model m --raw --prompt Fee? --json", "the model gives NaN for token 0"),
        (
            "eval --model m --data rows.jsonl --format messages --preamble none",
            "error: rows.jsonl:1 has no score",
        ),
        (
            "eval --model m --data rows.jsonl --format messages --preamble none --json",
            "loss on the row of line 1 is NaN",
        ),
    ] {
        let said = room.graft(line);
        assert_eq!((said.code, said.stdout.as_str()), (1, ""), "graft {line}\n{}", said.stderr);
        assert!(said.stderr.contains(expected), "graft {line}\n{}", said.stderr);
    }
    let (code, stdout, stderr) = chat(&room, "chat --model m --preamble none -q", "Fee?\n");
    assert_eq!((code, stdout.trim()), (1, ""), "{stderr}");
    assert!(stderr.contains("gives NaN for token 0"), "{stderr}");
    insta::assert_snapshot!(stderr, @r"
    error: the model `m` gives no answer
      caused by: the model gives NaN for token 0 of its vocabulary: its weights, or those of its adapter, are damaged or were destroyed in training. Take them from where they come from, or train anew with a lower training.learning_rate
    ");
}

/// Trains the small model for two steps; gives the scores afterwards.
fn trained(room: &Room, quantization: &str, on_inputs: bool) -> Value {
    let rows: String = (0..12).map(|i| ROW.replace("12", &i.to_string()) + "\n").collect();
    room.write("train.jsonl", rows);
    room.write(
        "t.yaml",
        format!(
            "name: t\nmodel: {{path: m}}\nquantization: {quantization}\n\
             adapter: {{method: lora, rank: 4, alpha: 8}}\n\
             data: {{train: [{{path: train.jsonl, format: messages}}], max_seq_len: 48, \
             validation: {{fraction: 0.3}}, chat: {{preamble: none}}, system_prompt: Be brief., \
             train_on_inputs: {on_inputs}}}\n\
             training: {{max_steps: 2, micro_batch_size: 2, learning_rate: 1.0e-2}}\n"
        ),
    );
    room.done("train t.yaml --quiet");
    let after = std::fs::read(room.path("runs/t/after.json")).unwrap();
    serde_json::from_slice(&after).unwrap()
}

#[test]
fn a_recipe_scores_as_its_run_did_and_the_system_prompt_travels() {
    let room = Room::new();
    small(&room, "m", 1);
    for (quantization, on_inputs) in [("none", false), ("nf4", true)] {
        let after = trained(&room, quantization, on_inputs);
        let loss = after["validation_loss"].as_f64().unwrap();
        let eval = |more: &[&str]| -> Value {
            let said = room.graft_words(&[&["eval", "--json"], more].concat());
            assert_eq!(said.code, 0, "{more:?}\n{}", said.stderr);
            serde_json::from_str(&said.stdout).unwrap()
        };
        let adapter = ["--adapter", "runs/t/adapter"];
        let recipe = ["--recipe", "t.yaml"];
        let same = eval(&[recipe, adapter].concat());
        // Not a bit apart: the rows, their order and their sums are the run's.
        assert_eq!(same["loss"].as_f64().unwrap().to_bits(), loss.to_bits(), "{quantization}");
        assert_ne!(eval(&recipe)["loss"], same["loss"], "the adapter changes nothing");
        // With flags the system prompt is the adapter's, unless told otherwise.
        let data = ["--data", "train.jsonl", "--format", "messages"];
        let by_recipe = eval(&[&recipe[..], &adapter, &data].concat());
        let mut flags = [&["--model", "m"][..], &adapter, &data].concat();
        if on_inputs {
            flags.push("--train-on-inputs");
        }
        let with = eval(&flags);
        assert_eq!(with["system_prompt"], "Be brief.");
        assert_eq!(with["nll"], by_recipe["nll"], "{quantization}");
        let without = eval(&[&flags[..], &["--system", ""]].concat());
        assert!(without.get("system_prompt").is_none() && without["nll"] != with["nll"]);
        std::fs::remove_dir_all(room.path("runs")).unwrap();
    }
}

#[test]
fn validation_before_and_after_is_one_number_in_every_place() {
    let room = Room::new();
    small(&room, "m", 1);
    let after = trained(&room, "none", false);
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(room.path(&format!("runs/t/{name}"))).unwrap())
            .unwrap()
    };
    let lines = std::fs::read_to_string(room.path("runs/t/metrics.jsonl")).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let curve: Vec<(u64, f64)> = lines
        .iter()
        .filter_map(|line| Some((line["step"].as_u64()?, line["eval_loss"].as_f64()?)))
        .collect();
    let loss = |scores: &Value| scores["validation_loss"].as_f64().unwrap();
    assert_eq!(curve, [(0, loss(&read("before.json"))), (2, loss(&after))]);
    let inspected = room.done("inspect runs/t");
    let last = format!("last eval    after step 2: loss {:.4} over", loss(&after));
    assert!(inspected.contains(&last), "{inspected}");
    // The base's parameters and what trains beside them, as `validate` and the report have it.
    let base: Value = serde_json::from_str(&room.done("inspect m --json")).unwrap();
    let planned: Value =
        serde_json::from_str(&room.done("validate t.yaml output_dir=other --json")).unwrap();
    assert_eq!(base["parameters"], planned["parameters"]);
    let grouped = |value: &Value| graft::cli::page::grouped(value.as_u64().unwrap());
    let (all, some) = (&planned["parameters"], &planned["trainable_parameters"]);
    assert!(inspected.contains(&format!("m, {} parameters", grouped(all))), "{inspected}");
    assert!(inspected.contains(&format!("{} trainable parameters", grouped(some))), "{inspected}");
    let share = 100.0 * some.as_f64().unwrap() / all.as_f64().unwrap();
    let report = std::fs::read_to_string(room.path("runs/t/report.html")).unwrap();
    assert!(report.contains(&format!("{share:.2} % of")), "no {share:.2} % in the report");
}

#[test]
fn adapters_that_do_not_belong_are_said_or_refused() {
    let room = Room::new();
    small(&room, "m", 1);
    trained(&room, "none", false);
    let ask = |model: &str, adapter: &str| {
        room.graft(&format!(
            "generate --model {model} --adapter {adapter} --prompt Fee? --max-new-tokens 1"
        ))
    };
    let warnings = |stderr: &str| {
        let lines = stderr.lines().filter(|line| line.starts_with("warning: "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let own = ask("m", "runs/t/adapter");
    assert_eq!((own.code, warnings(&own.stderr)), (0, Vec::new()));
    assert!(
        own.stderr.contains("system prompt of the adapter's training: \"Be brief.\""),
        "{}",
        own.stderr
    );
    // The same release in NF4 is the same base; other weights of the same shape are not.
    room.done("quantize --model m --out nf4");
    assert_eq!(warnings(&ask("nf4", "runs/t/adapter").stderr), Vec::<String>::new());
    small(&room, "other", 2);
    let other = warnings(&ask("other", "runs/t/adapter").stderr).join("\n");
    assert!(
        other.contains("was trained beside another model than `other`: the hash of its"),
        "{other}"
    );
    assert!(other.contains("Give the one that it was trained beside (`m`)"), "{other}");
    let goes_on = room
        .graft("validate t.yaml model.path=other adapter.init_from=runs/t/adapter output_dir=o");
    assert_eq!(goes_on.code, 0, "{}", goes_on.stderr);
    assert!(
        goes_on.stderr.contains("warning: adapter.init_from: `runs/t/adapter/"),
        "{}",
        goes_on.stderr
    );
    let inspected = room.done("inspect runs/t/adapter");
    assert!(
        inspected.contains("trained on  weights of form none\nsystem      Be brief."),
        "{inspected}"
    );
    // All zeros, as training begins.
    room.done("train t.yaml --quiet output_dir=zero training.learning_rate=1.0e-30");
    let file = room.path("zero/adapter/adapter_model.safetensors");
    let folder = ModelFolder::at(&room.path("zero/adapter")).unwrap();
    let adapter = Checkpoint::open_file(&folder, "adapter_model.safetensors").unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    for name in adapter.names().filter(|name| name.contains("lora_B")) {
        let part = adapter.tensor(name).unwrap().bytes;
        let place = bytes.windows(part.len()).position(|found| found == &part[..]).unwrap();
        bytes[place..place + part.len()].fill(0);
    }
    std::fs::write(&file, bytes).unwrap();
    let zero = warnings(&ask("m", "zero/adapter").stderr).join("\n");
    assert!(zero.contains("changes nothing: each of its updates has a matrix of zeros"), "{zero}");
    // Half of it is there.
    let half = Synthetic::new(
        LlamaConfig { layers: 2, ..small_config() },
        None,
        Format::Bf16,
        Contents::Random { seed: 1 },
    );
    half.unwrap().write(&room.path("deeper"), &mut |_| ()).unwrap();
    for command in ["generate --prompt x", "chat", "merge --out out"] {
        let line = format!("{command} --model deeper --adapter runs/t/adapter");
        let refused = room.refused(&line);
        assert!(
            refused.contains("holds 7 updates, but its adapter_config.json chooses 7 more"),
            "{refused}"
        );
    }
}

#[test]
fn a_merge_far_from_what_was_trained_is_said_with_the_way_out() {
    let room = Room::new();
    small(&room, "m", 1);
    trained(&room, "nf4", false);
    let merge = |more: &str| {
        room.graft(&format!("merge --model m --adapter runs/t/adapter --out out {more}"))
    };
    let near = merge("");
    assert!(near.code == 0 && !near.stderr.contains("warning"), "{}", near.stderr);
    assert!(
        near.stdout.contains("the system prompt \"Be brief.\": give it with --system"),
        "{}",
        near.stdout
    );
    std::fs::remove_dir_all(room.path("out")).unwrap();
    // Of the tokenizer's folder goes along what is of the tokenizer.
    room.model("tokenizer", |config| config);
    room.write("tokenizer/chat_template.jinja", "{{ messages[0].content }}");
    let with = merge("--tokenizer tokenizer");
    assert_eq!(with.code, 0, "{}", with.stderr);
    assert!(room.path("out/chat_template.jinja").exists());
}

#[test]
fn a_quantised_folder_gets_no_tokenizer_of_another_model() {
    let room = Room::new();
    room.model("base", |config| config.replace("\"vocab_size\": 2048", "\"vocab_size\": 1900"));
    room.model("other", |config| config);
    let said = room.refused("quantize --model base --tokenizer other --out new");
    assert!(said.contains("ids up to 2047") && said.contains("vocab_size is 1900"), "{said}");
}

#[test]
fn scores_of_rows_name_the_line_of_each_row_also_where_others_are_dropped_or_split() {
    let room = Room::new();
    let long = ROW.replace("12 euros.", &"12 euros. ".repeat(40));
    room.write("rows.jsonl", format!("{ROW}\n\n{long}\n{ROW}\n"));
    let lines = |policy: &str| {
        let file = format!("{policy}.jsonl");
        room.done(&format!(
            "eval --model builtin:quickstart --data rows.jsonl --format messages --max-seq-len 60 \
             --overlong {policy} --per-example {file}"
        ));
        let text = std::fs::read_to_string(room.path(&file)).unwrap();
        let rows: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(rows.iter().all(|row| row["file"] == "rows.jsonl"), "{text}");
        let number = |row: &Value, key: &str| row[key].as_u64().unwrap();
        assert!(rows.iter().enumerate().all(|(i, row)| number(row, "index") == i as u64), "{text}");
        rows.iter().map(|row| number(row, "line")).collect::<Vec<_>>()
    };
    assert_eq!(lines("drop"), [1, 4]);
    assert_eq!(lines("truncate_left"), [1, 3, 4]);
    let split = lines("split");
    assert_eq!((split[0], split[split.len() - 1]), (1, 4));
    assert!(split.len() > 3 && split.is_sorted(), "{split:?}");
}
