//! Every method of the low-rank family from its recipe to its files, and these in every command that reads them.

use serde_json::Value;

use crate::room::Room;

/// A method as a recipe writes it, over which weights, and the rank that its files say.
const METHODS: &[(&str, &str, &str, u64)] = &[
    ("lora", "{rank: 3}", "none", 3),
    ("rslora", "{rank: 3, rslora: true, dropout: 0.1}", "none", 3),
    ("loraplus", "{rank: 3, loraplus_lr_ratio: 8}", "{format: nf4, double: true}", 3),
    ("dora", "{rank: 3, dora: true, dropout: 0.1}", "none", 3),
    ("qdora", "{rank: 3, dora: true, loraplus_lr_ratio: 4}", "{format: nf4, double: true}", 3),
    ("pissa", "{rank: 3, init: pissa}", "none", 6),
    ("pissa-rslora", "{rank: 3, init: pissa, rslora: true}", "none", 6),
    ("pissa-dora", "{rank: 3, init: pissa, dora: true}", "none", 6),
    ("olora", "{rank: 3, init: olora, layers: {last: 1}}", "none", 6),
    (
        "patterns",
        "{rank: 3, rank_pattern: {down_proj: 5, 'layers.0.*.v_proj': 1}, alpha_pattern: {q_proj: 2}}",
        "none",
        3,
    ),
    (
        "tables",
        "{rank: 3, target_modules: [q_proj, down_proj, embed_tokens, lm_head], rank_pattern: {lm_head: 5}}",
        "none",
        3,
    ),
    (
        "head",
        "{rank: 3, alpha: 3, rslora: true, target_modules: [lm_head], loraplus_lr_ratio: 4}",
        "none",
        3,
    ),
    (
        "saved",
        "{rank: 3, modules_to_save: [embed_tokens, lm_head]}",
        "{format: nf4, double: true}",
        3,
    ),
    (
        "saved-dora",
        "{rank: 3, dora: true, layers: [1], modules_to_save: [embed_tokens]}",
        "none",
        3,
    ),
    ("rows", "{rank: 3, trainable_token_indices: [9, '<|eot_id|>', 30]}", "none", 3),
    (
        "rows-pissa",
        "{rank: 3, init: pissa, modules_to_save: [lm_head], trainable_token_indices: {embed_tokens: [9, 30]}}",
        "none",
        6,
    ),
];

/// Whether something is trained of embedding or head.
fn is_of_tables(adapter: &str) -> bool {
    ["lm_head", "embed_tokens", "token_indices"].into_iter().any(|word| adapter.contains(word))
}

fn room() -> Room {
    let room = Room::new();
    let rows: Vec<String> = (0..24)
        .map(|i| {
            serde_json::json!({"text": format!("permit {i} costs {} euros", i * 7)}).to_string()
        })
        .collect();
    room.write("rows.jsonl", rows.join("\n"));
    room
}

fn recipe(adapter: &str, quantization: &str) -> String {
    format!(
        "model: {{path: 'builtin:quickstart'}}\nquantization: {quantization}\nadapter: {adapter}\ndata:\n  train: [{{path: rows.jsonl, \
         format: text}}]\n  validation: [{{path: rows.jsonl, format: text}}]\n  max_seq_len: 64\ntraining: {{max_steps: 6, \
         micro_batch_size: 4, learning_rate: 2.0e-3, schedule: constant, compute_dtype: f32}}\ncheckpoint: {{every_steps: 3}}\n"
    )
}

fn losses(room: &Room, run: &str) -> Vec<f64> {
    let metrics = std::fs::read_to_string(room.path(&format!("{run}/metrics.jsonl"))).unwrap();
    let lines = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| line["eval_loss"].as_f64()).collect()
}

