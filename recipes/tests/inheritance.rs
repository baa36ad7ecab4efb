//! Overrides and `extends`: what replaces what.
#![expect(clippy::unwrap_used, reason = "a failing fixture is a failing test")]
#![expect(clippy::disallowed_methods, reason = "fixtures in a temporary folder")]

use std::path::Path;

use graft_recipes::{
    AdapterMethod, Duration, Layers, Location, PathOrBuiltin, Quantization, Recipe, Schedule,
    SourceFormat, Validation, Warmup, load,
};

fn quickstart(overrides: &[&str]) -> Recipe {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    load("quickstart", &overrides).unwrap_or_else(|problems| panic!("{problems}"))
}

fn child(text: &str) -> Recipe {
    Recipe::from_yaml(text, "child.yaml").unwrap_or_else(|problems| panic!("{problems}"))
}

fn rank(recipe: &Recipe) -> usize {
    recipe.adapter.rank().unwrap_or_default()
}

fn load_path(path: &Path) -> Result<Recipe, graft_recipes::Problems> {
    load(path.to_str().unwrap(), &[])
}

#[test]
fn an_override_wins_and_says_where_it_was_written() {
    let recipe = quickstart(&["adapter.rank=4"]);
    assert_eq!(rank(&recipe), 4);
    let location = recipe.locate("adapter.rank").unwrap();
    assert_eq!(location.to_string(), "command line: adapter.rank=4");
    let location = recipe.locate("adapter.alpha").unwrap();
    assert!(matches!(location, Location::File { line: 5.., .. }), "{location}");
    assert_eq!(recipe.locate("training.seed"), None);
}

#[test]
fn an_index_names_an_item_and_the_next_one_appends() {
    for key in ["data.train.0.path=x.jsonl", "data.train[0].path=x.jsonl"] {
        let recipe = quickstart(&[key]);
        assert_eq!(recipe.data.train[0].path, PathOrBuiltin::Path("x.jsonl".into()));
        assert_eq!(recipe.data.train[0].format, SourceFormat::Messages);
        assert!(recipe.locate("data.train[0].path").is_some());
    }
    let recipe = quickstart(&["data.train.1={path: y.jsonl, format: alpaca}"]);
    assert_eq!(recipe.data.train.len(), 2);
    let recipe = quickstart(&["data.train.1.path=y.jsonl", "data.train.1.format=alpaca"]);
    assert_eq!(recipe.data.train[1].format, SourceFormat::Alpaca);
}

#[test]
fn a_dropped_key_goes_back_to_its_default() {
    for drop in ["~training.schedule", "training.schedule=null"] {
        let schedule = Schedule::Cosine { warmup: Warmup::Ratio(0.0), final_ratio: 0.0 };
        assert_eq!(quickstart(&[drop]).training.schedule, schedule);
    }
    assert!(quickstart(&["~evaluation.held_out.0"]).evaluation.held_out.is_empty());
    assert_eq!(quickstart(&["~model.preset"]), quickstart(&[]));
}

#[test]
fn the_last_of_two_equal_overrides_wins() {
    assert_eq!(rank(&quickstart(&["adapter.rank=4", "adapter.rank=5"])), 5);
}

#[test]
fn another_form_replaces_the_inherited_one() {
    let linear = |final_ratio| Schedule::Linear { warmup: Warmup::Ratio(0.0), final_ratio };
    let by_path = quickstart(&["training.schedule.linear.final_ratio=0.5"]);
    assert_eq!(by_path.training.schedule, linear(0.5));
    assert_eq!(quickstart(&["training.schedule=linear"]).training.schedule, linear(0.0));
    let text = "extends: quickstart\ntraining: {schedule: {linear: {final_ratio: 0.5}}}\n";
    assert_eq!(child(text).training.schedule, linear(0.5));
    let steps = quickstart(&["training.schedule.cosine.warmup_steps=3"]);
    let Schedule::Cosine { warmup: Warmup::Steps(3), .. } = steps.training.schedule else {
        panic!("{:?}", steps.training.schedule)
    };
    let recipe = quickstart(&["training.max_steps=2"]);
    assert!(matches!(recipe.training.duration, Duration::MaxSteps(steps) if steps.get() == 2));
    let recipe = quickstart(&["adapter.layers=all", "adapter.layers.last=2"]);
    assert!(matches!(
        recipe.adapter,
        AdapterMethod::Lora { layers: Layers::Last(last), .. } if last.get() == 2
    ));
    let list = "data.validation=[{path: v.jsonl, format: text}]";
    let recipe = quickstart(&[list, "data.validation.fraction=0.1"]);
    assert_eq!(recipe.data.validation, Validation::Fraction(0.1));
}

