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
    assert_snapshot!(refusal(yaml), @"
    recipe `mine.yaml` has 12 problems:
    mine.yaml:1:8: model.path: missing; allowed: a model folder or `builtin:quickstart`
    mine.yaml:1:9: model.pth: unknown key
      help: did you mean `model.path`?
    mine.yaml:3:35: data.train.0.format: found the text `mesages`; allowed: messages, sharegpt, alpaca, completion, text, documents
      help: did you mean `messages`?
    mine.yaml:3:45: data.train.1.path: missing; allowed: a file, a folder, `rows-*.jsonl` or `builtin:quickstart/train`
    mine.yaml:4:16: data.max_seq_len: found 0; allowed: a whole number, at least 1
    mine.yaml:5:12: data.packing: found the text `yes`; allowed: true or false
    mine.yaml:6:3: data.packing: given twice; it is on line 5 already
    mine.yaml:9:14: training.max_steps: found epochs = 1 and max_steps = 5; allowed: one of the two
      help: drop `training.epochs` or `training.max_steps`
    mine.yaml:10:18: training.learning_rate: found the text `fast`; allowed: a number above 0, at most 1
    mine.yaml:11:37: training.schedule.cosine.warmup_ratio: found 2; allowed: a number from 0 to 1
    mine.yaml:11:40: training.schedule.cosine.final: unknown key
      help: did you mean `training.schedule.cosine.final_ratio`?
    mine.yaml:12:36: adapter.target_modules.1: found the text `q_prj`; allowed: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, embed_tokens, lm_head
      help: did you mean `q_proj`?
    ");
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
fn a_prompt_that_says_nothing_is_refused_in_its_place() {
    let yaml = "model: {path: builtin:quickstart}\ndata:\n  train: [{path: a.jsonl, format: text}]\n  \
                max_seq_len: 8\nfinish:\n  prompts: [Why?, '', \" \"]\n";
    assert_snapshot!(refusal(yaml), @r"
    recipe `mine.yaml` has 2 problems:
    mine.yaml:6:19: finish.prompts.1: found the text ``; allowed: a text that says something
    mine.yaml:6:23: finish.prompts.2: found the text ` `; allowed: a text that says something
    ");
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
fn keys_of_other_methods_are_not_offered() {
    let yaml = format!("{LEAST}adapter: {{method: full, targets: [q_proj]}}\n");
    assert_snapshot!(refusal(&yaml), @"
    recipe `mine.yaml` has a problem:
    mine.yaml:4:25: adapter.targets: unknown key
      help: keys here: method
    ");
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
    assert_snapshot!(refused_override("output_dir=a #b"), @"
    recipe `quickstart` has a problem:
    command line: output_dir=a #b: output_dir: found `#`, behind which YAML sees a comment; allowed: such a value in quotes of its own
    ");
    assert_snapshot!(refused_override("output_dir=#b"), @"
    recipe `quickstart` has a problem:
    command line: output_dir=#b: output_dir: found `#`, behind which YAML sees a comment; allowed: such a value in quotes of its own
    ");
    assert_snapshot!(refused_override("output_dir=a\nb"), @r"
    recipe `quickstart` has a problem:
    command line: output_dir=a\nb: output_dir: found a line break, of which YAML makes a blank; allowed: such a value in quotes of its own
    ");
    let quoted = load("quickstart", &["output_dir='a #b'".to_owned()]).unwrap();
    assert_eq!(quoted.output_dir, std::path::Path::new("a #b"));
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

#[test]
fn a_key_of_another_tool_leads_to_ours_or_to_what_there_is_instead() {
    let yaml = format!(
        "{LEAST}early_stopping: true\ntraining: {{num_epochs: 3, warmup_ratio: 0.1}}\nadapter: {{use_dora: true, r: 8}}\nreport_to: wandb\nresume_from_checkpoint: x\n"
    );
    assert_snapshot!(refusal(&yaml), @r"
    recipe `mine.yaml` has 7 problems:
    mine.yaml:4:1: early_stopping: unknown key
      help: Graft has no `early_stopping`: a run has `training.epochs` or `training.max_steps`; `evaluation.every_steps` shows the validation loss on the way
    mine.yaml:5:12: training.num_epochs: unknown key
      help: did you mean `training.epochs`?
    mine.yaml:5:27: training.warmup_ratio: unknown key
      help: did you mean `training.schedule.cosine.warmup_ratio`?
    mine.yaml:6:11: adapter.use_dora: unknown key
      help: did you mean `adapter.dora`?
    mine.yaml:6:27: adapter.r: unknown key
      help: did you mean `adapter.rank`?
    mine.yaml:7:1: report_to: unknown key
      help: Graft has no `report_to`: it opens no network connection; `logging.tensorboard` and report.html are files
    mine.yaml:8:1: resume_from_checkpoint: unknown key
      help: `resume_from_checkpoint` is no key of a recipe: `graft train … --resume` goes on after the last checkpoint
    ");
    assert_snapshot!(refused_override("~load_best_model_at_end"), @r"
    recipe `quickstart` has a problem:
    command line: ~load_best_model_at_end: load_best_model_at_end: unknown key
      help: Graft has no `load_best_model_at_end`: a run has `training.epochs` or `training.max_steps`; `evaluation.every_steps` shows the validation loss on the way
    ");
}

#[test]
fn a_key_without_effect_is_refused_where_it_is_written() {
    let yaml = format!(
        "{LEAST}  chat: {{preamble: none, date: 1 Jan 2030}}\n  train_on_inputs: true\nevaluation: {{every_steps: 10, max_new_tokens: 5, samples: 3}}\ncheckpoint: {{every_steps: none, keep: 7}}\nfinish: {{onto: original}}\ntraining:\n  max_steps: 5\n  micro_batches_per_visit: 4\n  schedule: {{linear: {{warmup_steps: 6}}}}\n"
    ).replace("messages", "text");
    assert_snapshot!(refusal(&yaml), @r#"
    recipe `mine.yaml` has 9 problems:
    mine.yaml:4:32: data.chat.date: found "1 Jan 2030", but data.chat.preamble is none: only the official one gives a date
      help: drop `data.chat.date`
    mine.yaml:5:20: data.train_on_inputs: found true, but every row is text, whose tokens are all targets anyway
      help: drop `data.train_on_inputs`
    mine.yaml:6:27: evaluation.every_steps: found 10, but data.validation is none: nothing is measured while training
      help: drop `evaluation.every_steps`
    mine.yaml:6:47: evaluation.max_new_tokens: found 5, but evaluation.held_out and finish.prompts are empty: the model is asked nothing
      help: drop `evaluation.max_new_tokens`
    mine.yaml:6:59: evaluation.samples: found 3, but evaluation.held_out is empty: there is no answer to show
      help: drop `evaluation.samples`
    mine.yaml:7:39: checkpoint.keep: found 7, but checkpoint.every_steps is none: only the last step leaves a checkpoint
      help: drop `checkpoint.keep`
    mine.yaml:8:16: finish.onto: found "original", but finish.merge is false: nothing is merged
      help: drop `finish.onto`
    mine.yaml:11:28: training.micro_batches_per_visit: found 4, but training.gradient_accumulation_steps is less: a step has no more of them
      help: drop `training.micro_batches_per_visit`
    mine.yaml:12:37: training.schedule.linear.warmup_steps: found 6, but the run has 5 steps, so the rate never comes up
      help: drop `training.schedule.linear.warmup_steps`
    "#);
    assert_snapshot!(refused_override("evaluation.every_steps=10"), @r"
    recipe `quickstart` has a problem:
    command line: evaluation.every_steps=10: evaluation.every_steps: found 10, but data.validation is none: nothing is measured while training
      help: drop `evaluation.every_steps`
    ");
    let both = ["evaluation.held_out=[]", "finish.prompts=[]", "evaluation.max_new_tokens=5"];
    assert_snapshot!(load("quickstart", &both.map(str::to_owned)).unwrap_err(), @r"
    recipe `quickstart` has a problem:
    command line: evaluation.max_new_tokens=5: evaluation.max_new_tokens: found 5, but evaluation.held_out and finish.prompts are empty: the model is asked nothing
      help: drop `evaluation.max_new_tokens`
    ");
}

#[test]
fn what_chats_alone_have_is_refused_where_there_are_none_or_all_is_learnt() {
    let beside = |more: &str| refusal(&format!("{LEAST}{more}"));
    let text = |more: &str| refusal(&format!("{LEAST}{more}").replace("messages", "text"));
    assert_snapshot!(beside("  train_on: {turns: last}\n  train_on_inputs: true\n"), @"
    recipe `mine.yaml` has a problem:
    mine.yaml:4:13: data.train_on: found {\"roles\":[\"assistant\"],\"turns\":\"last\"}, but data.train_on_inputs is true: every token is a target
      help: drop `data.train_on`
    ");
    assert_snapshot!(text("  train_on: {roles: [user]}\n  system_prompt: Be brief.\n"), @r#"
    recipe `mine.yaml` has 2 problems:
    mine.yaml:4:13: data.train_on: found {"roles":["user"],"turns":"all"}, but no row is a chat, of whose turns some could be targets and others not
      help: drop `data.train_on`
    mine.yaml:5:18: data.system_prompt: found "Be brief.", but no row is a chat that it could be added to
      help: drop `data.system_prompt`
    "#);
    assert_snapshot!(beside("  train_on: {roles: [human], turns: first}\n"), @"
    recipe `mine.yaml` has 2 problems:
    mine.yaml:4:22: data.train_on.roles.0: found the text `human`; allowed: system, user, assistant, tool
    mine.yaml:4:37: data.train_on.turns: found the text `first`; allowed: all, last
    ");
    assert_snapshot!(beside("  train_on: {roles: []}\n"), @"
    recipe `mine.yaml` has a problem:
    mine.yaml:4:21: data.train_on.roles: found a list of 0; allowed: a list of some of system, user, assistant, tool
    ");
}

#[test]
fn names_of_speakers_and_fields_that_other_tools_have_lead_to_ours() {
    let yaml = "model: {path: m}
data:
  train:
    - path: t.jsonl
      format: messages
      field_messages: conversations
      message_property_mappings: {role: from, content: value}
      tags: {user_tag: customer}
      roles: {user: []}
  mask_history: true
  roles_to_train: [assistant]
";
    assert_snapshot!(refusal(yaml), @"
    recipe `mine.yaml` has 6 problems:
    mine.yaml:6:7: data.train.0.field_messages: unknown key
      help: did you mean `data.train[].columns`?
    mine.yaml:7:7: data.train.0.message_property_mappings: unknown key
      help: did you mean `data.train[].turn_fields`?
    mine.yaml:8:7: data.train.0.tags: unknown key
      help: `tags` is no key of a recipe: `turn_fields` of a source names the fields of turns, and its `roles` the words for who speaks
    mine.yaml:9:14: data.train.0.roles: found a mapping (user); allowed: words for each role, `{user: [customer], assistant: [agent]}`
    mine.yaml:10:3: data.mask_history: unknown key
      help: did you mean `data.train_on.turns`?
    mine.yaml:11:3: data.roles_to_train: unknown key
      help: did you mean `data.train_on.roles`?
    ");
}

#[test]
fn what_a_layer_above_leaves_without_effect_goes_back_to_its_default() {
    let quickstart = |overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        load("quickstart", &overrides).unwrap_or_else(|problems| panic!("{problems}"))
    };
    assert_eq!(quickstart(&[]).evaluation.max_new_tokens.get(), 32);
    for nothing in [
        ["evaluation.held_out=[]", "finish.prompts=[]"],
        ["~evaluation.held_out", "~finish.prompts"],
        ["evaluation={held_out: []}", "finish=null"],
    ] {
        let recipe = quickstart(&nothing);
        assert_eq!(recipe.evaluation.max_new_tokens.get(), 64, "{nothing:?}");
        Recipe::from_yaml(&recipe.to_yaml(), "recipe.yaml").unwrap();
    }
    let text = "extends: llama3.1-8b-qlora\ndata: {validation: none}\n";
    let recipe = Recipe::from_yaml(text, "mine.yaml").unwrap();
    assert_eq!(recipe.evaluation.every_steps, None);
    let text =
        format!("{LEAST}training: {{epochs: 2, schedule: {{linear: {{warmup_steps: 100}}}}}}\n");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.yaml");
    #[expect(clippy::disallowed_methods, reason = "a fixture in a temporary folder")]
    std::fs::write(&path, text).unwrap();
    let trial = load(path.to_str().unwrap(), &["training.max_steps=2".to_owned()]).unwrap();
    assert!(
        trial.to_yaml().contains("warmup_steps: 100"),
        "a trial keeps the rates of its first steps"
    );
}

#[test]
fn a_count_beyond_all_use_is_refused() {
    assert_snapshot!(refused_override("training.epochs=5675921253449092805"), @r"
    recipe `quickstart` has a problem:
    command line: training.epochs=5675921253449092805: training.epochs: found 5675921253449092805; allowed: a whole number from 1 to 1000000000
    ");
    let counts = ["adapter.rank", "training.max_steps", "data.max_seq_len", "checkpoint.keep"];
    for key in counts.into_iter().chain(["training.micro_batch_size", "evaluation.every_steps"]) {
        let shown = refused_override(&format!("{key}=1000000001"));
        assert!(
            shown.contains(&format!(
                "{key}: found 1000000001; allowed: a whole number from 1 to 1000000000"
            )),
            "{shown}"
        );
    }
    assert!(
        refused_override("training.threads=1025")
            .contains("allowed: auto, or a whole number from 1 to 1024")
    );
    assert!(refused_override("evaluation.samples=1000000001").contains("from 0 to 1000000000"));
}

#[test]
fn paths_of_other_homes_and_unset_variables_are_refused_in_every_key_that_is_a_path() {
    let paths: Vec<&str> = graft_recipes::keys()
        .iter()
        .filter(|key| key.kind.contains("folder") || key.kind.contains("file or builtin"))
        .map(|key| key.path)
        .collect();
    assert_eq!(paths.len(), 9, "{paths:?}");
    for path in paths {
        let key = path.replace("[]", ".0");
        for (value, said) in [
            ("~nobody/x", "begins at another user's home"),
            ("$GRAFT_NO_SUCH_VARIABLE/x", "names the variable GRAFT_NO_SUCH_VARIABLE"),
        ] {
            let overrides =
                ["data.validation=[{path: v, format: text}]".to_owned(), format!("{key}={value}")];
            let shown = load("quickstart", &overrides).unwrap_err().to_string();
            assert!(shown.contains(said) && shown.contains(&key), "{shown}");
        }
        let overrides = [
            "data.validation=[{path: v, format: text}]".to_owned(),
            format!("{key}=./~nobody/$$x"),
        ];
        let recipe = load("quickstart", &overrides).unwrap();
        let yaml = recipe.to_yaml();
        assert_eq!(Recipe::from_yaml(&yaml, "recipe.yaml").unwrap(), recipe, "{yaml}");
        assert!(yaml.contains("./~nobody/$$x"), "{yaml}");
    }
}