#[test]
fn what_every_method_learns_is_in_its_files_for_every_command_that_reads_them() {
    let room = room();
    for (name, adapter, quantization, rank) in METHODS {
        room.write(&format!("{name}.yaml"), recipe(adapter, quantization));
        // What is left of a weight is rounded as the weight is.
        let near = if adapter.contains("init:") { 1e-3 } else { 2e-5 };
        room.done(&format!("-q train {name}.yaml output_dir={name} finish.merge=true"));
        let losses = losses(&room, name);
        let [before, .., after] = losses[..] else { panic!("{name}: {losses:?}") };
        assert!(after < before - 0.01, "{name}: {before} → {after}: nothing was learnt");
        let config = std::fs::read(room.path(&format!("{name}/adapter/adapter_config.json")));
        let config: Value = serde_json::from_slice(&config.unwrap()).unwrap();
        assert_eq!(config["r"], *rank, "{name}");
        assert_eq!(config["use_dora"], name.contains("dora"), "{name}");
        let ends: &[String] =
            &[format!("{name}/adapter"), format!("{name}/checkpoints/step-000006/adapter")];
        for adapter in ends {
            let line = format!(
                "eval --model builtin:quickstart --adapter {adapter} --data rows.jsonl --format text --compute-dtype f32 --json"
            );
            let found: Value = serde_json::from_str(&room.done(&line)).unwrap();
            let found = found["loss"].as_f64().unwrap();
            assert!((found - after).abs() < near * after, "{adapter}: {found} is not {after}");
        }
        // Merged weights are rounded as the base's are.
        let merged = format!(
            "eval --model {name}/merged --data rows.jsonl --format text --compute-dtype f32 --quantization none --json"
        );
        let found: Value = serde_json::from_str(&room.done(&merged)).unwrap();
        let found = found["loss"].as_f64().unwrap();
        assert!((found - after).abs() < 1e-3 * after, "{name}, merged: {found} is not {after}");
        let alone = format!(
            "export --model builtin:quickstart --adapter {name}/adapter --adapter-only --out {name}.gguf -q"
        );
        let reason = if is_of_tables(adapter) {
            Some("which Graft writes into merged models only")
        } else {
            name.contains("dora").then_some("it is DoRA, whose magnitudes llama.cpp does not know")
        };
        if let Some(reason) = reason {
            let refused = room.refused(&alone);
            assert!(refused.contains(reason), "{refused}");
        } else {
            room.done(&alone);
        }
        let told: Value =
            serde_json::from_str(&room.done(&format!("inspect {name}/adapter --json"))).unwrap();
        assert_eq!(told["dora"], name.contains("dora"), "{name}: {told}");
        let tables = told["tables"].as_object().unwrap();
        assert_eq!(!tables.is_empty(), is_of_tables(adapter), "{name}: {told}");
    }
}

#[test]
fn a_method_that_goes_on_from_a_checkpoint_comes_to_the_same_bytes() {
    let room = room();
    for (name, adapter, quantization, _) in METHODS {
        room.write(&format!("{name}.yaml"), recipe(adapter, quantization));
        room.done(&format!("-q train {name}.yaml output_dir={name}"));
        room.done(&format!("-q train {name}.yaml output_dir={name}-two training.max_steps=3"));
        room.done(&format!(
            "-q train {name}.yaml output_dir={name}-two --resume training.max_steps=6"
        ));
        let bytes = |run: &str| {
            std::fs::read(room.path(&format!("{run}/adapter/adapter_model.safetensors"))).unwrap()
        };
        assert!(bytes(name) == bytes(&format!("{name}-two")), "{name}");
    }
}

