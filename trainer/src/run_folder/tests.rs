//! Laws of the run folder as a whole; each part has its own beside it.
#![expect(clippy::disallowed_methods, reason = "the tests prepare folders by hand")]

use super::manifest::tests::inputs;
use super::*;

const STARTED: &str = "2026-01-02T03:04:05Z";

fn manifest(status: Status) -> Manifest {
    let mut manifest = Manifest::begin(inputs());
    manifest.started = STARTED.to_owned();
    manifest.status = status;
    manifest
}

fn quickstart(overrides: &[&str]) -> graft_recipes::Recipe {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    graft_recipes::load("quickstart", &overrides).unwrap()
}

fn asked(recipe: &graft_recipes::Recipe) -> contract::Asked<'_> {
    contract::Asked { recipe, device: false, kernels: false }
}

/// The message of a refusal with the temporary folder's name taken out.
fn refusal(path: &Path) -> String {
    let error = RunFolder::create(path, "other: recipe\n", manifest(Status::Running)).unwrap_err();
    assert!(error.is_wrong_input(), "{error}");
    error.to_string().replace(&path.parent().unwrap().display().to_string(), "runs")
}

#[test]
fn a_new_run_has_its_recipe_and_manifest() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("deep/run");
    let run = RunFolder::create(&path, "name: x\n", manifest(Status::Running)).unwrap();
    assert_eq!(fs::read_to_string(run.recipe_path()).unwrap(), "name: x\n");
    assert_eq!(Manifest::read(&run.manifest_path()).unwrap(), *run.manifest());
    assert!(run.checkpoints().list().unwrap().is_empty());
}

#[test]
fn a_folder_with_another_run_is_refused_with_the_ways_out() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a");
    let stopped = manifest(Status::Stopped { reason: "Ctrl-C".to_owned() });
    let mut run = RunFolder::create(&path, "name: x\n", stopped).unwrap();
    run.makes_checkpoint(300, b"state").unwrap();
    fs::create_dir_all(run.checkpoints().path(300)).unwrap();
    drop(run);
    fs::create_dir(root.path().join("a-2")).unwrap();
    insta::assert_snapshot!(refusal(&path), @r"
    `runs/a` already holds a run: `quickstart`, begun 2026-01-02T03:04:05Z, stopped (Ctrl-C), checkpoints up to step 300
      to go on with it: add `--resume`
      to keep it and train anew: choose another folder, `output_dir=runs/a-3`
    ");
}

#[test]
fn a_finished_run_is_not_offered_to_go_on() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a");
    drop(RunFolder::create(&path, "name: x\n", manifest(Status::Finished)).unwrap());
    insta::assert_snapshot!(refusal(&path), @r"
    `runs/a` already holds a run: `quickstart`, begun 2026-01-02T03:04:05Z, finished, no checkpoint
      to keep it and train anew: choose another folder, `output_dir=runs/a-2`
    ");
}

#[test]
fn parts_of_a_run_without_a_manifest_are_refused_too() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a");
    fs::create_dir_all(path.join("adapter")).unwrap();
    fs::write(path.join("metrics.jsonl"), "").unwrap();
    insta::assert_snapshot!(refusal(&path), @r"
    `runs/a` already holds a run: `metrics.jsonl`, `adapter`, but no readable `manifest.json`
      to keep it and train anew: choose another folder, `output_dir=runs/a-2`
    ");
}

#[test]
fn whatever_a_run_would_make_is_refused_where_it_is_there() {
    for name in PARTS.into_iter().chain(RESULTS) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        fs::create_dir_all(path.join(name)).unwrap();
        fs::write(path.join(name).join("mine"), "").unwrap();
        let said = refusal(&path);
        assert!(said.contains(&format!("`{name}`")), "{said}");
        assert!(path.join(name).join("mine").exists(), "{name}");
    }
}

