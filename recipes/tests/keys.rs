//! The table of keys is the schema: every key can be set, does something, and has the default it
//! says, and a resolved recipe has no other.
#![expect(clippy::unwrap_used, reason = "a failing fixture is a failing test")]

use std::collections::BTreeSet;

use graft_recipes::{MethodName, Recipe, keys, load};
use serde_json::Value;

/// A recipe in which every key means something.
const BASE: &str = "name: base
model: {path: m}
data:
  train: [{path: t.jsonl, format: messages}]
evaluation:
  held_out: [{path: h.jsonl, format: messages}]
  general: [{path: g.jsonl, format: messages}]
";

/// What must hold before `path` means something.
fn premise(path: &str) -> Vec<String> {
    if let Some((source, _)) = path.split_once("[].documents.") {
        return vec![format!("{source}=[{{path: d, format: documents}}]")];
    }
    let premise = match path {
        "data.train[].weight" => "data.train=[{path: a, format: text}]",
        "data.train[].replay" => "data.train=[{path: a, format: text}, {path: b, format: text}]",
        "quantization.double" => "quantization=nf4",
        _ if path.starts_with("data.validation[]") => {
            "data.validation=[{path: w.jsonl, format: messages}]"
        }
        "data.validation.fraction" | "evaluation.every_steps" => "data.validation.fraction=0.125",
        "adapter.layers.last" => "adapter.layers.last=1",
        "training.max_steps" => "training.max_steps=49",
        "training.micro_batches_per_visit" => "training.gradient_accumulation_steps=8",
        "finish.onto" => "finish.merge=true",
        "data.hygiene.near_duplicates.threshold" => "data.hygiene.near_duplicates=report",
        "data.hygiene.contamination.ngram" => "data.hygiene.contamination=report",
        "data.hygiene.mask_key" => "data.hygiene.personal.mail=mask",
        _ if path.starts_with("data.hygiene.patterns[]") => {
            "data.hygiene.patterns=[{name: case, regex: 'AZ-[0-9]+', action: mask}]"
        }
        _ if path.starts_with("data.hygiene.names[]") => {
            "data.hygiene.names=[{path: staff.txt, action: mask}]"
        }
        "training.schedule" => "training.schedule=linear",
        _ => {
            let forms = ["training.schedule", "training.optimizer"];
            let below = |key: &&str| path.starts_with(&format!("{key}."));
            let Some(key) = forms.into_iter().find(below) else { return Vec::new() };
            let form = path[key.len() + 1..].split('.').next().unwrap();
            return vec![format!("{key}={form}")];
        }
    };
    vec![premise.to_owned()]
}

fn with(overrides: &[String]) -> Recipe {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.yaml");
    #[expect(clippy::disallowed_methods, reason = "a fixture in a temporary folder")]
    std::fs::write(&path, BASE).unwrap();
    load(path.to_str().unwrap(), overrides).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The values that differ between two recipes, as paths with `[]` for indexes.
fn leaves(value: &Value, path: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(value, &path, out);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                leaves(item, &format!("{path}[]"), out);
            }
        }
        _ => {
            out.insert(path.to_owned());
        }
    }
}

#[test]
fn every_key_changes_something() {
    for key in keys() {
        let mut overrides = premise(key.path);
        let before = with(&overrides);
        overrides.push(format!("{}={}", key.path.replace("[]", ".0"), key.example));
        let after = with(&overrides);
        assert_ne!(before, after, "{} = {}", key.path, key.example);
        let back = Recipe::from_yaml(&after.to_yaml(), "recipe.yaml").unwrap();
        assert_eq!(after, back, "{}", key.path);
    }
}

#[test]
fn every_default_is_the_one_the_table_gives() {
    for key in keys() {
        let default = match key.default {
            "required" | "–" => continue,
            "the file's name" => "base",
            "runs/ and the name" => "runs/base",
            "twice the rank" => "32",
            default => default,
        };
        let mut overrides = premise(key.path);
        match key.path {
            "training.schedule" => overrides.clear(),
            "evaluation.held_out" | "evaluation.general" => {
                overrides.push(format!("~{}", key.path));
            }
            _ => {}
        }
        let before = with(&overrides);
        overrides.push(format!("{}={default}", key.path.replace("[]", ".0")));
        assert_eq!(with(&overrides), before, "{} = {default}", key.path);
    }
}

