//! What is the user's is neither replaced nor shown around, and what is no number is no result.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::room::{Room, succeed, text};
use super::{base_folder, contents};

#[test]
fn scores_of_rows_replace_no_file_by_any_spelling() {
    let room = Room::new();
    let base = base_folder(&room.path(""));
    let weights = base.join("model.safetensors");
    symlink(&weights, room.path("link")).unwrap();
    symlink("nowhere", room.path("dangling")).unwrap();
    fs::hard_link(&weights, room.path("hard")).unwrap();
    fs::copy(&weights, room.path("other")).unwrap();
    let before = contents(&room.path(""));
    for name in [
        "train.jsonl",
        "./base/../train.jsonl",
        "base/model.safetensors",
        "link",
        "hard",
        "dangling",
        "other",
        "base",
        "base/new.jsonl",
        "/dev/null",
    ] {
        let rows = ["--data", "train.jsonl", "--format", "messages", "--per-example", name];
        let output = room.graft(&["eval", "--model", "base"]).args(rows).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains(&format!("`{name}` ")) && !said.contains("load"), "{name}: {said}");
        assert!(contents(&room.path("")) == before, "{name}: something was changed");
    }
}

#[test]
fn a_merged_folder_of_the_users_is_refused_before_a_run_and_before_it_goes_on() {
    let room = Room::new();
    fs::create_dir_all(room.path("out/merged")).unwrap();
    fs::copy(room.path("train.jsonl"), room.path("out/merged/thesis")).unwrap();
    let refused = |arguments: &[&str], name: &str| {
        let output = room.train("out", arguments).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(name) && !said.contains("load"), "{said}");
        assert!(room.path("out/merged/thesis").exists(), "{said}");
    };
    refused(&[], "`merged`");
    fs::rename(room.path("out/merged"), room.path("mine")).unwrap();
    let quick = ["finish.merge=false", "data.validation=none", "training.max_steps=1"];
    succeed(&mut room.train("out", &quick));
    // It came after the run, which has made none of its own: turning merging on does not make it the run's.
    fs::rename(room.path("mine"), room.path("out/merged")).unwrap();
    refused(&[&quick[1..], &["--resume"]].concat(), "out/merged` was not made by this run");
}

