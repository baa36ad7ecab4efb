//! Files and disks that fail, before a run and under it: one sentence, the right exit code, and whatever
//! was written before whole.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failure of the helpers is a failure of the test")]

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const GRAFT: &str = env!("CARGO_BIN_EXE_graft");

const SHORT: [&str; 10] = [
    "training.max_steps=4",
    "training.micro_batch_size=4",
    "checkpoint.every_steps=1",
    "data.shuffle=false",
    "data.packing=false",
    "data.overlong=truncate_right",
    "evaluation.held_out=[]",
    "evaluation.general=[]",
    "finish.prompts=[]",
    "finish.merge=false",
];

fn train(out: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(GRAFT);
    command.args(["train", "quickstart"]).args(SHORT);
    command.arg(format!("output_dir={}", out.display())).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The built-in model in NF4, and its file of weights.
fn quantised(folder: &Path) -> (String, PathBuf) {
    let model = folder.join("nf4");
    let status = Command::new(GRAFT)
        .args(["quantize", "--quiet", "--model", "builtin:quickstart", "--out"])
        .arg(&model)
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    (format!("model.path={}", model.display()), model.join("model.safetensors"))
}

#[test]
fn a_quantised_file_that_was_cut_short_is_refused_by_name_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (model, file) = quantised(folder.path());
    let whole = fs::metadata(&file).unwrap().len();
    for len in [whole - 1, whole / 2, 20, 3] {
        OpenOptions::new().write(true).open(&file).unwrap().set_len(len).unwrap();
        let out = folder.path().join("out");
        let output = train(&out, &[&model]).output().unwrap();
        let text = text(&output);
        assert_eq!(output.status.code(), Some(2), "{len} of {whole} bytes: {text}");
        assert!(text.contains(file.to_str().unwrap()), "{len} of {whole} bytes: {text}");
        assert!(!out.exists(), "{len} of {whole} bytes: something was written");
    }
}

#[test]
fn a_file_cut_short_under_a_run_ends_it_with_a_sentence_and_its_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let (model, file) = quantised(folder.path());
    let content = fs::read(&file).unwrap();
    let (whole, out) = (folder.path().join("whole"), folder.path().join("cut"));
    let long = "training.max_steps=30";
    assert!(train(&whole, &[&model, long]).output().unwrap().status.success());
    let child = train(&out, &[&model, long]).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_mins(2);
    while !out.join("checkpoints/step-000002").exists() {
        assert!(Instant::now() < deadline, "the run never came so far");
        std::thread::sleep(Duration::from_millis(1));
    }
    OpenOptions::new().write(true).open(&file).unwrap().set_len(4_096).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let name = file.to_str().unwrap();
    assert!(text.contains(&format!("error: `{name}` cannot be read any more")), "{text}");
    let manifest = fs::read_to_string(out.join("manifest.json")).unwrap();
    assert!(manifest.contains("\"failed\""), "the run is left running: {manifest}");
    // The same file again, as from a copy.
    put_back(&file, &content);
    let output = train(&out, &[&model, long, "--resume"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let adapter = |out: &Path| fs::read(out.join("adapter/adapter_model.safetensors")).unwrap();
    assert!(adapter(&out) == adapter(&whole), "other bytes than the uninterrupted run");
}

#[test]
fn a_base_cut_short_while_it_is_quantised_is_named_and_nothing_takes_the_new_place() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().join("model"), folder.path().join("out"));
    let synthetic = ["synth-model", "--preset", "100m", "--format", "bf16", "--out"];
    let mut synth_model = Command::new(GRAFT);
    assert!(synth_model.args(synthetic).arg(&model).output().unwrap().status.success());
    let mut quantize = Command::new(GRAFT);
    quantize
        .args(["quantize", "--threads", "1", "--model"])
        .arg(&model)
        .arg("--out")
        .arg(&out)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = quantize.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_mins(2);
    let has_begun = || fs::read_dir(folder.path()).unwrap().count() > 1;
    while !has_begun() {
        assert!(Instant::now() < deadline, "nothing was begun");
        std::thread::sleep(Duration::from_millis(1));
    }
    let file = model.join("model.safetensors");
    OpenOptions::new().write(true).open(&file).unwrap().set_len(4_096).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    // Whoever reads the page is told of it otherwise than the system, where that reads it to write it.
    let read = format!("error: `{}` cannot be read any more: it was cut short", file.display());
    let written = "cannot be read: a file of the base was cut short";
    assert!(text.contains(&read) || text.contains(written), "{text}");
    assert!(!out.exists(), "a part stands in the place of the whole");
}

fn put_back(file: &Path, content: &[u8]) {
    use std::io::Write;
    let mut file = File::create(file).unwrap();
    file.write_all(content).unwrap();
}

#[test]
fn a_disk_that_takes_no_more_inputs_ends_the_run_with_the_last_checkpoint_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, out) = (folder.path().join("whole"), folder.path().join("full"));
    // Rows of the third step are longer, so that inputs outgrow the limit there.
    let rows = folder.path().join("rows.jsonl");
    let row = |words: usize| format!("{{\"text\":\"{}\"}}\n", "office ".repeat(words));
    let text_of_rows: String = (0..16).map(|i| row(if i < 8 { 4 } else { 200 })).collect();
    put_back(&rows, text_of_rows.as_bytes());
    let data = format!("data.train=[{{path: {}, format: text}}]", rows.display());
    let arguments = [data.as_str(), "training.activation_offload=disk", "adapter.rank=1"];
    let output = train(&whole, &arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let plain = folder.path().join("plain");
    assert!(train(&plain, &[data.as_str(), "adapter.rank=1"]).output().unwrap().status.success());
    let adapter = |out: &Path| fs::read(out.join("adapter/adapter_model.safetensors")).unwrap();
    assert!(adapter(&whole) == adapter(&plain), "inputs on disk change the result");

    // A file may have 1 MiB (RLIMIT_FSIZE, in units of 512 bytes); more is refused with EFBIG.
    let command = train(&out, &arguments);
    let mut limited = Command::new("sh");
    limited.arg("-c").arg("ulimit -f 2048; exec \"$@\"").arg("sh");
    limited.arg(command.get_program()).args(command.get_args());
    let output = limited.stdin(Stdio::null()).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("{}/.activations.tmp-", out.display())), "{said}");
    assert!(out.join("checkpoints/step-000002").exists(), "{said}");
    assert!(!out.join("checkpoints/step-000003").exists(), "{said}");
    let leftovers = |out: &Path| {
        let names = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().contains("activations")).count()
    };
    assert_eq!(leftovers(&out), 0);
    let output = train(&out, &[arguments.as_slice(), &["--resume"]].concat()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(adapter(&out) == adapter(&whole), "other bytes than the uninterrupted run");
}
