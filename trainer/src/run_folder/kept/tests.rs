//! What is somebody else's in a run's folder stays, whenever and wherever it comes.

use super::super::manifest::tests::inputs;
use super::super::manifest::{Manifest, Status};
use super::super::{Error, RunFolder, made, metrics};
use super::*;

#[test]
fn what_somebody_put_into_a_folder_of_the_run_stays_whenever_that_is_made_again() {
    use std::os::unix::fs::PermissionsExt as _;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let mut run = RunFolder::create(&path, "name: a\n", Manifest::begin(inputs())).unwrap();
    let merged = path.join("merged");
    let make = |files: &'static [&'static str]| {
        move |folder: &Path| -> Result<()> {
            let _ = fs::remove_dir_all(folder);
            fs::create_dir_all(folder.join("additional_chat_templates")).unwrap();
            for file in files {
                fs::write(folder.join(file), "made").unwrap();
            }
            Ok(())
        }
    };
    let first: &[&str] = &[
        "config.json",
        "model-00001-of-00002.safetensors",
        "LICENSE",
        "additional_chat_templates/tool_use.jinja",
    ];
    let (made, told) = run.make_folder("merged", 2, "", make(first));
    assert_eq!((made.unwrap(), told), ((), Vec::new()));
    for folder in ["private/empty", "empty"] {
        fs::create_dir_all(merged.join(folder)).unwrap();
    }
    for mine in ["README.md", "private/a", "additional_chat_templates/mine.jinja", "NOTICE"] {
        fs::write(merged.join(mine), "mine").unwrap();
    }
    fs::write(merged.join("tokenizer.json"), "made").unwrap();
    fs::set_permissions(merged.join("private"), fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink("/nowhere", merged.join("link")).unwrap();
    assert!(run.has("merged", 2, "").unwrap(), "what is beside them is not the run's");
    // One of its own is no longer what it made.
    fs::write(merged.join("config.json"), "edited").unwrap();
    // The next one has fewer shards, and brings files of names that are taken.
    let second: &[&str] = &["config.json", "model.safetensors", "NOTICE", "tokenizer.json"];
    let (made, told) = run.make_folder("merged", 4, "", make(second));
    made.unwrap();
    let mut told: Vec<String> = told
        .into_iter()
        .map(|line| line.replace(&root.path().display().to_string(), "ROOT"))
        .collect();
    told.sort();
    insta::assert_snapshot!(told.join("\n"), @"
    `ROOT/run/merged/NOTICE` was made anew; what was there, and was not as the run made it, is `ROOT/run/kept-merged/NOTICE`
    `ROOT/run/merged/config.json` was made anew; what was there, and was not as the run made it, is `ROOT/run/kept-merged/config.json`
    ");
    let read = |file: &str| fs::read_to_string(path.join(file)).unwrap();
    let stays = |file: &str| assert_eq!(read(file), "mine", "{file}");
    let all = ["README.md", "private/a", "additional_chat_templates/mine.jinja"];
    let all_stay = || all.iter().for_each(|file| stays(&format!("merged/{file}")));
    all_stay();
    assert!(merged.join("private/empty").is_dir() && merged.join("empty").is_dir());
    let mode = merged.join("private").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!([read("merged/NOTICE"), read("kept-merged/NOTICE")], ["made", "mine"]);
    assert_eq!(read("kept-merged/config.json"), "edited");
    assert!(merged.join("link").is_symlink() && !path.join("kept-merged/tokenizer.json").exists());
    assert!(!merged.join("LICENSE").exists() && !merged.join(first[1]).exists());
    assert!(run.has("merged", 4, "").unwrap());
    // A failure, and a run that was killed before it could put anything back.
    let failed = |folder: &Path| -> Result<()> {
        let _ = fs::remove_dir_all(folder);
        Err(Error::NoRun { path: folder.to_owned() })
    };
    run.make_folder("merged", 6, "", failed).0.unwrap_err();
    all_stay();
    stays("kept-merged/NOTICE");
    assert!(!merged.join("NOTICE").exists());
    fs::create_dir(path.join(".kept-merged")).unwrap();
    fs::rename(merged.join("README.md"), path.join(".kept-merged/README.md")).unwrap();
    fs::write(merged.join("README.md"), "another").unwrap();
    run.make_folder("merged", 6, "", make(second)).0.unwrap();
    let mut readmes = [read("merged/README.md"), read("merged/README.md-2")];
    readmes.sort();
    assert_eq!(readmes, ["another", "mine"]);
    // What is kept is nobody's to put back or to write over.
    stays("kept-merged/NOTICE");
    fs::write(merged.join("NOTICE"), "edited").unwrap();
    run.make_folder("merged", 8, "", make(second)).0.unwrap();
    stays("kept-merged/NOTICE");
    assert_eq!([read("merged/NOTICE"), read("kept-merged-2/NOTICE")], ["made", "edited"]);
    assert!(!path.join(".kept-merged").exists());
    // Edited, and then killed at any moment of making it again: before and behind the record of its beginning,
    // and when all but the record of its end is done.
    for moment in 0..3 {
        fs::write(merged.join("config.json"), format!("edit {moment}")).unwrap();
        if moment > 0 {
            run.claim("merged", None).unwrap();
        }
        if moment > 1 {
            fs::write(merged.join("LICENSE"), "made").unwrap();
        }
        let (made, told) = run.make_folder("merged", 10 + moment, "", make(second));
        made.unwrap();
        let kept = format!("kept-merged-{}", moment + 3);
        assert!(told.iter().any(|told| told.contains(&kept)), "{told:?}");
        assert_eq!(read(&format!("{kept}/config.json")), format!("edit {moment}"));
    }
    // A link in its place is the user's.
    fs::rename(&merged, path.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", &merged).unwrap();
    let (made, _) = run.make_folder("merged", 20, "", make(second));
    assert!(matches!(made, Err(Error::NotOwn { .. })));
    assert!(matches!(RunFolder::check_own(&path, &["merged"]), Err(Error::NotOwn { .. })));
}

#[test]
fn nothing_is_written_where_the_folder_was_moved_away() {
    let root = tempfile::tempdir().unwrap();
    let [path, moved] = ["run", "moved"].map(|name| root.path().join(name));
    let begin = || RunFolder::create(&path, "name: a\n", Manifest::begin(inputs())).unwrap();
    let mut run = begin();
    let mut log = metrics::MetricsLog::begin(&run.metrics_path()).unwrap();
    fs::rename(&path, &moved).unwrap();
    let line =
        |step| metrics::Line::Eval(metrics::EvalLine { step, eval_loss: 1.0, eval_tokens: 1 });
    for is_taken in [false, true] {
        if is_taken {
            let mut other = begin();
            metrics::MetricsLog::begin(&other.metrics_path()).unwrap().append(&line(7)).unwrap();
            other.put("report.html", 1, "", b"another's").unwrap();
        }
        let made = |_: &Path| -> Result<()> { panic!("it is made") };
        let refused = [
            run.end(Status::Finished),
            run.put("report.html", 1, "", b"mine").map(|_| ()),
            run.make_folder("merged", 1, "", made).0,
            run.makes_checkpoint(1, b"state"),
        ];
        for refused in refused {
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::Moved { .. }), "{error}");
        }
        log.append(&line(1)).unwrap();
        assert_eq!(path.exists(), is_taken);
    }
    assert_eq!(fs::read(path.join("report.html")).unwrap(), b"another's");
    let lines = |folder: &Path| metrics::read(&folder.join("metrics.jsonl")).unwrap();
    assert_eq!((lines(&path), lines(&moved)), (vec![line(7)], vec![line(1), line(1)]));
    RunFolder::open_for_resume(&moved).unwrap_err();
    drop(run);
    RunFolder::open_for_resume(&moved).unwrap();
}

