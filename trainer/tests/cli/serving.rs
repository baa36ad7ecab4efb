//! `graft export --for`, `finish.for`: what each program takes of an adapter, and what is folded into that or refused.

use graft_adapters::{LoraConfig, PeftAdapter};
use graft_gguf::File;
use graft_recipes::Target;
use serde_json::Value;

use crate::room::Room;

const MODEL: &str = "--model builtin:quickstart";

/// A room with a trained adapter of each kind: a name, and its section `adapter`.
fn room(adapters: &[(&str, &str)]) -> Room {
    let room = Room::new();
    for (name, adapter) in adapters {
        room.recipe(&format!(
            "adapter: {adapter}\ntraining: {{max_steps: 2, schedule: constant, learning_rate: 0.02}}\nquantization: none\n"
        ));
        room.done(&format!("train r.yaml output_dir={name} --quiet"));
    }
    room
}

const KINDS: &[(&str, &str)] = &[
    ("lora", "{rank: 3, alpha: 6, target_modules: [q_proj, k_proj, v_proj, down_proj]}"),
    ("rslora", "{rank: 3, rslora: true, target_modules: [q_proj, v_proj]}"),
    (
        "patterns",
        "{rank: 3, target_modules: [q_proj, down_proj], rank_pattern: {down_proj: 5}, alpha_pattern: {q_proj: 2}}",
    ),
    ("dora", "{rank: 3, dora: true, target_modules: [k_proj, v_proj]}"),
];

fn config(room: &Room, of: &str) -> Value {
    serde_json::from_slice(&std::fs::read(room.path(&format!("{of}/adapter_config.json"))).unwrap())
        .unwrap()
}

fn loss(room: &Room, adapter: &str) -> f64 {
    let line = format!(
        "eval {MODEL} --adapter {adapter} --data a.jsonl --format messages --compute-dtype f32 --json -q"
    );
    let found: Value = serde_json::from_str(&room.done(&line)).unwrap();
    found["loss"].as_f64().unwrap()
}

/// The mean of the line `compared`.
fn mean(shown: &str) -> Option<f64> {
    let compared = shown.lines().find_map(|line| line.strip_prefix("compared"))?;
    compared.trim().strip_prefix("mean ")?.split(',').next()?.parse().ok()
}

#[test]
fn every_kind_of_adapter_goes_to_every_program_and_answers_as_before() {
    let room = room(KINDS);
    for (kind, _) in KINDS {
        let adapter = format!("{kind}/adapter");
        let was = loss(&room, &adapter);
        for (program, target) in Target::ALL {
            let out = format!("{kind}-{program}");
            let to = |out: &str| {
                format!("export --for {program} {MODEL} --adapter {adapter} --out {out} -q")
            };
            let line = to(&out);
            let is_merged = *target == Target::Ollama;
            if *kind == "dora" && !is_merged && *target != Target::Peft {
                let refused = room.refused(&line);
                let said = format!(
                    "{program} does not take DoRA (use_dora): give the rank of a plain adapter"
                );
                assert!(refused.contains(&said), "{refused}");
                // Of the smaller side's width nothing is lost.
                let shown = room.done(&format!("{line} --rank 128"));
                assert!(mean(&shown).is_some_and(|mean| mean < 1e-5), "{program}: {shown}");
                let narrow = room.done(&(to(&format!("{out}-2")) + " --rank 2"));
                assert!(mean(&narrow).is_some_and(|mean| mean > 1e-7), "{program}: {narrow}");
            } else {
                let shown = room.done(&line);
                assert!(
                    mean(&shown).is_none_or(|mean| mean < if is_merged { 0.02 } else { 1e-9 }),
                    "{program}: {shown}"
                );
                let is_for = |line: &str| {
                    line.starts_with("for ") && line.contains(&format!(" {program}, "))
                };
                assert!(shown.lines().any(is_for), "{shown}");
            }
            match target {
                Target::LlamaCpp => {
                    let file = File::read(&std::fs::read(room.path(&out)).unwrap().into()).unwrap();
                    assert_eq!(file.value("general.type").unwrap().to_string(), "\"adapter\"");
                }
                Target::Ollama => {
                    let text =
                        std::fs::read_to_string(room.path(&format!("{out}/Modelfile"))).unwrap();
                    assert!(text.contains("\nFROM ./model.gguf\n"), "{text}");
                    room.done(&format!(
                        "generate --model {out}/model.gguf --prompt Fee? --max-new-tokens 2 -q"
                    ));
                }
                _ => {
                    let now = loss(&room, &out);
                    assert!(
                        (now - was).abs() < 2e-4 * was,
                        "{kind} for {program}: {was} became {now}"
                    );
                    check_taken(&room, &out, *target);
                }
            }
        }
    }
}

/// That an adapter has nothing that the program does not take.
fn check_taken(room: &Room, of: &str, target: Target) {
    let (config, adapter) = (config(room, of), PeftAdapter::open(&room.path(of)).unwrap());
    let LoraConfig { sites, .. } = adapter.config();
    let is_empty = |key: &str| config[key].as_object().is_none_or(serde_json::Map::is_empty);
    let portable = target == Target::PeftPortable;
    if target != Target::Peft {
        assert_eq!(config["use_dora"], false, "{of}");
    }
    if portable || matches!(target, Target::Vllm | Target::TensorRtLlm) {
        assert!(is_empty("alpha_pattern"), "{of}: {config}");
    }
    if portable || target == Target::Vllm {
        assert!(is_empty("rank_pattern"), "{of}: {config}");
    }
    if portable {
        assert_eq!(
            (&config["use_rslora"], &config["r"]),
            (&Value::Bool(false), &config["lora_alpha"]),
            "{of}"
        );
    }
    if target == Target::TensorRtLlm {
        let of_kind = |name: &str| sites.keys().filter(|site| site.kind.name() == name).count();
        assert_eq!([of_kind("q_proj"), of_kind("k_proj")], [of_kind("v_proj"); 2], "{of}");
    }
}