#[test]
fn what_an_adapter_cannot_be_is_refused_by_name_before_anything_is_read() {
    let room = room();
    room.done("-q quantize --model builtin:quickstart --out base-nf4");
    room.write("r.yaml", recipe("{rank: 3}", "none"));
    let said = [
        "adapter.rank_pattern={lm_head: 4}",
        "adapter.rank_pattern={q_proj: 4, 'layers.1.self_attn.q_proj': 2}",
        "adapter.alpha_pattern={'q_(': 4}",
        "adapter.init=pissa adapter.rank=900",
        "adapter.init=pissa adapter.init_from=somewhere",
        "adapter.init=olora model.path=base-nf4 quantization=nf4",
        "adapter.init=pissa quantization=nf4 finish.merge=true",
        "adapter.dora=true adapter.method=full",
        "adapter.alpha_pattern={q_proj: 1e300}",
        "adapter.modules_to_save=[q_proj]",
        "adapter.modules_to_save=lm_head",
        "adapter.target_modules=[lm_head] adapter.modules_to_save=[lm_head]",
        "adapter.target_modules=[lm_head] adapter.dora=true",
        "adapter.target_modules=[q_proj,lm_head] adapter.dropout=0.1",
        "adapter.trainable_token_indices=[]",
        "adapter.trainable_token_indices=[2048,5]",
        "adapter.trainable_token_indices=[5,5]",
        "adapter.trainable_token_indices=['<|nothing|>']",
        "adapter.trainable_token_indices={lm_head: [5]}",
        "adapter.trainable_token_indices={q_proj: [5]}",
        "adapter.trainable_token_indices=[5] adapter.modules_to_save=[embed_tokens]",
    ]
    .map(|words| {
        let words: Vec<&str> =
            if words.contains('{') { vec![words] } else { words.split(' ').collect() };
        let mut all = vec!["validate", "r.yaml"];
        all.extend(&words);
        let said = room.graft_words(&all);
        assert_eq!(said.code, 2, "{words:?}: {}", said.stdout);
        said.stderr
    });
    insta::assert_snapshot!(said.concat(), @r#"
    error: recipe `r` has a problem:
    command line: adapter.rank_pattern={lm_head: 4}: adapter.rank_pattern.lm_head: it matches none of the 28 adapted modules, of which one is `model.layers.0.self_attn.q_proj`
    error: recipe `r` has a problem:
    command line: adapter.rank_pattern={q_proj: 4, 'layers.1.self_attn.q_proj': 2}: adapter.rank_pattern.layers.1.self_attn.q_proj: found 2, but `q_proj: 4` matches `model.layers.1.self_attn.q_proj`, too: one pattern each, so that none depends on which one stands first
    error: recipe `r` has a problem:
    command line: adapter.alpha_pattern={'q_(': 4}: adapter.alpha_pattern.q_(: found a `(` without its `)`, which is no pattern for names of modules
    error: recipe `r` has a problem:
    command line: adapter.rank=900: adapter.rank: found pissa with a rank of 900, but model.layers.0.self_attn.q_proj has 256 dimensions on its smaller side: allowed is a rank up to that
    error: recipe `r.yaml` has a problem:
    command line: adapter.init_from=somewhere: adapter.init_from: found init = the text `pissa` and init_from = the text `somewhere`; allowed: one of the two
      help: drop `adapter.init` or `adapter.init_from`
    error: recipe `r` has a problem:
    command line: adapter.init=olora: adapter.init: found olora, but the model folder holds NF4 weights: what an adapter would begin as is taken from the weights before they are quantised
      help: take the release's bf16 folder, or drop `adapter.init`
    error: recipe `r` has a problem:
    command line: finish.merge=true: finish.onto: found dequantised and adapter.init = pissa; allowed: original, as such an adapter is written for the weights before they were quantised
      help: add `onto: original` to `finish`
    error: recipe `r.yaml` has a problem:
    command line: adapter.dora=true: adapter.dora: found `true`, but method `full` trains every weight, without adapters
      help: drop `adapter.dora`
    error: recipe `r` has a problem:
    r.yaml:3:10: adapter.alpha: alpha 1e300 at rank 3 scales the update of model.layers.0.self_attn.q_proj by 3.3333333333333335e299; allowed: what f32 holds
    error: recipe `r.yaml` has a problem:
    command line: adapter.modules_to_save=[q_proj]: adapter.modules_to_save.0: found the text `q_proj`; allowed: embed_tokens, lm_head
    error: recipe `r.yaml` has a problem:
    command line: adapter.modules_to_save=lm_head: adapter.modules_to_save: found the text `lm_head`; allowed: a list of embed_tokens and lm_head
    error: recipe `r` has a problem:
    command line: adapter.modules_to_save=[lm_head]: adapter.modules_to_save: `lm_head` is named here and in `adapter.target_modules`: allowed is one of the two
    error: recipe `r` has a problem:
    command line: adapter.dora=true: adapter.dora: found true and `lm_head` in `target_modules`; allowed: projections only
      help: train the table whole with `modules_to_save`, or drop `dora`
    error: recipe `r` has a problem:
    command line: adapter.dropout=0.1: adapter.dropout: found 0.1 and `lm_head` in `target_modules`; allowed: 0, as nothing is dropped before the head
      help: drop `dropout`, or train the head whole with `modules_to_save`
    error: recipe `r.yaml` has a problem:
    command line: adapter.trainable_token_indices=[]: adapter.trainable_token_indices: found a list of 0; allowed: a list of tokens, by number or as the tokenizer writes them, or such a list for embed_tokens and lm_head each
    error: recipe `r` has a problem:
    command line: adapter.trainable_token_indices=[2048,5]: adapter.trainable_token_indices: found 2048, but the model has 2048 tokens, 0 to 2047
    error: recipe `r` has a problem:
    command line: adapter.trainable_token_indices=[5,5]: adapter.trainable_token_indices: token 5 is named twice for embed_tokens
    error: recipe `r` has a problem:
    command line: adapter.trainable_token_indices=['<|nothing|>']: adapter.trainable_token_indices: found "<|nothing|>", which is no token of builtin:quickstart/tokenizer.json; allowed: a token's number, or one as the tokenizer writes it, such as "<|reserved_special_token_0|>"
    error: recipe `r` has a problem:
    command line: adapter.trainable_token_indices={lm_head: [5]}: adapter.trainable_token_indices: found rows of lm_head, but the model's head is its embedding: one row serves both
      help: name the tokens once, as a list
    error: recipe `r.yaml` has a problem:
    command line: adapter.trainable_token_indices={q_proj: [5]}: adapter.trainable_token_indices: found a mapping (q_proj); allowed: a list of tokens, by number or as the tokenizer writes them, or such a list for embed_tokens and lm_head each
    error: recipe `r` has a problem:
    command line: adapter.trainable_token_indices=[5]: adapter.trainable_token_indices: `embed_tokens` is named here and in `adapter.modules_to_save`: allowed is one of the two
    "#);
}
