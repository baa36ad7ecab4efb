//! The contract key by key, over the whole table of the recipe's keys.

use graft_recipes::{Key, keys};

use super::super::manifest::DataFile;
use super::super::manifest::tests::inputs;
use super::*;

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
            let below = |key: &&str| path.starts_with(&format!("{key}."));
            let Some(key) = FORMS.into_iter().find(below) else { return Vec::new() };
            let form = path[key.len() + 1..].split('.').next().unwrap();
            return vec![format!("{key}={form}")];
        }
    };
    vec![premise.to_owned()]
}

fn with(overrides: &[String]) -> Recipe {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base.yaml");
    graft_files::atomic::write_bytes(&path, BASE.as_bytes()).unwrap();
    graft_recipes::load(path.to_str().unwrap(), overrides).unwrap_or_else(|e| panic!("{e}"))
}

/// The same recipe as if every value stood in its file.
fn in_a_file(recipe: &Recipe) -> Recipe {
    Recipe::from_yaml(&recipe.to_yaml(), "base.yaml").unwrap()
}

fn verdict(was: &Recipe, recipe: &Recipe) -> Verdict {
    let mut verdict = Verdict::default();
    verdict.recipe(was, Asked { recipe, device: false, kernels: false });
    verdict
}

/// A recipe, and the same with another value of `key`: on the command line.
fn changed(key: &Key) -> (Recipe, Recipe) {
    let mut overrides = premise(key.path);
    let was = in_a_file(&with(&overrides));
    overrides.push(format!("{}={}", key.path.replace("[]", ".0"), key.example));
    (was, with(&overrides))
}

#[test]
fn every_key_has_a_rule_and_every_rule_a_key() {
    let covers = |entry: &str, key: &str| {
        key.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    for key in keys() {
        let is_covered = CONTRACT.iter().any(|(entry, _)| covers(entry, key.path));
        assert!(is_covered, "{}: say what it is when a run goes on", key.path);
    }
    for (entry, _) in CONTRACT {
        assert!(keys().iter().any(|key| covers(entry, key.path)), "{entry} is no key");
    }
}

#[test]
fn every_key_is_free_asked_for_or_refused_by_name_with_both_values() {
    for key in keys() {
        let (was, asked) = changed(key);
        let written = in_a_file(&asked);
        let (by_line, by_file) = (verdict(&was, &asked), verdict(&was, &written));
        let path = key.path;
        match rule(path) {
            Rule::Free => {
                for verdict in [by_line, by_file] {
                    assert_eq!((verdict.refused, verdict.allowed), (vec![], vec![]), "{path}");
                }
            }
            Rule::Asked => {
                assert_eq!(by_line.refused, [], "{path} was asked for");
                let what = |change: &Change| without_indexes(&change.what).starts_with(path);
                assert!(by_line.allowed.iter().any(what), "{path}: {:?}", by_line.allowed);
                assert_eq!(by_file.allowed, [], "{path} was not asked for");
                let way = by_file.refused.iter().find_map(|refusal| refusal.way.as_deref());
                let way = way.unwrap_or_else(|| panic!("{path}: {:?}", by_file.refused));
                assert!(way.contains(&format!("add `{path}=")), "{path}: {way}");
            }
            Rule::Fixed => {
                for verdict in [by_line, by_file] {
                    assert_eq!(verdict.allowed, [], "{path}");
                    let named = verdict.refused.iter().find(|refusal| {
                        let what = without_indexes(&refusal.change.what);
                        what.starts_with(path) || path.starts_with(&what)
                    });
                    let named = named.unwrap_or_else(|| panic!("{path}: {:?}", verdict.refused));
                    assert_ne!(named.change.from, named.change.to, "{path}");
                }
            }
        }
        // What is as it was, is never a change.
        let same = verdict(&written, &asked);
        assert_eq!((same.refused, same.allowed), (vec![], vec![]), "{path}");
    }
}

/// What a refusal says, a line each.
fn said(was: &[&str], now: &[&str]) -> String {
    let recipe = |overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        in_a_file(&with(&overrides))
    };
    let line = |Refusal { change: Change { what, from, to }, way }: Refusal| {
        format!("{what}: {from} | {to} | {}\n", way.unwrap_or_default())
    };
    verdict(&recipe(was), &recipe(now)).refused.into_iter().map(line).collect()
}