#[test]
fn what_a_program_does_not_take_or_says_nothing_is_refused_by_name() {
    let room = room(&KINDS[..1]);
    let mut shown = Vec::new();
    for line in [
        "--for vllm --rank 513 --adapter lora/adapter --out new",
        "--for peft --rank 2 --adapter lora/adapter --out new",
        "--for ollama --rank 2 --adapter lora/adapter --out new",
        "--for vllm --type f16 --adapter lora/adapter --out new",
        "--for llama.cpp --type q8_0 --adapter lora/adapter --out new",
        "--for vllm --onto original --adapter lora/adapter --out new",
        "--for vllm --adapter-only --adapter lora/adapter --out new",
        "--for vllm --out new",
        "--for llama.cpp --out new",
        "--rank 2 --adapter lora/adapter --out new",
        "--for vllm --adapter lora/adapter --out lora",
        "--for vllm --adapter lora/adapter --out lora/adapter/new",
    ] {
        shown.push(room.refused(&format!("export {MODEL} {line} -q")));
    }
    insta::assert_snapshot!(shown.concat(), @"
    error: vllm takes ranks up to 512, and this one is 513: fold it into a smaller one with --rank 512; what is lost is told
    error: peft takes adapters as they are: leave --rank out
    error: ollama takes adapters merged into their base: leave --rank out
    error: --type: of vllm numbers are kept as the adapter has them: leave it out
    error: an adapter's matrices are too narrow for blocks: `--type q8_0` is for a whole model; take f32, f16 or bf16
    error: --onto, --tokenizer: of vllm the adapter is neither merged nor has it a tokenizer: leave them out
    error: --adapter-only: --for vllm says what is written: leave it out
    error: vllm takes the model's folder as it is, and an adapter beside it: give one with --adapter DIR
    error: --for llama.cpp is of an adapter: a whole model is written without --for
    error: --rank: it is the rank that an adapter is folded into for a program: name that with --for
    error: `lora` exists and is not an empty folder: nothing is overwritten. Choose another folder or remove this one
    error: `lora/adapter/new` lies in the adapter `lora/adapter`, which is only read: choose another place
    ");
    let before = room.names();
    let far = room.graft(&format!(
        "export {MODEL} --for vllm --rank 1 --tolerance 0 --adapter lora/adapter --out new -q"
    ));
    assert_eq!((far.code, room.names()), (1, before));
    assert!(far.stderr.contains("nothing was written. Give a higher --rank"), "{}", far.stderr);
}

#[test]
fn a_recipe_names_programs_that_are_checked_first_and_given_what_they_take_at_its_end() {
    let room = Room::new();
    room.recipe(
        "adapter: {rank: 3, dora: true}\ntraining: {max_steps: 1}\nquantization: none\nfinish: {for: [vllm, ollama, peft]}\n",
    );
    for command in ["validate", "plan", "train"] {
        let refused = room.refused(&format!("{command} r.yaml"));
        insta::allow_duplicates! { insta::assert_snapshot!(refused, @"
        error: recipe `r` has a problem:
        r.yaml:8:16: finish.for.0: found vllm, but vllm does not take DoRA (use_dora): give the rank of a plain adapter that comes near it, with --rank N; how near is told
          help: drop `vllm` here; `graft export --for vllm` does it after the run
        ") };
    }
    room.recipe(
        "adapter: {rank: 3, rank_pattern: {down_proj: 5}}\ntraining: {max_steps: 1}\nfinish: {for: [vllm, llama.cpp, ollama]}\n",
    );
    let said = room.graft("train r.yaml");
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("for vllm: mean "), "{}", said.stderr);
    assert_eq!(config(&room, "run/vllm")["r"], 5);
    for file in ["llama.cpp/adapter.gguf", "ollama/model.gguf", "ollama/Modelfile"] {
        assert!(room.path(&format!("run/{file}")).exists(), "{file}");
    }
    let manifest = std::fs::read_to_string(room.path("run/manifest.json")).unwrap();
    assert!(manifest.contains("vllm/adapter_model.safetensors"), "{manifest}");
    // What is missing is made again, and nothing else.
    std::fs::remove_dir_all(room.path("run/vllm")).unwrap();
    let time = |file: &str| room.path(file).metadata().unwrap().modified().unwrap();
    let before = time("run/ollama/model.gguf");
    room.done("train r.yaml --resume -q");
    assert!(room.path("run/vllm").exists());
    assert_eq!(time("run/ollama/model.gguf"), before);
    room.recipe("adapter: {method: full}\nquantization: none\nfinish: {for: [vllm]}\n");
    let refused = room.refused("validate r.yaml");
    assert!(
        refused.contains("finish.for: found programs and adapter.method = full; allowed: none"),
        "{refused}"
    );
}
