//! Every key of a recipe changes what a run does, and not only the recipe: one run with the key and one
//! without, and what each leaves is compared where the key should show. A key that is not in the table
//! fails, as does one that nothing reads.
#![expect(clippy::disallowed_methods, reason = "tests write their own input files")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use graft::synthetic::{Contents, Format, Synthetic};
use graft_model::folder::ModelFolder;
use graft_model::{LlamaConfig, presets};
use rayon::prelude::*;
use serde_json::{Value, json};

/// Where a key shows.
#[derive(Clone, Copy)]
enum Shows {
    /// In this file's bytes, or that it is there.
    In(&'static str),
    /// In the losses, rates and steps of metrics.jsonl.
    InMetrics,
    /// In the names below this folder.
    InFolder(&'static str),
    /// In the lines of the ledger: what a run holds, not what it computes.
    InPlan,
    /// In this entry of the manifest.
    InManifest(&'static str),
    /// The run is refused with these words, where it was not.
    Refused(&'static str),
    /// The run is refused without the key, and runs with it.
    Allowed,
    /// The run goes to this folder.
    At(&'static str),
}

use Shows::{Allowed, At, In, InFolder, InManifest, InMetrics, InPlan, Refused};

const ADAPTER: Shows = In("adapter/adapter_model.safetensors");
const BEFORE: Shows = In("before.json");
const TWO_ROWS: &str = "data.validation=[{path: v.jsonl, format: messages}]";
const TWO_SOURCES: &str =
    "data.train=[{path: a.jsonl, format: messages}, {path: v.jsonl, format: messages}]";
const DOCUMENTS: &[&str] = &["data.train=[{path: docs/a.txt, format: documents}]"];
const LEFT_OUT: Shows = InManifest("cleaned_sha256");
const DOUBLES: &[&str] =
    &["data.train=[{path: d.jsonl, format: messages}]", "data.max_seq_len=1024"];
const PERSONAL: &[&str] =
    &["data.train=[{path: p.jsonl, format: messages}]", "data.max_seq_len=1024"];
const WITH_PATTERN: &[&str] = &[
    PERSONAL[0],
    PERSONAL[1],
    "training.max_steps=6",
    "data.hygiene.patterns=[{name: case, regex: 'AZ-[0-9]+', action: mask}]",
];
const WITH_NAMES: &[&str] = &[
    PERSONAL[0],
    PERSONAL[1],
    "training.max_steps=6",
    "data.hygiene.names=[{path: n.txt, action: mask}]",
];
const TEXT: &str = "data.train=[{path: t.jsonl, format: text}]";

/// A key, what the run has beside it, what it is set to, and where that shows.
type Row = (&'static str, &'static [&'static str], &'static str, Shows);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("name", &[], "other", At("runs/other")),
    ("model.path", &[], "model-8", ADAPTER),
    ("model.tokenizer", &[], "with-template", ADAPTER),
    ("model.preset", &[], "llama3.2-1b", Refused("the folder is no llama3.2-1b")),
    ("model.init", &[], "random", ADAPTER),
    ("quantization.format", &[], "nf4", ADAPTER),
    ("quantization.double", &["quantization=nf4"], "false", ADAPTER),
    ("adapter.method", &[], "full", In("model/model.safetensors")),
    ("adapter.rank", &[], "2", ADAPTER),
    ("adapter.alpha", &[], "20.5", ADAPTER),
    ("adapter.dropout", &[], "0.5", ADAPTER),
    ("adapter.rslora", &[], "true", ADAPTER),
    ("adapter.dora", &[], "true", ADAPTER),
    ("adapter.loraplus_lr_ratio", &[], "16", ADAPTER),
    ("adapter.rank_pattern", &[], "{down_proj: 2}", ADAPTER),
    ("adapter.alpha_pattern", &[], "{down_proj: 2}", ADAPTER),
    ("adapter.modules_to_save", &[], "[lm_head]", ADAPTER),
    ("adapter.trainable_token_indices", &[], "[70]", ADAPTER),
    ("adapter.init", &[], "pissa", ADAPTER),
    ("adapter.target_modules", &[], "[q_proj, v_proj]", ADAPTER),
    ("adapter.layers", &[], "[1]", ADAPTER),
    ("adapter.layers.last", &["adapter.layers.last=2"], "1", ADAPTER),
    ("adapter.init_from", &[], "first/adapter", ADAPTER),
    ("data.train", &[], "[{path: v.jsonl, format: messages}]", ADAPTER),
    ("data.train[].path", &[], "v.jsonl", ADAPTER),
    ("data.train[].format", &[], "completion", Refused("data.train")),
    ("data.train[].columns", &["data.train=[{path: c.csv, format: alpaca}]"], "{instruction: question, output: answer}", Allowed),
    ("data.train[].ignore_columns", &["data.train=[{path: x.jsonl, format: messages}]"], "[quux]", Allowed),
    ("data.train[].turn_fields", &["data.train=[{path: s.jsonl, format: sharegpt}]"], "{from: speaker}", Allowed),
    ("data.train[].roles", &["data.train=[{path: r.jsonl, format: messages}]"], "{user: [customer], assistant: [agent]}", Allowed),
    ("data.train[].train_on.roles", &[], "[user, assistant]", ADAPTER),
    ("data.train[].train_on.turns", &["data.train=[{path: a.jsonl, format: messages, train_on: {roles: [user, assistant]}}]"], "last", ADAPTER),
    ("data.train[].documents.max_tokens", DOCUMENTS, "8", ADAPTER),
    ("data.train[].documents.overlap", &["data.train=[{path: docs/a.txt, format: documents, documents: {max_tokens: 8}}]"], "4", ADAPTER),
    ("data.train[].documents.allow", &["data.train=[{path: docs, format: documents}]"], "[unreadable]", Allowed),
    ("data.train[].epochs", &[TWO_SOURCES], "2", ADAPTER),
    ("data.train[].rows", &[TWO_SOURCES], "5", ADAPTER),
    ("data.train[].weight", &["data.train=[{path: a.jsonl, format: messages, weight: 1}, {path: v.jsonl, format: messages, weight: 1}]"], "9", ADAPTER),
    ("data.train[].replay", &[TWO_SOURCES], "0.7", ADAPTER),
    ("data.validation", &[], "[{path: v.jsonl, format: messages}]", BEFORE),
    ("data.validation.fraction", &["data.validation.fraction=0.25"], "0.5", BEFORE),
    ("data.validation[].path", &[TWO_ROWS], "h.jsonl", BEFORE),
    ("data.validation[].format", &[TWO_ROWS], "completion", Refused("data.validation")),
    ("data.validation[].columns", &["data.validation=[{path: c.csv, format: alpaca}]"], "{instruction: question, output: answer}", Allowed),
    ("data.validation[].ignore_columns", &["data.validation=[{path: x.jsonl, format: messages}]"], "[quux]", Allowed),
    ("data.validation[].turn_fields", &["data.validation=[{path: s.jsonl, format: sharegpt}]"], "{from: speaker}", Allowed),
    ("data.validation[].roles", &["data.validation=[{path: r.jsonl, format: messages}]"], "{user: [customer], assistant: [agent]}", Allowed),
    ("data.validation[].train_on.roles", &[TWO_ROWS], "[user, assistant]", BEFORE),
    ("data.validation[].train_on.turns", &["data.validation=[{path: v.jsonl, format: messages, train_on: {roles: [user, assistant]}}]"], "last", BEFORE),
    ("data.validation[].documents.max_tokens", &["data.validation=[{path: docs/a.txt, format: documents}]"], "8", BEFORE),
    ("data.validation[].documents.overlap", &["data.validation=[{path: docs/a.txt, format: documents, documents: {max_tokens: 8}}]"], "4", BEFORE),
    ("data.validation[].documents.allow", &["data.validation=[{path: docs, format: documents}]"], "[unreadable]", Allowed),
    ("data.chat.preamble", &[], "none", ADAPTER),
    ("data.chat.losses", &["model.tokenizer=loses-system", "data.system_prompt=Be brief."], "allow", Allowed),
    ("data.chat.date", &[], "1 Jan 2025", ADAPTER),
    ("data.system_prompt", &[], "Be brief.", ADAPTER),
    ("data.train_on.roles", &[], "[user, assistant]", ADAPTER),
    ("data.train_on.turns", &["data.train_on.roles=[user, assistant]"], "last", ADAPTER),
    ("data.max_seq_len", &[], "16", Refused("max_seq_len is 16")),
    ("data.packing", &[], "true", ADAPTER),
    ("data.overlong", &["data.max_seq_len=16", TEXT], "split", Allowed),
    ("data.train_on_inputs", &[], "true", ADAPTER),
    ("data.shuffle", &[], "false", ADAPTER),
    ("data.allow_empty_targets", &["data.train.0.path=e.jsonl", "data.overlong=truncate_right"], "true", Allowed),
    ("data.cache", &[], "kept", InPlan),
    ("data.hygiene.duplicates", DOUBLES, "drop", LEFT_OUT),
    ("data.hygiene.near_duplicates.action", DOUBLES, "drop", LEFT_OUT),
    ("data.hygiene.near_duplicates.threshold", &[DOUBLES[0], DOUBLES[1], "data.hygiene.near_duplicates=drop"], "0.5", LEFT_OUT),
    ("data.hygiene.contamination.action", DOUBLES, "drop", LEFT_OUT),
    ("data.hygiene.contamination.ngram", &[DOUBLES[0], DOUBLES[1], "data.hygiene.contamination=drop"], "8", LEFT_OUT),
    ("data.hygiene.leaks", DOUBLES, "drop", LEFT_OUT),
    ("data.hygiene.personal.mail", PERSONAL, "mask", LEFT_OUT),
    ("data.hygiene.personal.phone", PERSONAL, "mask", LEFT_OUT),
    ("data.hygiene.personal.iban", PERSONAL, "mask", LEFT_OUT),
    ("data.hygiene.personal.card", PERSONAL, "drop", LEFT_OUT),
    ("data.hygiene.personal.ip", PERSONAL, "mask", LEFT_OUT),
    ("data.hygiene.personal.secret", PERSONAL, "error", Refused("data.hygiene.personal.secret")),
    ("data.hygiene.personal.password", PERSONAL, "mask", LEFT_OUT),
    ("data.hygiene.patterns", PERSONAL, "[{name: case, regex: 'AZ-[0-9]+', action: mask}]", LEFT_OUT),
    ("data.hygiene.patterns[].name", WITH_PATTERN, "file", ADAPTER),
    ("data.hygiene.patterns[].regex", WITH_PATTERN, "'AZ-[0-9]'", ADAPTER),
    ("data.hygiene.patterns[].action", WITH_PATTERN, "drop", ADAPTER),
    ("data.hygiene.names", PERSONAL, "[{path: n.txt, action: mask}]", LEFT_OUT),
    ("data.hygiene.names[].path", WITH_NAMES, "m.txt", ADAPTER),
    ("data.hygiene.names[].action", WITH_NAMES, "drop", ADAPTER),
    ("data.hygiene.mask_key", WITH_NAMES, "k.bin", ADAPTER),
    ("training.epochs", &["~training.max_steps"], "1", InMetrics),
    ("training.max_steps", &[], "1", InMetrics),
    ("training.micro_batch_size", &[], "2", ADAPTER),
    ("training.gradient_accumulation_steps", &[], "2", ADAPTER),
    ("training.micro_batches_per_visit", &["training.gradient_accumulation_steps=2"], "2", InPlan),
    ("training.learning_rate", &[], "0.001", ADAPTER),
    ("training.schedule", &[], "constant", ADAPTER),
    ("training.schedule.constant.warmup_ratio", &["training.schedule=constant"], "1.0", InMetrics),
    ("training.schedule.constant.warmup_steps", &["training.schedule=constant"], "2", InMetrics),
    ("training.schedule.linear.warmup_ratio", &["training.schedule=linear"], "1.0", InMetrics),
    ("training.schedule.linear.warmup_steps", &["training.schedule=linear"], "2", InMetrics),
    ("training.schedule.linear.final_ratio", &["training.schedule=linear"], "0.2", InMetrics),
    ("training.schedule.cosine.warmup_ratio", &["training.schedule=cosine"], "1.0", InMetrics),
    ("training.schedule.cosine.warmup_steps", &["training.schedule=cosine"], "2", InMetrics),
    ("training.schedule.cosine.final_ratio", &["training.schedule=cosine"], "0.2", InMetrics),
    ("training.optimizer", &["adapter.rank=128"], "adamw_8bit", ADAPTER),
    ("training.optimizer.adamw.beta1", &[], "0.8", ADAPTER),
    ("training.optimizer.adamw.beta2", &[], "0.95", ADAPTER),
    ("training.optimizer.adamw.eps", &[], "1.0e-4", ADAPTER),
    ("training.optimizer.adamw.weight_decay", &[], "0.5", ADAPTER),
    ("training.optimizer.adamw_8bit.beta1", &["training.optimizer=adamw_8bit"], "0.8", ADAPTER),
    ("training.optimizer.adamw_8bit.beta2", &["training.optimizer=adamw_8bit"], "0.95", ADAPTER),
    ("training.optimizer.adamw_8bit.eps", &["training.optimizer=adamw_8bit"], "1.0e-4", ADAPTER),
    ("training.optimizer.adamw_8bit.weight_decay", &["training.optimizer=adamw_8bit"], "0.5", ADAPTER),
    ("training.max_grad_norm", &[], "0.000001", ADAPTER),
    ("training.checkpointing", &[], "none", InPlan),
    ("training.activation_offload", &["training.checkpointing=block"], "disk", InPlan),
    ("training.compute_dtype", &["training.compute_dtype=f32"], "bf16", ADAPTER),
    ("training.seed", &[], "8", ADAPTER),
    ("training.threads", &["training.threads=1"], "2", InManifest("threads")),
    ("evaluation.every_steps", &[TWO_ROWS], "1", InMetrics),
    ("evaluation.held_out", &["evaluation.held_out=[]"], "[{path: h.jsonl, format: messages}]", BEFORE),
    ("evaluation.held_out[].path", &[], "a.jsonl", BEFORE),
    ("evaluation.held_out[].format", &[], "completion", Refused("evaluation.held_out")),
    ("evaluation.held_out[].columns", &["evaluation.held_out=[{path: c.csv, format: alpaca}]"], "{instruction: question, output: answer}", Allowed),
    ("evaluation.held_out[].ignore_columns", &["evaluation.held_out=[{path: x.jsonl, format: messages}]"], "[quux]", Allowed),
    ("evaluation.held_out[].turn_fields", &["evaluation.held_out=[{path: s.jsonl, format: sharegpt}]"], "{from: speaker}", Allowed),
    ("evaluation.held_out[].roles", &["evaluation.held_out=[{path: r.jsonl, format: messages}]"], "{user: [customer], assistant: [agent]}", Allowed),
    ("evaluation.general", &["evaluation.general=[]"], "[{path: t.jsonl, format: text}]", BEFORE),
    ("evaluation.general[].path", &[], "u.jsonl", BEFORE),
    ("evaluation.general[].format", &[], "completion", Refused("evaluation.general")),
    ("evaluation.general[].columns", &["evaluation.general=[{path: g.csv, format: text}]"], "{text: words}", Allowed),
    ("evaluation.general[].ignore_columns", &["evaluation.general=[{path: gx.jsonl, format: text}]"], "[quux]", Allowed),
    ("evaluation.general[].turn_fields", &["evaluation.general=[{path: s.jsonl, format: sharegpt}]"], "{from: speaker}", Allowed),
    ("evaluation.general[].roles", &["evaluation.general=[{path: r.jsonl, format: messages}]"], "{user: [customer], assistant: [agent]}", Allowed),
    ("evaluation.general[].train_on.roles", &["evaluation.general=[{path: v.jsonl, format: messages}]"], "[user, assistant]", BEFORE),
    ("evaluation.general[].train_on.turns", &["evaluation.general=[{path: v.jsonl, format: messages, train_on: {roles: [user, assistant]}}]"], "last", BEFORE),
    ("evaluation.general[].documents.max_tokens", &["evaluation.general=[{path: docs/a.txt, format: documents}]"], "8", BEFORE),
    ("evaluation.general[].documents.overlap", &["evaluation.general=[{path: docs/a.txt, format: documents, documents: {max_tokens: 8}}]"], "4", BEFORE),
    ("evaluation.general[].documents.allow", &["evaluation.general=[{path: docs, format: documents}]"], "[unreadable]", Allowed),
    ("evaluation.max_new_tokens", &[], "2", BEFORE),
    ("evaluation.samples", &[], "1", BEFORE),
    ("checkpoint.every_steps", &[], "2", InFolder("checkpoints")),
    ("checkpoint.keep", &[], "1", InFolder("checkpoints")),
    ("logging.log_every", &["training.max_steps=3"], "3", InMetrics),
    ("logging.tensorboard", &[], "false", InFolder("tensorboard")),
    ("finish.merge", &[], "true", InFolder("merged")),
    ("finish.onto", &["finish.merge=true", "quantization=nf4"], "original", In("merged/model.safetensors")),
    ("finish.for", &[], "[vllm]", InFolder("vllm")),
    ("finish.prompts", &[], "[Why?]", BEFORE),
    ("output_dir", &[], "elsewhere", At("elsewhere")),
];

/// Two small blocks with the built-in model's tokens.
fn model(seed: u64, out: &Path) {
    let builtin = ModelFolder::open("builtin:quickstart").unwrap();
    let config = builtin.required("config.json").unwrap();
    let vocab_size = LlamaConfig::from_json(&config, "config.json").unwrap().vocab_size;
    let sizes = LlamaConfig { d_model: 64, d_ff: 128, layers: 2, ..presets::llama3_1_8b() };
    let config = LlamaConfig { heads: 4, kv_heads: 2, head_dim: 16, vocab_size, ..sizes };
    let model = Synthetic::new(config, None, Format::Bf16, Contents::Random { seed }).unwrap();
    model.write(out, &mut |_| ()).unwrap();
}

fn rows(questions: &[(&str, &str)]) -> String {
    let row = |(question, answer): &(&str, &str)| {
        let turns = [("user", question), ("assistant", answer)];
        let turns = turns.map(|(role, content)| json!({"role": role, "content": content}));
        format!("{}\n", json!({"messages": turns}))
    };
    questions.iter().map(row).collect()
}

/// A folder with models, rows and the recipe that all runs are variations of.
fn room() -> tempfile::TempDir {
    let room = tempfile::tempdir().unwrap();
    let path = |name: &str| room.path().join(name);
    model(7, &path("model"));
    model(8, &path("model-8"));
    let turn = "{{ m.role }}: {% generation %}{{ m.content }}{% endgeneration %}<|eot_id|>";
    let but_system = format!("{{% if m.role != 'system' %}}{turn}{{% endif %}}");
    for (folder, turn) in [("with-template", turn), ("loses-system", &but_system)] {
        fs::create_dir(path(folder)).unwrap();
        fs::copy(path("model/tokenizer.json"), path(folder).join("tokenizer.json")).unwrap();
        let template = format!("{{{{ bos_token }}}}{{% for m in messages %}}{turn}{{% endfor %}}");
        fs::write(path(folder).join("chat_template.jinja"), template).unwrap();
    }
    let train = [
        ("Fee?", "12 euros."),
        ("Room?", "Room 5."),
        ("When?", "From 9 to 12."),
        ("Who?", "The clerk."),
    ];
    fs::write(path("a.jsonl"), rows(&train)).unwrap();
    // Equal and nearly equal rows, one that is asked, too, and two that quote what is measured.
    let fee =
        "The permit for a stall on the market costs twelve crowns a week and is paid in advance";
    let doubles = [
        train[0],
        train[0],
        ("Which fee?", "12."),
        (fee, "It is so, and nobody was ever asked for more than that by the clerk."),
        (fee, "It is so, and nobody was ever asked for more than this by the clerk."),
        (fee, "Nobody knows, and you may well ask in the other office."),
        ("Quote.", "The archive has many rooms. The archive has many."),
        (
            "Quote more.",
            "The archive has many rooms. The archive has many rooms. The archive has many rooms.",
        ),
    ];
    fs::write(path("d.jsonl"), rows(&doubles)).unwrap();
    let secret = format!("{}IOSFODNN7EXAMPLE", "AKIA");
    let personal = [
        ("Who?", "Anna Weber, in the matter of AZ-1234."),
        ("And who else?", "Bob Maier, in the matter of AZ-99."),
        ("How?", "anna@example.org or +49 89 1234567."),
        ("Where to?", "DE89370400440532013000 or 4111 1111 1111 1111."),
        ("From where?", "192.0.2.17, by https://anna:secret@example.org/ or so."),
        ("With what?", &secret),
    ];
    fs::write(path("p.jsonl"), rows(&personal)).unwrap();
    fs::write(path("n.txt"), "Anna Weber\n").unwrap();
    fs::write(path("m.txt"), "Bob Maier\n").unwrap();
    fs::write(path("k.bin"), "0123456789abcdef").unwrap();
    fs::write(path("v.jsonl"), rows(&[("Open?", "On weekdays."), ("Closed?", "On Sundays.")]))
        .unwrap();
    fs::write(path("h.jsonl"), rows(&[("Which fee?", "12."), ("Which room?", "5.")])).unwrap();
    fs::write(path("c.csv"), "question,answer\nWhich fee?,12.\nWhich room?,5.\n").unwrap();
    let with_quux = |rows: String| rows.replace("{\"messages", "{\"quux\":1,\"messages");
    fs::write(path("x.jsonl"), with_quux(rows(&[("Which fee?", "12."), ("Which room?", "5.")])))
        .unwrap();
    let other = rows(&[("Which fee?", "12."), ("Which room?", "5.")]);
    let words = [("user", "customer"), ("assistant", "agent")];
    let named = words.iter().fold(other.clone(), |rows, (role, word)| rows.replace(role, word));
    fs::write(path("r.jsonl"), named).unwrap();
    let fields = [("messages", "conversations"), ("role", "speaker"), ("content", "value")];
    let named = fields.iter().fold(other, |rows, (field, name)| rows.replace(field, name));
    fs::write(path("s.jsonl"), named).unwrap();
    let words = "The archive has many rooms. ".repeat(8);
    fs::write(path("g.csv"), format!("words\n{words}\n")).unwrap();
    fs::write(path("gx.jsonl"), format!("{}\n", json!({"quux": 1, "text": words}))).unwrap();
    fs::create_dir(path("docs")).unwrap();
    fs::write(
        path("docs/a.txt"),
        "The archive has rooms.\n\nEach of them has a door of oak.\n\n".repeat(2),
    )
    .unwrap();
    fs::write(path("docs/b.pdf"), "%PDF-1.7\nbroken").unwrap();
    let long = "and then ".repeat(60);
    fs::write(path("e.jsonl"), rows(&[("Fee?", "12 euros."), (&long, "No.")])).unwrap();
    let text = |words: &str| format!("{}\n", json!({"text": words.repeat(8)}));
    fs::write(path("t.jsonl"), text("The archive has many rooms. ")).unwrap();
    fs::write(path("u.jsonl"), text("Each of them has a door. ")).unwrap();
    let recipe = "name: base
model: {path: model}
adapter: {rank: 4}
data:
  train: [{path: a.jsonl, format: messages}]
  max_seq_len: 96
  packing: false
training: {max_steps: 2, learning_rate: 0.01}
evaluation:
  held_out: [{path: h.jsonl, format: messages}]
  general: [{path: t.jsonl, format: text}]
  max_new_tokens: 4
checkpoint: {every_steps: 1}
";
    fs::write(path("base.yaml"), recipe).unwrap();
    room
}

/// What a run left.
struct Run {
    folder: PathBuf,
    refusal: Option<String>,
}

fn graft(room: &Path, command: &str, changes: &[String]) -> std::process::Output {
    let mut graft = Command::new(env!("CARGO_BIN_EXE_graft"));
    graft.args([command, "base.yaml", "--quiet"]).args(changes).current_dir(room);
    graft.output().unwrap()
}

impl Run {
    fn new(room: &Path, folder: &str, changes: &[String]) -> Self {
        let output = graft(room, "train", changes);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let refusal = match output.status.code() {
            Some(0) => None,
            Some(2) => Some(stderr),
            _ => panic!("{changes:?}\n{stderr}"),
        };
        Self { folder: room.join(folder), refusal }
    }

    fn bytes(&self, file: &str) -> Option<Vec<u8>> {
        assert!(self.refusal.is_none(), "{:?}", self.refusal);
        fs::read(self.folder.join(file)).ok()
    }

    fn json(&self, file: &str) -> Value {
        serde_json::from_slice(&self.bytes(file).unwrap()).unwrap()
    }

    /// metrics.jsonl without what no two runs have in common.
    fn metrics(&self) -> Vec<Value> {
        let text = String::from_utf8(self.bytes("metrics.jsonl").unwrap()).unwrap();
        let line = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            for key in ["tokens_per_second", "peak_memory_bytes"] {
                line.as_object_mut().unwrap().remove(key);
            }
            line
        };
        text.lines().map(line).collect()
    }

    fn names(&self, folder: &str) -> BTreeSet<String> {
        let Ok(entries) = fs::read_dir(self.folder.join(folder)) else { return BTreeSet::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// What every run is given beside what the table says of it.
fn always(folder: &str, beside: &[&str]) -> Vec<String> {
    let mut changes = vec![format!("output_dir={folder}")];
    if !beside.contains(&"training.threads=1") {
        changes.push("--threads=1".to_owned());
    }
    changes.extend(beside.iter().map(|change| (*change).to_owned()));
    changes
}

/// The runs without a key, by what they have beside it.
type Without = BTreeMap<&'static [&'static str], Run>;

fn without(room: &Path) -> Without {
    let beside: BTreeSet<&[&str]> = TABLE.iter().map(|(_, beside, ..)| *beside).collect();
    let beside: Vec<_> = beside.into_iter().enumerate().collect();
    let run = |(number, beside): (usize, &'static [&'static str])| {
        let folder = format!("out/without-{number}");
        (beside, Run::new(room, &folder, &always(&folder, beside)))
    };
    beside.into_par_iter().map(run).collect()
}

/// What is wrong with a row of the table; `None` where the key shows.
fn hidden(room: &Path, runs: &Without, (key, beside, value, shows): &Row) -> Option<String> {
    let own = format!("{}={value}", key.replace("[]", ".0"));
    let folder = format!("out/{}", key.replace(['[', ']'], "_"));
    let changes = [always(&folder, beside), vec![own.clone()]].concat();
    if let At(place) = shows {
        Run::new(room, place, &[own]);
        let is_there = room.join(place).join("report.html").exists();
        return (!is_there).then(|| format!("{key}: nothing at {place}"));
    }
    let without = &runs[beside];
    let with = Run::new(room, &folder, &changes);
    let is_seen = match shows {
        In(file) => without.bytes(file) != with.bytes(file),
        InMetrics => without.metrics() != with.metrics(),
        InFolder(folder) => without.names(folder) != with.names(folder),
        InManifest(entry) => {
            let entry = |run: &Run| run.json("manifest.json")[*entry].clone();
            entry(without) != entry(&with) && !entry(&with).is_null()
        }
        // What a run holds must not decide what it computes.
        InPlan => {
            let lines = [always(&folder, beside), changes].map(|changes| ledger(room, &changes));
            let adapter = "adapter/adapter_model.safetensors";
            lines[0] != lines[1] && without.bytes(adapter) == with.bytes(adapter)
        }
        Refused(words) => {
            let said = with.refusal.as_ref();
            without.refusal.is_none() && said.is_some_and(|said| said.contains(words))
        }
        Allowed => without.refusal.is_some() && with.refusal.is_none(),
        At(_) => true,
    };
    (!is_seen).then(|| format!("{key}={value}: {:?} {:?}", without.refusal, with.refusal))
}

/// The lines of the moment that takes most, and what the others take.
fn ledger(room: &Path, changes: &[String]) -> [Value; 2] {
    let output = graft(room, "plan", &[changes, &["--json".to_owned()]].concat());
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    ["lines", "other_moments"].map(|key| plan[key].clone())
}

#[test]
fn every_key_changes_what_a_run_does() {
    let table: BTreeSet<&str> = TABLE.iter().map(|(key, ..)| *key).collect();
    let keys: BTreeSet<&str> = graft_recipes::keys().iter().map(|key| key.path).collect();
    assert_eq!(table, keys, "every key needs a row that says where it shows");
    let room = room();
    let first = Run::new(room.path(), "first", &always("first", &[]));
    assert!(first.refusal.is_none(), "{:?}", first.refusal);
    let runs = without(room.path());
    let hidden = TABLE.par_iter().filter_map(|row| hidden(room.path(), &runs, row));
    let hidden: Vec<String> = hidden.collect();
    assert!(
        hidden.is_empty(),
        "these keys change nothing where they should:\n{}",
        hidden.join("\n")
    );
}
