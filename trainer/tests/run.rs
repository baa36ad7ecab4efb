//! Whole runs, most of them of the binary: killed and gone on with, repeated, interrupted, failed.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failure of the helpers is a failure of the test")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

#[path = "run/at_once.rs"]
mod at_once;
#[cfg(target_os = "linux")]
#[path = "run/faults.rs"]
mod faults;
#[path = "run/golden.rs"]
mod golden;
#[path = "run/keeping.rs"]
mod keeping;
#[cfg(target_os = "linux")]
#[path = "run/kills.rs"]
mod kills;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[path = "run/no_memory.rs"]
mod no_memory;
#[path = "run/room.rs"]
mod room;
#[cfg(target_os = "linux")]
#[path = "run/signals.rs"]
mod signals;

/// A short quickstart: six steps, a checkpoint every other, dropout so that noise is resumed too.
const SHORT: [&str; 9] = [
    "training.max_steps=6",
    "training.micro_batch_size=4",
    "training.gradient_accumulation_steps=2",
    "checkpoint.every_steps=2",
    "adapter.dropout=0.1",
    "evaluation.held_out=[]",
    "evaluation.general=[]",
    "finish.prompts=[]",
    "finish.merge=false",
];

fn graft(out: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graft"));
    command.args(["train", "quickstart"]).args(SHORT);
    command.arg(format!("output_dir={}", out.display())).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(command: &mut Command) -> Output {
    command.output().expect("the binary runs")
}

fn succeed(command: &mut Command) {
    let output = finish(command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn adapter(out: &Path) -> Vec<u8> {
    fs::read(out.join("adapter/adapter_model.safetensors")).expect("a finished run has an adapter")
}

fn manifest(out: &Path) -> Value {
    let text = fs::read(out.join("manifest.json")).expect("a run has a manifest");
    serde_json::from_slice(&text).expect("the manifest is JSON")
}

fn steps(out: &Path) -> Vec<u64> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
    let step = |line: &str| serde_json::from_str::<Value>(line).ok()?["step"].as_u64();
    text.lines().filter_map(step).collect()
}

/// Waits until `reached` holds, or the run is over.
fn wait_for(child: &mut Child, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while !reached() && child.try_wait().expect("a child can be waited for").is_none() {
        assert!(Instant::now() < deadline, "the run never came so far");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Starts a run and kills it when `reached` holds; the kill meets it alive.
fn killed_at(out: &Path, arguments: &[&str], reached: impl Fn() -> bool) {
    let mut child = graft(out, arguments).stderr(Stdio::null()).spawn().expect("the binary starts");
    wait_for(&mut child, reached);
    child.kill().expect("a child can be killed");
    let status = child.wait().expect("a child can be waited for");
    assert_eq!(status.signal(), Some(9), "the run was over before it was killed");
}

#[test]
fn killing_twice_changes_nothing_either() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, out) = (folder.path().join("whole"), folder.path().join("twice"));
    succeed(&mut graft(&whole, &[]));
    killed_at(&out, &[], || steps(&out).contains(&3));
    killed_at(&out, &["--resume"], || steps(&out).contains(&5));
    succeed(&mut graft(&out, &["--resume"]));
    assert!(adapter(&out) == adapter(&whole), "other bytes than the uninterrupted run");
}

#[test]
fn moments_in_8_bits_are_gone_on_with_to_the_bit_and_by_no_other_optimizer() {
    const SHORT_MOMENTS: &str = "training.optimizer=adamw_8bit";
    let folder = tempfile::tempdir().unwrap();
    let (whole, out) = (folder.path().join("whole"), folder.path().join("resumed"));
    succeed(&mut graft(&whole, &[SHORT_MOMENTS]));
    killed_at(&out, &[SHORT_MOMENTS], || out.join("checkpoints/step-000002").exists());
    let state = fs::read(out.join("checkpoints/step-000002/optimizer.safetensors")).unwrap();
    let weights = fs::read(out.join("checkpoints/step-000002/trainable.safetensors")).unwrap();
    // Half of the values that it remembers twice, and some absmax.
    assert!(state.len() < weights.len(), "{} of {}", state.len(), weights.len());
    let before = contents(&out);
    let other = finish(&mut graft(&out, &["--resume"]));
    let text = String::from_utf8_lossy(&other.stderr).into_owned();
    assert_eq!(other.status.code(), Some(2), "{text}");
    let line =
        text.lines().find(|line| line.contains("optimizer")).unwrap_or_else(|| panic!("{text}"));
    assert!(line.ends_with("was adamw_8bit, is now adamw"), "{text}");
    assert!(contents(&out) == before, "a refused run changed its folder");
    succeed(&mut graft(&out, &[SHORT_MOMENTS, "--resume"]));
    assert!(adapter(&out) == adapter(&whole), "other bytes than the uninterrupted run");
    let plain = folder.path().join("plain");
    succeed(&mut graft(&plain, &[]));
    assert!(adapter(&plain) != adapter(&whole), "the optimizer changes nothing");
}

#[test]
fn one_seed_gives_one_adapter_with_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, arguments: &[&str]| {
        let out = folder.path().join(name);
        succeed(&mut graft(&out, arguments));
        adapter(&out)
    };
    let first = run("first", &[]);
    assert!(run("again", &[]) == first, "the same seed gave other bytes");
    for threads in ["1", "2", "4"] {
        assert!(run(threads, &["--threads", threads]) == first, "{threads} threads");
    }
    assert!(run("other", &["training.seed=8"]) != first, "the seed changes nothing");
}

#[test]
fn a_loss_that_is_no_number_is_never_a_success() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("diverged");
    let wild =
        ["training.learning_rate=1.0", "adapter.alpha=2.0e19", "training.max_grad_norm=none"];
    let output = finish(&mut graft(&out, &wild));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("of step ") && text.contains("quickstart/train:"), "{text}");
    assert_eq!(manifest(&out)["status"]["state"], "failed");
    assert!(!out.join("adapter").exists(), "a failed run left an adapter");
    let lines = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    assert!(!lines.contains("null"), "a step that was not taken is in the metrics:\n{lines}");
}

