//! What people read when a recipe is wrong: all of it at once, with place and way out.
#![expect(clippy::unwrap_used, reason = "a failing fixture is a failing test")]

use graft_recipes::{Recipe, load};
use insta::assert_snapshot;

/// The least a recipe needs.
const LEAST: &str = "model: {path: m}\ndata:\n  train: [{path: t.jsonl, format: messages}]\n";

fn refusal(yaml: &str) -> String {
    Recipe::from_yaml(yaml, "mine.yaml").unwrap_err().to_string()
}

fn refused_override(argument: &str) -> String {
    load("quickstart", &[argument.to_owned()]).unwrap_err().to_string()
}

#[test]
fn the_least_recipe_is_accepted() {
    Recipe::from_yaml(LEAST, "mine.yaml").unwrap();
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_key() {
    assert_snapshot!(refusal(&format!("{LEAST}adapter:\n  rnak: 8\n")), @r#"
    recipe `mine.yaml` has a problem:
    mine.yaml:5:3: adapter.rnak: unknown key
      help: did you mean `adapter.rank`?
    "#);
}

#[test]
fn a_key_in_the_wrong_section_is_shown_its_section() {
    assert_snapshot!(refusal(&format!("{LEAST}rank: 8\nlora_alpha: 16\nnonsense: 1\n")), @r#"
    recipe `mine.yaml` has 3 problems:
    mine.yaml:4:1: rank: unknown key
      help: did you mean `adapter.rank`?
    mine.yaml:5:1: lora_alpha: unknown key
      help: did you mean `adapter.alpha`?
    mine.yaml:6:1: nonsense: unknown key
      help: keys here: adapter, checkpoint, data, evaluation, extends, finish, logging, model, name, output_dir, quantization, training
    "#);
}

#[test]
fn every_problem_is_reported_at_once() {
    let yaml = "model: {pth: m}
data:
  train: [{path: t.jsonl, format: mesages}, {format: text}]
  max_seq_len: 0
  packing: yes
  packing: true
training:
  epochs: 1
  max_steps: 5
  learning_rate: fast
  schedule: {cosine: {warmup_ratio: 2, final: 0}}
adapter: {target_modules: [q_proj, q_prj]}
";
    assert_snapshot!(refusal(yaml), @r#"
    recipe `mine.yaml` has 12 problems:
    mine.yaml:1:8: model.path: missing; allowed: a model folder or `builtin:quickstart`
    mine.yaml:1:9: model.pth: unknown key
      help: did you mean `model.path`?
    mine.yaml:3:35: data.train.0.format: found the text `mesages`; allowed: messages, sharegpt, alpaca, completion, text
      help: did you mean `messages`?
    mine.yaml:3:45: data.train.1.path: missing; allowed: a file, or `builtin:quickstart/train`
    mine.yaml:4:16: data.max_seq_len: found 0; allowed: a whole number, at least 1
    mine.yaml:5:12: data.packing: found the text `yes`; allowed: true or false
    mine.yaml:6:3: data.packing: given twice; it is on line 5 already
    mine.yaml:9:14: training.max_steps: found epochs = 1 and max_steps = 5; allowed: one of the two
      help: drop `training.epochs` or `training.max_steps`
    mine.yaml:10:18: training.learning_rate: found the text `fast`; allowed: a number above 0, at most 1
    mine.yaml:11:37: training.schedule.cosine.warmup_ratio: found 2; allowed: a number from 0 to 1
    mine.yaml:11:40: training.schedule.cosine.final: unknown key
      help: did you mean `training.schedule.cosine.final_ratio`?
    mine.yaml:12:36: adapter.target_modules.1: found the text `q_prj`; allowed: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj
      help: did you mean `q_proj`?
    "#);
}

#[test]
fn a_wrong_type_names_what_was_found_and_what_is_allowed() {
    let yaml = format!("{LEAST}training: [1]\nadapter: {{rank: 1.5, layers: {{first: 2}}}}\n");
    assert_snapshot!(refusal(&yaml), @r#"
    recipe `mine.yaml` has 4 problems:
    mine.yaml:4:11: training: found a list of 1; allowed: a mapping of keys
    mine.yaml:5:17: adapter.rank: found 1.5; allowed: a whole number, at least 1
    mine.yaml:5:30: adapter.layers.last: missing; allowed: a whole number, at least 1
    mine.yaml:5:31: adapter.layers.first: unknown key
      help: keys here: last
    "#);
}

#[test]
fn settings_of_another_method_are_refused() {
    let yaml = format!(
        "{LEAST}adapter: {{method: full, rank: 8}}\nquantization: nf4\nfinish: {{merge: true}}\n"
    );
    assert_snapshot!(refusal(&yaml), @r#"
    recipe `mine.yaml` has 3 problems:
    mine.yaml:4:31: adapter.rank: found 8, but method `full` trains every weight, without adapters
      help: drop `adapter.rank`
    mine.yaml:5:15: quantization: found nf4 and adapter.method = full; allowed: none, as frozen weights cannot be trained
      help: drop `quantization`, or train adapters with `adapter.method: lora`
    mine.yaml:6:17: finish.merge: found true and adapter.method = full; allowed: false, as there is no adapter to merge
      help: drop `finish.merge`: `full` writes the whole model anyway
    "#);
}

#[test]
fn both_forms_of_one_key_are_refused() {
    let yaml = format!("{LEAST}training: {{schedule: {{cosine: {{}}, linear: {{}}}}}}\n");
    assert_snapshot!(refusal(&yaml), @r#"
    recipe `mine.yaml` has a problem:
    mine.yaml:4:22: training.schedule: found a mapping (cosine, linear); allowed: exactly one of constant, linear, cosine
    "#);
}

#[test]
fn broken_yaml_is_named_with_its_place() {
    assert_snapshot!(refusal("model: {path: m\n"), @r#"
    recipe `mine.yaml` has a problem:
    mine.yaml:2:1: not valid YAML: while parsing a flow mapping, did not find expected ',' or '}'
    "#);
}

#[test]
fn a_bad_override_is_named_as_it_was_typed() {
    assert_snapshot!(refused_override("adapter.rnak=8"), @r#"
    recipe `quickstart` has a problem:
    command line: adapter.rnak=8: adapter.rnak: unknown key
      help: did you mean `adapter.rank`?
    "#);
    assert_snapshot!(refused_override("adapter.rank=large"), @r#"
    recipe `quickstart` has a problem:
    command line: adapter.rank=large: adapter.rank: found the text `large`; allowed: a whole number, at least 1
    "#);
    assert_snapshot!(refused_override("adapter.rank"), @r#"
    recipe `quickstart` has a problem:
    command line: adapter.rank: found no `=`; allowed: key=value, or ~key to drop a key
    "#);
    assert_snapshot!(refused_override("data.train.3.path=x"), @r#"
    recipe `quickstart` has a problem:
    command line: data.train.3.path=x: data.train.3.path: found the index `3`, but `data.train` is a list of 1; allowed: 0 to 1
    "#);
    assert_snapshot!(refused_override("~adapter.rnak"), @r#"
    recipe `quickstart` has a problem:
    command line: ~adapter.rnak: adapter.rnak: unknown key
      help: did you mean `adapter.rank`?
    "#);
    assert_snapshot!(refused_override("model.path.folder=x"), @r#"
    recipe `quickstart` has a problem:
    command line: model.path.folder=x: model.path.folder: `model.path` is the text `builtin:quickstart`; allowed: a mapping or list, to have `folder` in it
    "#);
    assert_snapshot!(refused_override("finish.prompts=[a"), @r#"
    recipe `quickstart` has a problem:
    command line: finish.prompts=[a: finish.prompts: not valid YAML: while parsing a flow sequence, expected ',' or ']'
    "#);
}

#[test]
fn two_overrides_that_contradict_are_refused() {
    let overrides = ["training.epochs=1".to_owned(), "training.max_steps=5".to_owned()];
    assert_snapshot!(load("quickstart", &overrides).unwrap_err(), @r#"
    recipe `quickstart` has a problem:
    command line: training.max_steps=5: training.max_steps: found epochs = 1 and max_steps = 5; allowed: one of the two
      help: drop `training.epochs` or `training.max_steps`
    "#);
}

#[test]
fn an_unknown_recipe_is_shown_the_nearest_name() {
    assert_snapshot!(load("lama3.1-8b-lora", &[]).unwrap_err(), @r#"
    recipe `lama3.1-8b-lora` has a problem:
    `lama3.1-8b-lora` is neither a shipped recipe nor a file here
      help: did you mean `llama3.1-8b-lora`?
    "#);
    assert_snapshot!(load("nowhere/mine.yaml", &[]).unwrap_err(), @r#"
    recipe `nowhere/mine.yaml` has a problem:
    cannot read `nowhere/mine.yaml`: No such file or directory (os error 2)
    "#);
}

#[test]
fn an_optimizer_by_the_name_of_another_tool_leads_to_ours() {
    for (theirs, ours) in [
        ("adamw_bnb_8bit", "adamw_8bit"),
        ("paged_adamw_8bit", "adamw_8bit"),
        ("adamw8bit", "adamw_8bit"),
        ("adamw_torch_fused", "adamw"),
        ("adamw_hf", "adamw"),
    ] {
        let hint = format!("did you mean `{ours}`?");
        for value in [theirs.to_owned(), format!("{{{theirs}: {{beta1: 0.8}}}}")] {
            let found = refusal(&format!("{LEAST}training:\n  optimizer: {value}\n"));
            assert!(
                found.contains(&hint) && found.contains("allowed: adamw, adamw_8bit"),
                "{found}"
            );
        }
    }
    assert_snapshot!(refusal(&format!("{LEAST}optim: adamw_bnb_8bit\n")), @r#"
    recipe `mine.yaml` has a problem:
    mine.yaml:4:1: optim: unknown key
      help: did you mean `training.optimizer`?
    "#);
}
