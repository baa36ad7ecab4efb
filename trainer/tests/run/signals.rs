//! SIGINT, SIGTERM and SIGHUP, wherever they come.

use std::fs;

use super::faults;
use super::room::{Room, succeed, text};

/// What a run says or writes when it is well into a part of its work; the signal that comes then; where it says
/// that it was stopped.
const MOMENTS: [(&str, i32, &str); 5] = [
    ("score the base: 3", libc::SIGINT, "stopped by Ctrl-C while scoring the base"),
    ("{\"step\":1,\"loss\"", libc::SIGTERM, "stopped by SIGTERM after step 1 of 3"),
    (
        "score the result: 3",
        libc::SIGHUP,
        "stopped by SIGHUP, a terminal that was closed after the last step, while scoring the result",
    ),
    ("merge: ", libc::SIGINT, "stopped by Ctrl-C after the last step, while merging the adapter"),
    (
        "score the base: 3",
        libc::SIGHUP,
        "stopped by SIGHUP, a terminal that was closed while scoring the base",
    ),
];

#[test]
fn a_run_stops_wherever_it_is_asked_to_and_goes_on_to_the_same_bytes() {
    let room = Room::new();
    succeed(&mut room.train("whole", &[]));
    let expected = room.results("whole");
    for (index, (moment, signal, expected_reason)) in MOMENTS.into_iter().enumerate() {
        let out = format!("stopped-{index}");
        let mut command = room.train(&out, &[]);
        let output = faults::signal_when(&mut command, moment, signal, 1).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{moment}: {said}");
        assert!(
            said.contains("\nstopping by "),
            "{moment}: it was not said that it was heard: {said}"
        );
        let status = room.manifest(&out)["status"].clone();
        assert_eq!(status["state"], "stopped", "{moment}: {said}");
        assert_eq!(status["reason"], expected_reason, "{moment}");
        assert!(said.contains(&format!("error: {expected_reason}: ")), "{moment}: {said}");
        let path = room.path(&out);
        let kept = path.join("checkpoints/step-000001/optimizer.safetensors").exists();
        assert_eq!(kept, !moment.contains("base"), "{moment}: its checkpoint");
        assert!(!path.join("merged").exists(), "{moment}: it went on");
        assert_eq!(path.join("before.json").exists(), kept, "{moment}: the base's scores");
        if moment.starts_with('{') {
            // The base is scored as the base, whatever was learnt by then.
            fs::remove_file(path.join("before.json")).unwrap();
        }
        succeed(&mut room.train(&out, &["--resume"]));
        assert!(room.results(&out) == expected, "{moment}: other bytes than the uninterrupted run");
        assert_eq!(room.steps(&out), room.steps("whole"), "{moment}");
    }
}

#[test]
fn a_signal_while_nothing_is_made_yet_leaves_nothing() {
    let room = Room::new();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let mut command = room.train("out", &[]);
        let output =
            faults::signal_when(&mut command, "load and quantise: 1/", signal, 1).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("error: stopped by ") && said.ends_with(": nothing was changed\n"),
            "{said}"
        );
        assert!(!room.path("out").exists(), "{said}");
    }
}

#[test]
fn the_second_signal_ends_a_run_at_once_and_nohup_outlives_a_terminal() {
    let room = Room::new();
    let mut command = room.train("out", &[]);
    let output = faults::signal_when(&mut command, "train: 0/", libc::SIGINT, 2).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.ends_with("error: ended at once by another signal\n"), "{said}");
    assert!(!room.path("out/adapter").exists());
    let status = room.manifest("out")["status"].clone();
    assert_eq!(status["reason"], "ended at once, asked to stop twice", "{said}");
    let train = room.train("out", &["--resume"]);
    let mut nohup = room.graft(&[]);
    nohup = {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(train.get_program());
        shell.args(train.get_args()).current_dir(nohup.get_current_dir().unwrap());
        shell.env("FAULT_KEEPS_HUP", "1");
        shell
    };
    succeed(faults::signal_when(&mut nohup, "train: ", libc::SIGHUP, 1));
    assert!(room.path("out/adapter").exists());
}

#[test]
fn every_long_command_stops_when_asked_to_and_leaves_nothing_half_written() {
    let room = Room::new();
    succeed(&mut room.train("run", &["finish.merge=false", "data.validation=none"]));
    let model = ["--model", "builtin:quickstart"];
    let merge = [&["merge", "--adapter", "run/adapter", "--out", "new"], &model[..]].concat();
    let quantize = [&["quantize", "--out", "new"], &model[..]].concat();
    let adapters = [
        "adapters",
        "--method",
        "rerank",
        "--rank",
        "1",
        "--adapter",
        "run/adapter",
        "--out",
        "new",
    ];
    let export = [&["export", "--out", "new", "--type", "q4_k_m"], &model[..]].concat();
    let rows =
        ["eval", "--data", "validation.jsonl", "--format", "messages", "--per-example", "new"];
    let eval = [&rows[..], &model[..]].concat();
    let synth = ["synth-model", "--preset", "100m", "--layers", "1", "--out", "new"];
    let commands: &[(&[&str], &str, i32)] = &[
        (&merge, "merge: ", libc::SIGINT),
        (&merge, "load: ", libc::SIGTERM),
        (&quantize, "quantise: ", libc::SIGHUP),
        (&adapters, "combine: ", libc::SIGTERM),
        (&export, "export: ", libc::SIGINT),
        (&eval, "load: ", libc::SIGTERM),
        (&eval, "score: ", libc::SIGINT),
        (&synth, "write: ", libc::SIGINT),
        (&["documents", "run/report.html", "--out", "new"], "read: ", libc::SIGTERM),
    ];
    let names = || {
        let entries = fs::read_dir(room.path("")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    for &(arguments, moment, signal) in commands {
        let mut command = room.graft(arguments);
        let output = faults::signal_when(&mut command, moment, signal, 1).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?} {moment}: {said}");
        assert!(said.contains("error: stopped by "), "{arguments:?} {moment}: {said}");
        assert_eq!(names(), before, "{arguments:?} {moment}");
    }
}

#[test]
fn a_command_that_has_nothing_to_keep_ends_by_the_signal_itself() {
    use std::os::unix::process::ExitStatusExt as _;
    let room = Room::new();
    for (signal, line) in [
        (libc::SIGINT, "generate --model builtin:quickstart --prompt Fee?"),
        (libc::SIGTERM, "chat --model builtin:quickstart"),
    ] {
        let mut command = room.graft(&line.split(' ').collect::<Vec<_>>());
        let output = faults::signal_when(&mut command, "load: ", signal, 1).output().unwrap();
        assert_eq!(output.status.signal(), Some(signal), "{line}: {}", text(&output));
    }
}
