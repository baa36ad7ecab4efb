//! `graft plan`: the ledger of a run, and that a run that does not fit never begins.

use crate::room::{ROW, Room};

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
      norms                   9.00 KiB  (4 · 2 + 1) · 256 · 4
      trained values          1.14 MiB  299,008 · 4
      optimizer states        2.28 MiB  299,008 · 8.00
      data                       396 B  204 bytes of records + 2 samples · 96
      program                12.00 MiB  9 MiB + 2 threads · 1.5 MiB
      packed operand        143.00 KiB  52 rows · 704 · 4
      their gradient          1.14 MiB  299,008 · 4
      residual stream        52.00 KiB  52 tokens · 256 · 4
      positions              14.62 KiB  52 tokens · (64 · 4 + 32)
      block inputs          416.00 KiB  2 · 4 blocks · 52 tokens · 256 · 4
      kept products           1.82 MiB  52 tokens · (4 blocks · 2,176 values · 4 + 1,792 of updates)
      packed update          44.00 KiB  11,264 · 4
      largest branch        588.25 KiB  52 tokens · 11,584 bytes
      a branch's gradients  180.00 KiB  46,080 · 4
      gaps between blocks   360.16 KiB  4,425,600 / 12
      = anonymous: 20.14 MiB of 1.00 GiB available

    at other moments, instead of what comes and goes above
    reading the data, 1.10 MiB in all
      tokenizer              1.02 MiB  2,048 tokens · 520
      gaps between blocks   86.67 KiB  1,064,960 / 12
    a checkpoint, 95.33 KiB in all
      tensor on its way     88.00 KiB  2 · 11,264 · 4
      gaps between blocks    7.33 KiB  90,112 / 12

    mapped files, in memory as long as there is room
      frozen projections    5.62 MiB  2,949,120 weights · 2 bytes (16 bits)
      embedding             1.00 MiB  2,048 tokens · 256 · 2 bytes
      the program's file   24.00 MiB  24 MiB
      = resident with them: 50.77 MiB

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
}

#[test]
fn a_plan_that_does_not_fit_is_shown_whole_and_ends_as_train_would() {
    let room = Room::new();
    room.recipe("  chat: {preamble: none}\n");
    let said = room.graft("plan r.yaml --memory 5MiB");
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("it does not fit: the run takes"), "{}", said.stdout);
    insta::assert_snapshot!(said.stderr, @"error: `r` does not fit: `graft train` would refuse it as planned above");
    let said = room.graft("plan r.yaml --memory 5MiB --json");
    let shown: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((said.code, &shown["fits"]), (2, &false.into()));
}

