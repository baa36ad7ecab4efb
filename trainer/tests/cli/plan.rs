//! `graft plan`: the ledger of a run, and that a run that does not fit never begins.

use crate::room::Room;

fn json(room: &Room, line: &str) -> serde_json::Value {
    serde_json::from_str(&room.done(line)).unwrap()
}

#[test]
fn a_plan_shows_every_line_with_its_arithmetic_and_writes_nothing() {
    let room = Room::new();
    room.recipe("  chat: {preamble: none}\n");
    let before = room.names();
    let line = "plan r.yaml training.compute_dtype=f32 --threads 2 --memory 1GiB --disk 1GiB";
    insta::assert_snapshot!(room.done(line), @"");
    assert_eq!(room.names(), before);
}

#[test]
fn json_holds_the_lines_and_their_sums() {
    let room = Room::new();
    room.recipe("  chat: {preamble: none}\n");
    let plan = json(&room, "plan r.yaml --json --memory 1GiB --disk 1GiB");
    assert_eq!((&plan["fits"], &plan["steps"]), (&true.into(), &3.into()));
    assert_eq!(
        (&plan["tokens_per_step"], &plan["available"]["memory"]),
        (&26.into(), &(1 << 30).into())
    );
    let sum = |places: &[&str]| -> u64 {
        let lines = plan["lines"].as_array().unwrap().iter();
        let counted = lines.filter(|line| places.contains(&line["place"].as_str().unwrap()));
        counted.map(|line| line["bytes"].as_u64().unwrap()).sum()
    };
    assert_eq!(plan["anonymous_bytes"], sum(&["anonymous"]));
    assert_eq!(plan["resident_bytes"], sum(&["anonymous", "mapped"]));
    assert_eq!(plan["disk_bytes"], sum(&["disk"]));
    let short = json(&room, "plan r.yaml training.optimizer=adamw_8bit --json");
    assert!(short["anonymous_bytes"].as_u64() < plan["anonymous_bytes"].as_u64());
}

#[test]
fn a_run_that_does_not_fit_is_refused_before_it_begins() {
    let room = Room::new();
    room.recipe("  chat: {preamble: none}\n");
    let memory = room.refused("train r.yaml --memory 5MiB");
    assert!(memory.contains("of memory, and 5.00 MiB is available"), "{memory}");
    assert!(memory.contains("block inputs") && memory.contains("299,008 · 4"), "{memory}");
    let disk = room.refused("train r.yaml --disk 1MiB");
    assert!(disk.contains("of disk, and 1.00 MiB is available for `run`"), "{disk}");
    assert!(disk.contains("checkpoint.keep") && disk.contains("checkpoints"), "{disk}");
    let fewer = room.refused("train r.yaml --disk 1MiB finish.merge=true");
    assert!(fewer.contains("merged model"), "{fewer}");
    // No machine has this: the limit is the one that was found.
    let any = room.refused("train r.yaml adapter.rank=100000000");
    assert!(any.contains("of memory, and") && any.contains("adapter.rank="), "{any}");
    let shown = room.done("plan r.yaml --memory 5MiB");
    assert!(shown.contains("it does not fit: the run takes"), "{shown}");
    assert_eq!(json(&room, "plan r.yaml --memory 5MiB --json")["fits"], false);
}
