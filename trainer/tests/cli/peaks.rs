//! `graft plan` against what the same runs then take, as the kernel counts both (proc_pid_status(5)): the sum of
//! its anonymous lines against the most private memory that was seen (`RssAnon`, looked at every millisecond),
//! and the sum with mapped files against the peak of all resident memory (`VmHWM`).
//!
//! `GRAFT_ALL_PEAKS=1` runs every combination of the table's columns, which takes minutes.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::room::Room;

/// A plan is never below the peak, and at most this share above it.
const ABOVE: f64 = 1.15;

/// What is trained, what that overrides, and whether it merges. A model is some hundred MiB with what training it takes,
/// so that the program itself is a small part.
type Trained = (&'static str, &'static [&'static str], bool);
const LORA: Trained = ("lora", &["model.path=dense", "quantization=none"], true);
const WHILE_LOADING: Trained = ("qlora, quantised while loading", &["model.path=dense"], true);
const QLORA: Trained = ("qlora", &["model.path=nf4"], true);
const FULL: Trained = (
    "full",
    &["model={path: trained, init: random}", "quantization=none", "adapter={method: full}"],
    false,
);
const ASKED: Trained =
    ("qlora with questions", &["model.path=nf4", "data.max_seq_len=256", QUESTIONS], true);
const WIDE: Trained = (
    "a rank beyond every width",
    &["model.path=nf4", "adapter.rank=2048", "adapter.alpha=2048", "adapter.layers={last: 1}"],
    true,
);
const DROPS: Trained =
    ("lora with dropout", &["model.path=dense", "quantization=none", "adapter.dropout=0.05"], true);
const DORA: Trained =
    ("dora", &["model.path=dense", "quantization=none", "adapter.dora=true"], true);
const PART: Trained = (
    "a part of the weights",
    &["model.path=dense", "quantization=none", "adapter.init=pissa"],
    true,
);
const TABLES: Trained = (
    "updates of the tables",
    &[
        "model.path=dense",
        "quantization=none",
        "adapter.target_modules=[q_proj, v_proj, embed_tokens, lm_head]",
    ],
    true,
);
const SAVED: Trained = (
    "the tables whole",
    &["model.path=nf4", "adapter.modules_to_save=[embed_tokens, lm_head]"],
    true,
);
const ROWS: Trained = (
    "rows of the tables",
    &[
        "model.path=nf4",
        "adapter.trainable_token_indices={embed_tokens: [5, 900], lm_head: [7, 901]}",
    ],
    true,
);
const GIVEN: Trained = (
    "lora for programs",
    &[
        "model.path=dense",
        "quantization=none",
        "adapter.rank_pattern={down_proj: 12}",
        "finish.for=[vllm, llama.cpp, ollama]",
    ],
    false,
);
const METHODS: &[Trained] =
    &[LORA, WHILE_LOADING, QLORA, FULL, ASKED, WIDE, DROPS, DORA, PART, TABLES, SAVED, ROWS, GIVEN];
const QUESTIONS: &str =
    "evaluation={held_out: [{path: questions.jsonl, format: messages}], max_new_tokens: 16}";

/// A row of the table: what is trained, checkpointing, dtype, whether a merged model is written, whether it is validated.
type Case = (Trained, &'static str, &'static str, bool, bool);

/// Every value of every column, and every method with every checkpointing that it differs in.
const CASES: &[Case] = &[
    (LORA, "block", "bf16", false, true),
    (LORA, "selective", "f32", true, false),
    (GIVEN, "block", "bf16", false, false),
    (LORA, "none", "bf16", false, false),
    (WHILE_LOADING, "block", "f32", true, true),
    (WHILE_LOADING, "none", "bf16", true, false),
    (QLORA, "selective", "bf16", true, true),
    (QLORA, "block", "bf16", false, false),
    (QLORA, "none", "f32", false, false),
    (FULL, "block", "f32", false, true),
    (FULL, "none", "bf16", false, false),
    (ASKED, "selective", "bf16", false, false),
    (WIDE, "block", "f32", false, false),
    (DROPS, "selective", "bf16", false, false),
    (DORA, "selective", "bf16", true, false),
    (DORA, "none", "bf16", false, false),
    (DORA, "block", "f32", false, false),
    (PART, "selective", "bf16", true, false),
    (TABLES, "selective", "bf16", true, false),
    (SAVED, "block", "f32", true, false),
    (ROWS, "selective", "bf16", false, true),
];

fn all_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &trained in METHODS {
        for checkpointing in ["block", "selective", "none"] {
            for (dtype, validates) in
                ["bf16", "f32"].into_iter().flat_map(|d| [(d, false), (d, true)])
            {
                let merges: &[bool] = if trained.2 { &[false, true] } else { &[false] };
                let with = |&merges| (trained, checkpointing, dtype, merges, validates);
                cases.extend(merges.iter().map(with));
            }
        }
    }
    cases
}

fn overrides((trained, checkpointing, dtype, merges, validates): Case) -> Vec<String> {
    let mut all: Vec<String> = trained.1.iter().map(ToString::to_string).collect();
    all.push(format!("training.checkpointing={checkpointing}"));
    all.push(format!("training.compute_dtype={dtype}"));
    all.push(format!("finish.merge={merges}"));
    if validates {
        all.push("data.validation={fraction: 0.4}".to_owned());
        all.push("evaluation.every_steps=1".to_owned());
    }
    all
}

/// Folders of synthetic weights, a configuration of its own size for random ones, and the recipe.
fn prepare(room: &Room) {
    for (name, format) in [("dense", "bf16"), ("nf4", "nf4-double")] {
        room.done(&format!(
            "-q synth-model --preset 100m --layers 2 --format {format} --out {name}"
        ));
    }
    room.model("trained", |text| {
        let mut config: Value = serde_json::from_str(&text).unwrap();
        for (key, value) in [
            ("hidden_size", 512),
            ("intermediate_size", 2_048),
            ("num_hidden_layers", 3),
            ("num_attention_heads", 8),
            ("num_key_value_heads", 4),
            ("head_dim", 64),
        ] {
            config[key] = value.into();
        }
        config.to_string()
    });
    recipe(room);
}

/// A recipe, eight rows of text, and questions.
fn recipe(room: &Room) {
    // Words that tokenizers cut into many tokens: rows are longer than the most that is kept of them.
    let row = |seed: usize| {
        let words = (0..700).fold(String::new(), |mut text, i| {
            let _ = write!(text, "{} ", (i * 7_919 + seed * 104_729) % 99_991);
            text
        });
        serde_json::json!({ "text": words }).to_string()
    };
    let rows: Vec<String> = (0..8).map(row).collect();
    room.write("text.jsonl", rows.join("\n"));
    let question = |number: usize| {
        let asked =
            format!("{} What is the fee of permit {number}?", "Please tell me this. ".repeat(6));
        serde_json::json!({"messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": format!("{number} euros.")},
        ]})
        .to_string()
    };
    room.write("questions.jsonl", (0..50).map(question).collect::<Vec<_>>().join("\n"));
    room.write(
        "r.yaml",
        "model: {path: dense}\noutput_dir: run\nquantization: {format: nf4, double: true}\n\
         adapter: {method: lora, rank: 16, alpha: 32}\n\
         data: {train: [{path: text.jsonl, format: text}], max_seq_len: 768, overlong: truncate_right}\n\
         training: {max_steps: 2, micro_batch_size: 1, learning_rate: 1.0e-4}\n",
    );
}