#[test]
fn only_what_the_run_made_by_its_manifest_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let mut run = RunFolder::create(root.path(), "name: x\n", manifest(Status::Running)).unwrap();
    run.put(BEFORE, 0, "", b"{}").unwrap();
    // Killed while it made a folder: it is the run's, and not made.
    let adapter = run.own_place(ADAPTER).unwrap();
    run.claim(ADAPTER, None).unwrap();
    fs::create_dir(&adapter).unwrap();
    fs::create_dir(root.path().join(MERGED)).unwrap();
    drop(run);
    let results = [BEFORE, ADAPTER, REPORT];
    RunFolder::check_own(root.path(), &results).unwrap();
    let error = RunFolder::check_own(root.path(), &[&results[..], &[MERGED]].concat());
    let text = error.unwrap_err().to_string().replace(&root.path().display().to_string(), "run");
    insta::assert_snapshot!(text, @"`run/merged` was not made by this run and is not replaced: move it away, or train in another folder with `output_dir=…`");
    let mut run = RunFolder::open_for_resume(root.path()).unwrap();
    assert!(
        !run.has(ADAPTER, 3, "").unwrap() && run.own_place(MERGED).unwrap_err().is_wrong_input()
    );
    run.claim(ADAPTER, None).unwrap();
    run.made(ADAPTER, 3, "").unwrap();
    assert!(run.has(ADAPTER, 3, "").unwrap() && !run.has(ADAPTER, 4, "").unwrap());
}

#[test]
fn a_file_in_the_folder_s_place_is_wrong_input() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a"), "").unwrap();
    insta::assert_snapshot!(refusal(&root.path().join("a")), @"`runs/a` is a file, but a run needs a folder: choose another `output_dir=…`");
}

#[test]
fn a_recipe_written_by_hand_is_never_overwritten() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("recipe.yaml"), "# mine\n").unwrap();
    insta::assert_snapshot!(refusal(&path), @r"
    `runs/a` already holds a run: `recipe.yaml`, another one than this run's
      to keep it and train anew: choose another folder, `output_dir=runs/a-2`
    ");
    assert_eq!(fs::read_to_string(path.join("recipe.yaml")).unwrap(), "# mine\n");
}

#[test]
fn a_run_killed_while_it_was_created_can_be_created_again() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("recipe.yaml"), "name: x\n").unwrap();
    fs::write(root.path().join("train.log"), "piped here by the shell").unwrap();
    let error = RunFolder::open_for_resume(root.path()).unwrap_err();
    assert!(matches!(error, Error::NoRun { .. }), "{error}");
    RunFolder::create(root.path(), "name: x\n", manifest(Status::Running)).unwrap();
    assert!(RunFolder::holds_run(root.path()));
}

#[test]
fn going_on_keeps_the_beginning_and_records_the_step() {
    let root = tempfile::tempdir().unwrap();
    let stopped = manifest(Status::Stopped { reason: "Ctrl-C".to_owned() });
    drop(RunFolder::create(root.path(), "name: x\n", stopped).unwrap());
    let mut run = RunFolder::open_for_resume(root.path()).unwrap();
    let recipe = quickstart(&[]);
    assert_eq!(run.changes(&inputs(), asked(&recipe)).unwrap(), []);
    let mended = run.resumed_after(200, (inputs(), "name: y\n"), Vec::new(), Vec::new()).unwrap();
    assert_eq!(mended.len(), 1, "another recipe.yaml than the manifest's was not seen");
    let read = |file: &str| fs::read_to_string(root.path().join(file)).unwrap();
    assert_eq!([read("recipe.yaml"), read("damaged-recipe.yaml")], ["name: y\n", "name: x\n"]);
    run.end(Status::after_last_step(300, 0.5)).unwrap();
    drop(run);
    let manifest = Manifest::read(&root.path().join("manifest.json")).unwrap();
    assert_eq!((manifest.started.as_str(), manifest.status), (STARTED, Status::Finished));
    assert_eq!(manifest.resumed_after, [200]);
    assert!(manifest.ended.is_some());
}