#[test]
fn what_is_put_into_results_stays_there_when_the_run_goes_on_and_stale_models_are_named() {
    let room = Room::new();
    let quick = ["data.validation=none", "finish.merge=true"];
    let go_on = |steps: u64, more: &[&str]| {
        let steps = format!("training.max_steps={steps}");
        let arguments = [&quick[..1], &[steps.as_str()], more].concat();
        let output = room.train("out", &arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    go_on(1, &quick[1..]);
    for folder in ["adapter", "merged"] {
        let readme = room.path("out").join(folder).join("README.md");
        graft_files::atomic::write_bytes(readme, b"mine").unwrap();
    }
    let mine = |when: &str| {
        for folder in ["adapter", "merged"] {
            let readme = fs::read_to_string(room.path("out").join(folder).join("README.md"));
            assert_eq!(readme.unwrap_or_default(), "mine", "{folder}, {when}");
        }
    };
    // Whoever narrows a mode means it for what comes after, too.
    let narrowed =
        ["adapter", "adapter/adapter_model.safetensors", "merged/config.json", "report.html"];
    let mode = |file: &str| room.path("out").join(file).metadata().unwrap().permissions().mode();
    for file in narrowed {
        let mode = fs::Permissions::from_mode(mode(file) & 0o700);
        fs::set_permissions(room.path("out").join(file), mode).unwrap();
    }
    let before = contents(&room.path("out/adapter"));
    go_on(1, &["finish.merge=true", "--resume"]);
    mine("with nothing left to do");
    assert!(contents(&room.path("out/adapter")) == before);
    go_on(2, &["finish.merge=true", "--resume"]);
    mine("with a step more");
    assert!(contents(&room.path("out/adapter")) != before, "the adapter was not made again");
    for file in narrowed {
        assert_eq!(mode(file) & 0o077, 0, "{file} was opened again");
    }
    let said = go_on(3, &["finish.merge=false", "--resume", "--quiet"]);
    let stale = "holds a model as it was after step 2, and not what the run came to at step 3: merge again \
                 with";
    assert!(said.contains(stale), "{said}");
    let shown = room.graft(&["inspect", "out"]).output().unwrap().stdout;
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("merged (of step 2)"), "{shown}");
    // Of the same step on another way.
    go_on(3, &["finish.merge=true", "--resume"]);
    fs::remove_dir_all(room.path("out/checkpoints/step-000003")).unwrap();
    let other = ["finish.merge=false", "--resume", "training.learning_rate=1e-5"];
    let said = go_on(3, &other);
    assert!(
        said.contains("as it was after step 3, and not what the run came to at step 3"),
        "{said}"
    );
}

#[test]
fn what_a_run_leaves_is_no_more_open_than_its_most_private_input() {
    let room = Room::new();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let quick = ["training.max_steps=1", "logging.tensorboard=true"];
    let data = room.path("validation.jsonl");
    for (given, expected) in [(0o600, 0o077), (0o640, 0o007)] {
        fs::set_permissions(&data, fs::Permissions::from_mode(given)).unwrap();
        let out = format!("runs/{given:o}");
        succeed(&mut room.train(&out, &quick));
        let rows = ["--data", "validation.jsonl", "--format", "messages", "--per-example"];
        let scores = format!("{out}/rows");
        let mut eval = room.graft(&["eval", "--model", "builtin:quickstart"]);
        succeed(eval.args(rows).arg(&scores));
        let mut all = vec![room.path(&out)];
        while let Some(path) = all.pop() {
            assert_eq!(mode(&path) & expected, 0, "{}: {:o}", path.display(), mode(&path));
            if path.is_dir() {
                all.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        assert_eq!(mode(&data), given, "the user's own file was changed");
    }
    // A recipe that is extended is read, too; and a folder that lets nobody pass closes what lies in it.
    fs::set_permissions(&data, fs::Permissions::from_mode(0o644)).unwrap();
    fs::create_dir(room.path("closed")).unwrap();
    fs::set_permissions(room.path("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    let recipe = |name: &str, text: &str| {
        graft_files::atomic::write_bytes(room.path(name), text.as_bytes()).unwrap();
        fs::set_permissions(room.path(name), fs::Permissions::from_mode(0o644)).unwrap();
    };
    recipe("open.yaml", "extends: closed/base.yaml\nadapter: {rank: 1}\n");
    recipe("closed/base.yaml", "extends: quickstart\ntraining: {seed: 3}\n");
    let mut train = room.train("runs/extended", &quick);
    let words: Vec<_> = train.get_args().map(ToOwned::to_owned).collect();
    train = room.graft(&[]);
    train.args(
        words.iter().map(|word| if word == "quickstart" { "open.yaml".as_ref() } else { &**word }),
    );
    succeed(&mut train);
    assert_eq!(mode(&room.path("runs/extended")) & 0o077, 0);
    // What holds the runs is the user's, and as open as any folder.
    assert_eq!(mode(&room.path("runs")), mode(&room.path("")) | mode(&room.path("runs")));
    fs::set_permissions(&data, fs::Permissions::from_mode(0o644)).unwrap();
    let shell = "umask 022; exec \"$@\"";
    let train = room.train("open", &quick);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", shell, "sh"]).arg(train.get_program()).args(train.get_args());
    succeed(command.current_dir(room.path("")));
    assert_eq!(mode(&room.path("open/report.html")), 0o644, "more private than anybody asked");
}

#[test]
fn private_files_that_come_when_a_run_goes_on_close_what_it_left() {
    let room = Room::new();
    let mode = |name: &str| fs::metadata(room.path(name)).unwrap().permissions().mode() & 0o777;
    let write = |name: &str, text: &str, mode: u32| {
        graft_files::atomic::write_bytes(room.path(name), text.as_bytes()).unwrap();
        fs::set_permissions(room.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let openly = |arguments: &[&str]| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "umask 022; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_graft")]);
        succeed(command.args(arguments).current_dir(room.path("")));
    };
    let rows = "data: {train: [{path: train.jsonl, format: messages}], max_seq_len: 128, system_prompt: a secret}";
    let recipe = format!(
        "model: {{path: builtin:quickstart}}\nadapter: {{rank: 1}}\ntraining: {{max_steps: 1}}\n{rows}\n"
    );
    write("open.yaml", &recipe, 0o644);
    openly(&["train", "open.yaml", "output_dir=later"]);
    assert_eq!([mode("later"), mode("later/recipe.yaml")], [0o755, 0o644]);
    write("validation.jsonl", &fs::read_to_string(room.path("validation.jsonl")).unwrap(), 0o600);
    let validation = "data.validation=[{path: validation.jsonl, format: messages}]";
    let more = ["training.max_steps=2", validation, "--resume"];
    openly(&[&["train", "open.yaml", "output_dir=later"], &more[..]].concat());
    assert_eq!([mode("later"), mode("later/report.html")], [0o700, 0o600]);
}

#[test]
fn rows_that_are_not_used_whole_are_counted_wherever_rows_are_read() {
    let room = Room::new();
    let row = |words: usize| {
        let question = "a ".repeat(words);
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"{question}\"}}, {{\"role\": \"assistant\", \"content\": \"b\"}}]}}\n"
        )
    };
    let rows = [row(1), row(200), row(2), row(200)].concat();
    graft_files::atomic::write_bytes(room.path("mixed.jsonl"), rows.as_bytes()).unwrap();
    let said = "4 rows, 2 samples; rows dropped: too long: 2";
    let train = "data.train=[{path: mixed.jsonl, format: messages}]";
    let quick = [train, "data.validation=none", "training.max_steps=1", "data.overlong=drop"];
    let told = succeed(&mut room.train("out", &quick));
    assert!(told.contains(&format!("data.train: {said}")), "{told}");
    let counted =
        serde_json::json!({"rows": 4, "samples": 2, "otherwise": {"rows dropped: too long": 2}});
    assert_eq!(room.manifest("out")["rows"]["data.train"], counted);
    assert!(fs::read_to_string(room.path("out/report.html")).unwrap().contains(said));
    let recipe = ["validate", "quickstart", train, "data.max_seq_len=128", "data.overlong=drop"];
    let shown = room.graft(&[&recipe[..], &["output_dir=new"]].concat()).output().unwrap().stdout;
    let shown = String::from_utf8_lossy(&shown).into_owned();
    assert!(shown.contains(&format!("data.train: {said}")), "{shown}");
    let model = ["eval", "--model", "builtin:quickstart", "--data", "mixed.jsonl"];
    let drop = ["--format", "messages", "--overlong", "drop", "--max-seq-len", "64"];
    let score = room.graft(&[&model[..], &drop].concat()).output().unwrap();
    let table = String::from_utf8_lossy(&score.stdout).into_owned();
    assert!(table.contains(said), "{table}");
    let score = room.graft(&[&model[..], &drop, &["--json"]].concat()).output().unwrap();
    let found: serde_json::Value = serde_json::from_slice(&score.stdout).unwrap();
    assert_eq!((&found["rows"], &found["of"]), (&2.into(), &counted));
}

#[test]
fn what_gets_published_names_the_base_and_not_where_it_lay() {
    let room = Room::new();
    fs::create_dir(room.path("secret-place")).unwrap();
    let base = base_folder(&room.path("secret-place"));
    let model = format!("model.path={}", base.display());
    succeed(&mut room.train("out", &[&model, "training.max_steps=1", "data.validation=none"]));
    for published in ["out/adapter", "out/merged", "out/checkpoints"] {
        for (path, bytes) in contents(&room.path(published)) {
            let found = bytes.windows(12).any(|window| window == b"secret-place");
            assert!(!found, "{} says where the base lay", path.display());
        }
    }
    let text = fs::read_to_string(room.path("out/adapter/adapter_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["base_model_name_or_path"], "base");
    let weights = fs::read(room.path("out/adapter/adapter_model.safetensors")).unwrap();
    let header = String::from_utf8_lossy(&weights[..2_000]).into_owned();
    assert!(header.contains("\"graft.base_sha256\":\""), "{header}");
    let merge = ["merge", "--adapter", "out/adapter", "--out", "again", "--model"];
    succeed(room.graft(&merge).arg(base));
}

#[test]
fn what_is_no_number_is_no_success() {
    let room = Room::new();
    let quick = ["training.max_steps=1", "data.validation=none", "finish.merge=false"];
    let decay = "training.optimizer={adamw: {weight_decay: 1.0e300}}";
    let cases: [(&str, &[&str], &str); 3] = [
        ("decayed", &["training.learning_rate=1.0", decay], "the update of step 1 left value "),
        (
            "scaled",
            &["adapter.alpha=1.0e30"],
            "after step 1, the last one, the model's loss on the first row",
        ),
        (
            "scored",
            &[
                "adapter.alpha=1.0e30",
                "data.validation=[{path: validation.jsonl, format: messages}]",
            ],
            "after step 1, the last one, ",
        ),
    ];
    for (out, arguments, expected) in cases {
        let output = room.train(out, &[&quick[..], arguments].concat()).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{out}: {said}");
        assert!(said.contains(&format!("error: {expected}")), "{out}: {said}");
        assert_eq!(room.manifest(out)["status"]["state"], "failed", "{out}");
        assert!(!room.path(out).join("adapter").exists(), "{out}: an adapter was written");
    }
}

#[test]
fn a_model_that_outgrows_its_type_is_not_written() {
    let room = Room::new();
    let base = base_folder(&room.path(""));
    let config = fs::read_to_string(base.join("config.json")).unwrap();
    let config = config.replace("\"bfloat16\"", "\"float16\"");
    graft_files::atomic::write_bytes(base.join("config.json"), config.as_bytes()).unwrap();
    // As f32 its weights are numbers, some millions; f16 ends at 65,504.
    let output = room
        .train("out", &["model.path=base", "quantization=none", "adapter={method: full}"])
        .args(["training.max_steps=1", "training.learning_rate=1.0", "data.validation=none"])
        .args(["training.optimizer={adamw: {weight_decay: 1.0e8}}", "finish.merge=false"])
        .output()
        .unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is inf as F16") || said.contains("is -inf as F16"), "{said}");
    assert_eq!(room.manifest("out")["status"]["state"], "failed");
    assert!(!room.path("out/model").exists(), "{said}");
}

#[test]
fn weights_that_are_no_numbers_have_no_scores_and_no_answers() {
    let room = Room::new();
    let base = base_folder(&room.path(""));
    let file = base.join("model.safetensors");
    let mut weights = fs::read(&file).unwrap();
    // The last tensor of the file, whatever it is: all NaN in bf16.
    let end = weights.len();
    weights[end - 100_000..].fill(0xff);
    graft_files::atomic::write_bytes(&file, &weights).unwrap();
    let rows = ["--data", "train.jsonl", "--format", "messages", "--per-example", "rows"];
    let eval = room.graft(&["eval", "--model", "base"]).args(rows).output().unwrap();
    let generate =
        room.graft(&["generate", "--model", "base", "--prompt", "Fee?"]).output().unwrap();
    for output in [eval, generate] {
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("its weights") && said.contains("are damaged"), "{said}");
        assert!(output.stdout.is_empty(), "{said}");
    }
    assert!(!room.path("rows").exists());
    let output = room.train("out", &["model.path=base", "quantization=none"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_eq!(room.manifest("out")["status"]["state"], "failed");
}
