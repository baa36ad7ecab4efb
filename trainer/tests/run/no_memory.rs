//! Memory and threads that the system does not give.

use super::faults;
use super::room::{Room, succeed, text};

#[test]
fn a_run_without_memory_says_so_is_recorded_as_failed_and_goes_on_to_the_same_bytes() {
    let room = Room::new();
    succeed(&mut room.train("whole", &[]));
    for (index, moment) in ["{\"step\":1,\"loss\"", "merge: "].into_iter().enumerate() {
        let out = format!("short-{index}");
        let mut command = room.train(&out, &[]);
        let output = faults::no_memory_when(&mut command, moment, 20_000).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{moment}: {said}");
        for part in [
            "\nerror: the system gives no more memory: ",
            " bytes more were asked for, after ",
            "\n  Raise what limits it (`ulimit -v`",
            "\n  What was written so far is whole: `--resume` goes on from it\n",
        ] {
            assert!(said.contains(part), "{moment}: {said}");
        }
        let status = room.manifest(&out)["status"].clone();
        assert_eq!(status["state"], "failed", "{moment}: {said}");
        assert_eq!(status["reason"], "the system gave no more memory", "{moment}");
        succeed(&mut room.train(&out, &["--resume"]));
        assert!(room.results(&out) == room.results("whole"), "{moment}: other bytes");
    }
}

#[test]
fn commands_without_memory_say_so_and_leave_no_folder() {
    let room = Room::new();
    let model = ["--model", "builtin:quickstart"];
    let commands: [(&[&str], &str); 3] = [
        (&["generate", "--prompt", "When?"], "load: "),
        (&["quantize", "--out", "new"], "quantise: "),
        (&["eval", "--data", "validation.jsonl", "--format", "messages"], "score: "),
    ];
    for (arguments, moment) in commands {
        let mut command = room.graft(&[arguments, &model].concat());
        let output = faults::no_memory_when(&mut command, moment, 20_000).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.contains("\nerror: the system gives no more memory: "),
            "{arguments:?}: {said}"
        );
        assert!(!said.contains("--resume"), "{arguments:?}: {said}");
        assert!(!room.path("new").exists(), "{arguments:?}");
    }
}

#[test]
fn so_few_addresses_that_no_thread_begins_are_not_taken_for_a_fault_of_the_files() {
    let room = Room::new();
    let train = room.train("out", &[]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -v 60000 && exec \"$@\"", "sh"]).arg(train.get_program());
    shell.args(train.get_args()).current_dir(room.path(""));
    let output = shell.output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("gives this process no more memory or threads. Raise"), "{said}");
    assert!(!room.path("out").exists(), "{said}");
}