#[test]
fn changed_inputs_are_named_with_both_values() {
    let root = tempfile::tempdir().unwrap();
    let run = RunFolder::create(root.path(), "name: x\n", manifest(Status::Running)).unwrap();
    let mut now = inputs();
    now.base.clear();
    now.device = "cuda (RTX)".to_owned();
    let recipe = quickstart(&["training.seed=8", "training.epochs=9"]);
    let recipe = graft_recipes::Recipe::from_yaml(&recipe.to_yaml(), "mine.yaml").unwrap();
    let error = run.changes(&now, asked(&recipe)).unwrap_err();
    assert!(error.is_wrong_input());
    let text = error.to_string().replace(&root.path().display().to_string(), "runs/a");
    insta::assert_snapshot!(text, @"
    the run in `runs/a` cannot go on, it would be another one:
      training.epochs: was 8, is now 9
        to keep what it was, add `training.epochs=8`; to go on with what is now, add `training.epochs=9`
      training.seed: was 7, is now 8
      base file `model.safetensors`: was 9a129038d9a0…, is now no such file
      device: was cpu, is now cuda (RTX)
        other sums, other bytes: to go on there, name it with `--device cuda`
      restore what has changed, or start a new run in another folder with `output_dir=…`
    ");
}

#[cfg(unix)]
#[test]
fn one_process_at_a_time_writes_to_a_run() {
    let root = tempfile::tempdir().unwrap();
    let run = RunFolder::create(root.path(), "name: x\n", manifest(Status::Running)).unwrap();
    let error = RunFolder::open_for_resume(root.path()).unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    drop(run);
    RunFolder::open_for_resume(root.path()).unwrap();
}

#[test]
fn a_folder_that_has_lost_its_manifest_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a");
    let run = RunFolder::create(&path, "name: x\n", manifest(Status::Running)).unwrap();
    fs::create_dir_all(run.checkpoints().path(300)).unwrap();
    drop(run);
    fs::remove_file(path.join("manifest.json")).unwrap();
    let error = RunFolder::open_for_resume(&path).unwrap_err();
    assert!(error.is_wrong_input());
    let text = error.to_string().replace(&root.path().display().to_string(), "runs");
    insta::assert_snapshot!(text, @"`runs/a` holds `checkpoints` of a run, but not its `manifest.json`, without which nobody can say what it is of: put that file back, or start a new run in another folder with `output_dir=…`");
}

#[test]
fn what_the_run_made_is_known_by_its_step_by_what_it_is_of_and_by_its_bytes() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a");
    let mut run = RunFolder::create(&path, "name: x\n", manifest(Status::Running)).unwrap();
    let adapter = run.own_place("adapter").unwrap();
    run.claim("adapter", None).unwrap();
    fs::create_dir_all(&adapter).unwrap();
    fs::write(adapter.join("a.json"), "a").unwrap();
    fs::write(adapter.join("b.safetensors"), "b").unwrap();
    run.made("adapter", 4, "values").unwrap();
    let hashes = [("adapter/a.json", "a"), ("adapter/b.safetensors", "b")]
        .map(|(name, text)| (name.to_owned(), manifest::FileHash::of(text.as_bytes())));
    assert_eq!(RunFolder::read_manifest(&path).unwrap().made["adapter"].files, hashes.into());
    assert!(run.has("adapter", 4, "values").unwrap());
    assert!(!run.has("adapter", 5, "values").unwrap() && !run.has("adapter", 4, "others").unwrap());
    fs::write(adapter.join("b.safetensors"), "c").unwrap();
    assert!(!run.has("adapter", 4, "values").unwrap(), "a changed file was not seen");
    fs::remove_file(adapter.join("b.safetensors")).unwrap();
    assert!(!run.has("adapter", 4, "values").unwrap(), "a lost file was not seen");
    run.put("before.json", 0, "questions", b"{}").unwrap();
    let content = |run: &RunFolder, of| run.content("before.json", 0, of).unwrap();
    assert!(matches!(content(&run, "questions"), Content::Whole(text) if text == b"{}"));
    assert!(matches!(content(&run, "others"), Content::Other));
    assert!(matches!(run.content("after.json", 4, "").unwrap(), Content::None));
    fs::write(path.join("before.json"), "[]").unwrap();
    assert!(matches!(content(&run, "questions"), Content::Damaged(_)));
    fs::remove_file(path.join("before.json")).unwrap();
    assert!(matches!(content(&run, "questions"), Content::Damaged(_)));
}