fn planned(room: &Room, words: &[String]) -> [f64; 2] {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graft"));
    command.args(["plan", "r.yaml", "--json"]).args(words).current_dir(room.path(""));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    ["anonymous_bytes", "resident_bytes"].map(|sum| plan[sum].as_u64().unwrap() as f64)
}

/// Runs it and gives the most private memory seen, and the peak of what was resident.
fn measured(room: &Room, words: &[String]) -> [f64; 2] {
    let _ = std::fs::remove_dir_all(room.path("run"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_graft"));
    command.args(["-q", "train", "r.yaml"]).args(words).current_dir(room.path(""));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let (mut private, mut resident) = (0, 0);
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let kib = |key: &str| -> u64 {
            let value = text.lines().find_map(|line| line.strip_prefix(key));
            value.map_or(0, |value| value.trim().trim_end_matches(" kB").parse().unwrap())
        };
        private = private.max(kib("RssAnon:"));
        resident = resident.max(kib("VmHWM:"));
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    [private, resident].map(|kib| (kib * 1_024) as f64)
}

const MIB: f64 = 1_048_576.0;
/// What a plan may be above the peak of a run that is smaller than the program: a fixed part of it is for
/// buffers that only larger models fill.
const ABOVE_SMALL: f64 = 14.0 * MIB;

/// What is wrong with a plan, if anything is.
fn verdict(what: &str, planned: f64, found: f64, above: f64) -> Option<String> {
    let ratio = planned / found;
    (planned < found || planned > above).then(|| {
        let (planned, found) = (planned / MIB, found / MIB);
        format!("{what}: {planned:.1} MiB planned, {found:.1} MiB taken ({ratio:.3})")
    })
}

#[test]
fn a_plan_is_never_below_the_peak_and_little_above_it() {
    let room = Room::new();
    prepare(&room);
    let cases = match std::env::var_os("GRAFT_ALL_PEAKS") {
        Some(_) => all_cases(),
        None => CASES.to_vec(),
    };
    let mut wrong = Vec::new();
    for case in cases {
        let words = overrides(case);
        let [private, resident] = planned(&room, &words);
        let [found, peak] = measured(&room, &words);
        let name = format!("{}: {}", case.0.0, words.join(" "));
        let verdicts = [
            verdict("anonymous", private, found, ABOVE * found),
            verdict("resident", resident, peak, ABOVE * peak),
        ];
        wrong.extend(verdicts.into_iter().flatten().map(|verdict| format!("{name}\n  {verdict}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_smallest_runs_take_little_less_than_their_plan() {
    let room = Room::new();
    recipe(&room);
    let small = ["model.path=builtin:quickstart", "adapter.rank=4", "data.max_seq_len=256"];
    let mut wrong = Vec::new();
    for more in [
        &["finish.merge=true", "training.checkpointing=block"][..],
        &["training.checkpointing=none", "adapter.dropout=0.1"],
        &["training.max_steps=1", "data.max_seq_len=64"],
    ] {
        let words: Vec<String> = small.iter().chain(more).map(ToString::to_string).collect();
        let [private, resident] = planned(&room, &words);
        let [found, peak] = measured(&room, &words);
        let verdicts = [
            verdict("anonymous", private, found, found + ABOVE_SMALL),
            verdict("resident", resident, peak, peak + ABOVE_SMALL),
        ];
        wrong
            .extend(verdicts.into_iter().flatten().map(|verdict| format!("{more:?}\n  {verdict}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