#[test]
fn a_resolved_recipe_has_the_keys_of_the_table() {
    let mut found = BTreeSet::new();
    let sets: &[&[&str]] = &[
        &["training.optimizer=adamw_8bit"],
        &["quantization=nf4", "data.validation.fraction=0.5", "adapter.layers.last=1"],
        &["training.max_steps=3", "training.schedule=constant", "evaluation.held_out=[]"],
        &["training.schedule.linear.warmup_steps=1", "data.validation=[{path: v, format: text}]"],
        &["training.schedule={constant: {warmup_steps: 3}}", "evaluation.general=[]"],
        &[
            "training.schedule={cosine: {warmup_steps: 3}}",
            "training.schedule.cosine.final_ratio=1",
        ],
        &["training.schedule=linear"],
        &[
            "adapter.rank_pattern={a: 1}",
            "adapter.alpha_pattern={a: 1}",
            "adapter.trainable_token_indices=[1]",
        ],
        &[
            "data.train=[{path: v, format: messages, columns: {messages: a}, ignore_columns: [b], turn_fields: {role: c}, roles: {user: d}, train_on: {turns: last}}]",
            "data.validation=[{path: v, format: messages, columns: {messages: a}, ignore_columns: [b], turn_fields: {role: c}, roles: {user: d}, train_on: {turns: last}}]",
            "evaluation.held_out=[{path: v, format: messages, columns: {messages: a}, ignore_columns: [b], turn_fields: {role: c}, roles: {user: d}}]",
            "evaluation.general=[{path: v, format: messages, columns: {messages: a}, ignore_columns: [b], turn_fields: {role: c}, roles: {user: d}, train_on: {turns: last}}]",
        ],
        &[
            "data.train=[{path: d, format: documents, documents: {overlap: 1}, epochs: 2}]",
            "data.validation=[{path: d, format: documents, documents: {overlap: 1}}]",
            "evaluation.general=[{path: d, format: documents, documents: {overlap: 1}}]",
        ],
        &["data.train=[{path: v, format: text, rows: 3}]"],
        &["data.train=[{path: v, format: text, weight: 3}, {path: w, format: text, replay: 0.1}]"],
        &[
            "data.hygiene={duplicates: drop, near_duplicates: drop, contamination: drop, leaks: drop}",
            "data.hygiene.personal=mask",
            "data.hygiene.patterns=[{name: a, regex: b, action: mask}]",
            "data.hygiene.names=[{path: a, action: mask}]",
            "data.hygiene.mask_key=k",
        ],
        &[],
    ];
    let methods = MethodName::ALL.iter().map(|(name, _)| vec![format!("adapter.method={name}")]);
    let others = sets.iter().map(|set| set.iter().map(|text| (*text).to_owned()).collect());
    for overrides in others.chain(methods) {
        leaves(&with(&overrides).to_value(), "", &mut found);
    }
    // The fields of forms are theirs.
    let of_recipe = |path: String| {
        let tables = [".columns", ".turn_fields", ".roles"];
        let table = |table: &&str| path.contains("[]") && path.contains(&format!("{table}."));
        let patterns =
            ["adapter.rank_pattern", "adapter.alpha_pattern", "adapter.trainable_token_indices"];
        if let Some(table) = patterns.into_iter().find(|table| path.starts_with(table)) {
            return table.to_owned();
        }
        match tables.into_iter().find(table) {
            Some(table) => path[..path.find(table).unwrap()].to_owned() + table,
            None => path,
        }
    };
    let found: BTreeSet<String> = found.into_iter().map(of_recipe).collect();
    let table: BTreeSet<String> = keys().iter().map(|key| key.path.to_owned()).collect();
    // Sections that only ever stand as a mapping or a list of mappings.
    let whole = [
        "data.train",
        "data.hygiene.patterns",
        "data.hygiene.names",
        "training.schedule",
        "training.optimizer",
    ];
    let whole = whole.map(str::to_owned);
    let expected: BTreeSet<String> =
        table.iter().filter(|path| !whole.contains(path)).cloned().collect();
    assert_eq!(found, expected);
    assert_eq!(table.len(), keys().len(), "a key stands twice in the table");
}

#[test]
fn a_recipe_written_whole_reads_like_this() {
    insta::assert_snapshot!(with(&["quantization=nf4".to_owned()]).to_yaml(), @r#"
    name: base
    model:
      path: m
      tokenizer: null
      preset: null
      init: checkpoint
    quantization: {format: nf4, double: true}
    adapter:
      method: lora
      rank: 16
      alpha: 32.0
      dropout: 0.0
      rslora: false
      dora: false
      loraplus_lr_ratio: 1.0
      target_modules: all-linear
      layers: all
      modules_to_save: []
      init: kaiming
      init_from: null
    data:
      train:
        - {path: t.jsonl, format: messages}
      validation: none
      chat:
        preamble: official
        date: "26 Jul 2024"
        losses: error
      system_prompt: null
      train_on:
        roles: [assistant]
        turns: all
      max_seq_len: 2048
      packing: true
      overlong: error
      train_on_inputs: false
      shuffle: true
      allow_empty_targets: false
      cache: auto
    training:
      epochs: 3
      micro_batch_size: 1
      gradient_accumulation_steps: 1
      micro_batches_per_visit: 1
      learning_rate: 0.0002
      schedule:
        cosine: {warmup_ratio: 0.0, final_ratio: 0.0}
      optimizer:
        adamw:
          beta1: 0.9
          beta2: 0.999
          eps: 1.0e-8
          weight_decay: 0.01
      max_grad_norm: 1.0
      checkpointing: auto
      activation_offload: none
      compute_dtype: auto
      seed: 7
      threads: auto
    evaluation:
      every_steps: none
      held_out:
        - {path: h.jsonl, format: messages}
      general:
        - {path: g.jsonl, format: messages}
      max_new_tokens: 64
      samples: 8
    checkpoint: {every_steps: 100, keep: 3}
    logging: {log_every: 1, tensorboard: true}
    finish:
      merge: false
      onto: dequantised
      for: []
      prompts: []
    output_dir: runs/base
    "#);
}