#[test]
fn every_shipped_recipe_is_planned_before_its_model_and_rows_are_there() {
    let room = Room::new();
    for shipped in graft_recipes::library::all() {
        let name = shipped.name;
        // A model without a release has a folder of its own in Graft's sources.
        if name == "quickstart-base" {
            room.model("model/builtin/quickstart", |config| config);
        }
        let before = room.names();
        let plan = json(&room, &format!("plan {name} --memory 4TB --disk 40TB --json"));
        assert_eq!(plan["fits"], true, "{name}");
        assert_eq!(plan["assumes_rows"], name != "quickstart", "{name}");
        let to_fetch = plan["to_fetch"].as_array().unwrap();
        assert_eq!(to_fetch.is_empty(), name == "quickstart", "{name}: {to_fetch:?}");
        assert_eq!(room.names(), before, "{name}");
    }
    let many = room.done("plan llama3.1-405b-qlora --memory 4TB --disk 40TB");
    let shards = "    model-00001-of-00191.safetensors to model-00191-of-00191.safetensors\n";
    assert!(many.contains(shards), "{many}");
    let shown = room.done("plan llama3.2-3b-qlora --memory 4TB --disk 40TB");
    let head: Vec<&str> = shown.lines().take_while(|line| !line.starts_with("memory")).collect();
    insta::assert_snapshot!(head.join("\n"), @r#"
    recipe         llama3.2-3b-qlora
    model          models/Llama-3.2-3B-Instruct
    steps          as your rows need for 3 epochs, of at most 32,768 tokens
    checkpointing  selective
    trainable      24,313,856 of 3,212,749,824 parameters

    not there yet
      models/Llama-3.2-3B-Instruct, 5.98 GiB
        `hf download meta-llama/Llama-3.2-3B-Instruct --exclude "original/*" --local-dir models/Llama-3.2-3B-Instruct`
        config.json
        generation_config.json
        tokenizer.json
        tokenizer_config.json
        model.safetensors.index.json
        model-00001-of-00002.safetensors
        model-00002-of-00002.safetensors
      data/train.jsonl
        your rows, of format messages
    Sizes are assumed: every row has 2,048 tokens, the most that data.max_seq_len lets it have.
    "#);
}

#[test]
fn a_plan_takes_what_is_there_and_stands_in_for_the_rest() {
    let room = Room::new();
    room.recipe("  chat: {preamble: none}\n");
    room.model("model", |config| config);
    // The shape is the folder's, so are tokenizer and rows; only weights are missing.
    let line = "plan r.yaml model.path=model --memory 1GiB --disk 1GiB --json";
    let plan = json(&room, line);
    assert_eq!((&plan["assumes_rows"], &plan["steps"]), (&false.into(), &3.into()));
    assert_eq!(plan["to_fetch"][0]["files"], serde_json::json!(["model.safetensors"]));
    let rows = json(&room, &format!("{line} data.train.0.path=none.jsonl data.max_seq_len=64"));
    assert_eq!((&rows["assumes_rows"], &rows["steps"]), (&true.into(), &serde_json::Value::Null));
    assert_eq!(
        (&rows["tokens_per_step"], &rows["to_fetch"][1]["path"]),
        (&64.into(), &"none.jsonl".into())
    );
    // Nothing says what the model is: an error as everywhere.
    let unknown = room.refused("plan r.yaml model.path=models/none");
    assert!(unknown.contains("there is no model folder `models/none`"), "{unknown}");
    // What is there and broken is no less wrong.
    room.write("model/config.json", "{");
    assert!(room.refused(line).contains("is not valid JSON"));
    let huge =
        room.refused("plan r.yaml data.train.0.path=none.jsonl training.micro_batch_size=1000000");
    assert!(huge.contains("too many tokens to be planned without its rows"), "{huge}");
}

#[test]
fn a_length_that_nobody_means_is_refused_or_warned_of() {
    let room = Room::new();
    room.recipe("  chat: {preamble: none}\n  packing: false\n");
    insta::assert_snapshot!(room.refused("plan r.yaml training.epochs=5675921253449092805"), @r"
    error: recipe `r.yaml` has a problem:
    command line: training.epochs=5675921253449092805: training.epochs: found 5675921253449092805; allowed: a whole number from 1 to 1000000000
    ");
    let long = "training.epochs=1000000000 --memory 1GiB --disk 4TB";
    assert_eq!(json(&room, &format!("plan r.yaml {long} --json"))["steps"], 2_000_000_000_u64);
    // Equal rows would stand on one side.
    room.write("a.jsonl", format!("{ROW}\n{}\n", ROW.replace("Fee?", "Fees?")));
    let said = room.graft(
        "plan r.yaml training.schedule.cosine.warmup_steps=100 data.validation.fraction=0.5 \
         evaluation.every_steps=50 logging.log_every=7 --memory 1GiB --disk 1GiB",
    );
    insta::assert_snapshot!(said.stderr, @r"
    warning: training.schedule.cosine.warmup_steps: found 100, but the run has 3 steps: the rate ends at 6.000e-6 and never reaches training.learning_rate, 2.000e-4
    warning: evaluation.every_steps: found 50, but the run has 3 steps
    warning: logging.log_every: found 7, but the run has 3 steps
    ");
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_folder_that_cannot_be_written_is_refused_before_anything() {
    let room = Room::new();
    room.recipe("  chat: {preamble: none}\n");
    for command in ["validate r.yaml", "plan r.yaml", "--quiet train r.yaml"] {
        // Nobody makes files there, not even root.
        let refused = room.refused(&format!("{command} output_dir=/proc/self/run"));
        let found = "output_dir: found `/proc/self/run`: cannot write in `/proc/self`";
        assert!(refused.contains(found), "{command}: {refused}");
    }
}

#[test]
fn a_merged_model_of_an_f32_base_is_counted_in_f32() {
    let room = Room::new();
    let config = graft_model::LlamaConfig::from_json(
        &graft_model::folder::ModelFolder::open("builtin:quickstart")
            .unwrap()
            .required("config.json")
            .unwrap(),
        "config.json",
    )
    .unwrap();
    room.model("wide", |text| text);
    let specs = graft_model::checkpoint::expected(&config).into_iter().map(|tensor| {
        let (name, shape) = (tensor.name, tensor.shape);
        let dtype = graft_model::checkpoint::Dtype::F32;
        graft_model::checkpoint::TensorSpec { name, dtype, shape }
    });
    let writer = graft_model::checkpoint::ShardedWriter::new(specs.collect(), u64::MAX).unwrap();
    writer.write_sparse(&room.path("wide"), |_| None).unwrap();
    room.recipe("  chat: {preamble: none}\n");
    let merged = |model: &str| -> u64 {
        let plan = json(&room, &format!("plan r.yaml --json finish.merge=true model.path={model}"));
        let lines = plan["lines"].as_array().unwrap();
        let line = lines.iter().find(|line| line["name"] == "merged model").unwrap();
        line["bytes"].as_u64().unwrap()
    };
    assert_eq!(merged("wide"), 4 * 3_475_712);
    assert_eq!(merged("builtin:quickstart"), 2 * 3_475_712);
}

#[test]
fn threads_of_the_command_line_are_those_that_are_planned_with_and_said() {
    let room = Room::new();
    room.recipe("training: {max_steps: 1, threads: 2}\nadapter: {rank: 1}\n");
    let planned = room.done("plan r.yaml --threads 3");
    assert!(planned.contains("9 MiB + 3 threads"), "{planned}");
    let validated = room.done("validate r.yaml --threads 3");
    assert!(validated.contains(" on cpu, 3 threads"), "{validated}");
    let said = room.graft("train r.yaml --threads 3");
    assert!(said.code == 0 && said.stderr.contains(" on cpu, 3 threads"), "{}", said.stderr);
    let manifest = std::fs::read_to_string(room.path("run/manifest.json")).unwrap();
    assert!(manifest.contains("\"threads\": 3"), "{manifest}");
}