#[test]
fn what_somebody_writes_into_the_manifest_or_the_log_of_a_run_that_is_on_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let mut run = RunFolder::create(&path, "name: a\n", Manifest::begin(inputs())).unwrap();
    fs::write(run.manifest_path(), "mine").unwrap();
    run.end(Status::Finished).unwrap();
    run.end(Status::Finished).unwrap();
    let read = |file: &str| fs::read_to_string(path.join(file)).unwrap();
    assert_eq!(read("damaged-manifest.json"), "mine");
    assert_eq!(RunFolder::read_manifest(&path).unwrap().status, Status::Finished);
    let line =
        |step| metrics::Line::Eval(metrics::EvalLine { step, eval_loss: 1.0, eval_tokens: 1 });
    let mut log = metrics::MetricsLog::begin(&run.metrics_path()).unwrap();
    log.append(&line(1)).unwrap();
    // As editors save.
    fs::write(path.join("new"), "mine").unwrap();
    fs::rename(path.join("new"), run.metrics_path()).unwrap();
    log.append(&line(2)).unwrap();
    fs::remove_file(run.metrics_path()).unwrap();
    log.append(&line(3)).unwrap();
    assert_eq!(read("damaged-metrics.jsonl"), "mine");
    assert_eq!(metrics::read(&run.metrics_path()).unwrap(), [1, 2, 3].map(line));
    assert_eq!(log.so_far(), FileHash::of(read("metrics.jsonl").as_bytes()));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 5);
}

