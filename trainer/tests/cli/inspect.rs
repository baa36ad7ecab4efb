//! `graft inspect`: models, adapters, runs, and files that lie.

use std::collections::BTreeMap;

use graft::run_folder::RunFolder;
use graft::run_folder::manifest::{Inputs, Manifest, Status};
use graft::run_folder::metrics::{EvalLine, Line, MetricsLog};

use crate::room::{Room, file_of, safetensors};

fn json(room: &Room, path: &str) -> serde_json::Value {
    serde_json::from_str(&room.done(&format!("inspect {path} --json"))).unwrap()
}

#[test]
fn a_model_folder_is_summed_up_with_and_without_weights() {
    let room = Room::new();
    room.model("model", |config| config);
    let shown = room.done("inspect model");
    insta::assert_snapshot!(shown, @r"
    model       model
    release     none that Graft knows; any Llama 3.x shape works
    parameters  3,475,712
    shape       4 blocks of width 256 and 704, 4 heads on 2 keys of 64, 2,048 tokens, the embedding is the head
    context     4,096 tokens
    quantized   no
    tensors     no weights in this folder
    tokenizer   2,048 tokens
    chat        Llama 3.1's
    ");
    assert_eq!(json(&room, "builtin:quickstart")["config"]["hidden_size"], 256);
    assert_eq!(json(&room, "model")["quantized"], false);
}

#[test]
fn headers_that_are_cut_off_or_lie_are_refused() {
    let room = Room::new();
    room.model("model", |config| config);
    let refused = |bytes: &[u8]| {
        room.write("model/model.safetensors", bytes);
        let shown = room.refused("inspect model");
        assert_eq!(shown, room.refused("inspect model/model.safetensors"));
        shown
    };
    let whole = safetensors(&[("x".to_owned(), [2, 3])]);
    insta::assert_snapshot!(refused(&whole[..4]), @"error: `model/model.safetensors` is not a usable safetensors file: it has 4 bytes, and the header's length alone takes 8");
    insta::assert_snapshot!(refused(&whole[..20]), @"error: `model/model.safetensors` is not a usable safetensors file: its header claims 57 bytes, but 12 follow: the copy is cut off");
    insta::assert_snapshot!(refused(&whole[..whole.len() - 1]), @"error: `model/model.safetensors` is not a usable safetensors file: its tensors take 24 bytes, but 23 follow the header: the copy is cut off");
    insta::assert_snapshot!(refused(&u64::MAX.to_le_bytes()), @"error: `model/model.safetensors` is not a usable safetensors file: its header claims 18446744073709551615 bytes; the format allows 100000000");
    insta::assert_snapshot!(refused(&file_of("{\"x\"", 0)), @"error: `model/model.safetensors` is not a usable safetensors file: its header is not valid: tensor `x`: EOF while parsing an object at line 1 column 4");
    let lie = r#"{"x": {"dtype": "F32", "shape": [9, 9], "data_offsets": [0, 8]}}"#;
    insta::assert_snapshot!(refused(&file_of(lie, 8)), @"error: `model/model.safetensors` is not a usable safetensors file: tensor `x` of type F32 and shape [9, 9] takes 324 bytes, but its offsets 0..8 do not span as many");
    insta::assert_snapshot!(refused(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), @"error: `model/model.safetensors` is not a usable safetensors file: it is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder");
}

#[test]
fn a_file_of_tensors_is_listed() {
    let room = Room::new();
    room.write("a.safetensors", safetensors(&[("x".to_owned(), [2, 3]), ("y".to_owned(), [1, 1])]));
    insta::assert_snapshot!(room.done("inspect a.safetensors"), @r"
    file     a.safetensors
    tensors  F32: 2 tensors, 28 B
    names    x  F32 [2, 3]
             y  F32 [1, 1]
    ");
}

#[test]
fn an_adapter_folder_is_summed_up() {
    let room = Room::new();
    let name = |matrix: &str| {
        format!("base_model.model.model.layers.1.self_attn.q_proj.lora_{matrix}.weight")
    };
    let config = r#"{"peft_type": "LORA", "base_model_name_or_path": "base", "r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": ["q_proj"], "bias": "none", "task_type": "CAUSAL_LM"}"#;
    room.write("adapter/adapter_config.json", config);
    room.write(
        "adapter/adapter_model.safetensors",
        safetensors(&[(name("A"), [4, 256]), (name("B"), [256, 4])]),
    );
    insta::assert_snapshot!(room.done("inspect adapter"), @r"
    adapter     adapter
    base        base
    rank        4, alpha 8, scale 2
    dropout     0
    targets     q_proj in 1 block
    parameters  2,048
    tensors     F32: 2 tensors, 8.00 KiB
    size        8.00 KiB
    warning     it changes nothing: each of its updates has a matrix of zeros, as before the first step of training
    warning     it holds no update of `model.layers.0.self_attn.q_proj`, which its adapter_config.json chooses: half an adapter is another one, and no command runs it
    ");
    assert_eq!(json(&room, "adapter")["target_modules"], serde_json::json!(["q_proj"]));
    room.write("adapter/adapter_model.safetensors", safetensors(&[(name("A"), [4, 256])]));
    insta::assert_snapshot!(room.refused("inspect adapter"), @r"
    error: the tensors of `adapter/adapter_model.safetensors` are not those of its adapter_config.json:
      `base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight` lacks its `base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight`
    ");
}

#[test]
fn a_run_folder_is_summed_up() {
    let room = Room::new();
    let inputs = Inputs {
        run: "mine".to_owned(),
        model: "builtin:quickstart".to_owned(),
        method: "lora".to_owned(),
        quantization: "nf4".to_owned(),
        optimizer: "adamw".into(),
        compute_dtype: "f32".to_owned(),
        device: "cpu".to_owned(),
        kernels: None,
        seed: 7,
        threads: 2,
        parameters: 3_000_000,
        trainable_parameters: 10_000,
        recipe_sha256: String::new(),
        versions: BTreeMap::new(),
        base: BTreeMap::new(),
        tokenizer: BTreeMap::new(),
        init_from: BTreeMap::new(),
        data: BTreeMap::new(),
        hygiene: BTreeMap::new(),
        cleaned_sha256: None,
        rows: BTreeMap::new(),
        recipe: serde_json::json!({}),
    };
    let mut run =
        RunFolder::create(&room.path("run"), "name: mine\n", Manifest::begin(inputs)).unwrap();
    let mut log = MetricsLog::begin(&run.metrics_path()).unwrap();
    log.append(&Line::Eval(EvalLine { step: 3, eval_loss: 1.25, eval_tokens: 1_234 })).unwrap();
    run.end(Status::Stopped { reason: "Ctrl-C".to_owned() }).unwrap();
    // A run in progress holds its folder locked; looking at it is allowed all the same.
    let shown = room.done("inspect run");
    assert!(shown.contains("status       stopped: Ctrl-C"), "{shown}");
    assert!(shown.contains("last eval    after step 3: loss 1.2500 over 1,234 tokens"), "{shown}");
    assert_eq!(json(&room, "run")["manifest"]["run"], "mine");
    room.write("run/manifest.json", "{}");
    assert!(room.refused("inspect run").contains("manifest.json` cannot be used"));
}

#[test]
fn what_is_nothing_is_said_to_be() {
    let room = Room::new();
    room.write("folder/x.txt", "x");
    insta::assert_snapshot!(room.refused("inspect folder"), @"error: `folder` holds neither a model (config.json, or one GGUF file), nor an adapter (adapter_config.json), nor a run (manifest.json)");
    insta::assert_snapshot!(room.refused("inspect nowhere"), @"error: there is nothing at `nowhere`");
    insta::assert_snapshot!(room.refused("inspect folder/x.txt"), @"error: `folder/x.txt` is a file, but no .safetensors or GGUF file and no folder");
}

#[test]
fn a_model_whose_texts_cannot_be_read_is_described_and_refused() {
    let room = Room::new();
    for (name, content) in [
        ("tokenizer.json", "{"),
        ("tokenizer_config.json", "{"),
        ("generation_config.json", "[1]"),
        ("chat_template.jinja", "{% if"),
    ] {
        let model = format!("m-{name}");
        room.model(&model, |config| config);
        room.write(&format!("{model}/{name}"), content);
        let said = room.graft(&format!("inspect {model}"));
        assert_eq!(said.code, 2, "{name}: {}", said.stderr);
        assert!(
            said.stderr.starts_with("error: ") && said.stderr.contains(name),
            "{}",
            said.stderr
        );
        assert!(said.stdout.contains("parameters  3,475,712"), "{}", said.stdout);
        let said = room.graft(&format!("inspect {model} --json"));
        let found: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        let fault = found["fault"].as_str().unwrap();
        assert_eq!((said.code, said.stderr), (2, format!("error: {fault}\n")));
    }
}

#[test]
fn what_cannot_be_looked_at_is_not_taken_for_something_else() {
    let room = Room::new();
    room.write("file", "x");
    room.write("closed/config.json", "{}");
    std::os::unix::fs::symlink("loop", room.path("loop")).unwrap();
    std::os::unix::fs::symlink("gone", room.path("dangling")).unwrap();
    std::os::unix::fs::symlink("gone", room.write("m/x", "").with_file_name("config.json"))
        .unwrap();
    insta::assert_snapshot!(room.refused("inspect loop"), @"error: cannot read `loop`: Too many levels of symbolic links (os error 40)");
    insta::assert_snapshot!(room.refused("inspect dangling"), @"error: `dangling` is a link to `gone`, where nothing is: put there what it should lead to");
    insta::assert_snapshot!(room.refused("inspect m"), @"error: `m/config.json` is a link to `gone`, where nothing is: put there what it should lead to");
    insta::assert_snapshot!(room.refused("inspect file/x"), @"error: cannot read `file/x`: Not a directory (os error 20)");
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(room.path("closed"), mode(0o600)).unwrap();
    let said = room.graft("inspect closed");
    std::fs::set_permissions(room.path("closed"), mode(0o700)).unwrap();
    // Root may look at everything, and finds a configuration without its keys.
    let is_closed = said.stderr
        == "error: cannot read `closed/adapter_config.json`: Permission denied (os error 13)\n";
    assert!(
        is_closed || said.stderr.contains("`closed/config.json` does not describe"),
        "{}",
        said.stderr
    );
    assert_eq!(said.code, 2);
}