#[test]
fn another_method_drops_the_inherited_settings_of_the_old_one() {
    let text = "extends: quickstart\nadapter: {method: full}\nquantization: none\nfinish: null\n";
    let recipe = child(text);
    assert_eq!(recipe.adapter, AdapterMethod::Full);
    assert_eq!(recipe.quantization, Quantization::None);
    let recipe = quickstart(&["quantization.format=none"]);
    assert_eq!(recipe.quantization, Quantization::None);
}

#[test]
fn mappings_merge_and_lists_are_replaced() {
    let base = load("quickstart", &[]).unwrap();
    let text = "extends: quickstart
adapter: {rank: 2}
data: {train: [{path: a.txt, format: text}, {path: b.txt, format: text}]}
";
    let recipe = child(text);
    assert_eq!(rank(&recipe), 2);
    assert_eq!(recipe.data.train.len(), 2);
    assert_eq!(recipe.training, base.training);
    assert_eq!(recipe.data.max_seq_len, base.data.max_seq_len);
    assert_eq!(recipe.locate("adapter.rank").unwrap().to_string(), "child.yaml:2:17");
    let inherited = recipe.locate("training.learning_rate").unwrap().to_string();
    assert!(inherited.starts_with("quickstart.yaml (shipped):"), "{inherited}");
}

#[test]
fn name_and_output_folder_are_never_inherited() {
    let mut recipe = child("extends: quickstart\n");
    assert_eq!(recipe.name, "child");
    assert_eq!(recipe.output_dir, Path::new("runs/child"));
    let base = quickstart(&[]);
    recipe.name.clone_from(&base.name);
    recipe.output_dir.clone_from(&base.output_dir);
    assert_eq!(recipe, base);
}

#[test]
fn a_local_recipe_is_found_beside_the_one_that_extends_it() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("below");
    std::fs::create_dir(&below).unwrap();
    std::fs::write(folder.path().join("base.yaml"), "extends: quickstart\nadapter: {rank: 3}\n")
        .unwrap();
    let path = below.join("child.yaml");
    std::fs::write(&path, "extends: ../base.yaml\nadapter: {alpha: 9}\n").unwrap();
    let recipe = load_path(&path).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(rank(&recipe), 3);
    assert_eq!(recipe.name, "child");
}

#[test]
fn recipes_that_extend_each_other_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yaml");
    std::fs::write(&path, "extends: b.yaml\n").unwrap();
    std::fs::write(folder.path().join("b.yaml"), "extends: ./a.yaml\n").unwrap();
    let problems = load_path(&path).unwrap_err();
    assert_eq!(problems.list.len(), 1);
    assert_eq!(problems.list[0].message, "found `./a.yaml`, which leads back here");
    let location = problems.list[0].location.as_ref().unwrap().to_string();
    assert!(location.ends_with("b.yaml:1:10"), "{location}");
}

#[test]
fn what_is_extended_is_a_recipe_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yaml");
    std::fs::write(&path, "extends: b.yaml\nmodel: {path: builtin:quickstart}\n").unwrap();
    let shown =
        ["root:x:0:0\ndaemon:x:1:1\n", "- a\n- b\n", "12\n", "true\n", "# a: b\n"].map(|text| {
            std::fs::write(folder.path().join("b.yaml"), text).unwrap();
            let problems = load_path(&path).unwrap_err();
            assert_eq!(problems.list.len(), 1, "{problems}");
            let location = problems.list[0].location.as_ref().unwrap().to_string();
            assert!(location.ends_with("a.yaml:1:10"), "{location}");
            problems.list[0].message.clone()
        });
    insta::assert_snapshot!(shown.join("\n"), @"
    found `b.yaml`, which holds the text `root:x:0:0 daemon:x:1:1`; allowed: a recipe
    found `b.yaml`, which holds a list of 2; allowed: a recipe
    found `b.yaml`, which holds 12; allowed: a recipe
    found `b.yaml`, which holds `true`; allowed: a recipe
    found `b.yaml`, which is empty; allowed: a recipe
    ");
}

#[test]
fn text_that_is_not_utf8_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latin.yaml");
    std::fs::write(&path, b"name: a\nmodel: {path: caf\xe9}\n").unwrap();
    let message = load_path(&path).unwrap_err().to_string();
    assert!(message.contains("is not UTF-8 text: byte 25, on line 2"), "{message}");
}

#[test]
fn a_recipe_tells_every_file_that_it_is_made_of() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("a.yaml"), "extends: b.yaml\n").unwrap();
    std::fs::write(at("b.yaml"), "extends: quickstart\ntraining: {seed: 9}\n").unwrap();
    let recipe = load(at("a.yaml").to_str().unwrap(), &["adapter.alpha=8".to_owned()]).unwrap();
    assert_eq!(recipe.files(), [at("a.yaml"), at("b.yaml")]);
}