#[test]
fn what_comes_while_a_folder_is_made_stays() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let mut run = RunFolder::create(&path, "name: a\n", Manifest::begin(inputs())).unwrap();
    let merged = path.join("merged");
    let make = |folder: &Path| -> Result<()> {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("NOTICE"), "made").unwrap();
        Ok(())
    };
    run.make_folder("merged", 2, "", make).0.unwrap();
    let meanwhile = |folder: &Path| {
        fs::write(merged.join("late.md"), "mine").unwrap();
        fs::write(merged.join("NOTICE"), "late").unwrap();
        make(folder)
    };
    let (made, told) = run.make_folder("merged", 4, "", meanwhile);
    made.unwrap();
    assert!(told.iter().any(|told| told.contains("kept-merged/NOTICE")), "{told:?}");
    let read = |file: &str| fs::read_to_string(path.join(file)).unwrap();
    let found = ["merged/late.md", "kept-merged/NOTICE", "merged/NOTICE"].map(read);
    assert_eq!(found, ["mine", "late", "made"]);
    assert!(run.has("merged", 4, "").unwrap());
    // A file of its own folder, while that is written.
    run.put("report.html", 4, "", b"first").unwrap();
    fs::write(path.join("report.html"), "edited").unwrap();
    let own = [FileHash::of(b"first")];
    let kept = made::keep_unless(&own, &path.join("report.html"), &path.join("report.html"));
    assert_eq!(kept.unwrap().as_deref(), Some("damaged-report.html"));
    assert_eq!(read("damaged-report.html"), "edited");
}

#[test]
fn what_somebody_narrowed_and_changed_is_made_again_as_narrow() {
    use std::os::unix::fs::PermissionsExt as _;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let mut run = RunFolder::create(&path, "name: a\n", Manifest::begin(inputs())).unwrap();
    let make = |folder: &Path| -> Result<()> {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("NOTICE"), "made").unwrap();
        Ok(())
    };
    run.make_folder("merged", 2, "", make).0.unwrap();
    run.put("report.html", 2, "", b"first").unwrap();
    fs::write(run.metrics_path(), "mine\n").unwrap();
    let all = ["merged/NOTICE", "report.html", "recipe.yaml", "metrics.jsonl", "manifest.json"];
    for file in all {
        let file = path.join(file);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(file, "mine\n").unwrap();
    }
    run.make_folder("merged", 4, "", make).0.unwrap();
    run.put("report.html", 4, "", b"second").unwrap();
    run.resumed_after(4, (inputs(), "name: b\n"), Vec::new(), Vec::new()).unwrap();
    metrics::MetricsLog::begin_anew(&run.metrics_path(), true).unwrap();
    for file in all {
        let file = path.join(file);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        assert_ne!(fs::read_to_string(&file).unwrap(), "mine\n");
    }
}

#[test]
fn a_changed_file_of_the_run_is_kept_when_it_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let mut run = RunFolder::create(&path, "name: a\n", Manifest::begin(inputs())).unwrap();
    run.put("report.html", 2, "", b"first").unwrap();
    let again = run.put("report.html", 3, "", b"second").unwrap();
    assert_eq!(again, None, "its own was taken for somebody else's");
    // Killed behind the record of its beginning, and behind its writing.
    run.claim("report.html", Some(FileHash::of(b"a third"))).unwrap();
    assert_eq!(run.put("report.html", 3, "", b"second").unwrap(), None);
    run.claim("report.html", Some(FileHash::of(b"a third"))).unwrap();
    fs::write(path.join("report.html"), "a third").unwrap();
    assert_eq!(run.put("report.html", 3, "", b"second").unwrap(), None);
    fs::write(path.join("report.html"), "edited").unwrap();
    run.claim("report.html", Some(FileHash::of(b"a third"))).unwrap();
    let changed = run.put("report.html", 4, "", b"third").unwrap();
    let read = |file: &str| fs::read_to_string(path.join(file)).unwrap();
    assert_eq!([read("report.html"), read("damaged-report.html")], ["third", "edited"]);
    assert_eq!(
        changed.unwrap().found,
        "it was damaged or changed, and is made again; what it was is kept as `damaged-report.html`"
    );
}
