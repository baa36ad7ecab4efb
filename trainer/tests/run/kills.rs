//! Kills and failures at any call that changes the disk.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use super::faults;
use super::room::{Room, succeed, text};

#[test]
fn a_run_killed_at_any_call_that_changes_the_disk_goes_on_to_the_same_bytes() {
    let room = Room::new();
    let calls = faults::count(&mut room.train("whole", &[]));
    let expected = room.results("whole");
    for call in faults::drawn(calls, 5) {
        let out = format!("killed-{call}");
        let mut command = room.train(&out, &[]);
        let output = faults::signal_at(&mut command, call, libc::SIGKILL).output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGKILL), "call {call} of {calls}");
        succeed(&mut room.train(&out, &["--resume"]));
        assert!(
            room.results(&out) == expected,
            "other bytes after a kill at call {call} of {calls}"
        );
        assert_eq!(room.steps(&out), room.steps("whole"), "killed at call {call}");
        assert_eq!(room.manifest(&out)["status"]["state"], "finished", "killed at call {call}");
    }
}

#[test]
fn a_run_killed_at_any_time_goes_on_to_the_same_bytes() {
    let room = Room::new();
    let begun = Instant::now();
    succeed(&mut room.train("whole", &[]));
    let whole = begun.elapsed();
    let expected = room.results("whole");
    for share in faults::drawn(90, 3) {
        let out = format!("killed-{share}");
        // A run that was quicker this time is over before the kill: then sooner.
        let mut wait = whole * u32::try_from(share).unwrap() / 100;
        let killed = loop {
            let mut child = room.train(&out, &[]).spawn().unwrap();
            std::thread::sleep(wait);
            child.kill().unwrap();
            let status = child.wait().unwrap();
            if status.signal() == Some(libc::SIGKILL) {
                break true;
            }
            let _ = std::fs::remove_dir_all(room.path(&out));
            wait /= 2;
            if wait < Duration::from_millis(1) {
                break false;
            }
        };
        assert!(killed, "the kill never met a living run");
        succeed(&mut room.train(&out, &["--resume"]));
        assert!(
            room.results(&out) == expected,
            "other bytes after a kill at {share} % of the time"
        );
    }
}

#[test]
fn a_call_that_fails_once_is_a_sentence_and_no_run_is_left_running() {
    let room = Room::new();
    let calls = faults::count(&mut room.train("whole", &[]));
    let expected = room.results("whole");
    let errors = [libc::ENOSPC, libc::EIO, libc::EFBIG, libc::EDQUOT, libc::EROFS];
    for (call, error) in faults::drawn(calls, 5).into_iter().zip(errors) {
        let out = format!("failed-{call}");
        let mut command = room.train(&out, &[]);
        let output = faults::error_at(&mut command, call, error, false).output().unwrap();
        let said = text(&output);
        let at = format!("errno {error} of call {call} of {calls}: {said}");
        // What failed may be what a run can do without, as removing an old checkpoint's file.
        if !output.status.success() {
            assert_eq!(output.status.code(), Some(1), "{at}");
            assert!(said.contains(&format!("(os error {error})")), "{at}");
            if room.path(&out).join("manifest.json").exists() {
                let status = &room.manifest(&out)["status"];
                assert_eq!(status["state"], "failed", "{at}");
                let reason = status["reason"].as_str().unwrap();
                assert!(said.contains(reason), "{reason} is recorded, {at}");
            }
            succeed(&mut room.train(&out, &["--resume"]));
        }
        assert!(!said.contains("fault in graft"), "{at}");
        assert!(room.results(&out) == expected, "other bytes, {at}");
        assert_eq!(room.manifest(&out)["status"]["state"], "finished", "{at}");
    }
}

#[test]
fn a_disk_that_stays_full_is_what_is_told_and_not_that_this_could_not_be_recorded() {
    let room = Room::new();
    let mut command = room.train("full", &[]);
    let calls = faults::count(&mut room.train("whole", &[]));
    let output = faults::error_at(&mut command, calls / 3, libc::ENOSPC, true).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let (error, rest) = said.split_once("error: ").unwrap().1.split_once('\n').unwrap();
    assert!(error.contains("Free some space") && !error.contains("manifest.json"), "{said}");
    assert!(rest.starts_with("  that it ended so could not be recorded: "), "{said}");
    succeed(&mut room.train("full", &["--resume"]));
    assert!(room.results("full") == room.results("whole"), "other bytes after a full disk");
}

#[test]
fn what_fails_after_the_last_step_leaves_the_rest_and_is_all_that_is_done_again() {
    use std::os::unix::fs::MetadataExt;
    let room = Room::new();
    succeed(&mut room.train("whole", &[]));
    let mut command = room.train("out", &[]);
    let output = faults::error_when(&mut command, "merge: ", libc::EIO).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let status = room.manifest("out")["status"].clone();
    assert_eq!(status["state"], "failed", "{said}");
    let reason = status["reason"].as_str().unwrap().replace(room.path("").to_str().unwrap(), "");
    let (start, end) = reason.split_once("cannot write").unwrap_or_else(|| panic!("{reason}"));
    assert_eq!(start, "all steps are taken, but merging the adapter failed: ");
    assert!(
        end.contains("(os error 5)") && end.ends_with("`--resume` does what is missing"),
        "{end}"
    );
    let out = room.path("out");
    assert!(!out.join("merged").exists(), "a part of a merged model is left");
    let file = |name: &str| std::fs::metadata(out.join(name)).unwrap().ino();
    let made = ["adapter", "after.json", "before.json"].map(file);
    let report = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(report.contains("merging the adapter failed"), "the report does not say it");
    let said = succeed(&mut room.train("out", &["--resume"]));
    assert_eq!(["adapter", "after.json", "before.json"].map(file), made, "made again: {said}");
    assert!(room.results("out") == room.results("whole"), "other bytes");
    assert_eq!(room.manifest("out")["status"]["state"], "finished");
}
