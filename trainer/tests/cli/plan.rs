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
    insta::assert_snapshot!(room.done(line), @r"
    recipe         r
    model          builtin:quickstart
    steps          3 of 52 tokens on average
    checkpointing  selective
    trainable      299,008 of 3,475,712 parameters

    memory of its own
      norms               9.00 KiB  (4 · 2 + 1) · 256 · 4
      trained values      1.14 MiB  299,008 · 4
      optimizer states    2.28 MiB  299,008 · 8.00
      data                   608 B  52 tokens · 8 + 2 samples · 96
      program            14.82 MiB  12 MiB + 2 threads · 1 MiB + 2,048 tokens · 420
      their gradient      1.14 MiB  299,008 · 4
      residual stream   104.00 KiB  2 · 52 tokens · 256 · 4
      block inputs      416.00 KiB  2 · 4 blocks · 52 tokens · 256 · 4
      kept products       1.73 MiB  4 blocks · 52 tokens · 2,176 values · 4
      packed operand    143.00 KiB  52 rows · 704 · 4
      largest branch      1.04 MiB  52 tokens · 5,248 values · 4
      = anonymous: 22.81 MiB of 1.00 GiB available

    mapped files, in memory as long as there is room
      frozen projections    5.62 MiB  2,949,120 weights · 2 bytes (16 bits)
      embedding             1.00 MiB  1 · 2,048 tokens · 256 · 2 bytes
      = resident with them: 29.43 MiB

    disk
      checkpoints   18.25 MiB  (3 + 1) · (2 · 1,196,032 of values + 2,392,064 of states)
      adapter        1.14 MiB  299,008 · 4
      logs           2.25 KiB  3 steps · 768
      = disk: 19.39 MiB of 1.00 GiB available

    it fits
    ");
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
        (&52.into(), &(1 << 30).into())
    );
    let sum = |places: &[&str]| -> u64 {
        let lines = plan["lines"].as_array().unwrap().iter();
        let counted = lines.filter(|line| places.contains(&line["place"].as_str().unwrap()));
        counted.map(|line| line["bytes"].as_u64().unwrap()).sum()
    };
    assert_eq!(plan["anonymous_bytes"], sum(&["anonymous"]));
    assert_eq!(plan["resident_bytes"], sum(&["anonymous", "mapped"]));
    assert_eq!(plan["device_bytes"], sum(&["device"]));
    assert_eq!(plan["disk_bytes"], sum(&["disk"]));
    let short = json(&room, "plan r.yaml training.optimizer=adamw_8bit --json");
    assert!(short["anonymous_bytes"].as_u64() < plan["anonymous_bytes"].as_u64());
}

#[test]
fn a_run_that_does_not_fit_is_refused_before_it_begins() {
    let room = Room::new();
    room.recipe("  chat: {preamble: none}\n");
    let memory = room.refused("--quiet train r.yaml --memory 5MiB");
    assert!(memory.contains("of memory, and 5.00 MiB is available"), "{memory}");
    assert!(memory.contains("block inputs") && memory.contains("299,008 · 4"), "{memory}");
    let disk = room.refused("--quiet train r.yaml --disk 1MiB");
    assert!(disk.contains("of disk, and 1.00 MiB is available for `run`"), "{disk}");
    assert!(disk.contains("checkpoint.keep") && disk.contains("checkpoints"), "{disk}");
    let fewer = room.refused("--quiet train r.yaml --disk 1MiB finish.merge=true");
    assert!(fewer.contains("merged model"), "{fewer}");
    let device = room.refused("--quiet --device cpu train r.yaml --device-memory 5MiB");
    assert!(device.contains("--device-memory is 5.00 MiB, but cpu computes"), "{device}");
    // No machine has this: the limit is the one that was found.
    let any = room.refused("--quiet train r.yaml adapter.rank=100000000");
    assert!(any.contains("of memory, and") && any.contains("adapter.rank="), "{any}");
    let shown = room.done("plan r.yaml --memory 5MiB");
    assert!(shown.contains("it does not fit: the run takes"), "{shown}");
    assert_eq!(json(&room, "plan r.yaml --memory 5MiB --json")["fits"], false);
}