#[test]
fn a_folder_of_another_run_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    succeed(&mut graft(&out, &[]));
    let before = contents(&out);
    let again = finish(&mut graft(&out, &["training.seed=8"]));
    assert_eq!(again.status.code(), Some(2));
    let resumed = finish(&mut graft(&out, &["training.seed=8", "--resume"]));
    assert_eq!(resumed.status.code(), Some(2));
    assert_eq!(before, contents(&out));
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                files.push((path, target.into_os_string().into_encoded_bytes()));
            } else if path.is_dir() {
                folders.push(path);
            } else {
                files.push((path.clone(), fs::read(path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// The built-in model as a folder on disk.
fn base_folder(parent: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/builtin/quickstart");
    let base = parent.join("base");
    fs::create_dir(&base).unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, base.join(path.file_name().unwrap())).unwrap();
    }
    base
}

#[test]
fn the_base_is_never_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let base = base_folder(folder.path());
    let before = contents(&base);
    let model = format!("model.path={}", base.display());
    for (name, extra) in [("nf4", "quantization.double=true"), ("bf16", "quantization=none")] {
        let out = folder.path().join(name);
        succeed(&mut graft(&out, &[&model, extra, "finish.merge=true"]));
        assert!(out.join("merged/model.safetensors").exists());
        assert!(contents(&base) == before, "{name}: the base was changed");
    }
}

#[test]
fn a_full_disk_corrupts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, out) = (folder.path().join("whole"), folder.path().join("full"));
    succeed(&mut graft(&whole, &[]));
    // A limit on the size of files fails a write as a full disk does: optimizer.safetensors does not
    // fit, what came before does.
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 2048; exec \"$@\"", "sh"]);
    let run = graft(&out, &[]);
    limited.arg(run.get_program()).args(run.get_args());
    let output = finish(&mut limited);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("optimizer.safetensors") || text.contains("step-000002"), "{text}");
    let left: Vec<PathBuf> = contents(&out).into_iter().map(|(path, _)| path).collect();
    assert!(!left.iter().any(|path| path.starts_with(out.join("checkpoints"))), "{left:?}");
    succeed(&mut graft(&out, &["--resume"]));
    assert!(adapter(&out) == adapter(&whole), "other bytes than the uninterrupted run");
}