#[test]
fn forms_and_lengths_are_named_once() {
    let told = [
        said(&["training.schedule=linear"], &["training.schedule=cosine"]),
        said(&["training.optimizer=adamw"], &["training.optimizer=adamw_8bit"]),
        said(&["training.epochs=3"], &["training.max_steps=4"]),
        said(&["data.validation.fraction=0.5"], &["data.validation=none"]),
        said(&["adapter.layers=[0, 1]"], &["adapter.layers.last=2"]),
        said(&["data.system_prompt=Be brief."], &[]),
    ];
    insta::assert_snapshot!(told.concat(), @"
    training.schedule: linear | cosine | to keep what it was, add `training.schedule=linear`; to go on with what is now, add `training.schedule=cosine`
    training.optimizer: adamw | adamw_8bit | 
    training.max_steps: nothing | 4 | to go on with what is now, add `training.max_steps=4`
    data.validation.fraction: 0.5 | nothing | 
    adapter.layers.last: nothing | 2 | 
    adapter.layers: [0,1] | nothing | 
    data.system_prompt: Be brief. | null |
    ");
}

#[test]
fn an_override_asks_for_its_own_key_alone() {
    let was = in_a_file(&with(&["training.learning_rate=0.5".to_owned()]));
    // The file has no section `training`: the override makes it.
    let now = with(&["training.epochs=5".to_owned()]);
    let Verdict { allowed, refused } = verdict(&was, &now);
    assert_eq!(allowed.iter().map(|change| &*change.what).collect::<Vec<_>>(), ["training.epochs"]);
    let refused: Vec<_> = refused.iter().map(|refusal| &*refusal.change.what).collect();
    assert_eq!(refused, ["training.learning_rate"]);
}

/// What the manifest's part of the contract says about a change of the inputs.
fn computed(change: impl Fn(&mut Inputs), device: bool, kernels: bool) -> String {
    let (begun, mut now) = (inputs(), inputs());
    change(&mut now);
    let was = graft_recipes::load("quickstart", &[]).unwrap();
    let asked = Asked { recipe: &was, device, kernels };
    let lines: Vec<String> = match compare(&begun, &was, &now, asked) {
        Ok(changes) => changes
            .iter()
            .map(|Change { what, from, to }| format!("{what}: {from} > {to}\n"))
            .collect(),
        Err(refusals) => refusals
            .iter()
            .map(|Refusal { change: Change { what, from, to }, way }| {
                format!("refused {what}: {from} > {to} {}\n", way.clone().unwrap_or_default())
            })
            .collect(),
    };
    lines.concat()
}

#[test]
fn files_are_held_to_their_hashes_wherever_they_lie() {
    let other = || FileHash::of(b"other");
    let changes: [fn(&mut Inputs, FileHash); 6] = [
        |now, hash| drop(now.base.insert("model.safetensors".to_owned(), hash)),
        |now, _| now.base.clear(),
        |now, hash| drop(now.tokenizer.insert("chat_template.jinja".to_owned(), hash)),
        |now, hash| drop(now.init_from.insert("adapter_model.safetensors".to_owned(), hash)),
        |now, hash| now.data.get_mut("data.train[0]").unwrap().hash = hash,
        |now, hash| {
            let path = "v.jsonl".to_owned();
            now.data.insert("evaluation.held_out[0]".to_owned(), DataFile { path, hash });
            now.data.get_mut("data.train[0]").unwrap().path = "moved.jsonl".to_owned();
        },
    ];
    let told = changes.map(|change| computed(|now| change(now, other()), false, false));
    insta::assert_snapshot!(told.concat(), @"
    refused base file `model.safetensors`: 9a129038d9a0… > d9298a10d1b0… 
    refused base file `model.safetensors`: 9a129038d9a0… > no such file 
    refused tokenizer file `chat_template.jinja`: no such file > d9298a10d1b0… 
    refused adapter.init_from file `adapter_model.safetensors`: no such file > d9298a10d1b0… 
    refused data.train[0] (`data/train.jsonl`): bc51e9e65d79… > d9298a10d1b0…
    ");
    assert_eq!(told[5], "");
}

#[test]
fn a_device_or_kernels_of_other_sums_are_taken_where_they_are_named() {
    let gpu = |now: &mut Inputs| {
        now.device = "cuda (RTX)".to_owned();
        now.kernels = None;
        now.compute_dtype = "bf16".to_owned();
    };
    let kernels = |now: &mut Inputs| now.kernels = Some("x86_64 avx512".to_owned());
    let dtype = |now: &mut Inputs| now.compute_dtype = "bf16".to_owned();
    let version = |now: &mut Inputs| {
        now.versions.insert("graft".to_owned(), "0.2.0".to_owned());
        now.threads = 64;
    };
    let told = [
        computed(gpu, false, true),
        computed(gpu, true, false),
        computed(kernels, true, false),
        computed(kernels, false, true),
        computed(dtype, false, false),
        computed(version, false, false),
    ];
    insta::assert_snapshot!(told.join("--\n"), @"
    refused device: cpu > cuda (RTX) other sums, other bytes: to go on there, name it with `--device cuda`
    --
    device: cpu > cuda (RTX)
    compute_dtype: f32 > bf16
    --
    refused kernels: x86_64 avx2 > x86_64 avx512 other sums, other bytes: `GRAFT_CPU_KERNELS=avx2` in the environment goes on as before, where the processor has it; `GRAFT_CPU_KERNELS=avx512` goes on with these
    --
    kernels: x86_64 avx2 > x86_64 avx512
    --
    refused compute_dtype: f32 > bf16 to keep what it was, add `training.compute_dtype=f32`; to go on with what is now, add `training.compute_dtype=bf16`
    --
    graft: 0.1.0 > 0.2.0
    ");
}

#[test]
fn the_readme_names_what_can_be_asked_for() {
    let readme = include_str!("../../../../README.md");
    for (key, rule) in CONTRACT {
        let last = key.rsplit('.').next().unwrap();
        let told = readme.contains(&format!("`{key}`")) || readme.contains(&format!("`{last}`"));
        assert!(*rule != Rule::Asked || told, "the README does not say that {key} may change");
    }
}

#[test]
fn other_rows_left_out_are_another_run() {
    let recipe = with(&[]);
    let (begun, mut now) = (inputs(), inputs());
    now.cleaned_sha256 = Some("0123456789abcdef".repeat(4));
    let asked = Asked { recipe: &recipe, device: false, kernels: false };
    assert_eq!(compare(&now, &recipe, &now, asked), Ok(Vec::new()));
    let refused = compare(&begun, &recipe, &now, asked).unwrap_err();
    let Refusal { change: Change { what, from, to }, way } = &refused[0];
    insta::assert_snapshot!(format!("{what}: {from}, {to}: {}", way.as_ref().unwrap()), @"the rows that data.hygiene leaves out: none, those of 0123456789ab…: what is measured decides of it, too: name the same files as before");
}