#[test]
fn an_adapter_remembers_what_it_was_trained_with() {
    let folder = tempfile::tempdir().unwrap();
    let (out, merged) = (folder.path().join("run"), folder.path().join("merged"));
    succeed(&mut graft(&out, &["finish.merge=true"]));
    let mut merge = Command::new(env!("CARGO_BIN_EXE_graft"));
    merge.args(["merge", "--model", "builtin:quickstart", "--adapter"]);
    merge.arg(out.join("adapter")).arg("--out").arg(&merged);
    let said = finish(&mut merge);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    // Without a flag the merge is onto NF4, as in training: the bytes are those of the run's own.
    let weights = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
    assert!(weights(&merged) == weights(&out.join("merged")), "merged onto other weights");
    // Onto the originals the merged model is another one, and how far off it is is said.
    let original = folder.path().join("original");
    merge = Command::new(env!("CARGO_BIN_EXE_graft"));
    merge.args(["merge", "--model", "builtin:quickstart", "--onto", "original", "--adapter"]);
    let said_original = finish(merge.arg(out.join("adapter")).arg("--out").arg(&original));
    let [near, far] = [said, said_original].map(|output| moved(&output.stdout));
    assert!(0.0 < near && near < 1e-3 && near * 10.0 < far, "moved by {near} and by {far}");
    // A base without a template of its own gets Llama 3.1's, with its preamble.
    let base = base_folder(folder.path());
    fs::remove_file(base.join("tokenizer_config.json")).unwrap();
    let mut answer = Command::new(env!("CARGO_BIN_EXE_graft"));
    answer.args(["generate", "--json", "--prompt", "Hello?", "--model"]).arg(base);
    let prompt_tokens = |command: &mut Command| {
        let output = finish(command);
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        value["prompt_tokens"].as_u64().unwrap()
    };
    let official = prompt_tokens(&mut answer);
    let none = prompt_tokens(answer.arg("--adapter").arg(out.join("adapter")));
    assert!(none < official, "the preamble of training is not used: {none} and {official}");
}

/// How far `graft merge` says that the merged model is from base and adapter.
fn moved(said: &[u8]) -> f64 {
    let said = String::from_utf8_lossy(said);
    let words = said.split_once("compared").and_then(|(_, rest)| rest.split_once("mean "));
    let number = words.and_then(|(_, rest)| rest.split_once(','));
    let (number, rest) = number.unwrap_or_else(|| panic!("no distance in {said}"));
    assert!(rest.contains("nats a token from base + adapter"), "{said}");
    number.parse().unwrap()
}

/// A random model folder of 71 million parameters, 142 MB in bf16.
fn large_base(parent: &Path) -> PathBuf {
    let base = base_folder(parent);
    fs::remove_file(base.join("model.safetensors")).unwrap();
    let config = fs::read_to_string(base.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    for (key, value) in [
        ("hidden_size", 1024),
        ("intermediate_size", 2816),
        ("num_hidden_layers", 6),
        ("num_attention_heads", 16),
        ("num_key_value_heads", 8),
    ] {
        config[key] = value.into();
    }
    let text = config.to_string();
    graft_files::atomic::write_bytes(base.join("config.json"), text.as_bytes()).unwrap();
    let config = graft_model::LlamaConfig::from_json(text.as_bytes(), "config.json").unwrap();
    let dtype = graft_model::checkpoint::Dtype::BF16;
    let specs = graft_model::checkpoint::expected(&config)
        .into_iter()
        .map(|tensor| {
            let (name, shape) = (tensor.name, tensor.shape);
            graft_model::checkpoint::TensorSpec { name, dtype, shape }
        })
        .collect();
    let writer = graft_model::checkpoint::ShardedWriter::new(specs, u64::MAX).unwrap();
    writer
        .write::<graft_model::Error>(&base, |spec, file| {
            // bf16 of about 0.01 with changing sign: the low byte varies, the high one is 0x3c or 0xbc.
            let values = 0..spec.shape.iter().product::<usize>();
            let pair =
                |i: usize| [(i * 37 % 251) as u8, if i.is_multiple_of(3) { 0xbc } else { 0x3c }];
            let bytes: Vec<u8> = values.flat_map(pair).collect();
            Ok(file.write_all(&bytes)?)
        })
        .unwrap();
    base
}

#[test]
#[cfg(target_os = "linux")]
fn quantising_while_loading_needs_the_quantised_model_and_one_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let base = large_base(folder.path());
    let model = format!("model.path={}", base.display());
    let peak = |name: &str, quantization: &str| {
        let out = folder.path().join(name);
        let one = ["training.max_steps=1", "training.micro_batch_size=1", "--threads", "1"];
        let mut command = graft(&out, &[&model, quantization]);
        succeed(command.args(one));
        let line = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let line: Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
        line["peak_memory_bytes"].as_u64().unwrap()
    };
    let (quantised, dense) = (peak("nf4", "quantization=nf4"), peak("bf16", "quantization=none"));
    // 37 MB of NF4 instead of 142 MB of bf16; a tensor as f32 is 12 MB.
    assert!(quantised + (60 << 20) < dense, "{quantised} bytes with NF4, {dense} with bf16");
}
